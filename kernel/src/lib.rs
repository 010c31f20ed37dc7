//! Faultline: a small x86_64 kernel where page faults and signals meet.
//!
//! `arch` holds everything that another CPU would change and offers it under a fixed list of names; the other modules are
//! generic. On the host the same modules are built over `arch::sim`, a simulated machine, for tests.
//!
//! Nothing is public but what the binary and the tests of what must not compile need: what nobody outside can call becomes a part of
//! its only caller, and what nobody calls at all is found.
#![cfg_attr(target_os = "none", no_std)]
#![feature(allocator_api)]
#![cfg_attr(all(test, target_os = "none"), feature(custom_test_frameworks))]
#![cfg_attr(all(test, target_os = "none"), no_main)]
#![cfg_attr(all(test, target_os = "none"), test_runner(crate::testing::run))]
#![cfg_attr(
    all(test, target_os = "none"),
    reexport_test_harness_main = "run_tests"
)]
// Only the bare-metal kernel uses everything; only there is what nobody uses a fault.
#![cfg_attr(any(test, not(target_os = "none")), allow(dead_code, unused_imports))]

extern crate alloc;

mod arch;
#[cfg(target_os = "none")]
mod bring_up;
mod config;
mod drivers;
mod errno;
mod fs;
mod ipc;
mod mm;
mod sched;
mod signal;
mod sync;
mod syscall;
mod task;
#[cfg(all(test, target_os = "none"))]
mod testing;
mod trace;

/// The order of the fault path's checks, for the tests of what must not compile.
#[cfg(not(target_os = "none"))]
pub mod order {
    pub use crate::arch::PtRegs;
    pub use crate::mm::fault::outcome::{
        AfterError, AfterSignal, FaultError, FaultOutcome, Last, SignalPending,
    };
}

/// What the bare-metal binary needs.
#[cfg(target_os = "none")]
pub mod bare {
    pub use crate::arch::x86_64::boot;
    pub use crate::bring_up::start;
}
