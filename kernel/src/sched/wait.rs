//! Wait queues: sleeping until a condition holds, with the lost-wake-up race closed once and for all.
//!
//! A waiter first stands in the queue and has its sleeping state set, then looks at the condition, then sleeps; a waker makes
//! the condition true, then wakes. So either the waiter sees the condition or the waker sees the waiter. Waiters live on
//! their own stacks: waiting allocates nothing and cannot fail for want of memory.
//!
//! Lock rank: WAIT_QUEUE. Waking is allowed from interrupt handlers.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use intrusive_collections::{LinkedList, LinkedListAtomicLink, UnsafeRef, intrusive_adapter};

use super::timer::{Deadline, SleepTimer};
use super::{State, current, schedule, set_state};
use crate::errno::Errno;
use crate::sync::{IrqLock, rank};
use crate::task::Thread;

/// Which signals end a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleep {
    /// Any deliverable signal.
    Interruptible,
    /// Only a fatal one.
    Killable,
    /// None: for waits whose end is certain and near.
    Uninterruptible,
}

impl Sleep {
    fn state(self) -> State {
        match self {
            Sleep::Interruptible => State::Interruptible,
            Sleep::Killable => State::Killable,
            Sleep::Uninterruptible => State::Uninterruptible,
        }
    }

    /// Whether a pending signal ends this kind of wait of the current thread.
    fn is_interrupted(self) -> bool {
        match self {
            Sleep::Interruptible => crate::signal::signal_pending(&current()),
            Sleep::Killable => crate::signal::fatal_signal_pending(&current()),
            Sleep::Uninterruptible => false,
        }
    }
}

/// A signal ended the wait. As an error number: restart the call (`ERESTARTSYS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted;

impl From<Interrupted> for Errno {
    fn from(_: Interrupted) -> Errno {
        Errno::ERESTARTSYS
    }
}

/// How a wait with a deadline ended without its condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotYet {
    Interrupted,
    TimedOut,
}

struct Waiter {
    link: LinkedListAtomicLink,
    thread: Arc<Thread>,
    /// A waker has taken the waiter out of the queue, and looks at it no more.
    left: AtomicBool,
}

impl Waiter {
    /// Wakes the thread, after the waiter was taken out; whether it slept.
    fn wake(&self) -> bool {
        let slept = super::wake(&self.thread);
        // The last that is done here: the waiter goes then, whoever holds the lock.
        self.left.store(true, Ordering::Release);
        slept
    }
}

intrusive_adapter!(WaiterAdapter = UnsafeRef<Waiter>: Waiter { link => LinkedListAtomicLink });

/// Threads that wait for one thing.
pub struct WaitQueue {
    waiters: IrqLock<LinkedList<WaiterAdapter>>,
    /// Whether there are any; changed under the lock.
    waited_for: AtomicBool,
}

impl WaitQueue {
    pub const fn new() -> WaitQueue {
        WaitQueue {
            waiters: IrqLock::new(rank::WAIT_QUEUE, LinkedList::new(WaiterAdapter::NEW)),
            waited_for: AtomicBool::new(false),
        }
    }

    /// Waits until `condition` gives a value. The condition is looked at first, so a wait that is over does not sleep and is
    /// not interrupted. It must not sleep itself, and may take locks of rank up to WAIT_QUEUE's. No spin lock may be held.
    pub fn wait_until<R>(
        &self,
        sleep: Sleep,
        mut condition: impl FnMut() -> Option<R>,
    ) -> Result<R, Interrupted> {
        if let Some(value) = condition() {
            return Ok(value);
        }
        let waiter = Waiter {
            link: LinkedListAtomicLink::new(),
            thread: current().arc(),
            left: AtomicBool::new(true),
        };
        let queued = Queued::new(self, &waiter);
        sleep_unless(|| queued.enqueue(), sleep, condition)
    }

    /// As [`WaitQueue::wait_until`], at most until `deadline_ns` (as [`crate::arch::time::now_ns`]; `None`: for ever).
    pub fn wait_until_deadline<R>(
        &self,
        sleep: Sleep,
        deadline_ns: Option<u64>,
        condition: impl FnMut() -> Option<R>,
    ) -> Result<R, NotYet> {
        self.wait_until_time(sleep, deadline_ns.map(Deadline::Monotonic), condition)
    }

    /// As [`WaitQueue::wait_until`], at most until `deadline` (`None`: for ever).
    pub fn wait_until_time<R>(
        &self,
        sleep: Sleep,
        deadline: Option<Deadline>,
        mut condition: impl FnMut() -> Option<R>,
    ) -> Result<R, NotYet> {
        let Some(deadline) = deadline else {
            return self
                .wait_until(sleep, condition)
                .map_err(|Interrupted| NotYet::Interrupted);
        };
        if let Some(value) = condition() {
            return Ok(value);
        }
        until_deadline(deadline, condition, |condition| {
            self.wait_until(sleep, condition)
        })
    }

    /// Wakes every waiter to look at its condition.
    pub fn wake_all(&self) {
        let mut waiters = self.waiters.lock();
        while let Some(waiter) = waiters.pop_front() {
            waiter.wake();
        }
        self.waited_for.store(false, Ordering::Relaxed);
    }

    /// The same for whoever has made the condition true under a lock under which all waiters look at it, and has released that since:
    /// a waiter that has looked before is seen without a look at the queue.
    #[inline]
    pub fn wake_all_of_lock(&self) {
        if self.waited_for.load(Ordering::Relaxed) {
            self.wake_all();
        }
    }

    /// Wakes the waiter that has waited longest.
    pub fn wake_one(&self) {
        let mut waiters = self.waiters.lock();
        while let Some(waiter) = waiters.pop_front() {
            if waiter.wake() {
                return;
            }
        }
    }

    /// Whether nobody waits: a hint, true or not a moment later.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.waiters.lock().is_empty()
    }
}

impl Default for WaitQueue {
    fn default() -> Self {
        WaitQueue::new()
    }
}

/// Sleeps until `condition` gives a value, or for a signal. `stand` sees to it that whoever makes it true wakes the thread from then on; it
/// is called before each sleep.
#[inline(always)]
fn sleep_unless<R>(
    stand: impl Fn(),
    sleep: Sleep,
    mut condition: impl FnMut() -> Option<R>,
) -> Result<R, Interrupted> {
    loop {
        stand();
        set_state(sleep.state());
        let seen = match condition() {
            Some(value) => Some(Ok(value)),
            None if sleep.is_interrupted() => Some(Err(Interrupted)),
            None => None,
        };
        if let Some(outcome) = seen {
            set_state(State::Runnable);
            return outcome;
        }
        schedule();
        // Mostly that is what it was woken for, and then it needs to stand nowhere again.
        if let Some(value) = condition() {
            return Ok(value);
        }
    }
}

/// Runs `wait` with a condition that is also true at `deadline`.
fn until_deadline<R>(
    deadline: Deadline,
    mut condition: impl FnMut() -> Option<R>,
    wait: impl FnOnce(
        &mut dyn FnMut() -> Option<Result<R, NotYet>>,
    ) -> Result<Result<R, NotYet>, Interrupted>,
) -> Result<R, NotYet> {
    let timer = SleepTimer::new(current().arc());
    let armed = timer.arm(deadline);
    let outcome = wait(&mut || match condition() {
        Some(value) => Some(Ok(value)),
        None if deadline.has_passed() => Some(Err(NotYet::TimedOut)),
        None => {
            // It may have rung, and the wall clock been set back since.
            armed.again(deadline);
            None
        }
    });
    drop(armed);
    outcome.unwrap_or(Err(NotYet::Interrupted))
}

/// Waits, at most until `deadline` (`None`: for ever), without a queue: whoever makes the condition true wakes the thread ([`super::wake`]).
/// No spin lock may be held.
pub(super) fn wait_to_be_woken<R>(
    sleep: Sleep,
    deadline: Option<Deadline>,
    condition: impl FnMut() -> Option<R>,
) -> Result<R, NotYet> {
    match deadline {
        None => sleep_unless(|| (), sleep, condition).map_err(|Interrupted| NotYet::Interrupted),
        Some(deadline) => until_deadline(deadline, condition, |condition| {
            sleep_unless(|| (), sleep, condition)
        }),
    }
}

/// A waiter's stay in the queue, which ends when it goes.
struct Queued<'a> {
    queue: &'a WaitQueue,
    waiter: &'a Waiter,
}

impl<'a> Queued<'a> {
    fn new(queue: &'a WaitQueue, waiter: &'a Waiter) -> Self {
        Queued { queue, waiter }
    }

    /// Stands in the queue, again if a waker took the waiter out.
    fn enqueue(&self) {
        let mut waiters = self.queue.waiters.lock_irq();
        if !self.waiter.link.is_linked() {
            self.waiter.left.store(false, Ordering::Relaxed);
            // SAFETY: the waiter outlives `self`, whose drop takes it out of the list under the same lock.
            waiters.push_back(unsafe { UnsafeRef::from_raw(self.waiter) });
            self.queue.waited_for.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        if self.waiter.left.load(Ordering::Acquire) {
            return;
        }
        let mut waiters = self.queue.waiters.lock_irq();
        if self.waiter.link.is_linked() {
            // SAFETY: the waiter is linked in this very list, the only one it is ever put into.
            unsafe { waiters.cursor_mut_from_ptr(self.waiter) }.remove();
        }
    }
}

/// Sleeps until `deadline_ns` or a signal that ends the sleep.
pub fn sleep_until(sleep: Sleep, deadline_ns: u64) -> Result<(), Interrupted> {
    sleep_until_time(sleep, Deadline::Monotonic(deadline_ns))
}

/// Sleeps until `deadline` or a signal that ends the sleep.
pub fn sleep_until_time(sleep: Sleep, deadline: Deadline) -> Result<(), Interrupted> {
    let nobody_wakes = WaitQueue::new();
    match nobody_wakes.wait_until_time(sleep, Some(deadline), || None::<()>) {
        Ok(()) | Err(NotYet::TimedOut) => Ok(()),
        Err(NotYet::Interrupted) => Err(Interrupted),
    }
}
