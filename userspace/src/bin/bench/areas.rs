//! Mappings made, changed and taken away.

use core::ptr;

use crate::check::require;
use crate::measure::SAMPLES;
use crate::memory::{PAGE, READ, RW, Region};

const PAGES: usize = 64;

/// mmap and munmap of one page that nobody touches.
pub fn map_and_unmap() {
    for _ in 0..500 {
        let mut address = 0;
        SAMPLES.time(|| address = Region::anonymous(PAGE).address());
        require(address != 0 && address % PAGE == 0, "mmap gives an address");
    }
    // Or they would not have been taken away.
    let last = Region::anonymous(PAGE).address();
    require(
        Region::anonymous(PAGE).address() == last,
        "munmap gives the place back",
    );
}

/// mmap, a write to each of 64 pages, munmap; in all.
pub fn map_touch_unmap() {
    for _ in 0..60 {
        let sum = SAMPLES.time(|| {
            let region = Region::anonymous(PAGES * PAGE);
            region.fill(3);
            let sum: usize = (0..PAGES).map(|page| usize::from(region.read(page))).sum();
            sum
        });
        require(sum == 3 * PAGES, "the writes were done");
    }
}

/// madvise(MADV_DONTNEED), by page of 64.
pub fn forget() {
    let region = Region::anonymous(PAGES * PAGE);
    for _ in 0..60 {
        region.fill(9);
        let (ticks, ()) = crate::measure::timed(|| region.forget());
        SAMPLES.add(ticks / PAGES as u64);
        require(
            (0..PAGES).all(|page| region.read(page) == 0),
            "the pages are gone",
        );
    }
}

/// A page in the middle of a mapping made read-only and writable again: the mapping becomes three, and one.
pub fn protect_pair() {
    let region = Region::anonymous(PAGES * PAGE);
    region.fill(5);
    let middle = PAGES / 2;
    for round in 0..500 {
        SAMPLES.time(|| {
            region.protect(middle, READ);
            region.protect(middle, RW);
        });
        region.write(middle, round as u8);
        require(region.read(middle) == round as u8, "the page is writable");
        // SAFETY: the region's own page.
        let behind =
            unsafe { ptr::read_volatile((region.address() + PAGE * (middle + 1)) as *const u8) };
        require(behind == 5, "its neighbour is as it was");
    }
}
