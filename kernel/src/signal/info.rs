//! siginfo: where a signal came from, and its form in user memory (`sigaction(2)`, `include/uapi/asm-generic/siginfo.h`).

use linux_raw_sys::general as abi;

use super::set::Signal;

/// Values of `si_code` (`SI_USER` and the like are for any signal, the others belong to one).
pub mod code {
    pub const SI_USER: i32 = 0;
    pub const SI_KERNEL: i32 = 0x80;
    #[cfg(test)]
    pub const SI_QUEUE: i32 = -1;
    pub const SI_TIMER: i32 = -2;
    pub const SI_MESGQ: i32 = -3;
    pub const SI_SIGIO: i32 = -5;
    pub const SI_TKILL: i32 = -6;
    pub const SI_DETHREAD: i32 = -7;
    pub const SI_ASYNCNL: i32 = -60;
    pub const ILL_ILLOPN: i32 = 2;
    pub const FPE_INTDIV: i32 = 1;
    pub const FPE_FLTDIV: i32 = 3;
    pub const FPE_FLTOVF: i32 = 4;
    pub const FPE_FLTUND: i32 = 5;
    pub const FPE_FLTRES: i32 = 6;
    pub const FPE_FLTINV: i32 = 7;
    pub const SEGV_MAPERR: i32 = 1;
    pub const SEGV_ACCERR: i32 = 2;
    pub const BUS_ADRALN: i32 = 1;
    pub const BUS_ADRERR: i32 = 2;
    pub const BUS_MCEERR_AR: i32 = 4;
    pub const BUS_MCEERR_AO: i32 = 5;
    pub const TRAP_BRKPT: i32 = 1;
    pub const TRAP_TRACE: i32 = 2;
    pub const CLD_EXITED: i32 = 1;
    pub const CLD_KILLED: i32 = 2;
    pub const CLD_STOPPED: i32 = 5;
    pub const CLD_CONTINUED: i32 = 6;
}

/// What came with a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SigInfo {
    pub signal: Signal,
    pub code: i32,
    pub detail: Detail,
}

/// The part of siginfo that depends on the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    None,
    /// kill(2), tgkill(2) and their kin.
    Sender {
        pid: u32,
        uid: u32,
    },
    /// sigqueue(3) and rt_sigqueueinfo(2): `si_errno`, and the union as the sender wrote it.
    Raw {
        errno: i32,
        fields: [u64; 4],
    },
    /// A POSIX timer.
    Timer {
        id: i32,
        overrun: i32,
        value: u64,
    },
    /// A fault: `addr` as the hardware reported it.
    Fault {
        addr: usize,
    },
    /// SIGCHLD. Times in clock ticks of 1/100 s.
    Child {
        pid: u32,
        uid: u32,
        status: i32,
        utime: i64,
        stime: i64,
    },
}

/// Which fields of siginfo's union are filled (`siginfo_layout`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    Kill,
    Queue,
    Timer,
    Poll,
    Fault,
    /// A fault with `si_addr_lsb`.
    FaultWithSize,
    Child,
    Syscall,
}

/// `si_code`s that only one signal has, from 1 to what its header defines last, and how they are laid out.
const OWN_CODES: [(Signal, i32, Layout); 8] = [
    (Signal::SIGILL, abi::NSIGILL as i32, Layout::Fault),
    (Signal::SIGFPE, abi::NSIGFPE as i32, Layout::Fault),
    (Signal::SIGSEGV, abi::NSIGSEGV as i32, Layout::Fault),
    (Signal::SIGBUS, abi::NSIGBUS as i32, Layout::Fault),
    (Signal::SIGTRAP, abi::NSIGTRAP as i32, Layout::Fault),
    (Signal::SIGCHLD, abi::NSIGCHLD as i32, Layout::Child),
    (Signal::SIGIO, abi::NSIGPOLL as i32, Layout::Poll),
    (Signal::SIGSYS, abi::NSIGSYS as i32, Layout::Syscall),
];

impl Layout {
    pub fn of(info: &SigInfo) -> Layout {
        let (signal, code) = (info.signal, info.code);
        if code > code::SI_USER && code < code::SI_KERNEL {
            let own = OWN_CODES.iter().find(|(own, ..)| *own == signal);
            return match own {
                Some(&(Signal::SIGBUS, ..))
                    if matches!(code, code::BUS_MCEERR_AR | code::BUS_MCEERR_AO) =>
                {
                    Layout::FaultWithSize
                }
                Some(&(_, last, layout)) if code <= last => layout,
                _ if code <= abi::NSIGPOLL as i32 => Layout::Poll,
                _ => Layout::Kill,
            };
        }
        match code {
            code::SI_TIMER => Layout::Timer,
            code::SI_SIGIO => Layout::Poll,
            code if code < 0 => Layout::Queue,
            _ => Layout::Kill,
        }
    }

    /// Whether Linux knows the meaning of such a code from user space: bytes behind the known fields then do not matter
    /// (`known_siginfo_layout`).
    pub fn is_known(signal: Signal, code: i32) -> bool {
        if code == code::SI_KERNEL {
            return true;
        }
        if code > code::SI_USER {
            return match OWN_CODES.iter().find(|(own, ..)| *own == signal) {
                Some(&(_, last, _)) => code <= last,
                None => code <= abi::NSIGPOLL as i32,
            };
        }
        code >= code::SI_DETHREAD || code == code::SI_ASYNCNL
    }
}

/// Size of siginfo_t.
pub const SIGINFO_SIZE: usize = 128;
/// Of its words so many are used, the first ones.
pub const SIGINFO_WORDS: usize = 6;

impl SigInfo {
    /// A signal sent by the kernel itself, with nothing more to say.
    pub const fn kernel(signal: Signal) -> SigInfo {
        SigInfo {
            signal,
            code: code::SI_KERNEL,
            detail: Detail::None,
        }
    }

    /// What is known of a signal whose info could not be kept.
    pub const fn lost(signal: Signal) -> SigInfo {
        SigInfo {
            signal,
            code: code::SI_USER,
            detail: Detail::Sender { pid: 0, uid: 0 },
        }
    }

    pub const fn fault(signal: Signal, code: i32, addr: usize) -> SigInfo {
        SigInfo {
            signal,
            code,
            detail: Detail::Fault { addr },
        }
    }

    /// The 128 bytes that user code sees; all padding is zero.
    pub fn abi_bytes(&self) -> [u8; SIGINFO_SIZE] {
        let mut bytes = [0; SIGINFO_SIZE];
        let (used, _) = bytes.as_chunks_mut();
        for (to, word) in used.iter_mut().zip(self.abi_words()) {
            *to = word.to_ne_bytes();
        }
        bytes
    }

    /// The words of them that are not always zero: number and errno, code, and the union.
    #[inline]
    pub fn abi_words(&self) -> [u64; SIGINFO_WORDS] {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let (errno, fields) = match self.detail {
            Detail::None => (0, [0; 4]),
            Detail::Sender { pid, uid } => (0, [pair(pid, uid), 0, 0, 0]),
            Detail::Raw { errno, fields } => (errno, fields),
            Detail::Timer { id, overrun, value } => {
                (0, [pair(id as u32, overrun as u32), value, 0, 0])
            }
            Detail::Fault { addr } => (0, [addr as u64, 0, 0, 0]),
            Detail::Child {
                pid,
                uid,
                status,
                utime,
                stime,
            } => (
                0,
                [
                    pair(pid, uid),
                    pair(status as u32, 0),
                    utime as u64,
                    stime as u64,
                ],
            ),
        };
        let number = pair(self.signal.number().into(), errno as u32);
        let [first, second, third, fourth] = fields;
        [
            number,
            pair(self.code as u32, 0),
            first,
            second,
            third,
            fourth,
        ]
    }
}
