//! Many areas in one address space.

use crate::check::require;
use crate::measure::SAMPLES;
use crate::memory::{NONE, PAGE, Region};

const ROUNDS: usize = 100;

/// A mapping of which every second page has no access, so that it is `count` areas.
fn areas(count: usize) -> Region {
    let region = Region::anonymous(count * PAGE);
    for page in (1..count).step_by(2) {
        region.protect(page, NONE);
    }
    region
}

/// A write fault in one of the areas.
pub fn fault(count: usize) {
    let region = areas(count);
    for round in 0..ROUNDS {
        // Far from each other; an even one.
        let page = (round * 7919) % (count / 2) * 2;
        region.forget_page(page);
        SAMPLES.time(|| region.write(page, 1));
        require(region.read(page) == 1, "the write was done");
    }
}

/// mmap and munmap of another one.
pub fn map_and_unmap(count: usize) {
    let region = areas(count);
    for _ in 0..ROUNDS {
        let mut address = 0;
        SAMPLES.time(|| address = Region::anonymous(PAGE).address());
        require(address % PAGE == 0, "mmap gives an address");
    }
    region.write(0, 1);
    require(region.read(0) == 1, "the areas are there");
}
