//! What the demos and the small test programs share: a step-by-step report, mappings that may fault on purpose, probe instructions
//! that a handler can skip, signal frames read and edited, children and timers.
//!
//! Every program is an ordinary static Linux program. Run on Linux and on Faultline it must print the same lines and end with the
//! same status; only lines that start with `~ ` may differ (times, counts, addresses, and what only a slow disk can show).
//!
//! The programs are single-threaded, but for those with a userfaultfd, and what a signal handler shares with the code it interrupts is an atomic.

pub mod bad_pointers;
pub mod memory;
pub mod probe;
pub mod process;
pub mod registers;
pub mod report;
pub mod rng;
pub mod signals;
pub mod slow;
pub mod syscall;
pub mod time;
