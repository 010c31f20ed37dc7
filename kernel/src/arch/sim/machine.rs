//! The simulated machine, and the way in for tests.

use core::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};

use crate::arch::Exit;
use crate::mm::Mm;
use crate::sched::{self, current};
use crate::task;

pub const STDIN_IRQ: u8 = 0;

type Body = Box<dyn FnOnce() + Send>;
type Outcome = std::thread::Result<()>;

/// The test that the next new thread runs, and where its outcome goes.
static NEXT: Mutex<Option<(Body, Sender<Outcome>)>> = Mutex::new(None);

/// Starts the CPU of the one machine that there is; work is sent to it.
fn cpu() -> &'static Mutex<Sender<()>> {
    static CPU: OnceLock<Mutex<Sender<()>>> = OnceLock::new();
    CPU.get_or_init(|| {
        let (work, arrived) = channel();
        std::thread::spawn(move || {
            super::frames::init();
            task::start().expect("memory for the idle thread");
            crate::mm::page_cache::reader::start().expect("memory for the readers");
            while arrived.recv().is_ok() {
                task::spawn_test_process(run_next).expect("memory for the test's process");
                sched::idle();
            }
        });
        Mutex::new(work)
    })
}

fn run_next() {
    let (body, done) = NEXT
        .lock()
        .expect("never poisoned")
        .take()
        .expect("a test was given");
    let outcome = catch_unwind(AssertUnwindSafe(body));
    // Nobody may wait for the test any more when it failed: that is the test's own failure, reported below.
    let _ = done.send(outcome);
    task::exit::exit_group(task::ExitStatus::Code(0))
}

/// Runs `body` as the only thread of a new process with an empty address space, in the kernel. Tests run one at a time; other
/// threads that the body starts go on until nobody can run any more.
pub fn run_test(body: impl FnOnce() + Send + 'static) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let (done, outcome) = channel();
    *NEXT.lock().expect("never poisoned") = Some((Box::new(body), done));
    cpu()
        .lock()
        .expect("never poisoned")
        .send(())
        .expect("the CPU runs");
    if let Err(panic) = outcome.recv().expect("the test ends") {
        resume_unwind(panic);
    }
}

/// The current process's address space.
pub fn current_mm() -> std::sync::Arc<Mm> {
    current().process.mm().expect("a test has an address space")
}

pub fn exit(exit: Exit) -> ! {
    panic!("the simulated machine ended: {exit:?}");
}

pub fn random_u64() -> u64 {
    0x9e37_79b9_7f4a_7c15
}

pub fn hwcap() -> usize {
    0
}

pub fn hwcap2() -> usize {
    0
}

pub fn control(_record: fmt::Arguments<'_>) {}

pub fn stdout_write(_bytes: &[u8]) {}

pub fn stderr_write(_bytes: &[u8]) {}

pub fn stdin_read() -> Option<u8> {
    None
}

pub fn stdin_interrupt(_on: bool) {}

pub fn config_bytes() -> Option<Vec<u8>> {
    None
}
