//! What comes out: a line for each operation on stdout, behind a mark that no kernel's message begins with.
//!
//!     @ machine tsc=T free=BYTES
//!     @ NAME[@SIZE] median=N least=N most=N samples=N
//!     @ NAME failed: WHY
//!     @ end

use core::cell::UnsafeCell;
use core::fmt::{self, Write};
use core::ptr;

use crate::measure::{self, SAMPLES, Summary};
use crate::memory::{PAGE, Region};
use crate::sys;

/// What a worker leaves for the process that started it, in shared memory.
struct Outcome {
    summary: Option<Summary>,
    complaint: [u8; 64],
}

/// The outcome of this worker, and the file on the slow disk. Set before anything else runs.
struct Worker {
    outcome: UnsafeCell<*mut Outcome>,
    disk: UnsafeCell<Option<&'static str>>,
}

// SAFETY: written while there is one thread.
unsafe impl Sync for Worker {}

static WORKER: Worker = Worker {
    outcome: UnsafeCell::new(ptr::null_mut()),
    disk: UnsafeCell::new(None),
};

/// The file on the slow disk.
pub fn disk() -> Option<&'static str> {
    // SAFETY: nobody writes it any more.
    unsafe { *WORKER.disk.get() }
}

/// Says what the machine is like before anything was measured.
pub fn machine() {
    line(format_args!(
        "machine tsc={} free={}",
        measure::now(),
        sys::free_memory()
    ));
}

/// Runs one operation in a process of its own; whether it went well. With a size its name is followed by `@SIZE`.
pub fn run(
    name: &str,
    size: Option<usize>,
    work: impl FnOnce(),
    disk: Option<&'static str>,
) -> bool {
    let name = Name(name, size);
    let shared = Region::shared(PAGE);
    let outcome = shared.address() as *mut Outcome;
    // SAFETY: a page of zeros of our own, larger than an outcome; nothing else runs.
    unsafe {
        outcome.write(Outcome {
            summary: None,
            complaint: [0; 64],
        });
        *WORKER.outcome.get() = outcome;
        *WORKER.disk.get() = disk;
    }
    measure::next_operation();
    let worker = sys::fork();
    if worker == 0 {
        work();
        // SAFETY: the parent reads it after our end.
        unsafe { (*outcome).summary = SAMPLES.summary() };
        sys::exit(0);
    }
    let status = sys::wait(worker);
    // SAFETY: the worker is gone; a complaint is a text ended by zeros.
    let Outcome { summary, complaint } = unsafe { outcome.read() };
    match summary.filter(|_| status == 0) {
        Some(Summary {
            median,
            least,
            most,
            count,
        }) => line(format_args!(
            "{name} median={median} least={least} most={most} samples={count}"
        )),
        None => {
            let text = complaint.split(|&byte| byte == 0).next();
            let text = text.and_then(|text| str::from_utf8(text).ok());
            line(format_args!(
                "{name} failed: {} (status {status:#x})",
                text.unwrap_or_default()
            ));
        }
    }
    status == 0 && summary.is_some()
}

/// Says that all operations ran.
pub fn end() {
    line(format_args!("end"));
}

/// Leaves a word about what went wrong.
pub fn complain(what: &str) {
    // SAFETY: null, or the outcome of this worker.
    let outcome = unsafe { (*WORKER.outcome.get()).as_mut() };
    match outcome {
        None => line(format_args!("{what}: not so")),
        Some(outcome) => {
            let length = what.len().min(outcome.complaint.len());
            outcome.complaint[..length].copy_from_slice(&what.as_bytes()[..length]);
        }
    }
}

/// The name of an operation, with a size perhaps.
struct Name<'a>(&'a str, Option<usize>);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)?;
        match self.1 {
            Some(size) => write!(f, "@{size}"),
            None => Ok(()),
        }
    }
}

fn line(text: fmt::Arguments<'_>) {
    let mut line = Line {
        bytes: [0; 256],
        length: 0,
    };
    // What is too long is cut off.
    let _ = writeln!(line, "@ {text}");
    sys::write(1, &line.bytes[..line.length]);
}

struct Line {
    bytes: [u8; 256],
    length: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let space = &mut self.bytes[self.length..];
        let count = text.len().min(space.len());
        space[..count].copy_from_slice(&text.as_bytes()[..count]);
        self.length += count;
        Ok(())
    }
}
