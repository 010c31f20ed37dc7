//! How threads are made to end: by a fatal signal, exit_group(2), or another thread's execve(2).

use alloc::sync::Arc;

use super::{for_each_thread, retarget};
use crate::errno::{Errno, Result};
use crate::sched;
use crate::signal::set::SigSet;
use crate::signal::state::ProcessSignals;
use crate::task::thread::flag;
use crate::task::{ExitStatus, Process, Thread};

/// The current thread ends: it takes no signal any more, and those of its process that it would have taken go to others.
pub fn begin_exit(thread: &Thread) {
    let signals = thread.process.signals.lock();
    thread.set_flag(flag::EXITING);
    if signals.group_exit.is_none() {
        let blocked = thread.signals.lock().blocked;
        retarget(&signals, thread, SigSet(!blocked.0));
    }
}

/// Ends all threads of the current process but the current one, `thread`, which has called exec. `EAGAIN` if another thread was faster
/// or the process is being killed.
pub fn end_other_threads(thread: &Thread) -> Result {
    let mut signals = thread.process.signals.lock();
    if signals.group_exit.is_some() || signals.exec_by.is_some() {
        return Err(Errno::EAGAIN);
    }
    signals.exec_by = Some(thread.tid());
    for_each_thread(&signals, |other| {
        if !core::ptr::eq(&**other, thread) {
            kill(other);
        }
    });
    Ok(())
}

/// Ends all threads of the current process with `status`, unless their end has begun already. The caller's own end follows on
/// its way to user mode.
pub fn end_process(process: &Process, status: ExitStatus) {
    let mut signals = process.signals.lock();
    if signals.group_exit.is_none() {
        begin_group_exit(&mut signals, status);
    }
}

/// Every thread gets SIGKILL, which nothing holds up.
pub(super) fn begin_group_exit(signals: &mut ProcessSignals, status: ExitStatus) {
    signals.group_exit = Some(status);
    signals.end_stop();
    signals.continued = false;
    for_each_thread(signals, kill);
}

/// Makes a thread end: nothing holds it up but what cannot be interrupted.
fn kill(thread: &Arc<Thread>) {
    thread.set_flag(flag::FATAL_SIGNAL | flag::SIGPENDING);
    sched::wake_for_signal(thread, true);
}
