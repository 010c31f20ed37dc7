//! Signals: sets, queues, actions, and the decision what is delivered (`signal(7)`, Linux x86-64 semantics).
//!
//! Sending only marks and wakes ([`send`]). Signals act in one place, on the way to user mode ([`deliver`]), where no lock
//! is held.
//!
//! Locks: a process's signal state (rank SIGNAL: actions, shared queue, the threads themselves), then a thread's (rank
//! THREAD_SIGNAL: mask, own queue, alternate stack). Both may be taken in interrupt handlers.

pub mod action;
mod actions;
pub mod deliver;
pub mod frame;
#[cfg(all(test, target_os = "none"))]
mod heapless;
pub mod info;
#[cfg(all(test, not(target_os = "none")))]
mod model;
pub mod queue;
pub mod quota;
pub mod readers;
pub mod send;
pub mod set;
pub mod state;
pub mod take;

pub use action::{Action, Disposition};
pub use actions::{RoomForActions, SharedActions};
pub use frame::{AltStack, FrameRequest, FrameStack};
pub use info::{Detail, SigInfo, code};
pub use send::force;
pub use set::{SigSet, Signal};
pub use state::{ProcessSignals, ThreadSignals};

use crate::task::Thread;
use crate::task::thread::flag;

/// Whether a signal that is not blocked waits for the thread.
#[inline]
pub fn signal_pending(thread: &Thread) -> bool {
    thread.has_flag(flag::SIGPENDING)
}

/// Whether the thread is going to be killed: SIGKILL is in its own queue, where every fatal signal without core dump becomes one
/// when it is sent.
#[inline]
pub fn fatal_signal_pending(thread: &Thread) -> bool {
    thread.has_flag(flag::FATAL_SIGNAL)
}
