//! What a signal does: the action set by sigaction(2), and the defaults of signal(7).

use linux_raw_sys::general as abi;

use super::set::{SigSet, Signal};

/// sa_flags that are known; others are dropped, as on Linux.
pub mod sa {
    use super::abi;
    pub const NOCLDSTOP: u64 = abi::SA_NOCLDSTOP as u64;
    pub const NOCLDWAIT: u64 = abi::SA_NOCLDWAIT as u64;
    pub const SIGINFO: u64 = abi::SA_SIGINFO as u64;
    pub const RESTORER: u64 = abi::SA_RESTORER as u64;
    pub const ONSTACK: u64 = abi::SA_ONSTACK as u64;
    pub const RESTART: u64 = abi::SA_RESTART as u64;
    pub const NODEFER: u64 = abi::SA_NODEFER as u64;
    pub const RESETHAND: u64 = abi::SA_RESETHAND as u64;
    /// Asks for address tags in siginfo, of which x86-64 has none; kept all the same.
    pub const EXPOSE_TAGBITS: u64 = abi::SA_EXPOSE_TAGBITS as u64;
    pub const KNOWN: u64 = NOCLDSTOP
        | NOCLDWAIT
        | SIGINFO
        | EXPOSE_TAGBITS
        | RESTORER
        | ONSTACK
        | RESTART
        | NODEFER
        | RESETHAND;
}

const SIG_DFL: usize = 0;
const SIG_IGN: usize = 1;

/// The kernel's `struct sigaction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    /// Handler address, or 0 (default) or 1 (ignore).
    pub handler: usize,
    /// Bits of [`sa`].
    pub flags: u64,
    pub restorer: usize,
    pub mask: SigSet,
}

/// What an action means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    Default,
    Ignore,
    Handler,
}

/// What a signal does by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultAction {
    Ignore,
    Stop,
    Terminate,
    /// Terminate; Linux would write a core file if the limit allowed it.
    Core,
}

impl Action {
    pub const DEFAULT: Action = Action {
        handler: SIG_DFL,
        flags: 0,
        restorer: 0,
        mask: SigSet::EMPTY,
    };

    pub fn disposition(&self) -> Disposition {
        match self.handler {
            SIG_DFL => Disposition::Default,
            SIG_IGN => Disposition::Ignore,
            _ => Disposition::Handler,
        }
    }

    pub fn has(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }

    /// Whether the signal has no effect at all with this action.
    pub fn ignores(&self, signal: Signal) -> bool {
        match self.disposition() {
            Disposition::Ignore => true,
            Disposition::Default => default_action(signal) == DefaultAction::Ignore,
            Disposition::Handler => false,
        }
    }
}

const DEFAULT_IGNORE: SigSet = SigSet::of(&[
    Signal::SIGCHLD,
    Signal::SIGCONT,
    Signal::SIGURG,
    Signal::SIGWINCH,
]);
/// Signals that stop a process by default.
pub const STOP: SigSet = SigSet::of(&[
    Signal::SIGSTOP,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
]);
const CORE: SigSet = SigSet::of(&[
    Signal::SIGQUIT,
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGABRT,
    Signal::SIGFPE,
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGSYS,
    Signal::SIGXCPU,
    Signal::SIGXFSZ,
]);

/// The default action of signal(7).
pub fn default_action(signal: Signal) -> DefaultAction {
    match () {
        () if DEFAULT_IGNORE.contains(signal) => DefaultAction::Ignore,
        () if STOP.contains(signal) => DefaultAction::Stop,
        () if CORE.contains(signal) => DefaultAction::Core,
        () => DefaultAction::Terminate,
    }
}
