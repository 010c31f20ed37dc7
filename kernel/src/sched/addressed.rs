//! Waiting at an address, with a message for whoever deals with such waits: the queue behind a userfaultfd.
//!
//! A waiter stands in two collections at once: by arrival until its message is read, and by address until it is woken. So the oldest
//! message is found in constant time, and the waiters of a range in logarithmic time. Waiters live on their own stacks; nothing here
//! allocates. Whoever wakes a waiter takes it out of both under the lock, and a waiter leaves its stack frame when `left` is set, or after it
//! has had the lock itself.
//!
//! Lock rank: ADDRESSED.

use alloc::sync::Arc;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};

use intrusive_collections::{
    Bound, KeyAdapter, LinkedList, LinkedListAtomicLink, RBTree, RBTreeAtomicLink, UnsafeRef,
    intrusive_adapter,
};

use super::wait::wait_to_be_woken;
use super::{Sleep, current};
use crate::sync::{SpinLock, rank};
use crate::task::Thread;

struct Waiter<M: 'static> {
    unread: LinkedListAtomicLink,
    waiting: RBTreeAtomicLink,
    address: usize,
    message: M,
    woken: AtomicBool,
    /// It was woken, and the waker looks at it no more.
    left: AtomicBool,
    thread: Arc<Thread>,
}

intrusive_adapter!(ByArrival<M> = UnsafeRef<Waiter<M>>: Waiter<M> { unread => LinkedListAtomicLink } where M: 'static);
intrusive_adapter!(ByAddress<M> = UnsafeRef<Waiter<M>>: Waiter<M> { waiting => RBTreeAtomicLink } where M: 'static);

impl<'a, M: 'static> KeyAdapter<'a> for ByAddress<M> {
    type Key = usize;
    fn get_key(&self, waiter: &'a Waiter<M>) -> usize {
        waiter.address
    }
}

struct Waiters<M: 'static> {
    unread: LinkedList<ByArrival<M>>,
    waiting: RBTree<ByAddress<M>>,
}

/// Threads that wait, each at an address and with a message.
pub struct AddressedQueue<M: 'static>(SpinLock<Waiters<M>>);

impl<M: Copy + Send + 'static> AddressedQueue<M> {
    pub fn new() -> Self {
        let waiters = Waiters {
            unread: LinkedList::new(ByArrival::new()),
            waiting: RBTree::new(ByAddress::new()),
        };
        AddressedQueue(SpinLock::new(rank::ADDRESSED, waiters))
    }

    /// Queues `message` and waits until `address` is woken or a signal of the kind comes, unless `is_needed`, called when wake-ups cannot
    /// be missed any more, says that the wait is over. The caller learns nothing of how it ended: it looks again.
    pub fn wait(&self, address: usize, message: M, sleep: Sleep, is_needed: impl FnOnce() -> bool) {
        let waiter = Waiter {
            unread: LinkedListAtomicLink::new(),
            waiting: RBTreeAtomicLink::new(),
            address,
            message,
            woken: AtomicBool::new(false),
            left: AtomicBool::new(false),
            thread: current().arc(),
        };
        let queued = Queued::new(self, &waiter);
        if is_needed() {
            let woken = || waiter.woken.load(Ordering::Acquire).then_some(());
            let _ = wait_to_be_woken(sleep, None, woken);
        }
        drop(queued);
    }

    /// The oldest message that was not read yet; its waiter goes on waiting.
    pub fn read(&self) -> Option<M> {
        let waiter = self.0.lock().unread.pop_front()?;
        Some(waiter.message)
    }

    /// Whether there is a message to be read.
    pub fn has_unread(&self) -> bool {
        !self.0.lock().unread.is_empty()
    }

    /// Wakes whoever waits at an address in the range. Messages that were not read are gone.
    pub fn wake(&self, range: Range<usize>) {
        let mut waiters = self.0.lock();
        let Waiters { unread, waiting } = &mut *waiters;
        let mut cursor = waiting.lower_bound_mut(Bound::Included(&range.start));
        while cursor
            .get()
            .is_some_and(|waiter| waiter.address < range.end)
        {
            let Some(waiter) = cursor.remove() else {
                return;
            };
            take_unread(unread, &waiter);
            waiter.woken.store(true, Ordering::Release);
            super::wake(&waiter.thread);
            // The last that is done here: the waiter goes then, whoever holds the lock.
            waiter.left.store(true, Ordering::Release);
        }
    }
}

impl<M: Copy + Send + 'static> Default for AddressedQueue<M> {
    fn default() -> Self {
        AddressedQueue::new()
    }
}

/// Takes a waiter's message out, if it was not read.
fn take_unread<M>(unread: &mut LinkedList<ByArrival<M>>, waiter: &Waiter<M>) {
    if waiter.unread.is_linked() {
        // SAFETY: a waiter's link is only ever in the list of the one queue that it waits in, whose lock is held.
        unsafe { unread.cursor_mut_from_ptr(waiter) }.remove();
    }
}

/// A waiter's stay in the queue.
struct Queued<'a, M: 'static> {
    queue: &'a AddressedQueue<M>,
    waiter: &'a Waiter<M>,
}

impl<'a, M> Queued<'a, M> {
    fn new(queue: &'a AddressedQueue<M>, waiter: &'a Waiter<M>) -> Self {
        let mut waiters = queue.0.lock();
        // SAFETY: the waiter outlives the value that is returned, whose drop takes it out of both collections under their lock.
        let (first, second) = unsafe { (UnsafeRef::from_raw(waiter), UnsafeRef::from_raw(waiter)) };
        waiters.unread.push_back(first);
        waiters.waiting.insert(second);
        Queued { queue, waiter }
    }
}

impl<M> Drop for Queued<'_, M> {
    fn drop(&mut self) {
        if self.waiter.left.load(Ordering::Acquire) {
            return;
        }
        let mut waiters = self.queue.0.lock();
        take_unread(&mut waiters.unread, self.waiter);
        if self.waiter.waiting.is_linked() {
            // SAFETY: as in `take_unread`, for the tree.
            unsafe { waiters.waiting.cursor_mut_from_ptr(self.waiter) }.remove();
        }
    }
}
