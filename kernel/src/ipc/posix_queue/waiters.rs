//! Threads that wait at a queue, the most important first and among equals the one that came first.
//!
//! Who takes a waiter out has given it what it waits for: so nobody who comes later can be faster. Lock rank: that of the queue outside a
//! waiter's own (LEAF).

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use intrusive_collections::{KeyAdapter, RBTree, RBTreeAtomicLink, intrusive_adapter};

use super::Message;
use crate::errno::{Errno, Result};
use crate::sched::timer::Deadline;
use crate::sched::wait::NotYet;
use crate::sched::{Sleep, WaitQueue, current};
use crate::sync::{SpinLock, rank};

/// One that waits to send or to receive.
pub(super) struct Waiter {
    /// Larger numbers wait behind smaller ones.
    importance: i32,
    serial: u64,
    link: RBTreeAtomicLink,
    /// What is to be sent, or was received.
    message: SpinLock<Option<Box<Message>>>,
    done: AtomicBool,
    sleeper: WaitQueue,
}

intrusive_adapter!(ByImportance = Arc<Waiter>: Waiter { link => RBTreeAtomicLink });

impl<'a> KeyAdapter<'a> for ByImportance {
    type Key = (i32, u64);
    fn get_key(&self, waiter: &'a Waiter) -> (i32, u64) {
        waiter.key()
    }
}

impl Waiter {
    /// The current thread. `ENOMEM`.
    pub fn new() -> Result<Arc<Waiter>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let parameters = current().sched.parameters();
        let importance = match parameters.policy.is_real_time() {
            true => -i32::from(parameters.priority),
            false => 100 + i32::from(parameters.nice),
        };
        Ok(Arc::try_new(Waiter {
            importance,
            serial: NEXT.fetch_add(1, Ordering::Relaxed),
            link: RBTreeAtomicLink::new(),
            message: SpinLock::new(rank::LEAF, None),
            done: AtomicBool::new(false),
            sleeper: WaitQueue::new(),
        })?)
    }

    fn key(&self) -> (i32, u64) {
        (self.importance, self.serial)
    }

    /// What is to be sent.
    pub fn keep(&self, message: Box<Message>) {
        *self.message.lock() = Some(message);
    }

    /// Gives a receiver its message. It was taken out of those who wait.
    pub fn give(&self, message: Box<Message>) {
        self.keep(message);
    }

    pub fn take(&self) -> Option<Box<Message>> {
        self.message.lock().take()
    }

    /// Its wait is over.
    pub fn wake(&self) {
        self.done.store(true, Ordering::Release);
        self.sleeper.wake_all();
    }

    /// Sleeps until it is woken. `ETIMEDOUT`, `ERESTARTSYS`.
    pub fn wait(&self, deadline: Option<Deadline>) -> Result {
        let done = || self.done.load(Ordering::Acquire).then_some(());
        self.sleeper
            .wait_until_time(Sleep::Interruptible, deadline, done)
            .map_err(|not_yet| match not_yet {
                NotYet::Interrupted => Errno::ERESTARTSYS,
                NotYet::TimedOut => Errno::ETIMEDOUT,
            })
    }
}

/// Those who wait for the same.
pub(super) struct Waiters(RBTree<ByImportance>);

impl Waiters {
    pub fn new() -> Waiters {
        Waiters(RBTree::new(ByImportance::NEW))
    }

    pub fn add(&mut self, waiter: Arc<Waiter>) {
        self.0.insert(waiter);
    }

    /// Takes the first one out.
    pub fn first(&mut self) -> Option<Arc<Waiter>> {
        self.0.front_mut().remove()
    }

    /// Takes one out; whether it still waited.
    pub fn remove(&mut self, waiter: &Waiter) -> bool {
        self.0.find_mut(&waiter.key()).remove().is_some()
    }
}
