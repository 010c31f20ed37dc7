//! An address space's page table, with the count of what is mapped in it.
//!
//! Shared by the address space, its areas, and the reverse maps of the files that it maps: truncation and reclaim take pages away from an
//! address space without its `mmap_lock`.
//!
//! Lock rank: PAGE_TABLE.

use core::sync::atomic::{AtomicBool, Ordering};

use super::addr::VirtAddr;
use super::frame::{Frame, FrameNumber, KindCounts};
use super::page_cache;
use super::pte::{Pte, PteFlags};
use super::reclaim;
use super::rss::{PageCounts, Resident};
use crate::arch::PageTable;
use crate::errno::OutOfMemory;
use crate::sync::{SpinLock, rank};

pub struct Translations {
    pub(super) page_table: SpinLock<PageTable>,
    /// Pages that are mapped, without the shared zero page.
    pub(super) resident: Resident,
    /// Whether tables were ever shared with another address space; changed with the write side of `mmap_lock` held.
    shares_tables: AtomicBool,
}

impl Translations {
    pub(super) fn new(page_table: PageTable) -> Translations {
        Translations {
            page_table: SpinLock::new(rank::PAGE_TABLE, page_table),
            resident: Resident::default(),
            shares_tables: AtomicBool::new(false),
        }
    }

    /// Resident pages, as in /proc/self/statm.
    pub fn resident_pages(&self) -> u64 {
        self.resident.get().total()
    }

    /// The same by kind.
    pub fn resident(&self) -> PageCounts {
        self.resident.get()
    }

    /// Most pages that were ever resident, as VmHWM.
    pub fn peak_resident_pages(&self) -> u64 {
        self.resident.peak()
    }

    /// Tables are shared with another address space from now on.
    pub(super) fn note_shared_tables(&self) {
        self.shares_tables.store(true, Ordering::Relaxed);
    }

    /// Before translations in `start..end` are removed: what lies beside them in the same tables will be this address space's alone. With
    /// `mmap_lock` held on either side until then.
    pub(super) fn prepare_to_zap(&self, start: VirtAddr, end: VirtAddr) -> Result<(), OutOfMemory> {
        if !self.shares_tables.load(Ordering::Relaxed) {
            return Ok(());
        }
        reclaim::retry(|| self.page_table.lock().own_edges(start, end))
    }

    /// The same before those in `start..end` are changed.
    pub(super) fn prepare_to_change(
        &self,
        start: VirtAddr,
        end: VirtAddr,
    ) -> Result<(), OutOfMemory> {
        if !self.shares_tables.load(Ordering::Relaxed) {
            return Ok(());
        }
        reclaim::retry(|| self.page_table.lock().own_range(start, end))
    }

    /// Removes every translation in `start..end`, with what userfaultfd protects; the frames lose a reference each. After
    /// [`Translations::prepare_to_zap`], unless areas go whole.
    pub(super) fn zap(&self, start: VirtAddr, end: VirtAddr) {
        self.zap_each(core::iter::once((start, end)));
    }

    /// The same for several ranges.
    pub(super) fn zap_each(&self, ranges: impl Iterator<Item = (VirtAddr, VirtAddr)>) {
        self.resident.note_peak();
        let (mut gone, mut counts) = (PageCounts::default(), KindCounts::default());
        let mut table = self.page_table.lock();
        for (start, end) in ranges {
            table.zap_range(start, end, &mut counts);
        }
        drop(table);
        gone.add_kinds(&counts);
        self.resident.remove_all(gone);
    }

    /// Removes every translation in `start..end` of an area of a file, whose contents may come back: protection for userfaultfd stays.
    pub(super) fn zap_contents(&self, start: VirtAddr, end: VirtAddr) {
        self.zap_if(start, end, &mut |_| true);
    }

    /// Removes the translations of pages of the page cache in `start..end`, and leaves private copies and protection.
    pub(super) fn zap_cached(&self, start: VirtAddr, end: VirtAddr) {
        self.zap_if(start, end, &mut |pte| page_cache::holds(pte.frame));
    }

    fn zap_if(&self, start: VirtAddr, end: VirtAddr, wanted: &mut impl FnMut(Pte) -> bool) {
        self.resident.note_peak();
        let mut gone = PageCounts::default();
        self.page_table
            .lock()
            .unmap_range_if(start, end, wanted, &mut |_, _, frame| {
                count(&mut gone, frame)
            });
        self.resident.remove_all(gone);
    }

    /// The next write to each page in `start..end` is a fault.
    pub(super) fn write_protect(&self, start: VirtAddr, end: VirtAddr) {
        self.page_table
            .lock()
            .protect_range(start, end, |_, pte| pte.flags - PteFlags::WRITE);
    }

    /// Removes the translation of `page` if it is still that of `frame` and was not used since the last call; whether none is left. One
    /// that was used is marked as unused.
    pub(super) fn evict(&self, page: VirtAddr, frame: FrameNumber) -> bool {
        let mut table = self.page_table.lock();
        let Ok(entry) = table.entry(page) else {
            return false;
        };
        let Some(entry) = entry.filter(|entry| entry.pte().frame == frame) else {
            return true;
        };
        let flags = entry.pte().flags;
        if flags.contains(PteFlags::ACCESSED) {
            entry.set_flags(flags - PteFlags::ACCESSED).flush();
            return false;
        }
        drop(table);
        let Some(end) = page.next_page() else {
            return false;
        };
        self.zap_if(page, end, &mut |pte| pte.frame == frame);
        true
    }
}

/// Counts a page that is going, and gives it up.
#[inline]
fn count(gone: &mut PageCounts, frame: Option<Frame>) {
    if let Some(frame) = frame {
        gone.add(frame.release());
    }
}
