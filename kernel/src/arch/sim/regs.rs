//! Simulated registers: what generic code asks of them, and no more.

/// The interrupted context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PtRegs {
    pub(super) user: bool,
    pub(super) ip: usize,
    pub(super) sp: usize,
    pub(super) syscall: Option<usize>,
    pub(super) args: [usize; 6],
    pub(super) ret: usize,
}

/// Length of the simulated call instruction.
const CALL_LEN: usize = 2;

impl PtRegs {
    pub fn new_user(entry: usize, sp: usize) -> PtRegs {
        PtRegs {
            user: true,
            ip: entry,
            sp,
            syscall: None,
            args: [0; 6],
            ret: 0,
        }
    }

    /// A user program that makes a system call.
    pub fn new_syscall(number: usize, args: [usize; 6]) -> PtRegs {
        PtRegs {
            syscall: Some(number),
            args,
            ..PtRegs::new_user(0, 0)
        }
    }

    pub fn kernel() -> PtRegs {
        PtRegs {
            user: false,
            ..PtRegs::new_user(0, 0)
        }
    }

    pub fn user_mode(&self) -> bool {
        self.user
    }

    pub fn ip(&self) -> usize {
        self.ip
    }

    pub fn sp(&self) -> usize {
        self.sp
    }

    /// As there is no red zone, the stack pointer.
    pub fn frame_top(&self) -> usize {
        self.sp
    }

    pub fn set_ip(&mut self, ip: usize) {
        self.ip = ip;
    }

    pub fn set_sp(&mut self, sp: usize) {
        self.sp = sp;
    }

    pub fn syscall_nr(&self) -> Option<usize> {
        self.syscall
    }

    pub fn syscall_args(&self) -> [usize; 6] {
        self.args
    }

    pub fn return_value(&self) -> usize {
        self.ret
    }

    pub fn set_return_value(&mut self, value: usize) {
        self.ret = value;
    }

    pub fn forget_syscall(&mut self) {
        self.syscall = None;
    }

    pub fn restart_syscall(&mut self, nr: Option<usize>) {
        self.ret = nr.or(self.syscall).unwrap_or(0);
        self.ip -= CALL_LEN;
    }
}

/// Values of the last synchronous trap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrapInfo {
    pub address: usize,
}

/// Nobody enters by a system call here; all registers are in place.
///
/// # Safety
/// As the contract says.
pub unsafe extern "C" fn with_all_registers(_regs: &mut PtRegs) {
    unreachable!("system calls are called");
}
