//! Telling a parent what became of its child.

use alloc::sync::Arc;

use super::send_preferring;
use crate::signal::action::sa;
use crate::signal::info::{Detail, SigInfo, code};
use crate::signal::set::Signal;
use crate::task::Process;

/// Tells the parent of `process` what became of it. `code` is one of `CLD_*`.
pub fn notify_parent(process: &Arc<Process>, code: i32, status: i32) {
    let Some(parent) = process.parent() else {
        return;
    };
    let action = parent.signals.lock().action(Signal::SIGCHLD);
    let stop = matches!(code, code::CLD_STOPPED | code::CLD_CONTINUED);
    let signal = match stop {
        true => Some(Signal::SIGCHLD).filter(|_| !action.has(sa::NOCLDSTOP)),
        false => process.exit_signal(),
    };
    if let Some(signal) = signal {
        let (utime, stime) = process.cpu_times_in_ticks();
        let detail = Detail::Child {
            pid: process.pid,
            uid: process.credentials.user().real,
            status,
            utime,
            stime,
        };
        let info = SigInfo {
            signal,
            code,
            detail,
        };
        // The thread whose child it is comes first (`task_struct::parent` is a thread).
        let maker = process.making_thread(&parent);
        let _ = send_preferring(&parent, maker.as_deref(), info);
    }
    parent.child_events.wake_all();
}
