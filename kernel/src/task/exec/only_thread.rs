//! execve(2) in a process with several threads: the caller becomes the only one, and the first (`de_thread` in Linux's `fs/exec.c`).

use crate::errno::{Errno, Result};
use crate::sched::{Sleep, current};
use crate::signal::send;
use crate::task::{Process, table};

/// Ends all other threads of the current process, waits until they are gone, and takes the first thread's number. `EAGAIN` if
/// another thread is doing the same or the process is being killed, `EINTR` if that begins meanwhile; the caller ends on its way to
/// user mode then.
pub(super) fn become_only_thread() -> Result {
    let thread = current().arc();
    let process = &thread.process;
    if !is_alone(process) {
        send::end_other_threads(&thread)?;
        let waited = process
            .thread_ends
            .wait_until(Sleep::Killable, || is_alone(process).then_some(()));
        process.signals.lock().exec_by = None;
        waited.map_err(|_| Errno::EINTR)?;
    }
    if !thread.is_first() {
        table::make_first(&thread);
    }
    Ok(())
}

fn is_alone(process: &Process) -> bool {
    let signals = process.signals.lock();
    let mut cursor = signals.threads.front();
    cursor.move_next();
    cursor.is_null()
}
