//! #PF: decodes the hardware's report and carries the verdict out (SDM volume 3, 4.7).
//!
//! The order of the checks is Linux's (`arch/x86/mm/fault.c`): kernel addresses first, then violations that are kernel bugs
//! whatever the address, then the generic path.

use super::exception::send_trap;
use super::idt::vector;
use super::regs::{PtRegs, TrapInfo, flags};
use super::{USER_END, features, irq, panic, uaccess};
use crate::mm::fault::{Access, FaultInfo, FaultVerdict, handle_page_fault};
use crate::sched::current;
use crate::signal::{SigInfo, Signal, code};

/// Bits of the error code.
pub(super) mod error {
    pub const PRESENT: usize = 1 << 0;
    pub const WRITE: usize = 1 << 1;
    pub const USER: usize = 1 << 2;
    pub const RESERVED: usize = 1 << 3;
    pub const FETCH: usize = 1 << 4;
}

/// `address` is CR2, read before anything else could fault. Interrupts are off.
#[inline(never)]
pub(super) fn handle(regs: &mut PtRegs, address: usize, error_code: usize) {
    if regs.rflags & flags::IF != 0 {
        irq::enable();
    }
    if address >= USER_END {
        return kernel_address(regs, address, error_code);
    }
    if is_kernel_bug(regs, error_code) {
        panic::fatal_exception(regs, vector::PAGE_FAULT, error_code, address);
    }
    if !regs.user_mode() && regs.rflags & flags::IF == 0 {
        // Whoever copies with interrupts off cannot wait for a page.
        uaccess::fixup(regs);
        return;
    }
    let info = FaultInfo {
        address,
        access: access(error_code),
        present: error_code & error::PRESENT != 0,
    };
    match handle_page_fault(regs, info) {
        FaultVerdict::Resume => {}
        FaultVerdict::Signal { signal, code } => {
            signal_user(address, error_code, SigInfo::fault(signal, code, address));
        }
        FaultVerdict::Fixup => {
            if !uaccess::fixup(regs) {
                panic::fatal_exception(regs, vector::PAGE_FAULT, error_code, address);
            }
        }
    }
}

fn access(error_code: usize) -> Access {
    match error_code {
        code if code & error::WRITE != 0 => Access::Write,
        code if code & error::FETCH != 0 => Access::Execute,
        _ => Access::Read,
    }
}

/// Whether the access cannot be anybody's fault but the kernel's: executing user memory, a reserved bit in a table, or touching user
/// memory outside a user copy.
fn is_kernel_bug(regs: &PtRegs, error_code: usize) -> bool {
    if error_code & error::RESERVED != 0 {
        return true;
    }
    if regs.user_mode() {
        return false;
    }
    let smap_violated = features::smap() && regs.rflags & flags::AC == 0;
    error_code & error::FETCH != 0 || smap_violated || !uaccess::is_user_copy(regs)
}

/// The kernel's half is not the user's business: it learns that the address is bad, and nothing about what is there.
fn kernel_address(regs: &mut PtRegs, address: usize, error_code: usize) {
    if regs.user_mode() {
        let shown = error_code | error::PRESENT | error::USER;
        return signal_user(
            address,
            shown,
            SigInfo::fault(Signal::SIGSEGV, code::SEGV_MAPERR, address),
        );
    }
    // Copies check their ranges before they begin, so this is never a bad pointer.
    panic::fatal_exception(regs, vector::PAGE_FAULT, error_code, address);
}

fn signal_user(address: usize, error_code: usize, info: SigInfo) {
    let thread = current();
    thread.arch.set_trap(TrapInfo {
        cr2: address,
        ..thread.arch.trap()
    });
    send_trap(vector::PAGE_FAULT, error_code, info);
}
