//! What the end-to-end tests share: the host tool as a command, runs that end in bounded time, and the host's Linux as the oracle.
//!
//! The tests drive the binary `boot` as a user does, and compare what a program prints and how it ends with what the same binary does
//! on the host.

mod fresh;
pub mod guest;
pub mod oracle;
pub mod programs;
pub mod run;
