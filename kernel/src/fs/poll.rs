//! Being told when a file becomes ready (`poll(2)`, `epoll(7)`).
//!
//! Whoever wants to be told stands in the file's [`PollQueue`] with a [`Watcher`] and then looks at the file; whoever makes the file
//! ready does so and then tells the queue. So either the watcher sees it or it is told. Telling costs as much as there are watchers of
//! that one file, and allocates nothing.
//!
//! Lock rank: POLL_QUEUE. Telling is allowed from interrupt handlers, with no lock of this rank or above held.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use intrusive_collections::{LinkedList, LinkedListAtomicLink, UnsafeRef, intrusive_adapter};
use spin::Once;

use super::epoll::{self, Instance, Item};
use super::file::File;
use super::stream::PollEvents;
use crate::errno::{Errno, Result};
use crate::sched::timer::Deadline;
use crate::sched::wait::NotYet;
use crate::sched::{self, Sleep, WaitQueue, current};
use crate::sync::{IrqLock, rank};
use crate::task::Thread;

/// What a watcher does when it is told.
enum Action {
    /// Wakes a thread, which looks for itself.
    Wake(Arc<Thread>),
    /// Makes an item of an epoll instance ready.
    Ready(Weak<Item>),
}

/// One who wants to be told. Pinned while it stands in a queue, which it leaves before it goes.
pub struct Watcher {
    link: LinkedListAtomicLink,
    action: Once<Action>,
}

intrusive_adapter!(WatcherAdapter = UnsafeRef<Watcher>: Watcher { link => LinkedListAtomicLink });

impl Watcher {
    /// One that does nothing yet.
    pub(super) const fn new() -> Watcher {
        Watcher {
            link: LinkedListAtomicLink::new(),
            action: Once::new(),
        }
    }

    fn waking(thread: Arc<Thread>) -> Watcher {
        Watcher {
            action: Once::initialized(Action::Wake(thread)),
            ..Watcher::new()
        }
    }

    /// From now on it makes `item` ready.
    pub(super) fn set_item(&self, item: &Arc<Item>) {
        self.action
            .call_once(|| Action::Ready(Arc::downgrade(item)));
    }
}

/// Those who want to be told of one file.
pub struct PollQueue {
    watchers: IrqLock<LinkedList<WatcherAdapter>>,
    /// Changed under the lock.
    len: AtomicUsize,
}

impl PollQueue {
    pub const fn new() -> PollQueue {
        PollQueue {
            watchers: IrqLock::new(rank::POLL_QUEUE, LinkedList::new(WatcherAdapter::NEW)),
            len: AtomicUsize::new(0),
        }
    }

    /// The file may be ready for `events` now.
    pub fn tell(&self, events: PollEvents) {
        self.tell_watchers(events);
        epoll::tell_outer();
    }

    /// The same for whoever has changed the file under a lock under which all watchers look at it, and has released that since.
    #[inline]
    pub fn tell_of_lock(&self, events: PollEvents) {
        if !self.is_empty() {
            self.tell(events);
        }
    }

    /// As [`PollQueue::tell`], but those who watch epoll instances that became ready are still to be told.
    pub(super) fn tell_watchers(&self, events: PollEvents) {
        let watchers = self.watchers.lock();
        for watcher in watchers.iter() {
            match watcher.action.get() {
                Some(Action::Wake(thread)) => {
                    sched::wake(thread);
                }
                Some(Action::Ready(item)) => {
                    if let Some(item) = item.upgrade() {
                        item.tell(events);
                    }
                }
                None => {}
            }
        }
    }

    /// Whether nobody wants to be told. Whoever changes the file under a lock under which watchers look at it, and asks then, misses none
    /// that has looked before.
    pub(super) fn is_empty(&self) -> bool {
        self.len.load(Ordering::Relaxed) == 0
    }

    /// The epoll instances that watch. `ENOMEM`.
    pub(super) fn instances(&self) -> Result<Vec<Arc<Instance>>> {
        let watchers = self.watchers.lock();
        let mut found = Vec::new();
        for watcher in watchers.iter() {
            if let Some(Action::Ready(item)) = watcher.action.get() {
                found.try_reserve(1)?;
                found.extend(item.upgrade().and_then(|item| item.instance()));
            }
        }
        Ok(found)
    }

    /// # Safety
    /// The watcher stays in its place until it was removed from this queue, and stands in no other.
    pub(super) unsafe fn add(&self, watcher: &Watcher) {
        let mut watchers = self.watchers.lock();
        // SAFETY: as the caller promises.
        watchers.push_back(unsafe { UnsafeRef::from_raw(watcher) });
        self.len.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes a watcher out if it stands in this queue; it stands in no other.
    pub(super) fn remove(&self, watcher: &Watcher) {
        let mut watchers = self.watchers.lock();
        if watcher.link.is_linked() {
            // SAFETY: it is linked, and in no other list.
            unsafe { watchers.cursor_mut_from_ptr(watcher) }.remove();
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Default for PollQueue {
    fn default() -> Self {
        PollQueue::new()
    }
}

/// The queue of streams that have none of their own.
pub(super) static SHARED: PollQueue = PollQueue::new();

/// Some stream without a queue of its own may have become ready.
pub fn notify() {
    SHARED.tell(PollEvents::all());
}

/// The current thread's stay in the queues of some files.
struct Stay<'a> {
    queues: Vec<(&'a PollQueue, Watcher)>,
}

impl<'a> Stay<'a> {
    fn begin(files: impl Iterator<Item = &'a Arc<File>> + Clone) -> Result<Stay<'a>> {
        let mut queues = Vec::new();
        queues.try_reserve_exact(files.clone().count())?;
        let thread = current().arc();
        let with_queue = files.filter_map(|file| file.poll_queue());
        queues.extend(with_queue.map(|queue| (queue, Watcher::waking(thread.clone()))));
        let stay = Stay { queues };
        for (queue, watcher) in &stay.queues {
            // SAFETY: the vector does not grow any more, and `drop` removes what is in it.
            unsafe { queue.add(watcher) };
        }
        Ok(stay)
    }
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        for (queue, watcher) in &self.queues {
            queue.remove(watcher);
        }
    }
}

/// Sleeps until `ready` gives a value, looked at whenever one of the files changes, until `deadline` or any signal. `ready` must not
/// sleep. `None` at the deadline; `EINTR`, `ENOMEM`.
pub fn wait<'a, R>(
    files: impl Iterator<Item = &'a Arc<File>> + Clone,
    deadline: Option<Deadline>,
    mut ready: impl FnMut() -> Option<R>,
) -> Result<Option<R>> {
    if let Some(value) = ready() {
        return Ok(Some(value));
    }
    if deadline.is_some_and(Deadline::has_passed) {
        return Ok(None);
    }
    let _stay = Stay::begin(files)?;
    let nobody_wakes = WaitQueue::new();
    match nobody_wakes.wait_until_time(Sleep::Interruptible, deadline, ready) {
        Ok(value) => Ok(Some(value)),
        Err(NotYet::TimedOut) => Ok(None),
        Err(NotYet::Interrupted) => Err(Errno::EINTR),
    }
}
