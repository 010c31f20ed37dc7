//! The kernel's own test framework: runs the functions marked `#[test_case]` on the machine, and tells the host how they ended.
//!
//! The test image is this library with the bring-up of the real kernel. Tests run one after the other in a kernel thread, where
//! they may sleep and use the disk. A test fails by panicking, which ends the machine with the panic's own status.

use core::any::type_name;
use core::panic::PanicInfo;

use bootloader_api::{BootInfo, entry_point};

use crate::arch::x86_64::boot;
use crate::arch::{Exit, machine};
use crate::mm::frame::free_frames;
use crate::sched::{Sleep, WaitQueue};
use crate::sync::{SpinLock, rank};
use crate::task::{ExitStatus, exit};
use crate::{bring_up, config, sched, task};

/// A test: a function whose name is its path.
pub trait Test: Sync {
    fn name(&self) -> &'static str;
    fn run(&self);
}

impl<F: Fn() + Sync> Test for F {
    fn name(&self) -> &'static str {
        type_name::<F>()
    }

    fn run(&self) {
        self();
    }
}

entry_point!(main, config = &boot::CONFIG);

fn main(info: &'static mut BootInfo) -> ! {
    bring_up::run(info);
    if let Err(errno) = task::kernel_thread("tests", start) {
        bring_up::failed("the test thread", errno);
    }
    sched::idle();
    unreachable!("interrupts always come")
}

fn start() {
    bring_up::devices();
    crate::run_tests();
}

/// Runs the tests whose names contain the configuration's `test`, and ends the machine.
pub fn run(tests: &[&dyn Test]) {
    let filter = config::get().test.as_deref().unwrap_or_default();
    let wanted = |name: &str| {
        filter.is_empty()
            || name
                .as_bytes()
                .windows(filter.len())
                .any(|part| part == filter)
    };
    let mut passed = 0;
    for test in tests.iter().filter(|test| wanted(test.name())) {
        let name = test.name();
        machine::control(format_args!("test {name}"));
        test.run();
        machine::control(format_args!("ok {name}"));
        passed += 1;
    }
    machine::control(format_args!("tests passed={passed} failed=0"));
    machine::exit(Exit::Done);
}

/// What [`in_user_process`] is to run, until it has.
static BODY: SpinLock<Option<fn()>> = SpinLock::new(rank::LEAF, None);
static ENDED: WaitQueue = WaitQueue::new();

/// Runs `body` in the kernel, in a process with an address space and FPU state of its own; returns after its end.
pub fn in_user_process(body: fn()) {
    *BODY.lock() = Some(body);
    task::spawn_test_process(|| {
        let body = *BODY.lock();
        body.expect("it was just set")();
        *BODY.lock() = None;
        ENDED.wake_all();
        exit::exit_group(ExitStatus::Code(0))
    })
    .expect("memory for a process");
    let ended = ENDED.wait_until(Sleep::Uninterruptible, || {
        BODY.lock().is_none().then_some(())
    });
    assert!(ended.is_ok());
}

/// Every thread gives back its stack, its address space and all else; the heap keeps what it has grown to.
#[test_case]
fn processes_leave_nothing_behind() {
    let run = |count| (0..count).for_each(|_| in_user_process(|| {}));
    run(20);
    let free = free_frames();
    run(100);
    let lost = free.saturating_sub(free_frames());
    assert!(lost <= 16, "100 processes left {lost} frames behind");
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    machine::control(format_args!("tests passed=0 failed=1"));
    boot::rust_panic(info)
}
