//! What generic code and an architecture's signal frames tell each other.

use super::action::Action;
use super::info::SigInfo;
use super::set::SigSet;

/// sigaltstack(2) state of a thread. `size` 0: disabled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct AltStack {
    pub base: usize,
    /// Bytes.
    pub size: usize,
    /// Flags as given by the user, which uc_stack shows; sigaltstack(2) itself shows [`AltStack::shown_flags`].
    pub flags: u32,
}

impl AltStack {
    pub const DISABLED: AltStack = AltStack {
        base: 0,
        size: 0,
        flags: 0,
    };
    /// What a new thread has, and a handler whose stack was disarmed.
    pub const RESET: AltStack = AltStack {
        flags: Self::SS_DISABLE,
        ..Self::DISABLED
    };
    pub const SS_ONSTACK: u32 = 1;
    pub const SS_DISABLE: u32 = 2;
    pub const SS_AUTODISARM: u32 = 1 << 31;

    /// Whether `sp` lies on the stack: base < sp <= base + size, never with AUTODISARM (`kernel/signal.c`, on_sig_stack).
    pub fn holds(&self, sp: usize) -> bool {
        self.flags & Self::SS_AUTODISARM == 0 && sp > self.base && sp - self.base <= self.size
    }

    /// `ss_flags` as sigaltstack(2) shows them at stack pointer `sp`.
    pub fn shown_flags(&self, sp: usize) -> u32 {
        let state = match () {
            () if self.size == 0 => Self::SS_DISABLE,
            () if self.holds(sp) => Self::SS_ONSTACK,
            () => 0,
        };
        state | self.flags & Self::SS_AUTODISARM
    }
}

/// Where the frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameStack {
    /// Below the interrupted stack pointer and its red zone. With `floor`, the base of the alternate stack that is in use
    /// already, the frame must not fall below it.
    Current { floor: Option<usize> },
    /// At the top of the alternate stack `base..top`, and not below its base.
    Alternate { base: usize, top: usize },
}

/// A handler call to be written to the user's stack.
pub struct FrameRequest<'a> {
    pub info: &'a SigInfo,
    /// The handler, its restorer, and whether siginfo is copied out too.
    pub action: &'a Action,
    /// The blocked mask to come back to, for uc_sigmask.
    pub mask: SigSet,
    /// For uc_stack.
    pub altstack: &'a AltStack,
    pub stack: FrameStack,
}
