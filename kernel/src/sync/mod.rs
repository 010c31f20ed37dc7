//! Locks that spin, with a documented rank each.
//!
//! Rank order, outermost first, is the list in [`rank`]: a lock may be taken only while all locks held have a smaller rank.
//! Debug builds check it at every acquisition. Locks that sleep, and wait queues, are built on these in `sched`.

pub mod rank;
mod spin_lock;

pub use spin_lock::{InnerGuard, IrqLock, IrqLockGuard, SpinLock, SpinLockGuard};
