//! Faultline: a small x86_64 kernel where page faults and signals meet.
//!
//! `arch` holds everything that another CPU would change and offers it under a fixed list of names; the other modules are
//! generic. On the host the same modules are built over `arch::sim`, a simulated machine, for tests.
#![cfg_attr(target_os = "none", no_std)]
#![feature(allocator_api)]
#![cfg_attr(all(test, target_os = "none"), feature(custom_test_frameworks))]
#![cfg_attr(all(test, target_os = "none"), no_main)]
#![cfg_attr(all(test, target_os = "none"), test_runner(crate::testing::run))]
#![cfg_attr(
    all(test, target_os = "none"),
    reexport_test_harness_main = "run_tests"
)]

extern crate alloc;

pub mod arch;
#[cfg(target_os = "none")]
pub mod bring_up;
pub mod config;
pub mod drivers;
pub mod errno;
pub mod fs;
pub mod mm;
pub mod sched;
pub mod signal;
pub mod sync;
pub mod syscall;
pub mod task;
#[cfg(all(test, target_os = "none"))]
mod testing;
pub mod trace;
