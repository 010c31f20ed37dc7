//! The tables of processes and of threads, and their numbers.
//!
//! A process stays until it has been waited for, a thread until it ends. A process's first thread has its number, every other number
//! is that of one process or one thread.
//!
//! Lock rank: PROCESS_TABLE.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use intrusive_collections::Bound;

use intrusive_collections::{KeyAdapter, RBTree, RBTreeAtomicLink, intrusive_adapter};
use spin::Once;

use super::process::Life;
use super::{Process, Thread};
use crate::errno::{Errno, Result};
use crate::mm::frame;
use crate::sync::{SpinLock, rank};

intrusive_adapter!(TableAdapter = Arc<Process>: Process { table_link => RBTreeAtomicLink });

impl<'a> KeyAdapter<'a> for TableAdapter {
    type Key = u32;
    fn get_key(&self, process: &'a Process) -> u32 {
        process.pid
    }
}

intrusive_adapter!(GroupAdapter = Arc<Process>: Process { group_link => RBTreeAtomicLink });

impl<'a> KeyAdapter<'a> for GroupAdapter {
    type Key = (u32, u32);
    /// By group, then by number. The group changes only in [`set_group`], under the lock.
    fn get_key(&self, process: &'a Process) -> (u32, u32) {
        (process.group(), process.pid)
    }
}

intrusive_adapter!(ThreadAdapter = Arc<Thread>: Thread { table_link => RBTreeAtomicLink });

impl<'a> KeyAdapter<'a> for ThreadAdapter {
    type Key = u32;
    fn get_key(&self, thread: &'a Thread) -> u32 {
        thread.tid()
    }
}

/// The pid of the process that adopts orphans: the kernel's init, which has no program.
pub const INIT_PID: u32 = 1;

/// Highest number, as Linux's default `kernel.pid_max`.
pub const PID_MAX: u32 = 32768;

/// All processes, in two orders.
struct Table {
    by_pid: RBTree<TableAdapter>,
    by_group: RBTree<GroupAdapter>,
}

static TABLE: SpinLock<Table> = SpinLock::new(
    rank::PROCESS_TABLE,
    Table {
        by_pid: RBTree::new(TableAdapter::NEW),
        by_group: RBTree::new(GroupAdapter::NEW),
    },
);
static THREADS: SpinLock<RBTree<ThreadAdapter>> =
    SpinLock::new(rank::PROCESS_TABLE, RBTree::new(ThreadAdapter::NEW));
static THREAD_COUNT: AtomicUsize = AtomicUsize::new(0);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static LAST_ID: AtomicU32 = AtomicU32::new(INIT_PID);
static KERNEL: Once<Arc<Process>> = Once::new();

pub(super) fn set_kernel_process(process: Arc<Process>) {
    KERNEL.call_once(|| process);
}

/// The process of all kernel threads. Panics before `task::start`.
pub fn kernel_process() -> &'static Arc<Process> {
    KERNEL.get().expect("task::start has run")
}

/// A number that no process, no thread and no group has.
pub fn new_id() -> u32 {
    loop {
        let last = LAST_ID.load(Ordering::Relaxed);
        let id = if last + 1 >= PID_MAX { 300 } else { last + 1 };
        if LAST_ID
            .compare_exchange(last, id, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
            && find(id).is_none()
            && find_thread(id).is_none()
            && next_in_group(id, 0).is_none()
        {
            return id;
        }
    }
}

/// A number that the caller has chosen. `EINVAL`, `EEXIST`; `EPERM` for those without privileges.
pub fn check_free(id: u32) -> Result<u32> {
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
        _ if find(id).is_some() || find_thread(id).is_some() => Err(Errno::EEXIST),
        _ => Ok(id),
    }
}

pub(super) fn insert(process: Arc<Process>) {
    COUNT.fetch_add(1, Ordering::Relaxed);
    let mut table = TABLE.lock();
    table.by_group.insert(process.clone());
    table.by_pid.insert(process);
}

/// The process was waited for.
pub(super) fn remove(pid: u32) {
    let mut table = TABLE.lock();
    let removed = table.by_pid.find_mut(&pid).remove();
    let member = removed.as_ref().and_then(|process| {
        let key = (process.group(), pid);
        table.by_group.find_mut(&key).remove()
    });
    drop(table);
    drop(member);
    if let Some(process) = removed {
        COUNT.fetch_sub(1, Ordering::Relaxed);
        process.set_life(Life::Gone);
    }
}

pub(super) fn insert_thread(thread: Arc<Thread>) {
    THREAD_COUNT.fetch_add(1, Ordering::Relaxed);
    THREADS.lock().insert(thread);
}

pub(super) fn remove_thread(tid: u32) {
    let removed = THREADS.lock().find_mut(&tid).remove();
    if removed.is_some() {
        THREAD_COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Gives a thread, the only one that its process has left, the process's number.
pub(super) fn make_first(thread: &Arc<Thread>) {
    remove_thread(thread.tid());
    thread.become_first();
    insert_thread(thread.clone());
}

/// The living thread with this number. Kernel threads are found too.
pub fn find_thread(tid: u32) -> Option<Arc<Thread>> {
    THREADS.lock().find(&tid).clone_pointer()
}

/// The process with this number, or the one of the thread with this number, with that thread.
pub fn find_either(id: u32) -> Option<(Arc<Process>, Option<Arc<Thread>>)> {
    let thread = find_thread(id).filter(|thread| thread.process.pid != 0);
    match thread {
        Some(thread) => Some((thread.process.clone(), Some(thread))),
        None => Some((find(id)?, None)),
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
    TABLE.lock().by_pid.find(&pid).clone_pointer()
}

/// The process with the lowest number above `pid`: for walking over all without holding the lock.
pub fn next_above(pid: u32) -> Option<Arc<Process>> {
    TABLE
        .lock()
        .by_pid
        .lower_bound(Bound::Excluded(&pid))
        .clone_pointer()
}

/// The process with the lowest number above `pid` in a process group: for walking over its members, zombies included.
pub fn next_in_group(group: u32, pid: u32) -> Option<Arc<Process>> {
    let table = TABLE.lock();
    let next = table.by_group.lower_bound(Bound::Excluded(&(group, pid)));
    next.clone_pointer()
        .filter(|process| process.group() == group)
}

/// Moves a process to a group.
pub fn set_group(process: &Process, group: u32) {
    let mut table = TABLE.lock();
    let key = (process.group(), process.pid);
    let member = table.by_group.find_mut(&key).remove();
    process.process_group.store(group, Ordering::Relaxed);
    if let Some(member) = member {
        table.by_group.insert(member);
    }
}

/// The thread with the lowest number above `tid`, of the kernel too: for walking over all without holding the lock.
pub fn next_thread_above(tid: u32) -> Option<Arc<Thread>> {
    THREADS
        .lock()
        .lower_bound(Bound::Excluded(&tid))
        .clone_pointer()
}
