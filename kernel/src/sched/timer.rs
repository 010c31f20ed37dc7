//! Timers: what is to happen at which time.
//!
//! One queue ordered by deadline, looked at on every timer tick. Arming and cancelling are O(log n) and allocate nothing: a
//! timer lives where its owner keeps it (on the stack of a sleeping thread, or in a box of its process), and leaves the queue
//! before it goes.
//!
//! Lock rank: TIMER, released before an action runs. Actions run in the timer interrupt.

use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU64, Ordering};
use intrusive_collections::Bound;

use intrusive_collections::{KeyAdapter, RBTree, RBTreeAtomicLink, UnsafeRef, intrusive_adapter};

use crate::sync::{IrqLock, rank};
use crate::task::{Process, Thread};

/// What a timer does when its time has come.
enum Action {
    Wake(Arc<Thread>),
    /// ITIMER_REAL: sends SIGALRM and goes on by the process's interval.
    Alarm(Weak<Process>),
}

/// A timer. Pinned while it is in the queue: the guards and the box see to it.
pub struct Timer {
    link: RBTreeAtomicLink,
    deadline: AtomicU64,
    action: Action,
}

intrusive_adapter!(TimerAdapter = UnsafeRef<Timer>: Timer { link => RBTreeAtomicLink });

impl<'a> KeyAdapter<'a> for TimerAdapter {
    type Key = u64;
    fn get_key(&self, timer: &'a Timer) -> u64 {
        timer.deadline.load(Ordering::Relaxed)
    }
}

static QUEUE: IrqLock<RBTree<TimerAdapter>> =
    IrqLock::new(rank::TIMER, RBTree::new(TimerAdapter::NEW));

impl Timer {
    fn new(deadline: u64, action: Action) -> Timer {
        Timer {
            link: RBTreeAtomicLink::new(),
            deadline: AtomicU64::new(deadline),
            action,
        }
    }

    fn is_armed(&self) -> bool {
        let _queue = QUEUE.lock();
        self.link.is_linked()
    }

    fn cancel(&self) {
        let mut queue = QUEUE.lock();
        if self.link.is_linked() {
            // SAFETY: a linked timer is in QUEUE, the only tree there is.
            unsafe { queue.cursor_mut_from_ptr(self) }.remove();
        }
    }

    /// Puts the timer into the queue at `deadline_ns`, out of it first where it is in.
    ///
    /// # Safety
    /// The timer stays in its place until it has expired or was cancelled.
    unsafe fn arm_at(&self, deadline_ns: u64) {
        self.cancel();
        let mut queue = QUEUE.lock();
        self.deadline.store(deadline_ns, Ordering::Relaxed);
        // SAFETY: the caller keeps the timer in its place.
        queue.insert(unsafe { UnsafeRef::from_raw(self) });
    }
}

/// Takes every timer whose time has come out of the queue and runs its action. Interrupts off.
pub(super) fn expire(now_ns: u64) {
    loop {
        let mut queue = QUEUE.lock();
        let mut first = queue.front_mut();
        if first
            .get()
            .is_none_or(|timer| timer.deadline.load(Ordering::Relaxed) > now_ns)
        {
            return;
        }
        let Some(timer) = first.remove() else { return };
        drop(queue);
        // The owner cannot go meanwhile: interrupts are off, and it would have to run to cancel.
        match &timer.action {
            Action::Wake(thread) => {
                super::wake(thread);
            }
            Action::Alarm(process) => {
                if let Some(process) = process.upgrade() {
                    alarm(&process, &timer, now_ns);
                }
            }
        }
    }
}

fn alarm(process: &Arc<Process>, timer: &Timer, now_ns: u64) {
    let interval = process.alarm_interval_ns();
    let deadline = timer.deadline.load(Ordering::Relaxed);
    // Periods that were missed are skipped, as setitimer(2) has no overrun count.
    if let Some(missed) = now_ns.saturating_sub(deadline).checked_div(interval) {
        let next = deadline.saturating_add((missed + 1).saturating_mul(interval));
        // SAFETY: the timer is the process's own box, which cancels before it goes.
        unsafe { timer.arm_at(next) };
    }
    crate::signal::send::alarm_expired(process);
}

/// The deadline of the first timer, if there is one: for machines that can skip idle time.
pub fn next_deadline() -> Option<u64> {
    QUEUE
        .lock()
        .lower_bound(Bound::Unbounded)
        .get()
        .map(|timer| timer.deadline.load(Ordering::Relaxed))
}

/// A thread's alarm clock for one sleep.
pub(super) struct SleepTimer(Timer);

impl SleepTimer {
    pub(super) fn new(deadline_ns: u64, thread: Arc<Thread>) -> SleepTimer {
        SleepTimer(Timer::new(deadline_ns, Action::Wake(thread)))
    }

    pub(super) fn arm(&self) -> Armed<'_> {
        let armed = Armed(&self.0);
        // SAFETY: `armed` borrows the timer, so it stays in place, and cancels when it is dropped. It lives on the stack of its own
        // caller and is never leaked.
        unsafe { self.0.arm_at(self.0.deadline.load(Ordering::Relaxed)) };
        armed
    }
}

/// An armed [`SleepTimer`]; disarms when it goes.
pub(super) struct Armed<'a>(&'a Timer);

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// A process's ITIMER_REAL clock.
pub struct AlarmClock(alloc::boxed::Box<Timer>);

impl AlarmClock {
    pub fn new(process: Weak<Process>) -> Result<AlarmClock, crate::errno::OutOfMemory> {
        Ok(AlarmClock(alloc::boxed::Box::try_new(Timer::new(
            0,
            Action::Alarm(process),
        ))?))
    }

    pub fn arm(&self, deadline_ns: u64) {
        // SAFETY: the box does not move, and `drop` cancels.
        unsafe { self.0.arm_at(deadline_ns) };
    }

    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// When it rings next, ns since boot.
    pub fn deadline_ns(&self) -> Option<u64> {
        self.0
            .is_armed()
            .then(|| self.0.deadline.load(Ordering::Relaxed))
    }
}

impl Drop for AlarmClock {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
