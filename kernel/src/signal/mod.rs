//! Signals: sets, queues, actions, and the decision what is delivered (`signal(7)`, Linux x86-64 semantics).
pub mod frame;
pub mod info;
pub mod set;

pub use frame::{AltStack, FrameRequest, FrameStack};
pub use info::{SigInfo, code};
pub use set::{SigSet, Signal};
