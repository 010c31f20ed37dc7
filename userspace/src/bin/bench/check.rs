//! What must hold: that the work was done. What does not ends the process, and the operation has failed.

use core::cell::Cell;

use crate::{report, sys};

/// Ends the process if `holds` is false; `what` says what should have been.
pub fn require(holds: bool, what: &str) {
    if !holds {
        fail(what);
    }
}

/// The result of a system call that cannot fail.
pub fn done(result: isize, what: &str) -> usize {
    match usize::try_from(result) {
        Ok(value) => value,
        Err(_) => fail(what),
    }
}

/// Ends the process with the word that `what` is not so.
pub fn fail(what: &str) -> ! {
    report::complain(what);
    sys::exit(1)
}

/// A counter that a signal handler or another thread advances.
pub struct Counter(Cell<u64>);

// SAFETY: only `bump` writes, by volatile accesses, and never two at a time in this program.
unsafe impl Sync for Counter {}

impl Counter {
    /// A counter at 0.
    pub const fn new() -> Self {
        Self(Cell::new(0))
    }

    /// One more.
    pub fn bump(&self) {
        self.set(self.get() + 1);
    }

    /// What it holds.
    pub fn get(&self) -> u64 {
        // SAFETY: a valid place; volatile, because the reader does not see the writer.
        unsafe { self.0.as_ptr().read_volatile() }
    }

    /// Gives it another value.
    pub fn set(&self, value: u64) {
        // SAFETY: as above.
        unsafe { self.0.as_ptr().write_volatile(value) }
    }
}
