//! Many touched pages.

use crate::check::require;
use crate::measure::{self, SAMPLES};
use crate::memory::{PAGE, Region};
use crate::sys;

/// A write fault beside them.
pub fn fault(count: usize) {
    const ROUNDS: usize = 100;
    let region = Region::anonymous((count + ROUNDS) * PAGE);
    for page in 0..count {
        region.write(page, 1);
    }
    for page in count..count + ROUNDS {
        SAMPLES.time(|| region.write(page, 1));
        require(region.read(page) == 1, "the write was done");
    }
}

/// fork, exit and wait, by page.
pub fn fork(count: usize) {
    let region = Region::anonymous(count * PAGE);
    region.fill(1);
    for _ in 0..3 {
        let (ticks, status) = measure::timed(|| {
            let child = sys::fork();
            if child == 0 {
                sys::exit(3);
            }
            sys::wait(child)
        });
        require(status == 3 << 8, "the child's own status comes back");
        SAMPLES.add(ticks / count as u64);
    }
}
