//! The scheduler: who runs, who waits, and for how long.
//!
//! Real-time threads go by priority, all others share by weight; [`run_queue`] says who is next. A thread that wakes may take the CPU
//! from the running one. The kernel is not preempted inside itself: the CPU changes hands only in [`schedule`]; the timer and
//! wake-ups merely mark the running thread.
//!
//! Lock rank: RUN_QUEUE, which also guards every thread's run state. All operations are O(log n) and allocate nothing.

pub mod addressed;
mod entity;
#[cfg(all(test, not(target_os = "none")))]
pub(crate) mod interleaving;
pub mod keyed;
pub mod mutex;
pub mod policy;
mod run_queue;
pub mod rw_lock;
pub mod timer;
pub mod wait;

use alloc::sync::Arc;
use core::ops::Deref;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::arch::{self, irq, time};
use crate::sync::{IrqLock, rank};
use crate::task::thread::flag;
use crate::task::{Thread, cpu_clock};

pub use entity::Entity;
pub use mutex::{SleepMutex, SleepMutexGuard};
use policy::Parameters;
use run_queue::{Arrival, RunQueue};
pub use run_queue::{RR_SLICE_NS, SLICE_NS};
pub use rw_lock::{RwSleepLock, RwSleepReadGuard, RwSleepWriteGuard};
pub use wait::{Interrupted, Sleep, WaitQueue};

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

/// The CPU's threads.
struct Cpu {
    ready: RunQueue,
    /// Runs when nobody else can; stands in no queue.
    idle: Option<Arc<Thread>>,
    /// The last thread that ended: its stack may be freed once another one is in use.
    dead: Option<Arc<Thread>>,
}

impl Cpu {
    fn is_idle(&self, thread: *const Thread) -> bool {
        self.idle
            .as_ref()
            .is_some_and(|idle| Arc::as_ptr(idle) == thread)
    }
}

static CPU: IrqLock<Cpu> = IrqLock::new(
    rank::RUN_QUEUE,
    Cpu {
        ready: RunQueue::new(),
        idle: None,
        dead: None,
    },
);

/// Whether somebody is ready: a hint for those who would yield to nobody. Written under the lock.
static SOMEBODY_READY: AtomicBool = AtomicBool::new(false);

/// Whether the CPU keeps a thread that ended, for [`finish_switch`]: written under the lock, and read by the CPU itself.
static SOMEBODY_DEAD: AtomicBool = AtomicBool::new(false);

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
    CPU.lock().idle = Some(idle.clone());
    // SAFETY: the count of the `Arc` goes to the CPU.
    unsafe { arch::set_current(Arc::into_raw(idle)) };
}

/// The idle thread's life: run others, and sleep until an interrupt when there are none. On a simulated machine it returns
/// when nothing can ever happen again.
pub fn idle() {
    loop {
        schedule();
        let flags = irq::save();
        let work = !CPU.lock_irq_off().ready.is_empty();
        let go_on = work || irq::wait();
        irq::restore(flags);
        if !go_on {
            return;
        }
    }
}

/// Lets a new thread run.
pub fn spawn(thread: Arc<Thread>) {
    let mut cpu = CPU.lock();
    cpu.ready.insert(thread.clone(), Arrival::Woken);
    SOMEBODY_READY.store(true, Ordering::Relaxed);
    preempt_for(&cpu, &thread);
}

/// Gives the CPU to the next thread, if that goes before the current one. Returns when the caller's turn comes again: at once if its
/// state is `Runnable` or a signal that ends its sleep is pending and nobody goes before it, else after somebody woke it.
///
/// No spin lock may be held. Not from interrupt handlers.
pub fn schedule() {
    schedule_as(false);
}

/// Lets equals run: sched_yield(2).
pub fn yield_now() {
    if SOMEBODY_READY.load(Ordering::Relaxed) {
        schedule_as(true);
    }
}

fn schedule_as(yields: bool) {
    rank::assert_none_held();
    let flags = irq::disable();
    let prev = current();
    if let Some(next) = pick_next(&prev, yields) {
        switch_to(prev, next);
    }
    irq::restore(flags);
}

/// Puts `prev` where it belongs and takes the next thread; `None` if `prev` goes on. Interrupts are off.
#[inline(always)]
fn pick_next(prev: &Current, yields: bool) -> Option<Arc<Thread>> {
    let now = time::now_ns();
    let mut cpu = CPU.lock_irq_off();
    let cpu = &mut *cpu;
    prev.clear_flag(flag::NEED_RESCHED);
    let entity = &prev.sched;
    if cpu.is_idle(prev.0) {
        entity.charge(now);
        entity.state.store(State::Runnable as u8, Ordering::Relaxed);
    } else {
        charge(&mut cpu.ready, prev, now);
        if entity.state() == State::Dead as u8 {
            // SAFETY: a dead thread is never picked again, so it does not come back from its switch to give the CPU's reference up.
            cpu.dead = Some(unsafe { prev.take() });
            SOMEBODY_DEAD.store(true, Ordering::Relaxed);
        } else if entity.state() == State::Runnable as u8 || signal_ends_sleep(prev) {
            entity.state.store(State::Runnable as u8, Ordering::Relaxed);
            if !cpu.ready.has_better(entity, yields) {
                return None;
            }
            entity.count_switch(false);
            let arrival = match yields {
                true => Arrival::Yielded,
                false => Arrival::Preempted,
            };
            cpu.ready.insert(prev.arc(), arrival);
        } else {
            entity.count_switch(true);
        }
    }
    let next = cpu.ready.pop(now).or_else(|| cpu.idle.clone());
    SOMEBODY_READY.store(!cpu.ready.is_empty(), Ordering::Relaxed);
    let next = next.expect("the idle thread exists");
    next.sched.since.store(now, Ordering::Relaxed);
    (Arc::as_ptr(&next) != prev.0).then_some(next)
}

/// The running thread has run until `now`, and its process with it.
#[inline]
fn charge(ready: &mut RunQueue, running: &Thread, now: u64) {
    let ran = ready.charge(&running.sched, now);
    let sum = &running.process.cpu_sum;
    sum.total.fetch_add(ran, Ordering::Relaxed);
}

/// Marks the running thread if `ready`, which is in the queue now, takes the CPU from it.
fn preempt_for(cpu: &Cpu, ready: &Thread) {
    let running = arch::current();
    if running.is_null() {
        return;
    }
    let running = Current(running);
    if cpu.is_idle(running.0)
        || cpu
            .ready
            .preempts(&ready.sched, &running.sched, time::now_ns)
    {
        running.set_flag(flag::NEED_RESCHED);
    }
}

/// Changes how a thread is scheduled, by what it is now; at once, also if it runs or waits for its turn. An error of `change` leaves it
/// as it is.
pub fn change_parameters<E>(
    thread: &Arc<Thread>,
    change: impl FnOnce(Parameters) -> Result<Parameters, E>,
) -> Result<(), E> {
    let mut cpu = CPU.lock();
    let before = thread.sched.parameters();
    let after = change(before)?;
    let queued = cpu.ready.remove(thread);
    let is_current = Arc::as_ptr(thread) == arch::current();
    if is_current {
        charge(&mut cpu.ready, thread, time::now_ns());
    }
    thread.sched.set_parameters(after);
    if let Some(thread) = queued {
        // A thread whose priority sinks goes before its new equals, as on Linux.
        let arrival = match after.priority < before.priority {
            true => Arrival::Preempted,
            false => Arrival::Woken,
        };
        cpu.ready.insert(thread.clone(), arrival);
        preempt_for(&cpu, &thread);
    } else if is_current && cpu.ready.has_better(&thread.sched, false) {
        thread.set_flag(flag::NEED_RESCHED);
    }
    Ok(())
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
#[inline(always)]
fn switch_to(prev: Current, next: Arc<Thread>) {
    if prev.rseq.load(Ordering::Relaxed) != 0 {
        prev.set_flag(flag::SWITCHED);
    }
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
    if SOMEBODY_DEAD.load(Ordering::Relaxed) {
        SOMEBODY_DEAD.store(false, Ordering::Relaxed);
        let dead = CPU.lock_irq_off().dead.take();
        drop(dead);
    }
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
    let mut cpu = CPU.lock();
    let state = thread.sched.state();
    if state == State::Runnable as u8 || state == State::Dead as u8 || !states(state) {
        return false;
    }
    thread
        .sched
        .state
        .store(State::Runnable as u8, Ordering::Relaxed);
    // A thread on its way into `schedule` still has the CPU, and a woken one may not have left the queue's link yet.
    if Arc::as_ptr(thread) == arch::current() || RunQueue::contains(thread) {
        return true;
    }
    cpu.ready.insert(thread.clone(), Arrival::Woken);
    SOMEBODY_READY.store(true, Ordering::Relaxed);
    preempt_for(&cpu, thread);
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
    let is_idle = CPU.lock().is_idle(current.0);
    if !is_idle {
        // The idle thread needs no tick: the next switch starts it again.
        timer::tick_by(now);
    }
    let mut cpu = CPU.lock();
    cpu.ready.begin_period(now);
    if is_idle {
        return;
    }
    charge(&mut cpu.ready, &current, now);
    let system = current.sched.system_time_ns();
    current.sched.account(irq::interrupted_user());
    let more = current.sched.system_time_ns() - system;
    let sum = &current.process.cpu_sum;
    sum.system.fetch_add(more, Ordering::Relaxed);
    if cpu.ready.tick_ends_turn(&current.sched) {
        current.set_flag(flag::NEED_RESCHED);
    }
    drop(cpu);
    cpu_clock::tick(&current);
}

/// Lets others run if it is their turn, between two steps of something long. No spin lock may be held.
pub fn yield_if_wanted() {
    if current().has_flag(flag::NEED_RESCHED) {
        schedule();
    }
}
