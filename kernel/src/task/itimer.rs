//! ITIMER_REAL of a process (`setitimer(2)`): SIGALRM by the monotonic clock.
//!
//! Lock rank: INTERVAL_TIMER; the timer queue's lock is taken under it.

use alloc::sync::{Arc, Weak};

use spin::Once;

use super::Process;
use super::interval::{Setting, Timing};
use crate::errno::Result;
use crate::sched::timer::{Alarm, Ring};
use crate::signal::{SigInfo, Signal, send};
use crate::sync::{IrqLock, rank};

/// The timer.
pub struct RealTimer {
    alarm: Once<Alarm>,
    timing: IrqLock<Timing>,
}

impl RealTimer {
    pub(super) const fn new() -> RealTimer {
        RealTimer {
            alarm: Once::new(),
            timing: IrqLock::new(rank::INTERVAL_TIMER, Timing::STOPPED),
        }
    }

    /// What the timer shows.
    pub fn get(&self) -> Setting {
        shown(&self.timing.lock())
    }

    pub(super) fn stop(&self) {
        *self.timing.lock() = Timing::STOPPED;
        if let Some(alarm) = self.alarm.get() {
            alarm.cancel();
        }
    }
}

/// A timer that runs never shows zero, and microseconds are all that can be shown.
fn shown(timing: &Timing) -> Setting {
    let setting = timing.shown();
    let least = if timing.is_running() { 1000 } else { 0 };
    Setting {
        value: setting.value.max(least),
        ..setting
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
        let mut timing = timer.timing.lock();
        let before = shown(&timing);
        *timing = Timing::start(new, false, false);
        match timing.is_running() {
            true => alarm.arm(timing.deadline()),
            false => alarm.cancel(),
        }
        Ok(before)
    }
}

impl Ring for Process {
    fn ring(&self) {
        let timer = &self.real_timer;
        let mut timing = timer.timing.lock();
        // Rings that were missed are left out: setitimer(2) counts no overruns. There may be none, if it was set anew since.
        if timing.pass() == 0 {
            return;
        }
        if let Some(alarm) = timer.alarm.get().filter(|_| timing.is_running()) {
            alarm.arm(timing.deadline());
        }
        drop(timing);
        send::send_to_process(self, SigInfo::kernel(Signal::SIGALRM));
    }
}
