//! Stores through shared mappings of files on a disk: the file hears of the first one to each page.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{BASE, RW, file, map};
use crate::arch::sim::machine::{current_mm, run_test};
use crate::arch::sim::{user_read, user_write};
use crate::errno::Result;
use crate::mm::vma::MappedFile;
use crate::mm::{PAGE_SIZE, VmFlags, reclaim};

const SHARED: VmFlags = RW.union(VmFlags::SHARED);

/// Counts how often it was told of a store.
#[derive(Default)]
struct Told(AtomicU32);

impl MappedFile for Told {
    fn id(&self) -> (u64, u64) {
        (0, 0)
    }

    fn written(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn punch_hole(&self, _start: u64, _len: u64) -> Result {
        Ok(())
    }

    fn write_path(&self, _out: &mut dyn fmt::Write) -> fmt::Result {
        Ok(())
    }
}

#[test]
fn the_first_store_to_a_page_is_a_fault_that_tells_the_file() {
    run_test(|| {
        let (mut source, _) = file(8);
        let told = Arc::new(Told::default());
        source.file = Some(told.clone());
        map(8 * PAGE_SIZE, SHARED, Some(source.clone()));
        let told = || told.0.load(Ordering::Relaxed);
        for page in 0..8 {
            assert_eq!(user_read(BASE + page * PAGE_SIZE), Ok(page as u8));
        }
        assert_eq!(told(), 0);
        assert_eq!(user_write(BASE, 50), Ok(()));
        assert_eq!(user_write(BASE + 1, 51), Ok(()));
        assert_eq!(told(), 1, "a page that is being written is not asked about");
        assert_eq!(user_write(BASE + PAGE_SIZE, 52), Ok(()));
        assert_eq!(told(), 2);
        current_mm()
            .sync(BASE, PAGE_SIZE, true, false)
            .expect("mapped");
        assert_eq!(user_write(BASE + PAGE_SIZE, 53), Ok(()));
        assert_eq!(told(), 2);
        assert_eq!(user_write(BASE, 54), Ok(()));
        assert_eq!(told(), 3, "after msync(2) it is the first store again");
        let prot = VmFlags::READ | VmFlags::WRITE;
        let mm = current_mm();
        mm.protect(BASE, 8 * PAGE_SIZE, VmFlags::READ, false)
            .expect("mapped");
        mm.protect(BASE, 8 * PAGE_SIZE, prot, false)
            .expect("mapped");
        assert_eq!(user_write(BASE + 2 * PAGE_SIZE, 55), Ok(()));
        assert_eq!(told(), 4, "mprotect(2) lets no store pass unseen");
    });
}

#[test]
fn what_was_stored_is_never_reclaimed() {
    run_test(|| {
        let (source, reads) = file(64);
        map(64 * PAGE_SIZE, SHARED, Some(source.clone()));
        for page in 0..64 {
            assert_eq!(user_read(BASE + page * PAGE_SIZE), Ok(page as u8));
        }
        assert_eq!(user_write(BASE + 7 * PAGE_SIZE, 99), Ok(()));
        current_mm().unmap(BASE, 64 * PAGE_SIZE).expect("mapped");
        while reclaim::reclaim() > 0 {}
        let before = reads.load(Ordering::Relaxed);
        map(64 * PAGE_SIZE, SHARED, Some(source.clone()));
        assert_eq!(user_read(BASE + 7 * PAGE_SIZE), Ok(99));
        assert_eq!(reads.load(Ordering::Relaxed), before);
        assert_eq!(user_read(BASE + 40 * PAGE_SIZE), Ok(40));
        assert!(reads.load(Ordering::Relaxed) > before, "the others were");
    });
}
