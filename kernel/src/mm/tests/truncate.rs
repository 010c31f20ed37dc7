//! Contents that go away under those who map them.

use std::sync::atomic::Ordering;

use super::{BASE, RO, RW, file, map};
use crate::arch::sim::machine::{current_mm, run_test};
use crate::arch::sim::{UserFault, user_read, user_write};
use crate::arch::time;
use crate::mm::map::Place;
use crate::mm::page_cache::{Backing, Lookup, Mapping, is_gone};
use crate::mm::remap::Remap;
use crate::mm::vma::Source;
use crate::mm::{PAGE_SIZE, VmFlags, reclaim};
use crate::sched::Sleep;
use crate::sched::wait::sleep_until;
use crate::signal::{Signal, code};

const SHARED: VmFlags = RW.union(VmFlags::SHARED);
const OTHER: usize = BASE + (1 << 30);

fn bus() -> Result<u8, UserFault> {
    Err(UserFault::Signal(Signal::SIGBUS, code::BUS_ADRERR))
}

fn shared_memory(pages: usize) -> Source {
    Source {
        mapping: Mapping::anonymous((pages * PAGE_SIZE) as u64).expect("memory"),
        first_page: 0,
        file: None,
    }
}

fn map_at(addr: usize, pages: usize, flags: VmFlags, source: &Source) {
    current_mm()
        .map(
            Place::Fixed(addr),
            pages * PAGE_SIZE,
            flags,
            Some(source.clone()),
        )
        .expect("room");
}

#[test]
fn truncation_takes_pages_and_private_copies_from_every_mapping() {
    run_test(|| {
        let source = shared_memory(8);
        map_at(BASE, 8, SHARED, &source);
        map_at(OTHER, 8, RW, &source);
        for page in 0..8 {
            assert_eq!(user_write(BASE + page * PAGE_SIZE, page as u8), Ok(()));
            assert_eq!(user_read(OTHER + page * PAGE_SIZE), Ok(page as u8));
        }
        assert_eq!(user_write(OTHER + 6 * PAGE_SIZE, 99), Ok(()));
        let child = current_mm().fork().expect("memory");
        assert_eq!(child.resident_pages(), 8, "the private pages");
        source.mapping.resize(3 * PAGE_SIZE as u64 + 100);
        for page in 4..8 {
            assert_eq!(user_read(BASE + page * PAGE_SIZE), bus());
            assert_eq!(user_read(OTHER + page * PAGE_SIZE), bus());
        }
        assert_eq!(user_read(BASE + 3 * PAGE_SIZE), Ok(3));
        assert_eq!(user_read(OTHER + 3 * PAGE_SIZE), Ok(3));
        assert_eq!(child.resident_pages(), 4);
        source.mapping.resize(8 * PAGE_SIZE as u64);
        assert_eq!(user_read(BASE + 6 * PAGE_SIZE), Ok(0));
        assert_eq!(user_read(OTHER + 6 * PAGE_SIZE), Ok(0), "the copy is gone");
    });
}

#[test]
fn a_hole_reads_as_zeros_and_leaves_private_copies() {
    run_test(|| {
        for source in [shared_memory(8), file(8).0] {
            map_at(BASE, 8, SHARED, &source);
            map_at(OTHER, 8, RW, &source);
            for page in 0..8 {
                assert_eq!(user_write(BASE + page * PAGE_SIZE, 7), Ok(()));
                assert_eq!(user_write(BASE + page * PAGE_SIZE + 50, 8), Ok(()));
                assert_eq!(user_read(OTHER + page * PAGE_SIZE), Ok(7));
            }
            assert_eq!(user_write(OTHER + 3 * PAGE_SIZE, 99), Ok(()));
            let (start, end) = (PAGE_SIZE as u64 + 10, 5 * PAGE_SIZE as u64 + 20);
            source.mapping.punch(start, end).expect("memory");
            for page in 2..5 {
                assert_eq!(user_read(BASE + page * PAGE_SIZE), Ok(0));
            }
            assert_eq!(user_read(BASE + PAGE_SIZE), Ok(7));
            assert_eq!(user_read(BASE + PAGE_SIZE + 50), Ok(0));
            assert_eq!(user_read(BASE + 5 * PAGE_SIZE), Ok(0));
            assert_eq!(user_read(BASE + 5 * PAGE_SIZE + 50), Ok(8));
            assert_eq!(user_read(OTHER + 2 * PAGE_SIZE), Ok(0));
            assert_eq!(user_read(OTHER + 3 * PAGE_SIZE), Ok(99));
        }
    });
}

#[test]
fn what_was_cut_off_a_file_on_a_disk_does_not_come_back() {
    run_test(|| {
        let (source, reads) = file(8);
        source.mapping.resize(2 * PAGE_SIZE as u64 + 100);
        source.mapping.resize(8 * PAGE_SIZE as u64);
        map_at(BASE, 8, RO, &source);
        assert_eq!(user_read(BASE + 2 * PAGE_SIZE + 99), Ok(2));
        assert_eq!(user_read(BASE + 2 * PAGE_SIZE + 100), Ok(0));
        assert_eq!(user_read(BASE + 5 * PAGE_SIZE), Ok(0));
        assert_eq!(reads.load(Ordering::Relaxed), 3);
    });
}

/// A file whose pages take a while.
struct Slow;

impl Backing for Slow {
    fn read_page(&self, _index: u64, page: &mut [u8; PAGE_SIZE]) -> crate::errno::Result {
        page.fill(5);
        sleep_until(Sleep::Uninterruptible, time::now_ns() + 10_000_000)
            .expect("nothing interrupts");
        Ok(())
    }
}

#[test]
fn truncation_during_a_read_is_seen_by_those_who_wait() {
    run_test(|| {
        let size = 4 * PAGE_SIZE as u64;
        let mapping = Mapping::new(size, std::boxed::Box::new(Slow)).expect("memory");
        let source = Source {
            mapping: mapping.clone(),
            first_page: 0,
            file: None,
        };
        map_at(BASE, 4, RO, &source);
        mapping.read_ahead(0, 4);
        mapping.resize(PAGE_SIZE as u64 + 10);
        mapping.resize(size);
        assert_eq!(user_read(BASE + PAGE_SIZE + 9), Ok(5));
        assert_eq!(user_read(BASE + PAGE_SIZE + 10), Ok(0));
        assert_eq!(user_read(BASE + 3 * PAGE_SIZE), Ok(0));
    });
}

#[test]
fn a_page_that_is_gone_is_known_as_such_to_who_looked_it_up_before() {
    run_test(|| {
        let source = shared_memory(2);
        let looked_up = |index| match source.mapping.lookup(index) {
            Ok(Lookup::Ready(page)) => page,
            _ => panic!("shared memory has its pages at once"),
        };
        let (truncated, kept) = (looked_up(1), looked_up(0));
        source.mapping.resize(PAGE_SIZE as u64);
        source.mapping.resize(2 * PAGE_SIZE as u64);
        assert!(is_gone(&truncated) && !is_gone(&kept));
        assert_ne!(looked_up(1).number(), truncated.number());
        assert!(
            !source.mapping.commit(&truncated, 1),
            "nothing is written there any more"
        );
    });
}

#[test]
fn areas_that_were_split_joined_and_moved_are_found() {
    run_test(|| {
        let source = shared_memory(16);
        map_at(BASE, 16, SHARED, &source);
        for page in 0..16 {
            assert_eq!(user_write(BASE + page * PAGE_SIZE, 1), Ok(()));
        }
        let mm = current_mm();
        let prot = VmFlags::READ;
        mm.protect(BASE + 4 * PAGE_SIZE, PAGE_SIZE, prot, false)
            .expect("mapped");
        let both = VmFlags::READ | VmFlags::WRITE;
        mm.protect(BASE + 4 * PAGE_SIZE, PAGE_SIZE, both, false)
            .expect("mapped");
        let how = Remap {
            may_move: true,
            to: Some(OTHER),
            keep_old: None,
        };
        mm.remap(BASE + 8 * PAGE_SIZE, 8 * PAGE_SIZE, 8 * PAGE_SIZE, how)
            .expect("room");
        assert_eq!(user_read(OTHER), Ok(1));
        source.mapping.resize(4 * PAGE_SIZE as u64);
        assert_eq!(mm.resident_pages(), 4);
        assert_eq!(user_read(OTHER), bus());
        assert_eq!(user_read(BASE + 4 * PAGE_SIZE), bus());
        mm.unmap(BASE, 16 * PAGE_SIZE).expect("mapped");
        mm.unmap(OTHER, 8 * PAGE_SIZE).expect("mapped");
        let mut found = 0;
        source.mapping.areas().for_each(0, 100, &mut |_| found += 1);
        assert_eq!(found, 0);
    });
}

#[test]
fn clean_mapped_pages_make_room_unless_they_are_locked_or_written() {
    run_test(|| {
        let (source, reads) = file(64);
        map(64 * PAGE_SIZE, RO, Some(source.clone()));
        let mm = current_mm();
        for page in 0..64 {
            assert_eq!(user_read(BASE + page * PAGE_SIZE), Ok(page as u8));
        }
        mm.set_locks(BASE, 8 * PAGE_SIZE, VmFlags::LOCKED)
            .expect("mapped");
        let page = source.mapping.page_for_writing(20, Sleep::Killable);
        let page = page.expect("cached");
        assert!(source.mapping.commit(&page, 0));
        drop(page);
        while reclaim::reclaim() > 0 {}
        assert_eq!(mm.resident_pages(), 8 + 1);
        let before = reads.load(Ordering::Relaxed);
        assert_eq!(user_read(BASE + 5 * PAGE_SIZE), Ok(5));
        assert_eq!(user_read(BASE + 20 * PAGE_SIZE), Ok(20));
        assert_eq!(reads.load(Ordering::Relaxed), before);
        assert_eq!(user_read(BASE + 30 * PAGE_SIZE), Ok(30));
        assert!(reads.load(Ordering::Relaxed) > before, "it is read again");
    });
}
