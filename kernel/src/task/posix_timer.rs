//! POSIX timers of a process (`timer_create(2)`; Linux's `kernel/time/posix-timers.c`).
//!
//! A timer owns the one queue entry by which its signal is sent. When it rings the entry goes to the queue, and a periodic timer rests
//! until the signal is taken: only then are the rings since counted as overruns and the next one waited for. So there is at most one
//! signal of each timer, and a timer whose signal nobody takes costs nothing. The same holds while its signal is ignored. A signal that
//! was sent before the timer was set anew or deleted is dropped when it is taken.
//!
//! Lock ranks: POSIX_TIMERS for the table of a process, INTERVAL_TIMER for the state of a timer.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU64, Ordering};

use intrusive_collections::{Bound, KeyAdapter, RBTree, RBTreeAtomicLink, intrusive_adapter};
use spin::Once;

use super::cpu_clock::CpuClock;
use super::interval::{Schedule, Setting};
use super::{Process, Thread};
use crate::arch::time;
use crate::errno::{Errno, Result};
use crate::sched::timer::{Alarm, Deadline, Ring, wall_ns};
use crate::signal::queue::Entry;
use crate::signal::{Detail, SigInfo, Signal, code, send};
use crate::sync::{IrqLock, SpinLock, rank};

/// The clock of a timer.
#[derive(Clone)]
pub enum Clock {
    Monotonic,
    Wall,
    Cpu(CpuClock),
}

/// Who is told when a timer rings.
#[derive(Clone)]
pub enum Notify {
    /// Nobody; the timer can only be asked.
    Nobody,
    Process(Weak<Process>),
    Thread(Weak<Thread>),
}

/// A timer.
pub struct PosixTimer {
    id: i32,
    clock: Clock,
    notify: Notify,
    signal: Signal,
    /// `sigev_value`.
    value: u64,
    /// For clocks other than CPU clocks.
    alarm: Once<Alarm>,
    state: IrqLock<State>,
    /// In the process's table.
    link: RBTreeAtomicLink,
    /// In the queue of a CPU clock: its place there, and when it rings, ns of that clock.
    pub(super) cpu_link: RBTreeAtomicLink,
    pub(super) cpu_deadline: AtomicU64,
}

struct State {
    /// The schedule's times are those of the wall clock.
    wall: bool,
    schedule: Schedule,
    /// It has rung, and its signal has not been taken yet. The schedule still shows that ring.
    rests: bool,
    /// Its signal was ignored when it was sent, or has been since.
    ignored: bool,
    /// Rings that nobody was told of since the last signal.
    missed: u64,
    /// The same for the signal that was taken last.
    overrun: u64,
    /// Counts how often the timer was set, and the signals that were taken; and what that was when the signal in the queue was sent.
    turn: u64,
    sent_in: u64,
    /// The queue entry, while it is in no queue.
    entry: Option<Box<Entry>>,
}

intrusive_adapter!(TableAdapter = Arc<PosixTimer>: PosixTimer { link => RBTreeAtomicLink });

impl<'a> KeyAdapter<'a> for TableAdapter {
    type Key = i32;
    fn get_key(&self, timer: &'a PosixTimer) -> i32 {
        timer.id
    }
}

/// The timers of a process.
pub struct PosixTimers(SpinLock<Table>);

struct Table {
    timers: RBTree<TableAdapter>,
    next_id: i32,
}

impl PosixTimers {
    pub(super) const fn new() -> PosixTimers {
        PosixTimers(SpinLock::new(
            rank::POSIX_TIMERS,
            Table {
                timers: RBTree::new(TableAdapter::NEW),
                next_id: 0,
            },
        ))
    }

    /// A number that no timer has. Numbers are given out in turn, as on Linux.
    pub fn new_id(&self) -> i32 {
        let mut table = self.0.lock();
        loop {
            let id = table.next_id;
            table.next_id = id.checked_add(1).unwrap_or(0);
            if table.timers.find(&id).is_null() {
                return id;
            }
        }
    }

    pub fn insert(&self, timer: Arc<PosixTimer>) {
        self.0.lock().timers.insert(timer);
    }

    /// `EINVAL`.
    pub fn find(&self, id: i32) -> Result<Arc<PosixTimer>> {
        let table = self.0.lock();
        table.timers.find(&id).clone_pointer().ok_or(Errno::EINVAL)
    }

    /// timer_delete(2). `EINVAL`.
    pub fn delete(&self, id: i32) -> Result {
        let timer = self.0.lock().timers.find_mut(&id).remove();
        timer.ok_or(Errno::EINVAL)?.end();
        Ok(())
    }

    /// Ends all timers, at exec and at the end of the process.
    pub fn delete_all(&self) {
        while let Some(timer) = self.next(None) {
            let _ = self.delete(timer.id);
        }
    }

    fn next(&self, after: Option<i32>) -> Option<Arc<PosixTimer>> {
        let table = self.0.lock();
        let bound = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        table.timers.lower_bound(bound).clone_pointer()
    }

    /// The signal is not ignored any more: timers that rang meanwhile send it.
    pub fn signal_is_wanted(&self, signal: Signal) {
        let mut after = None;
        while let Some(timer) = self.next(after) {
            after = Some(timer.id);
            if timer.signal == signal {
                timer.send_again();
            }
        }
    }
}

impl PosixTimer {
    /// A timer that is not set. `entry`: the queue entry for its signals. `ENOMEM`.
    pub fn new(
        id: i32,
        clock: Clock,
        (notify, signal, value): (Notify, Signal, u64),
        mut entry: Box<Entry>,
    ) -> Result<Arc<PosixTimer>> {
        let timer = Arc::try_new(PosixTimer {
            id,
            clock,
            notify,
            signal,
            value,
            alarm: Once::new(),
            state: IrqLock::new(
                rank::INTERVAL_TIMER,
                State {
                    wall: false,
                    schedule: Schedule::STOPPED,
                    rests: false,
                    ignored: false,
                    missed: 0,
                    overrun: 0,
                    turn: 0,
                    sent_in: 0,
                    entry: None,
                },
            ),
            link: RBTreeAtomicLink::new(),
            cpu_link: RBTreeAtomicLink::new(),
            cpu_deadline: AtomicU64::new(0),
        })?;
        if !matches!(timer.clock, Clock::Cpu(_)) {
            let ring: Weak<PosixTimer> = Arc::downgrade(&timer);
            timer.alarm.try_call_once(|| Alarm::new(ring))?;
        }
        entry.set_timer(Arc::downgrade(&timer));
        timer.state.lock().entry = Some(entry);
        Ok(timer)
    }

    /// The time on the clock that the schedule goes by. A CPU clock whose owner is gone stands still.
    fn now(&self, state: &State) -> u64 {
        match &self.clock {
            Clock::Cpu(clock) => clock.read().unwrap_or(0),
            _ if state.wall => wall_ns(),
            _ => time::now_ns(),
        }
    }

    fn tells_nobody(&self) -> bool {
        matches!(self.notify, Notify::Nobody)
    }

    fn arm(self: &Arc<Self>, state: &State) {
        let Some(next) = state.schedule.next.filter(|_| !self.tells_nobody()) else {
            return;
        };
        match &self.clock {
            Clock::Cpu(clock) => {
                self.cpu_deadline.store(next, Ordering::Relaxed);
                clock.arm(self);
            }
            _ => {
                if let Some(alarm) = self.alarm.get() {
                    alarm.arm(match state.wall {
                        true => Deadline::Wall(next),
                        false => Deadline::Monotonic(next),
                    });
                }
            }
        }
    }

    fn disarm(&self) {
        match &self.clock {
            Clock::Cpu(clock) => clock.disarm(self),
            _ => {
                if let Some(alarm) = self.alarm.get() {
                    alarm.cancel();
                }
            }
        }
    }

    fn shown(&self, state: &mut State) -> Setting {
        let now = self.now(state);
        if state.rests || self.tells_nobody() {
            state.missed += state.schedule.pass(now);
        }
        state.schedule.shown(now, 1)
    }

    /// timer_gettime(2).
    pub fn get(&self) -> Setting {
        self.shown(&mut self.state.lock())
    }

    /// timer_settime(2); what it showed before. `absolute`: the value is a point on the timer's clock.
    pub fn set(self: &Arc<Self>, new: Setting, absolute: bool) -> Setting {
        self.disarm();
        let mut state = self.state.lock();
        let before = self.shown(&mut state);
        state.wall = absolute && matches!(self.clock, Clock::Wall);
        let now = self.now(&state);
        state.schedule = Schedule::start(new, absolute, now);
        state.forget_rings();
        self.arm(&state);
        let is_late = matches!(self.clock, Clock::Cpu(_)) && state.schedule.has_rung(now);
        drop(state);
        // Nobody may be running whose ticks look at the clock.
        if is_late && !self.tells_nobody() {
            self.disarm();
            self.rung();
        }
        before
    }

    /// timer_getoverrun(2).
    pub fn overrun(&self) -> i32 {
        clamped(self.state.lock().overrun)
    }

    /// The timer is being deleted.
    fn end(&self) {
        self.disarm();
        let mut state = self.state.lock();
        state.schedule = Schedule::STOPPED;
        state.forget_rings();
        let entry = state.entry.take();
        drop(state);
        drop(entry);
    }

    /// Its time has come, and it is in no queue any more.
    pub(super) fn rung(&self) {
        let mut state = self.state.lock();
        let now = self.now(&state);
        // It may have been set anew since.
        if state.rests || !state.schedule.has_rung(now) {
            return;
        }
        if state.schedule.interval > 0 {
            state.rests = true;
        } else {
            state.schedule.pass(now);
        }
        self.send(state);
    }

    /// Sends the signal. One that was sent before and is still in the queue counts as this one.
    fn send(&self, mut state: crate::sync::IrqLockGuard<'_, State>) {
        state.sent_in = state.turn;
        let entry = state.entry.take();
        drop(state);
        let Some(mut entry) = entry else { return };
        entry.set_info(self.info(0));
        let returned = match &self.notify {
            Notify::Nobody => Some(entry),
            Notify::Process(process) => match process.upgrade() {
                Some(process) => send::send_by_timer(&process, None, entry),
                None => Some(entry),
            },
            Notify::Thread(thread) => match thread.upgrade() {
                Some(thread) => send::send_by_timer(&thread.process, Some(&thread), entry),
                None => Some(entry),
            },
        };
        if let Some(entry) = returned {
            self.take_back(entry);
        }
    }

    /// If it rang while its signal was ignored, sends that now.
    fn send_again(&self) {
        let mut state = self.state.lock();
        if core::mem::take(&mut state.ignored) {
            self.send(state);
        }
    }

    /// The entry comes back without its signal having been taken: that is ignored.
    pub fn take_back(&self, entry: Box<Entry>) {
        let mut state = self.state.lock();
        state.entry = Some(entry);
        state.ignored = state.rests && state.sent_in == state.turn;
    }

    /// The signal is being taken: counts the overruns, and the timer runs on. `None` if the signal belongs to a former setting of the
    /// timer. Called with the signal locks held.
    pub fn taken(self: &Arc<Self>, entry: Box<Entry>) -> Option<SigInfo> {
        let mut state = self.state.lock();
        state.entry = Some(entry);
        if state.sent_in != state.turn {
            return None;
        }
        if !core::mem::take(&mut state.rests) {
            return Some(self.info(0));
        }
        let now = self.now(&state);
        let passed = state.missed + state.schedule.pass(now);
        // The first of them is the one that was sent.
        state.overrun = passed.saturating_sub(1);
        state.missed = 0;
        state.turn += 1;
        self.arm(&state);
        Some(self.info(clamped(state.overrun)))
    }

    fn info(&self, overrun: i32) -> SigInfo {
        SigInfo {
            signal: self.signal,
            code: code::SI_TIMER,
            detail: Detail::Timer {
                id: self.id,
                overrun,
                value: self.value,
            },
        }
    }
}

impl State {
    /// Rings until now are nobody's business any more.
    fn forget_rings(&mut self) {
        self.rests = false;
        self.ignored = false;
        self.missed = 0;
        self.overrun = 0;
        self.turn += 1;
    }
}

/// DELAYTIMER_MAX is the largest int.
fn clamped(overruns: u64) -> i32 {
    i32::try_from(overruns).unwrap_or(i32::MAX)
}

impl Ring for PosixTimer {
    fn ring(&self) {
        self.rung();
    }
}
