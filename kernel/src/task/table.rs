//! The numbers of processes and threads, of groups and sessions, and who has them.
//!
//! A process stays until it has been waited for, a thread until it ends. A process's first thread has its number, every other number
//! is that of one process or one thread. A number is free again when no process, thread, group and session has it (`struct pid`).
//!
//! Finding, putting in and taking out cost the same however many there are. Walks go from number to number, or from member to member of
//! a group, and hold no lock meanwhile.
//!
//! Lock rank: PROCESS_TABLE.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use intrusive_collections::linked_list::Cursor;
use intrusive_collections::{LinkedList, LinkedListAtomicLink, intrusive_adapter};
use spin::Once;

use super::numbers::{self, Numbers};
use super::process::Life;
use super::{Process, Thread, user_tasks};
use crate::errno::{Errno, Result};
use crate::mm::frame;
use crate::sync::{SpinLock, rank};

intrusive_adapter!(GroupAdapter = Arc<Process>: Process { membership.group => LinkedListAtomicLink });
intrusive_adapter!(SessionAdapter = Arc<Process>: Process { membership.session => LinkedListAtomicLink });

/// The pid of the process that adopts orphans: the kernel's init, which has no program.
pub const INIT_PID: u32 = 1;

/// Highest number, as Linux's default `kernel.pid_max`.
pub const PID_MAX: u32 = numbers::END;

/// A process's places in the lists of its group and its session.
#[derive(Default)]
pub(super) struct Membership {
    group: LinkedListAtomicLink,
    session: LinkedListAtomicLink,
    /// In which order the members joined the group.
    order: AtomicU64,
}

/// All that have one number.
#[derive(Default)]
struct Entry {
    process: Option<Arc<Process>>,
    thread: Option<Arc<Thread>>,
    /// Members of the group, in the order in which they joined it, zombies included.
    group: LinkedList<GroupAdapter>,
    /// Of the session.
    session: LinkedList<SessionAdapter>,
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.process.is_none()
            && self.thread.is_none()
            && self.group.is_empty()
            && self.session.is_empty()
    }
}

/// Everybody.
struct Table {
    numbers: Numbers<Entry>,
    /// How often a process has joined a group.
    joined: u64,
}

static TABLE: SpinLock<Table> = SpinLock::new(
    rank::PROCESS_TABLE,
    Table {
        numbers: Numbers::new(INIT_PID),
        joined: 0,
    },
);
static THREAD_COUNT: AtomicUsize = AtomicUsize::new(0);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static KERNEL: Once<Arc<Process>> = Once::new();

pub(super) fn set_kernel_process(process: Arc<Process>) {
    KERNEL.call_once(|| process);
}

/// The process of all kernel threads. Panics before `task::start`.
pub fn kernel_process() -> &'static Arc<Process> {
    KERNEL.get().expect("task::start has run")
}

/// A number that nobody else has, for a process or a thread to be. Free again when it is dropped.
#[derive(Debug)]
pub struct NewId(u32);

impl NewId {
    pub fn get(&self) -> u32 {
        self.0
    }

    /// The number, which is somebody's now.
    fn into_used(self) -> u32 {
        let id = self.0;
        core::mem::forget(self);
        id
    }
}

impl Drop for NewId {
    fn drop(&mut self) {
        TABLE.lock().numbers.give_back(self.0);
    }
}

/// The next free number. `EAGAIN`, `ENOMEM`.
pub fn new_id() -> Result<NewId> {
    TABLE.lock().numbers.take_next().map(NewId)
}

/// A number that the caller has chosen. `EINVAL`, `EEXIST`; `EPERM` for those without privileges.
pub fn chosen_id(id: u32) -> Result<NewId> {
    match id {
        _ if id <= INIT_PID || id >= PID_MAX => Err(Errno::EINVAL),
        _ if !crate::sched::current()
            .process
            .credentials
            .get()
            .is_privileged() =>
        {
            Err(Errno::EPERM)
        }
        _ => take_id(id),
    }
}

/// This number. `EEXIST`, `ENOMEM`.
pub(super) fn take_id(id: u32) -> Result<NewId> {
    TABLE.lock().numbers.take(id).map(|()| NewId(id))
}

/// The number that was given last.
pub fn last_id() -> u32 {
    TABLE.lock().numbers.last()
}

impl Table {
    fn join_group(&mut self, process: Arc<Process>, group: u32) {
        self.joined += 1;
        process.process_group.store(group, Ordering::Relaxed);
        process
            .membership
            .order
            .store(self.joined, Ordering::Relaxed);
        if let Some(entry) = self.numbers.get_mut(group) {
            entry.group.push_back(process);
        }
    }

    /// Takes the process out of its group; `None` if it is in none any more.
    fn leave_group(&mut self, process: &Arc<Process>) -> Option<Arc<Process>> {
        let group = process.group();
        let entry = self.numbers.get_mut(group)?;
        if !process.membership.group.is_linked() {
            return None;
        }
        // SAFETY: a linked process is in the list of its group, under the table's lock.
        let member = unsafe { entry.group.cursor_mut_from_ptr(Arc::as_ptr(process)) }.remove();
        self.give_back_if_unused(group);
        member
    }

    fn join_session(&mut self, process: Arc<Process>, session: u32) {
        process.session.store(session, Ordering::Relaxed);
        if let Some(entry) = self.numbers.get_mut(session) {
            entry.session.push_back(process);
        }
    }

    /// As [`Table::leave_group`].
    fn leave_session(&mut self, process: &Arc<Process>) -> Option<Arc<Process>> {
        let session = process.session.load(Ordering::Relaxed);
        let entry = self.numbers.get_mut(session)?;
        if !process.membership.session.is_linked() {
            return None;
        }
        // SAFETY: a linked process is in the list of its session, under the table's lock.
        let member = unsafe { entry.session.cursor_mut_from_ptr(Arc::as_ptr(process)) }.remove();
        self.give_back_if_unused(session);
        member
    }

    #[inline]
    fn give_back_if_unused(&mut self, id: u32) {
        if self.numbers.get(id).is_some_and(Entry::is_empty) {
            self.numbers.give_back(id);
        }
    }
}

/// Puts a process in, in the group and the session of another one, or without one in its own, with its first thread if it has one.
pub(super) fn insert(
    id: NewId,
    process: Arc<Process>,
    thread: Option<Arc<Thread>>,
    like: Option<&Process>,
) {
    COUNT.fetch_add(1, Ordering::Relaxed);
    THREAD_COUNT.fetch_add(usize::from(thread.is_some()), Ordering::Relaxed);
    let mut table = TABLE.lock();
    let pid = id.into_used();
    debug_assert_eq!(pid, process.pid);
    if let Some(entry) = table.numbers.get_mut(pid) {
        entry.process = Some(process.clone());
        entry.thread = thread;
    }
    let (group, session) = like.map_or((pid, pid), |like| {
        (like.group(), like.session.load(Ordering::Relaxed))
    });
    table.join_session(process.clone(), session);
    table.join_group(process, group);
}

/// The process was waited for.
pub(super) fn remove(pid: u32) {
    let mut table = TABLE.lock();
    let entry = table.numbers.get_mut(pid);
    let Some(process) = entry.and_then(|entry| entry.process.take()) else {
        return;
    };
    // Not the last references.
    drop((table.leave_group(&process), table.leave_session(&process)));
    table.give_back_if_unused(pid);
    drop(table);
    COUNT.fetch_sub(1, Ordering::Relaxed);
    user_tasks::gone(&process);
    process.set_life(Life::Gone);
}

/// Puts a thread in that is not the first of its process.
pub(super) fn insert_thread(id: NewId, thread: Arc<Thread>) {
    THREAD_COUNT.fetch_add(1, Ordering::Relaxed);
    let mut table = TABLE.lock();
    let tid = id.into_used();
    debug_assert_eq!(tid, thread.tid());
    if let Some(entry) = table.numbers.get_mut(tid) {
        entry.thread = Some(thread);
    }
}

pub(super) fn remove_thread(tid: u32) {
    let mut table = TABLE.lock();
    let entry = table.numbers.get_mut(tid);
    let removed = entry.and_then(|entry| entry.thread.take());
    if removed.is_some() {
        table.give_back_if_unused(tid);
        THREAD_COUNT.fetch_sub(1, Ordering::Relaxed);
    }
    drop(table);
}

/// Gives a thread, the only one that its process has left, the process's number.
pub(super) fn make_first(thread: &Arc<Thread>) {
    let mut table = TABLE.lock();
    let tid = thread.tid();
    let entry = table.numbers.get_mut(tid);
    let moved = entry.and_then(|entry| entry.thread.take());
    table.give_back_if_unused(tid);
    thread.become_first();
    if let Some(entry) = table.numbers.get_mut(thread.tid()) {
        debug_assert!(entry.thread.is_none(), "the first thread has ended");
        entry.thread = moved;
    }
}

/// The living thread with this number. Kernel threads are found too.
pub fn find_thread(tid: u32) -> Option<Arc<Thread>> {
    TABLE.lock().numbers.get(tid)?.thread.clone()
}

/// The process with this number, or the one of the thread with this number, with that thread.
pub fn find_either(id: u32) -> Option<(Arc<Process>, Option<Arc<Thread>>)> {
    let table = TABLE.lock();
    let entry = table.numbers.get(id)?;
    match &entry.thread {
        Some(thread) if thread.process.pid != 0 => {
            Some((thread.process.clone(), Some(thread.clone())))
        }
        _ => Some((entry.process.clone()?, None)),
    }
}

/// Most threads there can be: their kernel stacks take a quarter of the memory then (Linux: an eighth, with stacks of half the size).
pub fn max_threads() -> usize {
    (frame::total_frames() / 32).clamp(128, PID_MAX as usize)
}

/// Living threads, of the kernel too.
pub fn thread_count() -> usize {
    THREAD_COUNT.load(Ordering::Relaxed)
}

/// Processes in the table, zombies included.
pub fn count() -> usize {
    COUNT.load(Ordering::Relaxed)
}

pub fn find(pid: u32) -> Option<Arc<Process>> {
    TABLE.lock().numbers.get(pid)?.process.clone()
}

/// The first that there is in an entry above `id`.
fn next<T>(mut id: u32, get: impl Fn(&Entry) -> Option<T>) -> Option<T> {
    let table = TABLE.lock();
    loop {
        let (above, entry) = table.numbers.next_above(id)?;
        if let Some(found) = get(entry) {
            return Some(found);
        }
        id = above;
    }
}

/// The process with the lowest number above `pid`: for walking over all without holding the lock.
pub fn next_above(pid: u32) -> Option<Arc<Process>> {
    next(pid, |entry| entry.process.clone())
}

/// The thread with the lowest number above `tid`, of the kernel too: for walking over all without holding the lock.
pub fn next_thread_above(tid: u32) -> Option<Arc<Thread>> {
    next(tid, |entry| entry.thread.clone())
}

/// Members of a process group, zombies included, in the order in which they joined it; those too that join it meanwhile.
pub fn members(group: u32) -> Members {
    Members {
        group,
        last: None,
        order: 0,
    }
}

/// A walk over a group, which does not hold the lock.
pub struct Members {
    group: u32,
    last: Option<Arc<Process>>,
    /// When it joined.
    order: u64,
}

impl Members {
    /// Where the walk goes on.
    fn resume<'a>(&self, list: &'a LinkedList<GroupAdapter>) -> Cursor<'a, GroupAdapter> {
        let order = |process: &Process| process.membership.order.load(Ordering::Relaxed);
        match &self.last {
            None => list.front(),
            Some(last)
                if last.membership.group.is_linked()
                    && last.group() == self.group
                    && order(last) == self.order =>
            {
                // SAFETY: a linked process is in the list of its group, which is this one, under the table's lock.
                let mut cursor = unsafe { list.cursor_from_ptr(Arc::as_ptr(last)) };
                cursor.move_next();
                cursor
            }
            // It has left the group: go on with the first one that joined after it.
            Some(_) => {
                let mut cursor = list.front();
                while cursor.get().is_some_and(|next| order(next) <= self.order) {
                    cursor.move_next();
                }
                cursor
            }
        }
    }
}

impl Iterator for Members {
    type Item = Arc<Process>;

    fn next(&mut self) -> Option<Arc<Process>> {
        let table = TABLE.lock();
        let entry = table.numbers.get(self.group)?;
        let next = self.resume(&entry.group).clone_pointer()?;
        self.order = next.membership.order.load(Ordering::Relaxed);
        drop(table);
        self.last = Some(next.clone());
        Some(next)
    }
}

/// Moves a process to a group of its session, or to one of its own. `EPERM` if there is no such group.
pub fn set_group(process: &Arc<Process>, group: u32) -> Result {
    let mut table = TABLE.lock();
    let session = |process: &Process| process.session.load(Ordering::Relaxed);
    let member = table
        .numbers
        .get(group)
        .and_then(|entry| entry.group.front().get());
    let exists = member.is_some_and(|member| session(member) == session(process));
    if group != process.pid && !exists {
        return Err(Errno::EPERM);
    }
    if process.group() != group
        && let Some(member) = table.leave_group(process)
    {
        table.join_group(member, group);
    }
    Ok(())
}

/// Makes a process the leader of a new session and of a new group. `EPERM` if there is a group with its number.
pub fn new_session(process: &Arc<Process>) -> Result {
    let mut table = TABLE.lock();
    let pid = process.pid;
    let entry = table.numbers.get(pid).ok_or(Errno::ESRCH)?;
    if !entry.group.is_empty() {
        return Err(Errno::EPERM);
    }
    if let Some(member) = table.leave_session(process) {
        table.join_session(member, pid);
    }
    if let Some(member) = table.leave_group(process) {
        table.join_group(member, pid);
    }
    Ok(())
}

/// Calls `f` for every process of a session, zombies included, with the table locked.
pub fn for_each_in_session(session: u32, f: impl FnMut(&Process)) {
    let table = TABLE.lock();
    if let Some(entry) = table.numbers.get(session) {
        entry.session.iter().for_each(f);
    }
}

#[cfg(all(test, not(target_os = "none")))]
mod tests;
