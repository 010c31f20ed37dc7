//! The scheduler: who runs, who waits, and for how long.
//!
//! Round-robin with time slices over one run queue. A thread that sleeps keeps what is left of its slice and comes back at the
//! head of the queue while it has some, so that interactive threads run at once without starving others. The kernel is not
//! preempted inside itself: the CPU changes hands only in [`schedule`]; the timer merely marks the running thread.
//!
//! Lock rank: RUN_QUEUE, which also guards every thread's run state. All operations are O(1) and allocate nothing.

pub mod keyed;
pub mod mutex;
pub mod rw_lock;
pub mod timer;
pub mod wait;

use alloc::sync::Arc;
use core::ops::Deref;
use core::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};

use intrusive_collections::{LinkedList, LinkedListAtomicLink, intrusive_adapter};

use crate::arch::{self, irq, time};
use crate::sync::{IrqLock, rank};
use crate::task::Thread;
use crate::task::thread::flag;

pub use mutex::{SleepMutex, SleepMutexGuard};
pub use rw_lock::{RwSleepLock, RwSleepReadGuard, RwSleepWriteGuard};
pub use wait::{Interrupted, Sleep, WaitQueue};

/// How long a thread runs before another gets its turn, in nanoseconds.
pub const SLICE_NS: i64 = 4_000_000;

/// A thread's run state. Sleeping states say which signals end the sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Runs or stands in the run queue.
    Runnable = 0,
    Interruptible = 1,
    Killable = 2,
    Uninterruptible = 3,
    /// Stopped by a signal; only SIGCONT and SIGKILL end it.
    Stopped = 4,
    /// Will never run again.
    Dead = 5,
}

/// The scheduler's part of a thread.
pub struct Entity {
    state: AtomicU8,
    link: LinkedListAtomicLink,
    /// What is left of the slice, ns.
    slice: AtomicI64,
    /// When the thread was last switched to, ns since boot.
    since: AtomicU64,
    cpu_time: AtomicU64,
}

impl Entity {
    pub const fn new() -> Entity {
        Entity {
            state: AtomicU8::new(State::Runnable as u8),
            link: LinkedListAtomicLink::new(),
            slice: AtomicI64::new(SLICE_NS),
            since: AtomicU64::new(0),
            cpu_time: AtomicU64::new(0),
        }
    }

    #[inline]
    fn state(&self) -> u8 {
        self.state.load(Ordering::Relaxed)
    }

    /// CPU time of completed turns, ns.
    pub fn cpu_time_ns(&self) -> u64 {
        self.cpu_time.load(Ordering::Relaxed)
    }

    /// How long the turn has lasted in which the thread, the current one, is now, ns.
    pub fn current_turn_ns(&self) -> u64 {
        time::now_ns().saturating_sub(self.since.load(Ordering::Relaxed))
    }

    /// Charges the turn that ends at `now`.
    fn charge(&self, now: u64) {
        let ran = now.saturating_sub(self.since.swap(now, Ordering::Relaxed));
        self.cpu_time.fetch_add(ran, Ordering::Relaxed);
        self.slice.fetch_sub(ran as i64, Ordering::Relaxed);
    }
}

impl Default for Entity {
    fn default() -> Self {
        Entity::new()
    }
}

intrusive_adapter!(RunAdapter = Arc<Thread>: Thread { sched.link => LinkedListAtomicLink });

struct RunQueue {
    ready: LinkedList<RunAdapter>,
    /// Runs when nobody else can; stands in no queue.
    idle: Option<Arc<Thread>>,
    /// The last thread that ended: its stack may be freed once another one is in use.
    dead: Option<Arc<Thread>>,
}

static RUN_QUEUE: IrqLock<RunQueue> = IrqLock::new(
    rank::RUN_QUEUE,
    RunQueue {
        ready: LinkedList::new(RunAdapter::NEW),
        idle: None,
        dead: None,
    },
);

/// The running thread. Not `Send`: it is the thread that asks.
#[derive(Clone, Copy)]
pub struct Current(*const Thread);

impl Current {
    /// A reference that outlives the current stack frame.
    pub fn arc(&self) -> Arc<Thread> {
        // SAFETY: `arch::current` is a pointer from `Arc::into_raw` whose count the CPU holds while the thread runs.
        unsafe {
            Arc::increment_strong_count(self.0);
            Arc::from_raw(self.0)
        }
    }

    /// The CPU's own reference.
    ///
    /// # Safety
    /// The thread is about to be switched away from for good: nobody else gives this reference back.
    unsafe fn take(&self) -> Arc<Thread> {
        // SAFETY: as in `arc`, and the count passes on from the CPU.
        unsafe { Arc::from_raw(self.0) }
    }
}

impl Deref for Current {
    type Target = Thread;
    #[inline]
    fn deref(&self) -> &Thread {
        // SAFETY: as in `arc`; whoever holds a `Current` is the running thread, so it stays alive.
        unsafe { &*self.0 }
    }
}

/// The running thread. Panics before [`start`].
#[inline]
pub fn current() -> Current {
    let thread = arch::current();
    debug_assert!(!thread.is_null(), "no thread yet");
    Current(thread)
}

/// Makes the calling context the idle thread; from now on there is a [`current`] and threads can be spawned. `idle` is a
/// thread whose own kernel stack is never used.
pub fn start(idle: Arc<Thread>) {
    idle.sched.since.store(time::now_ns(), Ordering::Relaxed);
    RUN_QUEUE.lock().idle = Some(idle.clone());
    // SAFETY: the count of the `Arc` goes to the CPU.
    unsafe { arch::set_current(Arc::into_raw(idle)) };
}

/// The idle thread's life: run others, and sleep until an interrupt when there are none. On a simulated machine it returns
/// when nothing can ever happen again.
pub fn idle() {
    loop {
        schedule();
        let flags = irq::save();
        let work = !RUN_QUEUE.lock().ready.is_empty();
        let go_on = work || irq::wait();
        irq::restore(flags);
        if !go_on {
            return;
        }
    }
}

/// Lets a new thread run.
pub fn spawn(thread: Arc<Thread>) {
    RUN_QUEUE.lock().ready.push_back(thread);
}

/// Gives the CPU to the next thread. Returns when the caller's turn comes again: at once if its state is `Runnable` or a signal
/// that ends its sleep is pending and nobody else waits, else after somebody woke it.
///
/// No spin lock may be held. Not from interrupt handlers.
pub fn schedule() {
    rank::assert_none_held();
    let flags = irq::save();
    let prev = current();
    if let Some(next) = pick_next(&prev) {
        switch_to(prev, next);
    }
    irq::restore(flags);
}

/// Puts `prev` where it belongs and takes the next thread; `None` if `prev` goes on.
fn pick_next(prev: &Current) -> Option<Arc<Thread>> {
    let now = time::now_ns();
    let mut queue = RUN_QUEUE.lock();
    prev.clear_flag(flag::NEED_RESCHED);
    prev.sched.charge(now);
    let is_idle = queue
        .idle
        .as_ref()
        .is_some_and(|idle| Arc::as_ptr(idle) == prev.0);
    if prev.sched.state() == State::Dead as u8 {
        // SAFETY: a dead thread is never picked again, so it does not come back from its switch to give the CPU's reference up.
        queue.dead = Some(unsafe { prev.take() });
    } else if prev.sched.state() == State::Runnable as u8 || is_idle || signal_ends_sleep(prev) {
        prev.sched
            .state
            .store(State::Runnable as u8, Ordering::Relaxed);
        if queue.ready.is_empty() {
            refill(&prev.sched);
            return None;
        }
        if !is_idle {
            refill(&prev.sched);
            queue.ready.push_back(prev.arc());
        }
    }
    let next = queue
        .ready
        .pop_front()
        .or_else(|| queue.idle.clone())
        .expect("the idle thread exists");
    next.sched.since.store(now, Ordering::Relaxed);
    (Arc::as_ptr(&next) != prev.0).then_some(next)
}

fn refill(entity: &Entity) {
    if entity.slice.load(Ordering::Relaxed) <= 0 {
        entity.slice.store(SLICE_NS, Ordering::Relaxed);
    }
}

/// Whether a sleep in the thread's state is refused or ended by what is pending.
fn signal_ends_sleep(thread: &Thread) -> bool {
    let state = thread.sched.state();
    let fatal = thread.has_flag(flag::FATAL_SIGNAL);
    match state {
        s if s == State::Interruptible as u8 => fatal || thread.has_flag(flag::SIGPENDING),
        s if s == State::Killable as u8 || s == State::Stopped as u8 => fatal,
        _ => false,
    }
}

/// Hands the CPU over. Interrupts are off.
fn switch_to(prev: Current, next: Arc<Thread>) {
    timer::tick_by(next.sched.since.load(Ordering::Relaxed));
    next.process.activate_mm();
    let next = Arc::into_raw(next);
    // SAFETY: `next` carries a count for the CPU. `prev` keeps the CPU's count until it is switched to again, or in `dead`.
    unsafe {
        arch::set_current(next);
        arch::switch(&prev, &*next);
        Arc::decrement_strong_count(prev.0);
    }
    finish_switch();
}

/// What the thread that was switched to does first, with interrupts off.
pub(crate) fn finish_switch() {
    let dead = RUN_QUEUE.lock().dead.take();
    drop(dead);
}

/// The current thread's next state; takes effect in [`schedule`].
#[inline]
pub(crate) fn set_state(state: State) {
    current().sched.state.store(state as u8, Ordering::Release);
}

/// Ends the current thread: it is never switched to again.
pub(crate) fn exit_current() -> ! {
    set_state(State::Dead);
    schedule();
    unreachable!("a dead thread was scheduled");
}

/// Wakes `thread` if it sleeps in one of the states; whether it did. From any context.
fn wake_if(thread: &Arc<Thread>, states: impl Fn(u8) -> bool) -> bool {
    let mut queue = RUN_QUEUE.lock();
    let state = thread.sched.state();
    if state == State::Runnable as u8 || state == State::Dead as u8 || !states(state) {
        return false;
    }
    thread
        .sched
        .state
        .store(State::Runnable as u8, Ordering::Relaxed);
    // A thread on its way into `schedule` still has the CPU, and a woken one may not have left the queue's link yet.
    if Arc::as_ptr(thread) == arch::current() || thread.sched.link.is_linked() {
        return true;
    }
    if thread.sched.slice.load(Ordering::Relaxed) > 0 {
        queue.ready.push_front(thread.clone());
        current().set_flag(flag::NEED_RESCHED);
    } else {
        refill(&thread.sched);
        queue.ready.push_back(thread.clone());
    }
    true
}

/// Ends any sleep of `thread` but a stop.
pub fn wake(thread: &Arc<Thread>) -> bool {
    wake_if(thread, |state| state != State::Stopped as u8)
}

/// Ends a sleep that pending signals end.
pub(crate) fn wake_for_signal(thread: &Arc<Thread>, fatal: bool) -> bool {
    wake_if(thread, |state| {
        state == State::Interruptible as u8
            || fatal && (state == State::Killable as u8 || state == State::Stopped as u8)
    })
}

/// Ends a stop.
pub(crate) fn wake_stopped(thread: &Arc<Thread>) -> bool {
    wake_if(thread, |state| state == State::Stopped as u8)
}

/// Called by the architecture at every timer interrupt, interrupts off.
pub fn timer_tick() {
    let now = time::now_ns();
    timer::interrupted(now);
    let current = current();
    let idle = RUN_QUEUE.lock().idle.as_ref().map(Arc::as_ptr);
    if idle == Some(current.0) {
        return;
    }
    // The idle thread needs no tick: the next switch starts it again.
    timer::tick_by(now);
    let ran = now.saturating_sub(current.sched.since.load(Ordering::Relaxed)) as i64;
    if current.sched.slice.load(Ordering::Relaxed) <= ran {
        current.set_flag(flag::NEED_RESCHED);
    }
}

/// Lets others run: sched_yield(2).
pub fn yield_now() {
    schedule();
}
