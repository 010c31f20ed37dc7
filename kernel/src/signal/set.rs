//! Signal numbers and sets of them.

use linux_raw_sys::general as abi;

/// A signal's number, 1..=64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signal(u8);

macro_rules! signals {
    ($($name:ident)*) => { impl Signal { $(#[allow(dead_code, reason = "all there are")] pub const $name: Signal = Signal(abi::$name as u8);)* } };
}

signals! {
    SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2 SIGPIPE SIGALRM SIGTERM
    SIGSTKFLT SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGXCPU SIGXFSZ SIGVTALRM SIGPROF SIGWINCH SIGIO SIGPWR
    SIGSYS
}

impl Signal {
    /// The first real-time signal; those below are standard ones, of which only one instance is queued.
    pub const RT_MIN: u8 = 32;
    pub const MAX: u8 = 64;

    /// `None` if `number` is not a signal.
    pub fn new(number: usize) -> Option<Signal> {
        (1..=Self::MAX as usize)
            .contains(&number)
            .then_some(Signal(number as u8))
    }

    pub const fn number(self) -> u8 {
        self.0
    }

    pub const fn is_realtime(self) -> bool {
        self.0 >= Self::RT_MIN
    }

    /// The position in arrays of 64.
    pub const fn index(self) -> usize {
        self.0 as usize - 1
    }
}

/// A set of signals in Linux's layout: bit N-1 is signal N.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SigSet(pub u64);

impl SigSet {
    pub const EMPTY: SigSet = SigSet(0);
    /// SIGKILL and SIGSTOP, which nobody can block, ignore or handle.
    pub const UNBLOCKABLE: SigSet = SigSet::of(&[Signal::SIGKILL, Signal::SIGSTOP]);
    /// Signals that an instruction causes; taken before all others.
    pub const SYNCHRONOUS: SigSet = SigSet::of(&[
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGILL,
        Signal::SIGTRAP,
        Signal::SIGFPE,
        Signal::SIGSYS,
    ]);

    pub const fn of(signals: &[Signal]) -> SigSet {
        let mut bits = 0;
        let mut i = 0;
        while i < signals.len() {
            bits |= 1 << (signals[i].0 - 1);
            i += 1;
        }
        SigSet(bits)
    }

    pub const fn contains(self, signal: Signal) -> bool {
        self.0 & (1 << (signal.0 - 1)) != 0
    }

    pub const fn with(self, signal: Signal) -> SigSet {
        SigSet(self.0 | 1 << (signal.0 - 1))
    }

    pub const fn without(self, signal: Signal) -> SigSet {
        SigSet(self.0 & !(1 << (signal.0 - 1)))
    }

    pub const fn union(self, other: SigSet) -> SigSet {
        SigSet(self.0 | other.0)
    }

    pub const fn minus(self, other: SigSet) -> SigSet {
        SigSet(self.0 & !other.0)
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set as a blocked mask may hold it: without SIGKILL and SIGSTOP.
    pub const fn blockable(self) -> SigSet {
        self.minus(SigSet::UNBLOCKABLE)
    }

    /// The lowest-numbered member.
    pub const fn first(self) -> Option<Signal> {
        if self.0 == 0 {
            None
        } else {
            Some(Signal(self.0.trailing_zeros() as u8 + 1))
        }
    }
}
