//! Timers: what is to happen at which time.
//!
//! Two queues ordered by deadline, one for each base that time is counted from: the monotonic clock and the wall clock, so that setting
//! the latter moves no timer by itself. Arming and cancelling are O(log n) and allocate nothing: a timer lives where its owner keeps
//! it (on the stack of a sleeping thread, or in a box), and leaves the queue before it goes. The hardware is asked for one interrupt,
//! for the earliest of what is in the queues and what the scheduler wants; where nothing is, there is none.
//!
//! Lock rank: TIMER, released before an action runs. Actions run in the timer interrupt, or in the call that set the wall clock.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use intrusive_collections::{
    Bound, KeyAdapter, RBTree, RBTreeAtomicLink, UnsafeRef, intrusive_adapter,
};

use crate::arch::{irq, time};
use crate::errno::OutOfMemory;
use crate::sync::{IrqLock, rank};
use crate::task::Thread;

/// A point in time, ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// Since boot, as [`time::now_ns`].
    Monotonic(u64),
    /// Since 1970, on the clock that can be set.
    Wall(u64),
}

/// The wall clock, ns since 1970.
pub fn wall_ns() -> u64 {
    time::now_ns().saturating_add(time::wall_clock_offset_ns())
}

impl Deadline {
    /// The same point, or what it is as long as nobody sets the wall clock, in ns since boot.
    pub fn monotonic_ns(self) -> u64 {
        match self {
            Deadline::Monotonic(ns) => ns,
            Deadline::Wall(ns) => ns.saturating_sub(time::wall_clock_offset_ns()),
        }
    }

    pub fn has_passed(self) -> bool {
        self.left_ns() == 0
    }

    /// How far away it is; 0: not in the future.
    pub fn left_ns(self) -> u64 {
        self.monotonic_ns().saturating_sub(time::now_ns())
    }

    fn parts(self) -> (bool, u64) {
        match self {
            Deadline::Monotonic(ns) => (false, ns),
            Deadline::Wall(ns) => (true, ns),
        }
    }
}

/// What happens when an [`Alarm`]'s time has come, in the timer interrupt. The alarm is not armed any more, and may be armed again.
pub trait Ring: Send + Sync {
    fn ring(&self);
}

/// What a timer does when its time has come.
#[derive(Clone)]
enum Action {
    Wake(Arc<Thread>),
    Ring(Weak<dyn Ring>),
}

/// A timer. Pinned while it is in the queue: the guards and the box see to it.
struct Timer {
    link: RBTreeAtomicLink,
    /// In which queue it is; changed under the lock while it is in none.
    wall: AtomicBool,
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

type Tree = RBTree<TimerAdapter>;

struct Queues {
    monotonic: Tree,
    wall: Tree,
}

impl Queues {
    fn tree(&mut self, wall: bool) -> &mut Tree {
        if wall {
            &mut self.wall
        } else {
            &mut self.monotonic
        }
    }

    fn remove(&mut self, timer: &Timer) {
        if timer.link.is_linked() {
            let tree = self.tree(timer.wall.load(Ordering::Relaxed));
            // SAFETY: a linked timer is in the queue that `wall` tells, and there is one pair of queues.
            unsafe { tree.cursor_mut_from_ptr(timer) }.remove();
        }
    }

    /// The action of a timer whose time has come, which leaves its queue.
    fn take_due(&mut self, now_ns: u64) -> Option<Action> {
        let wall_now = now_ns.saturating_add(time::wall_clock_offset_ns());
        for (wall, now) in [(false, now_ns), (true, wall_now)] {
            let mut first = self.tree(wall).front_mut();
            if first
                .get()
                .is_some_and(|timer| timer.deadline.load(Ordering::Relaxed) <= now)
            {
                return first.remove().map(|timer| timer.action.clone());
            }
        }
        None
    }

    /// When the first timer is due, ns since boot.
    fn next(&self) -> Option<u64> {
        let first = |tree: &Tree| {
            tree.lower_bound(Bound::Unbounded)
                .get()
                .map(|timer| timer.deadline.load(Ordering::Relaxed))
        };
        let wall = first(&self.wall).map(|ns| Deadline::Wall(ns).monotonic_ns());
        first(&self.monotonic).into_iter().chain(wall).min()
    }
}

static QUEUES: IrqLock<Queues> = IrqLock::new(
    rank::TIMER,
    Queues {
        monotonic: RBTree::new(TimerAdapter::NEW),
        wall: RBTree::new(TimerAdapter::NEW),
    },
);

/// When this CPU's hardware interrupts next, ns since boot; `NEVER`: not.
static PROGRAMMED: AtomicU64 = AtomicU64::new(NEVER);
const NEVER: u64 = u64::MAX;

/// How often the running thread is looked at, ns. An idle CPU does not tick.
const TICK_NS: u64 = 1_000_000;

/// Makes sure that the timer interrupts at `deadline_ns` since boot or before.
pub(super) fn interrupt_by(deadline_ns: u64) {
    let flags = irq::save();
    program(deadline_ns);
    irq::restore(flags);
}

/// The same with interrupts off.
#[inline]
fn program(deadline_ns: u64) {
    if deadline_ns < PROGRAMMED.load(Ordering::Relaxed) {
        PROGRAMMED.store(deadline_ns, Ordering::Relaxed);
        time::set_timer(deadline_ns);
    }
}

/// Makes sure of the tick that follows `now`. Interrupts are off.
#[inline]
pub(super) fn tick_by(now_ns: u64) {
    program(now_ns + TICK_NS);
}

/// The hardware has interrupted: runs what is due at `now_ns`, and asks for the next interrupt. Interrupts off.
pub(super) fn interrupted(now_ns: u64) {
    PROGRAMMED.store(NEVER, Ordering::Relaxed);
    run_due(now_ns);
}

/// Runs the actions of all timers whose time has come.
fn run_due(now_ns: u64) {
    loop {
        let due = QUEUES.lock().take_due(now_ns);
        match due {
            Some(Action::Wake(thread)) => {
                super::wake(&thread);
            }
            Some(Action::Ring(target)) => {
                if let Some(target) = target.upgrade() {
                    target.ring();
                }
            }
            None => break,
        }
    }
    if let Some(next) = next_deadline() {
        interrupt_by(next);
    }
}

/// Sets the wall clock: what added to the monotonic one gives ns since 1970. Timers on it that are due now run.
pub fn set_wall_clock_offset_ns(offset: u64) {
    time::set_wall_clock_offset_ns(offset);
    let flags = irq::save();
    run_due(time::now_ns());
    irq::restore(flags);
}

/// The deadline of the first timer, ns since boot, if there is one: for machines that can skip idle time.
pub fn next_deadline() -> Option<u64> {
    QUEUES.lock().next()
}

impl Timer {
    fn new(action: Action) -> Timer {
        Timer {
            link: RBTreeAtomicLink::new(),
            wall: AtomicBool::new(false),
            deadline: AtomicU64::new(0),
            action,
        }
    }

    /// Takes the timer out of its queue.
    fn cancel(&self) {
        QUEUES.lock().remove(self);
    }

    /// Puts the timer into its queue, out of it first where it is in.
    ///
    /// # Safety
    /// The timer stays in its place until it has expired or was cancelled.
    unsafe fn arm(&self, deadline: Deadline) {
        let (wall, ns) = deadline.parts();
        let mut queues = QUEUES.lock();
        queues.remove(self);
        self.wall.store(wall, Ordering::Relaxed);
        self.deadline.store(ns, Ordering::Relaxed);
        // SAFETY: the caller keeps the timer in its place.
        let timer = unsafe { UnsafeRef::from_raw(self) };
        queues.tree(wall).insert(timer);
        drop(queues);
        interrupt_by(deadline.monotonic_ns());
    }
}

/// A thread's alarm clock for one sleep.
pub(super) struct SleepTimer(Timer);

impl SleepTimer {
    pub(super) fn new(thread: Arc<Thread>) -> SleepTimer {
        SleepTimer(Timer::new(Action::Wake(thread)))
    }

    pub(super) fn arm(&self, deadline: Deadline) -> Armed<'_> {
        let armed = Armed(&self.0);
        // SAFETY: `armed` borrows the timer, so it stays in place, and cancels when it is dropped. It lives on the stack of its own
        // caller and is never leaked.
        unsafe { self.0.arm(deadline) };
        armed
    }
}

/// An armed [`SleepTimer`]; disarms when it goes.
pub(super) struct Armed<'a>(&'a Timer);

impl Armed<'_> {
    /// Arms the timer again if it has rung.
    pub(super) fn again(&self, deadline: Deadline) {
        if !self.0.link.is_linked() {
            // SAFETY: as in `SleepTimer::arm`.
            unsafe { self.0.arm(deadline) };
        }
    }
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// An alarm clock that belongs to something else, which it tells when its time has come, as long as that is there.
pub struct Alarm(Box<Timer>);

impl Alarm {
    pub fn new(target: Weak<dyn Ring>) -> Result<Alarm, OutOfMemory> {
        Ok(Alarm(Box::try_new(Timer::new(Action::Ring(target)))?))
    }

    /// Rings at `deadline`, soon if that has passed, and not when it would have rung before.
    pub fn arm(&self, deadline: Deadline) {
        // SAFETY: the box does not move, and `drop` cancels.
        unsafe { self.0.arm(deadline) };
    }

    pub fn cancel(&self) {
        self.0.cancel();
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::arch::sim::machine::run_test;

    #[derive(Default)]
    struct Bell(AtomicU32);

    impl Ring for Bell {
        fn ring(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// splitmix64.
    fn random(state: &mut u64, below: u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    /// Many timers, armed, cancelled and let go at random, on both bases while the wall clock is set to and fro: each rings when a list of
    /// deadlines says so, and only then.
    #[test]
    fn timers_ring_as_a_list_of_deadlines_says() {
        const TIMERS: usize = 40;
        run_test(|| {
            let mut seed = 7;
            let far = time::now_ns() + 1_000_000_000_000;
            let (mut now, mut wall) = (far, time::wall_clock_offset_ns());
            let before = wall;
            let bells: Vec<Arc<Bell>> = (0..TIMERS).map(|_| Arc::default()).collect();
            let alarm = |bell: &Arc<Bell>| {
                let target: Weak<Bell> = Arc::downgrade(bell);
                Alarm::new(target).expect("memory")
            };
            let mut alarms: Vec<Alarm> = bells.iter().map(alarm).collect();
            let mut model: [Option<Deadline>; TIMERS] = [None; TIMERS];
            let mut rings = [0; TIMERS];
            for step in 0..20_000 {
                let which = random(&mut seed, TIMERS as u64) as usize;
                match random(&mut seed, 10) {
                    0..5 => {
                        let ns = now + random(&mut seed, 1000);
                        let deadline = match random(&mut seed, 2) {
                            0 => Deadline::Monotonic(ns),
                            _ => Deadline::Wall(ns + wall),
                        };
                        alarms[which].arm(deadline);
                        model[which] = Some(deadline);
                    }
                    5 => {
                        alarms[which].cancel();
                        model[which] = None;
                    }
                    6 => {
                        alarms[which] = alarm(&bells[which]);
                        model[which] = None;
                    }
                    7 => {
                        wall = wall.wrapping_add(random(&mut seed, 600)) - 300;
                        time::set_wall_clock_offset_ns(wall);
                    }
                    _ => now += random(&mut seed, 200),
                }
                run_due(now);
                for (deadline, rings) in model.iter_mut().zip(&mut rings) {
                    let due = deadline.is_some_and(|deadline| deadline.monotonic_ns() <= now);
                    if due {
                        *deadline = None;
                        *rings += 1;
                    }
                }
                let rung: Vec<u32> = bells
                    .iter()
                    .map(|bell| bell.0.load(Ordering::Relaxed))
                    .collect();
                assert_eq!(rung, rings, "step {step}");
                let next = model
                    .iter()
                    .flatten()
                    .map(|deadline| deadline.monotonic_ns())
                    .min();
                assert_eq!(next_deadline(), next, "step {step}");
            }
            drop(alarms);
            time::set_wall_clock_offset_ns(before);
            assert_eq!(next_deadline(), None);
        });
    }
}
