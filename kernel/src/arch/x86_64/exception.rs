//! Exceptions and interrupts: to whom each one goes.
//!
//! In user mode an exception is a signal (the table in `signal(7)` and Linux's `arch/x86/kernel/traps.c`); in the kernel it is either
//! expected, in a user copy, or a bug.

use core::arch::asm;

use x86_64::registers::control::Cr2;
use x86_64::registers::debug::{Dr6, Dr6Flags};

use super::idt::vector;
use super::regs::{PtRegs, TrapInfo, flags};
use super::{apic, fpu, irq, page_fault, panic, pic, uaccess};
use crate::sched::current;
use crate::signal::{self, SigInfo, Signal, code};

/// Called by entry code with interrupts off; returns with interrupts in any state.
pub(super) extern "C" fn exception(regs: &mut PtRegs, vector: usize) {
    if vector == vector::PAGE_FAULT {
        // Before anything that may fault.
        let address = Cr2::read_raw() as usize;
        let error_code = take_error_code(regs);
        return page_fault::handle(regs, address, error_code);
    }
    other_than_page_fault(regs, vector);
}

#[inline(never)]
fn other_than_page_fault(regs: &mut PtRegs, vector: usize) {
    let lines = pic::FIRST_VECTOR as usize..(pic::FIRST_VECTOR + pic::LINES) as usize;
    if lines.contains(&vector) {
        regs.orig_rax = usize::MAX;
        irq::came_in(regs.user_mode());
        return irq::handle((vector - lines.start) as u8);
    }
    if vector == usize::from(apic::TIMER_VECTOR) {
        regs.orig_rax = usize::MAX;
        irq::came_in(regs.user_mode());
        return irq::handle_timer();
    }
    if vector == apic::SPURIOUS_VECTOR as usize {
        regs.orig_rax = usize::MAX;
        return;
    }
    trap(regs, vector);
}

/// The error code that the hardware pushed, or that the stub pushed in its place; no system call is being made.
fn take_error_code(regs: &mut PtRegs) -> usize {
    core::mem::replace(&mut regs.orig_rax, usize::MAX)
}

fn trap(regs: &mut PtRegs, vector: usize) {
    let pushed = take_error_code(regs);
    let error_code = if pushed == usize::MAX { 0 } else { pushed };
    if vector == vector::DOUBLE_FAULT || vector == vector::MACHINE_CHECK {
        panic::fatal_exception(regs, vector, error_code, Cr2::read_raw() as usize);
    }
    if vector == vector::NMI {
        // Nobody here sends one, and whoever did from the machine's monitor wants no panic. Not logged: the interrupted code may
        // hold the log's lock.
        return;
    }
    if !regs.user_mode() {
        return kernel_trap(regs, vector, error_code);
    }
    if regs.rflags & flags::IF != 0 {
        irq::enable();
    }
    let info = match vector {
        vector::DEBUG => debug_trap(regs),
        vector::X87 | vector::SIMD => match float_code(float_exceptions(vector)) {
            Some(code) => SigInfo::fault(Signal::SIGFPE, code, regs.rip),
            // What was signalled is masked by now: nothing is wrong any more.
            None => return,
        },
        _ => signal_for(regs, vector),
    };
    send_trap(vector, error_code, info);
}

/// An exception in the kernel: in a user copy it ends there; a breakpoint or single step of a debugger is not ours; else it is a bug.
fn kernel_trap(regs: &mut PtRegs, vector: usize, error_code: usize) {
    if vector == vector::DEBUG {
        // MOV SS in user code can make a watchpoint fire on the kernel's first instruction: nothing is wrong here.
        clear_debug_status();
        return;
    }
    if !uaccess::fixup(regs) {
        panic::fatal_exception(regs, vector, error_code, Cr2::read_raw() as usize);
    }
}

/// Records the values that the signal's frame shows, and forces the signal.
pub(super) fn send_trap(vector: usize, error_code: usize, info: SigInfo) {
    let thread = current();
    let cr2 = thread.arch.trap().cr2;
    thread.arch.set_trap(TrapInfo {
        vector,
        error_code,
        cr2,
    });
    signal::force(info);
}

/// Which signal an exception in user mode is.
fn signal_for(regs: &PtRegs, vector: usize) -> SigInfo {
    match vector {
        vector::DIVIDE => SigInfo::fault(Signal::SIGFPE, code::FPE_INTDIV, regs.rip),
        vector::BREAKPOINT => SigInfo::kernel(Signal::SIGTRAP),
        vector::INVALID_OPCODE => SigInfo::fault(Signal::SIGILL, code::ILL_ILLOPN, regs.rip),
        vector::ALIGNMENT => SigInfo::fault(Signal::SIGBUS, code::BUS_ADRALN, 0),
        vector::SEGMENT_NOT_PRESENT | vector::STACK_SEGMENT => SigInfo::kernel(Signal::SIGBUS),
        // #OF, #BR, #GP, #TS and everything that has no meaning in user mode.
        _ => SigInfo::kernel(Signal::SIGSEGV),
    }
}

/// The unmasked floating-point exceptions that are flagged.
fn float_exceptions(vector: usize) -> u32 {
    match vector {
        vector::SIMD => fpu::mxcsr_exceptions(),
        _ => fpu::x87_exceptions(),
    }
}

/// `si_code` of floating-point exceptions, by the first that is there (Linux's `fpu__exception_code`).
fn float_code(exceptions: u32) -> Option<i32> {
    match exceptions {
        e if e & 0x01 != 0 => Some(code::FPE_FLTINV),
        e if e & 0x04 != 0 => Some(code::FPE_FLTDIV),
        e if e & 0x08 != 0 => Some(code::FPE_FLTOVF),
        e if e & 0x12 != 0 => Some(code::FPE_FLTUND),
        e if e & 0x20 != 0 => Some(code::FPE_FLTRES),
        _ => None,
    }
}

fn clear_debug_status() -> Dr6Flags {
    let status = Dr6::read();
    // SAFETY: the value is what the register holds after reset: no condition (SDM volume 3, 17.2.3).
    unsafe { asm!("mov dr6, {}", in(reg) 0xffff_0ff0usize, options(nomem, nostack)) };
    status
}

fn debug_trap(regs: &mut PtRegs) -> SigInfo {
    let status = clear_debug_status();
    // Nobody can set a breakpoint register, so what is not a step is the instruction INT1.
    let code = if status.contains(Dr6Flags::STEP) {
        code::TRAP_TRACE
    } else {
        code::TRAP_BRKPT
    };
    SigInfo::fault(Signal::SIGTRAP, code, regs.rip)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// QEMU's own CPU never raises #XM, so what it would say is tested here.
    #[test_case]
    fn floating_point_exceptions_have_an_order() {
        assert_eq!(float_code(0), None);
        assert_eq!(float_code(0x3f), Some(code::FPE_FLTINV));
        assert_eq!(float_code(0x3e), Some(code::FPE_FLTDIV));
        assert_eq!(float_code(0x3a), Some(code::FPE_FLTOVF));
        assert_eq!(float_code(0x32), Some(code::FPE_FLTUND));
        assert_eq!(float_code(0x02), Some(code::FPE_FLTUND));
        assert_eq!(float_code(0x20), Some(code::FPE_FLTRES));
    }
}
