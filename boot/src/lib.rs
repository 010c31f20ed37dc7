//! Everything around the machine: builds the kernel and the user programs, makes the boot disk and the root file
//! system, starts QEMU and turns what comes out of its serial lines into results.
//!
//! The contract with the kernel is `docs/machine-protocol.md`. The binary `boot` is a thin command line over this
//! library; the end-to-end tests in `tests/` drive the same library.
//!
//! Promise: whatever ends this process (an error, Ctrl-C, even SIGKILL), no QEMU and no temporary file outlives it.
//! QEMU dies with its parent ([`session`]), and what a machine needs beyond the caches below the target directory
//! lives in anonymous memory ([`memfile`]).

pub mod apt;
pub mod bench;
pub mod cargo;
pub mod cli;
pub mod commands;
pub mod config;
pub mod conformance;
pub mod demos;
pub mod image;
pub mod interrupt;
pub mod kernel_tests;
pub mod memfile;
pub mod program;
pub mod progress;
pub mod qemu;
pub mod records;
pub mod report;
pub mod rootfs;
pub mod session;
pub mod stdin;
pub mod symbols;
pub mod table;
pub mod with;
pub mod workspace;
