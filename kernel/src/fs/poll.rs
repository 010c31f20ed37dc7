//! Waiting for one of many files (`poll(2)`).
//!
//! All pollers stand in one queue and look at their own files again whenever any stream becomes ready. Streams therefore need no
//! lists of who polls them, and polling takes no memory.

use crate::sched::Sleep;
use crate::sched::WaitQueue;
use crate::sched::wait::NotYet;

static POLLERS: WaitQueue = WaitQueue::new();

/// Some stream may have become ready. From any context, with no lock of rank WAIT_QUEUE or above held.
pub fn notify() {
    POLLERS.wake_all();
}

/// Sleeps until `ready` gives a value, looked at whenever a stream changes, until `deadline_ns` or any signal. `ready` must not
/// sleep.
pub fn wait<R>(deadline_ns: Option<u64>, ready: impl FnMut() -> Option<R>) -> Result<R, NotYet> {
    POLLERS.wait_until_deadline(Sleep::Interruptible, deadline_ns, ready)
}
