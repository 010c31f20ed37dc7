//! Interval timers of a process (`setitimer(2)`).
//!
//! Lock rank: INTERVAL_TIMER; the timer queue's lock is taken under it.

use alloc::sync::{Arc, Weak};

use spin::Once;

use super::Process;
use crate::arch::time;
use crate::errno::Result;
use crate::sched::timer::{Alarm, Deadline, Ring};
use crate::signal::{SigInfo, Signal, send};
use crate::sync::{IrqLock, rank};

/// What an interval timer shows and is set to, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// Until it rings next; 0: it is stopped.
    pub value: u64,
    /// From ring to ring; 0: it rings once.
    pub interval: u64,
}

#[derive(Clone, Copy)]
struct State {
    /// When it rings next, ns since boot.
    deadline: Option<u64>,
    interval: u64,
}

/// ITIMER_REAL: sends SIGALRM by the monotonic clock.
pub struct RealTimer {
    alarm: Once<Alarm>,
    state: IrqLock<State>,
}

/// The first of the points `deadline`, `deadline + interval`, ... after `now`.
fn next_ring(deadline: u64, interval: u64, now: u64) -> u64 {
    let missed = now.saturating_sub(deadline) / interval.max(1);
    deadline.saturating_add((missed + 1).saturating_mul(interval))
}

impl RealTimer {
    pub(super) const fn new() -> RealTimer {
        RealTimer {
            alarm: Once::new(),
            state: IrqLock::new(
                rank::INTERVAL_TIMER,
                State {
                    deadline: None,
                    interval: 0,
                },
            ),
        }
    }

    /// What the timer shows.
    pub fn get(&self) -> Setting {
        shown(*self.state.lock())
    }

    pub(super) fn stop(&self) {
        self.state.lock().deadline = None;
        if let Some(alarm) = self.alarm.get() {
            alarm.cancel();
        }
    }
}

/// A timer that is set never shows zero.
fn shown(state: State) -> Setting {
    let left = |deadline| Deadline::Monotonic(deadline).left_ns().max(1000);
    Setting {
        value: state.deadline.map_or(0, left),
        interval: state.interval,
    }
}

impl Process {
    /// Sets ITIMER_REAL; what it showed before. `ENOMEM`.
    pub fn set_real_timer(self: &Arc<Self>, new: Setting) -> Result<Setting> {
        let timer = &self.real_timer;
        let alarm = timer.alarm.try_call_once(|| {
            let process: Weak<Process> = Arc::downgrade(self);
            Alarm::new(process)
        })?;
        let mut state = timer.state.lock();
        let before = shown(*state);
        state.interval = new.interval;
        state.deadline = (new.value > 0).then(|| time::now_ns().saturating_add(new.value));
        match state.deadline {
            Some(deadline) => alarm.arm(Deadline::Monotonic(deadline)),
            None => alarm.cancel(),
        }
        Ok(before)
    }
}

impl Ring for Process {
    fn ring(&self) {
        let timer = &self.real_timer;
        let mut state = timer.state.lock();
        let now = time::now_ns();
        // It may have been set anew since.
        let Some(deadline) = state.deadline.filter(|&deadline| deadline <= now) else {
            return;
        };
        // Rings that were missed are left out: setitimer(2) counts no overruns.
        state.deadline = (state.interval > 0).then(|| next_ring(deadline, state.interval, now));
        if let (Some(deadline), Some(alarm)) = (state.deadline, timer.alarm.get()) {
            alarm.arm(Deadline::Monotonic(deadline));
        }
        drop(state);
        send::send_to_process(self, SigInfo::kernel(Signal::SIGALRM));
    }
}
