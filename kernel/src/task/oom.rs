//! Out of memory: who pays.

use crate::sched::current;
use crate::signal::{SigInfo, Signal, send};

/// Kills the current process because memory for its page ran out, and says so in the log. It takes effect on the way to user
/// mode, or ends the wait that the process is in.
pub fn kill_current() {
    let process = &current().process;
    log::error!(
        "out of memory: killed process {} with {} resident pages",
        process.pid,
        process.mm().map_or(0, |mm| mm.resident_pages())
    );
    send::send_to_process(process, SigInfo::kernel(Signal::SIGKILL));
}
