//! Faults on files: what comes with the page that was asked for.

use std::sync::atomic::Ordering;

use super::{BASE, RO, RW, file, map};
use crate::arch::sim::machine::{current_mm, run_test};
use crate::arch::sim::{user_read, user_write};
use crate::mm::PAGE_SIZE;
use crate::sched::{Sleep, current};

/// Major and minor faults of the current thread.
fn faults() -> (u64, u64) {
    let faults = &current().faults;
    (
        faults.major.load(Ordering::Relaxed),
        faults.minor.load(Ordering::Relaxed),
    )
}

#[test]
fn one_fault_reads_and_maps_its_window() {
    run_test(|| {
        let (source, reads) = file(40);
        map(40 * PAGE_SIZE, RO, Some(source.clone()));
        assert_eq!(user_read(BASE + 17 * PAGE_SIZE), Ok(17));
        // The window is read to its end, whether anybody waits or not.
        for index in 16..32 {
            source
                .mapping
                .read_page(index, Sleep::Killable)
                .expect("read");
        }
        assert_eq!(reads.load(Ordering::Relaxed), 16);
        let (major, _) = faults();
        for page in 16..32 {
            assert_eq!(user_read(BASE + page * PAGE_SIZE), Ok(page as u8));
        }
        assert_eq!(faults().0, major);
        assert_eq!(reads.load(Ordering::Relaxed), 16, "no page was read twice");
    });
}

#[test]
fn cached_neighbours_are_mapped_with_the_page() {
    run_test(|| {
        let (source, _) = file(40);
        for index in 0..40 {
            source
                .mapping
                .read_page(index, Sleep::Killable)
                .expect("read");
        }
        // From page 3 of the file on, so that the window is cut off at the start of the area, and the last one by the file's end.
        let mut shifted = source.clone();
        shifted.first_page = 3;
        map(40 * PAGE_SIZE, RW, Some(shifted));
        let (_, before) = faults();
        for page in 0..37 {
            assert_eq!(user_read(BASE + page * PAGE_SIZE), Ok(page as u8 + 3));
        }
        assert_eq!(faults().1 - before, 3, "a fault for each window");
        assert_eq!(current_mm().resident_pages(), 37);
        assert_eq!(user_write(BASE + PAGE_SIZE, 99), Ok(()));
        assert_eq!(faults().1 - before, 4, "writing makes a copy");
        let page = source
            .mapping
            .read_page(4, Sleep::Killable)
            .expect("cached");
        let mut byte = [0];
        crate::mm::page_cache::copy_from_page(&page, 0, &mut byte);
        assert_eq!(byte, [4], "and the file keeps its contents");
    });
}
