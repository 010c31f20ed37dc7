//! Memory that does not exist until it is touched: a mapping far larger than the machine, of which a few pages become real.

use std::process::ExitCode;

use userspace::memory::{PAGE, Region, resident_pages};
use userspace::report::Demo;

/// 64 GiB: more than the memory of any machine that this is meant for.
const LEN: usize = 64 << 30;
/// How far the touched pages lie apart.
const STRIDE: usize = LEN / TOUCHED;
const TOUCHED: usize = 2048;
/// Linux counts resident pages per CPU in batches, so its total is only nearly right.
const SLACK: usize = TOUCHED / 4;

fn main() -> ExitCode {
    let mut demo = Demo::start(
        "demand-zero",
        "a mapping far larger than memory costs only the pages that are touched",
    );

    let before = resident_pages().expect("statm");
    demo.step("map 64 GiB of private anonymous memory");
    let region = Region::unreserved(LEN).expect("mmap");
    let mapped = resident_pages().expect("statm");
    demo.varies(format_args!(
        "resident: {before} pages before, {mapped} after the mapping"
    ));
    demo.check(
        mapped.abs_diff(before) < SLACK,
        "the mapping itself made nothing resident",
    );

    demo.step(format_args!(
        "read one byte in each of {TOUCHED} pages, 32 MiB apart"
    ));
    let all_zero = touched_pages().all(|page| region.read(page + 7) == 0);
    let read = resident_pages().expect("statm");
    demo.varies(format_args!("resident: {read} pages"));
    demo.check(all_zero, "every byte read is zero");
    demo.check(
        read.abs_diff(mapped) < SLACK,
        "pages that are only read share the one zero page",
    );

    demo.step(format_args!("write to the same {TOUCHED} pages"));
    touched_pages().for_each(|page| region.write_u64(page + 8, page as u64));
    let written = resident_pages().expect("statm");
    demo.varies(format_args!(
        "resident: {written} pages, {} more",
        written.saturating_sub(read)
    ));
    demo.check(
        (written.saturating_sub(read)).abs_diff(TOUCHED) < SLACK,
        "each page written became resident, and no other did",
    );

    demo.step("look at what was written and around it");
    demo.check(
        touched_pages().all(|page| region.read_u64(page + 8) == page as u64),
        "every word is still there",
    );
    demo.check(
        touched_pages().all(|page| rest_is_zero(&region, page)),
        "the rest of each page is zero",
    );
    demo.check(
        touched_pages().all(|page| region.read(page + PAGE) == 0),
        "the page after each is untouched and zero",
    );

    demo.step("unmap it");
    drop(region);
    let unmapped = resident_pages().expect("statm");
    demo.varies(format_args!("resident: {unmapped} pages"));
    demo.check(
        unmapped.saturating_sub(before) < SLACK,
        "the memory was given back",
    );
    demo.finish()
}

fn touched_pages() -> impl Iterator<Item = usize> {
    (0..TOUCHED).map(|i| i * STRIDE)
}

fn rest_is_zero(region: &Region, page: usize) -> bool {
    (0..PAGE)
        .step_by(8)
        .filter(|&at| at != 8)
        .all(|at| region.read_u64(page + at) == 0)
}
