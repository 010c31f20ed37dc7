//! What a fault attempt ended with, in a form that can only be looked at in the one right order.
//!
//! [`FaultOutcome`] comes out of `handle_mm_fault` and shows nothing. [`FaultOutcome::check_signal`] runs
//! `fault_signal_pending` and gives an [`AfterSignal`], which shows nothing but errors; [`AfterSignal::check_error`] gives an
//! [`AfterError`], and only that tells whether to try again. The lock is part of each outcome exactly while it is held, and
//! RETRY or COMPLETED together with an error cannot be built.

use super::VmFault;
use super::signal::fault_signal_pending;
use crate::arch::PtRegs;
use crate::mm::space::MmapReadGuard;

/// Why a fault cannot be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultError {
    OutOfMemory,
    /// Past the end of the file, or the file cannot be read.
    Bus,
    /// The access is not allowed by the address space's rules.
    #[allow(
        dead_code,
        reason = "Linux's answer for kinds of memory that there are not here"
    )]
    Segv,
}

impl FaultError {
    fn bits(self) -> VmFault {
        match self {
            FaultError::OutOfMemory => VmFault::OOM,
            FaultError::Bus => VmFault::SIGBUS,
            FaultError::Segv => VmFault::SIGSEGV,
        }
    }
}

/// The outcomes there are, each with the lock if it is still held.
enum Outcome<'mm> {
    Done(MmapReadGuard<'mm>),
    Error(FaultError, MmapReadGuard<'mm>),
    /// Finished, lock released.
    #[allow(
        dead_code,
        reason = "Linux's answer for kinds of memory that there are not here"
    )]
    Completed,
    /// Start over, lock released.
    Retry,
}

/// The outcome of `handle_mm_fault`, nothing of which may be used before signals were checked.
#[must_use = "signals, errors and the retry must be checked, in this order"]
pub struct FaultOutcome<'mm> {
    outcome: Outcome<'mm>,
    /// The contents had to be read from their backing store.
    major: bool,
}

impl<'mm> FaultOutcome<'mm> {
    pub fn done(guard: MmapReadGuard<'mm>) -> Self {
        FaultOutcome {
            outcome: Outcome::Done(guard),
            major: false,
        }
    }

    pub fn error(error: FaultError, guard: MmapReadGuard<'mm>) -> Self {
        FaultOutcome {
            outcome: Outcome::Error(error, guard),
            major: false,
        }
    }

    /// The caller has released the lock.
    #[allow(dead_code, reason = "as for `Completed`")]
    pub fn completed() -> Self {
        FaultOutcome {
            outcome: Outcome::Completed,
            major: false,
        }
    }

    /// The caller has released the lock.
    pub fn retry() -> Self {
        FaultOutcome {
            outcome: Outcome::Retry,
            major: false,
        }
    }

    pub fn major(self) -> Self {
        FaultOutcome {
            major: true,
            ..self
        }
    }

    /// The outcome as Linux's flag word. For the signal check, the statistics and traces; not for deciding.
    pub fn flags(&self) -> VmFault {
        let mut flags = match &self.outcome {
            Outcome::Done(_) => VmFault::empty(),
            Outcome::Error(error, _) => error.bits(),
            Outcome::Completed => VmFault::COMPLETED,
            Outcome::Retry => VmFault::RETRY,
        };
        flags.set(VmFault::MAJOR, self.major);
        flags
    }

    /// First step: does a signal end the fault? `Err` means that it does, with the lock released: from user mode, return and
    /// deliver it; from kernel mode, go to the exception table.
    #[inline]
    pub fn check_signal(self, regs: &PtRegs) -> Result<AfterSignal<'mm>, SignalPending> {
        if fault_signal_pending(self.flags(), regs) {
            Err(SignalPending)
        } else {
            Ok(AfterSignal(self.outcome))
        }
    }
}

/// A signal ends the fault attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalPending;

/// An outcome that no signal ends; errors come next.
#[must_use = "errors and the retry must be checked, in this order"]
pub struct AfterSignal<'mm>(Outcome<'mm>);

impl<'mm> AfterSignal<'mm> {
    /// Second step: errors. The lock is released with the error.
    #[inline]
    pub fn check_error(self) -> Result<AfterError<'mm>, FaultError> {
        match self.0 {
            Outcome::Error(error, guard) => {
                drop(guard);
                Err(error)
            }
            other => Ok(AfterError(other)),
        }
    }
}

/// An outcome without error: finished, or to be tried again.
#[must_use = "the fault may have to be tried again"]
pub struct AfterError<'mm>(Outcome<'mm>);

/// What is left to do at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    Finished,
    TryAgain,
}

impl AfterError<'_> {
    /// Last step; the lock is released now where it still was held.
    #[inline]
    pub fn finish(self) -> Last {
        match self.0 {
            Outcome::Retry => Last::TryAgain,
            Outcome::Done(guard) => {
                drop(guard);
                Last::Finished
            }
            Outcome::Completed => Last::Finished,
            Outcome::Error(..) => unreachable!("errors were taken out by check_error"),
        }
    }
}
