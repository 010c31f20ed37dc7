//! Page faults on anonymous memory.

use crate::check::require;
use crate::measure::{SAMPLES, timed};
use crate::memory::{PAGE, Region};
use crate::sys;

const PAGES: usize = 512;

/// The first access to a page is a read.
pub fn read() {
    let region = Region::anonymous(PAGES * PAGE);
    for page in 0..PAGES {
        require(
            SAMPLES.time(|| region.read(page)) == 0,
            "a new page reads as zero",
        );
        require(region.is_zero_behind_first(page), "a new page is zero");
    }
}

/// The first access to a page is a write.
pub fn write() {
    // Memory that was used before, so that what is found zero was cleared.
    Region::anonymous(2 * PAGES * PAGE).fill(0xa5);
    let region = Region::anonymous(PAGES * PAGE);
    for page in 0..PAGES {
        SAMPLES.time(|| region.write(page, 1));
        require(region.read(page) == 1, "the write was done");
        require(region.is_zero_behind_first(page), "a new page is zero");
    }
}

/// A write to a page that was read before.
pub fn write_after_read() {
    let region = Region::anonymous(PAGES * PAGE);
    for page in 0..PAGES {
        require(region.read(page) == 0, "a new page reads as zero");
    }
    for page in 0..PAGES {
        SAMPLES.time(|| region.write(page, 1));
        require(region.read(page) == 1, "the write was done");
        require(region.is_zero_behind_first(page), "a new page is zero");
    }
}

/// Pages for one fork of the next two, so few that it copies their entries whatever a kernel does with page tables that are full.
const COPIED: usize = 64;

/// A write to a page that a child has too.
pub fn cow_break() {
    for _ in 0..PAGES / COPIED {
        let region = Region::anonymous(COPIED * PAGE);
        region.fill(7);
        break_pages(&region);
    }
}

fn break_pages(region: &Region) {
    let [from_child, to_parent] = sys::pipe();
    let [from_parent, to_child] = sys::pipe();
    let child = sys::fork();
    if child == 0 {
        sys::write(to_parent, b"!");
        sys::read(from_parent, &mut [0]);
        let kept = (0..COPIED).all(|page| region.read(page) == 7);
        sys::exit(i32::from(!kept));
    }
    sys::read(from_child, &mut [0]);
    for page in 0..COPIED {
        SAMPLES.time(|| region.write(page, 8));
        require(region.read(page) == 8, "the write was done");
        require(
            region.is_zero_behind_first(page),
            "all of the page is copied",
        );
    }
    sys::write(to_child, b"!");
    require(sys::wait(child) == 0, "the child keeps the old pages");
    for end in [from_child, to_parent, from_parent, to_child] {
        sys::close(end);
    }
}

/// A write to a page that a child had too, until it ended.
pub fn cow_reuse() {
    for _ in 0..PAGES / COPIED {
        let region = Region::anonymous(COPIED * PAGE);
        region.fill(7);
        let child = sys::fork();
        if child == 0 {
            sys::exit(0);
        }
        require(sys::wait(child) == 0, "the child ends");
        for page in 0..COPIED {
            SAMPLES.time(|| region.write(page, 8));
            require(region.read(page) == 8, "the write was done");
            require(region.is_zero_behind_first(page), "the page is the same");
        }
    }
}

/// 64 MiB touched for the first time, in all: the median of its parts times their number, or the timer would be measured too.
pub fn touch_64m() {
    const PARTS: usize = 32;
    const PART: usize = (64 << 20) / PARTS / PAGE;
    for _ in 0..3 {
        let region = Region::anonymous(PARTS * PART * PAGE);
        for part in 0..PARTS {
            let pages = part * PART..(part + 1) * PART;
            let (ticks, ()) = timed(|| pages.for_each(|page| region.write(page, 1)));
            SAMPLES.add(ticks * PARTS as u64);
        }
        let holds = |page| region.read(page) == 1 && region.is_zero_behind_first(page);
        require(
            (0..region.pages()).step_by(61).all(holds),
            "new pages are zero",
        );
    }
}
