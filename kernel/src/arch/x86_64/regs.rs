//! The saved registers of an interrupted context: `struct pt_regs` in Linux's order.

use super::gdt::{KERNEL_CS, KERNEL_DS, USER_CS, USER_DS};

/// As entry code pushes them; the last five are the hardware's own.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct PtRegs {
    pub r15: usize,
    pub r14: usize,
    pub r13: usize,
    pub r12: usize,
    pub rbp: usize,
    pub rbx: usize,
    pub r11: usize,
    pub r10: usize,
    pub r9: usize,
    pub r8: usize,
    pub rax: usize,
    pub rcx: usize,
    pub rdx: usize,
    pub rsi: usize,
    pub rdi: usize,
    /// The system call's number; for exceptions the error code at entry, then -1.
    pub orig_rax: usize,
    pub rip: usize,
    pub cs: usize,
    pub rflags: usize,
    pub rsp: usize,
    pub ss: usize,
}

pub(super) const PT_REGS_SIZE: usize = 21 * 8;
const _: () = assert!(size_of::<PtRegs>() == PT_REGS_SIZE);

/// Flag bits (SDM volume 1, 3.4.3).
pub(super) mod flags {
    pub const FIXED: usize = 1 << 1;
    pub const TF: usize = 1 << 8;
    pub const IF: usize = 1 << 9;
    pub const DF: usize = 1 << 10;
    pub const NT: usize = 1 << 14;
    pub const RF: usize = 1 << 16;
    pub const AC: usize = 1 << 18;
}

/// Length of the SYSCALL instruction.
const SYSCALL_LEN: usize = 2;

/// `orig_rax` of a context that was not entered by a system call.
const NO_SYSCALL: usize = usize::MAX;

impl PtRegs {
    /// A user context about to start at `entry`, with interrupts on and all other registers zero.
    pub fn new_user(entry: usize, sp: usize) -> PtRegs {
        PtRegs {
            orig_rax: NO_SYSCALL,
            rip: entry,
            cs: USER_CS as usize,
            rflags: flags::FIXED | flags::IF,
            rsp: sp,
            ss: USER_DS as usize,
            ..PtRegs::default()
        }
    }

    /// A context in kernel mode, for faults that are made by hand.
    pub fn kernel() -> PtRegs {
        PtRegs {
            cs: KERNEL_CS as usize,
            ss: KERNEL_DS as usize,
            ..PtRegs::new_user(0, 0)
        }
    }

    #[inline]
    pub fn user_mode(&self) -> bool {
        self.cs & 3 != 0
    }

    pub fn ip(&self) -> usize {
        self.rip
    }

    pub fn sp(&self) -> usize {
        self.rsp
    }

    /// Below this a signal frame may go: the ABI lets a function keep data in the 128 bytes below its stack pointer.
    pub fn frame_top(&self) -> usize {
        self.rsp.wrapping_sub(128)
    }

    pub fn set_ip(&mut self, ip: usize) {
        self.rip = ip;
    }

    pub fn set_sp(&mut self, sp: usize) {
        self.rsp = sp;
    }

    #[inline]
    pub fn syscall_nr(&self) -> Option<usize> {
        // As on Linux only the low half counts, and no negative number is a call.
        (self.orig_rax as isize >= 0).then_some(self.orig_rax)
    }

    #[inline]
    pub fn syscall_args(&self) -> [usize; 6] {
        [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9]
    }

    pub fn return_value(&self) -> usize {
        self.rax
    }

    #[inline]
    pub fn set_return_value(&mut self, value: usize) {
        self.rax = value;
    }

    /// No restart is made, whatever the return value looks like, and user mode is entered with all registers as they are here.
    pub fn forget_syscall(&mut self) {
        self.orig_rax = NO_SYSCALL;
    }

    /// Goes back to the SYSCALL instruction, with the original number or with `nr`.
    pub fn restart_syscall(&mut self, nr: Option<usize>) {
        self.rax = nr.unwrap_or(self.orig_rax);
        self.rip = self.rip.wrapping_sub(SYSCALL_LEN);
    }
}

/// Values of the last synchronous trap, which signal frames show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TrapInfo {
    pub vector: usize,
    pub error_code: usize,
    pub cr2: usize,
}
