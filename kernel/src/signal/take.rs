//! Taking pending signals without delivering them: sigtimedwait(2) and signalfd(2).

use super::info::SigInfo;
use super::set::SigSet;
use crate::sched::current;

/// Takes a signal of `set` that is pending for the current thread or its process, in the order of delivery. Blocked or not.
pub fn one_of(set: SigSet) -> Option<SigInfo> {
    let thread = current();
    let mut signals = thread.process.signals.lock();
    let mut own = thread.signals.lock_inside(&signals);
    let others = SigSet(!set.0);
    // One that is there may not count any more: then the next.
    for pending in [&mut own.pending, &mut signals.pending] {
        while let Some(signal) = pending.next(others) {
            if let Some(info) = pending.take(signal) {
                return Some(info);
            }
        }
    }
    None
}

/// Whether there is one to take.
pub fn is_pending(set: SigSet) -> bool {
    let thread = current();
    let signals = thread.process.signals.lock();
    let own = thread.signals.lock();
    (signals.pending.set().0 | own.pending.set().0) & set.0 != 0
}
