//! What happens when memory runs out.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{BASE, RW, file, map};
use crate::arch::sim::machine::{current_mm, run_test};
use crate::arch::sim::{UserFault, user_write};
use crate::arch::time;
use crate::mm::frame::{RESERVE, free_frames, total_frames};
use crate::mm::{PAGE_SIZE, reclaim};
use crate::sched::wait::sleep_until;
use crate::sched::{Sleep, current};
use crate::signal::fatal_signal_pending;

#[test]
fn a_file_larger_than_memory_is_read_through_the_page_cache() {
    run_test(|| {
        let pages = total_frames() + 500;
        let (source, reads) = file(pages);
        for index in 0..pages as u64 {
            let page = source
                .mapping
                .read_page(index, Sleep::Killable)
                .expect("memory is found in the cache");
            let mut byte = [0];
            crate::mm::page_cache::copy_from_page(&page, 77, &mut byte);
            assert_eq!(byte[0], index as u8);
        }
        assert!(free_frames() >= RESERVE);
        assert!(reads.load(Ordering::Relaxed) >= pages as u32);
    });
}

#[test]
fn anonymous_memory_takes_the_place_of_cached_files() {
    run_test(|| {
        let (cached, _) = file(1000);
        for index in 0..1000 {
            cached
                .mapping
                .read_page(index, Sleep::Killable)
                .expect("room");
        }
        let pages = free_frames() - RESERVE + 500;
        map(pages * PAGE_SIZE, RW, None);
        for page in 0..pages {
            assert_eq!(user_write(BASE + page * PAGE_SIZE, 1), Ok(()));
        }
        assert!(!fatal_signal_pending(&current()));
    });
}

#[test]
fn a_hog_is_killed_and_its_memory_comes_back() {
    static BEFORE: AtomicU64 = AtomicU64::new(0);
    run_test(|| {
        while reclaim::reclaim() > 0 {}
        BEFORE.store(free_frames() as u64, Ordering::Relaxed);
    });
    run_test(|| {
        let pages = total_frames();
        map(pages * PAGE_SIZE, RW, None);
        let end = (0..pages).find_map(|page| user_write(BASE + page * PAGE_SIZE, 1).err());
        assert_eq!(end, Some(UserFault::Interrupted));
        assert!(fatal_signal_pending(&current()));
        assert!(current_mm().resident_pages() as usize > pages / 2);
    });
    run_test(|| assert_eq!(free_frames() as u64, BEFORE.load(Ordering::Relaxed)));
}

#[test]
fn the_largest_process_pays_not_the_one_that_asks() {
    static LARGE: AtomicU64 = AtomicU64::new(0);
    /// The other process: takes most of the memory and sleeps.
    fn large() {
        let pages = free_frames() - RESERVE - 100;
        map(pages * PAGE_SIZE, RW, None);
        for page in 0..pages {
            user_write(BASE + page * PAGE_SIZE, 1).expect("there is room");
        }
        LARGE.store(1, Ordering::Relaxed);
        let killed = sleep_until(Sleep::Killable, time::now_ns() + 60_000_000_000);
        LARGE.store(if killed.is_err() { 2 } else { 3 }, Ordering::Relaxed);
        crate::task::exit::exit_group(crate::task::ExitStatus::Code(0))
    }
    run_test(|| {
        while reclaim::reclaim() > 0 {}
        LARGE.store(0, Ordering::Relaxed);
        crate::task::spawn_test_process(large).expect("memory");
        while LARGE.load(Ordering::Relaxed) == 0 {
            sleep_until(Sleep::Killable, time::now_ns() + 1_000_000).expect("nothing interrupts");
        }
        map(500 * PAGE_SIZE, RW, None);
        for page in 0..500 {
            assert_eq!(user_write(BASE + page * PAGE_SIZE, 1), Ok(()));
        }
        assert_eq!(LARGE.load(Ordering::Relaxed), 2);
        assert!(!fatal_signal_pending(&current()));
    });
}
