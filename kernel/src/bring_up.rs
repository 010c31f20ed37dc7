//! Bring-up: everything between the bootloader and the first process, in order.

use core::fmt::Debug;

use bootloader_api::BootInfo;

use crate::arch::x86_64::{boot, crash, machine};
use crate::arch::{Exit, irq};
use crate::mm::{heap, page_cache};
use crate::{config, drivers, fs, sched, syscall, task};

/// Brings the machine up, starts the first thread and waits for work, for ever. Ends the machine if something is missing.
pub fn start(info: &'static mut BootInfo) -> ! {
    run(info);
    if let Err(errno) = task::init::start() {
        failed("the first thread", errno);
    }
    sched::idle();
    unreachable!("interrupts always come")
}

/// Brings the machine up to where processes can be started. Ends it if something is missing. Interrupts are on afterwards.
pub fn run(info: &'static mut BootInfo) {
    boot::early(info);
    drivers::log::init();
    check("memory", boot::memory(info));
    check("the heap", heap::init());
    let config = config::get();
    drivers::log::set_level(config.log);
    if config.log == log::LevelFilter::Trace {
        syscall::trace_all();
    }
    machine::seed_random(config.seed);
    check("the CPU", boot::cpu());
    check("the scheduler", task::start());
    irq::enable();
}

/// The part that needs threads, as it waits for devices: from the first kernel thread.
pub fn devices() {
    check("the page cache's readers", page_cache::reader::start());
    drivers::console::init();
    check("the disk", drivers::block::init());
    check("the root file system", fs::mount_root());
    if let Some(kind) = config::get().crash {
        crash::crash(kind);
    }
}

fn check<E: Debug>(what: &str, outcome: Result<(), E>) {
    if let Err(error) = outcome {
        failed(what, error);
    }
}

/// Ends the machine because `what` could not be had.
pub fn failed(what: &str, error: impl Debug) -> ! {
    log::error!("bring-up failed: {what}: {error:?}");
    machine::exit(Exit::BringUpFailed)
}
