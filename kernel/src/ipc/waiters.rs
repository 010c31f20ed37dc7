//! Threads that wait at an object, in an order of their own, each with what it wants or gives.
//!
//! Who takes a waiter out has done for it what it waits for: so nobody who comes later can be faster. Adding, removing and finding the
//! first are O(log n). The owner of the waiters locks them.

use alloc::sync::Arc;
use core::ops::Deref;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use intrusive_collections::{Bound, KeyAdapter, RBTree, RBTreeAtomicLink, intrusive_adapter};

use crate::errno::Result;
use crate::sched::timer::Deadline;
use crate::sched::wait::NotYet;
use crate::sched::{Sleep, WaitQueue};

/// One that waits. Dereferences to what it waits for.
pub(super) struct Waiter<T> {
    /// Larger ones wait behind smaller ones, and equals behind those that came earlier.
    rank: AtomicU64,
    serial: u64,
    link: RBTreeAtomicLink,
    done: AtomicBool,
    sleeper: WaitQueue,
    what: T,
}

intrusive_adapter!(ByRank<T> = Arc<Waiter<T>>: Waiter<T> { link => RBTreeAtomicLink });

impl<'a, T: 'a> KeyAdapter<'a> for ByRank<T> {
    type Key = (u64, u64);
    fn get_key(&self, waiter: &'a Waiter<T>) -> (u64, u64) {
        waiter.key()
    }
}

impl<T> Deref for Waiter<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.what
    }
}

impl<T> Waiter<T> {
    /// The current thread. `ENOMEM`.
    pub fn new(rank: u64, what: T) -> Result<Arc<Waiter<T>>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Ok(Arc::try_new(Waiter {
            rank: AtomicU64::new(rank),
            serial: NEXT.fetch_add(1, Ordering::Relaxed),
            link: RBTreeAtomicLink::new(),
            done: AtomicBool::new(false),
            sleeper: WaitQueue::new(),
            what,
        })?)
    }

    fn key(&self) -> (u64, u64) {
        (self.rank.load(Ordering::Relaxed), self.serial)
    }

    /// Its wait is over; it was taken out.
    pub fn wake(&self) {
        self.done.store(true, Ordering::Release);
        self.sleeper.wake_all();
    }

    /// Sleeps until it is woken.
    pub fn wait(&self, deadline: Option<Deadline>) -> core::result::Result<(), NotYet> {
        let done = || self.done.load(Ordering::Acquire).then_some(());
        self.sleeper
            .wait_until_time(Sleep::Interruptible, deadline, done)
    }
}

/// Those who wait at one object.
pub(super) struct Waiters<T>(RBTree<ByRank<T>>);

impl<T: 'static> Waiters<T> {
    pub fn new() -> Waiters<T> {
        Waiters(RBTree::new(ByRank::NEW))
    }

    pub fn add(&mut self, waiter: Arc<Waiter<T>>) {
        self.0.insert(waiter);
    }

    /// Takes the first one out.
    pub fn first(&mut self) -> Option<Arc<Waiter<T>>> {
        self.0.front_mut().remove()
    }

    /// Takes one out; whether it still waited.
    pub fn remove(&mut self, waiter: &Waiter<T>) -> bool {
        self.0.find_mut(&waiter.key()).remove().is_some()
    }

    /// Puts one that waits behind those of another rank.
    pub fn set_rank(&mut self, waiter: &Waiter<T>, rank: u64) {
        if let Some(waiter) = self.0.find_mut(&waiter.key()).remove() {
            waiter.rank.store(rank, Ordering::Relaxed);
            self.0.insert(waiter);
        }
    }

    /// The first one with this rank, or the next one that came after the serial number `after`; and its own.
    pub fn next(&self, rank: u64, after: Option<u64>) -> Option<(u64, Arc<Waiter<T>>)> {
        let key = (rank, after.unwrap_or(0));
        let bound = match after {
            Some(_) => Bound::Excluded(&key),
            None => Bound::Included(&key),
        };
        let waiter = self.0.lower_bound(bound).clone_pointer()?;
        (waiter.key().0 == rank).then(|| (waiter.serial, waiter))
    }
}
