//! The one check whether a signal ends a page fault.

use super::VmFault;
use crate::arch::PtRegs;
use crate::sched::current;
use crate::signal::{fatal_signal_pending, signal_pending};
use crate::task::Thread;

/// Whether a fault attempt ends here because of a signal: the attempt waited or would have to (RETRY), and a fatal signal is
/// pending, or the access was made in user mode and any deliverable signal is.
///
/// This exists once, and runs before errors are looked at and before the attempt is repeated. Kernel-mode accesses are only
/// given up for a fatal signal, as nothing would restart them.
#[inline]
pub fn fault_signal_pending(fault: VmFault, regs: &PtRegs) -> bool {
    fault.contains(VmFault::RETRY) && signal_ends_fault(&current(), regs.user_mode())
}

#[cold]
fn signal_ends_fault(thread: &Thread, user_mode: bool) -> bool {
    fatal_signal_pending(thread) || user_mode && signal_pending(thread)
}
