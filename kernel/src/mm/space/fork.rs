//! fork(2): a copy of an address space.

use alloc::sync::Arc;
use core::ops::Range;

use super::Mm;
use crate::arch::{PageTable, USER_END};
use crate::errno::Result;
use crate::mm::anon::AnonId;
use crate::mm::frame::KindCounts;
use crate::mm::rss::PageCounts;
use crate::mm::vma::{VmFlags, Vma};
use crate::mm::{limits, reclaim};
use crate::sync::rank;

impl Mm {
    /// A copy for fork(2): the same areas; private pages are shared until one side writes. `ENOMEM` if the page cache had no memory for
    /// it either.
    pub fn fork(&self) -> Result<Arc<Mm>> {
        reclaim::retry(|| self.try_fork())
    }

    fn try_fork(&self) -> Result<Arc<Mm>> {
        let areas = self.write()?;
        let mut child = Mm::with(PageTable::new()?)?;
        // The same areas cover the same.
        child.mmap_lock.get_mut().gaps = areas.gaps.copy()?;
        let mut cursor = areas.vmas.front();
        let mut below = 0;
        while let Some(vma) = cursor.get() {
            cursor.move_next();
            let above = cursor.get().map_or(USER_END, |next| next.start.get());
            let alone = core::mem::replace(&mut below, vma.end.get())..above;
            if vma.flags.contains(VmFlags::DONTFORK) {
                child.mmap_lock.get_mut().uncover(vma)?;
                continue;
            }
            // Locks and userfaultfds are not inherited.
            let flags = vma.flags - (VmFlags::LOCKED | VmFlags::LOCKONFAULT | VmFlags::UFFD);
            if flags.contains(VmFlags::ACCOUNT) {
                limits::may_charge(vma.len())?;
            }
            let wiped = vma.flags.contains(VmFlags::WIPEONFORK);
            let has_pages = vma.anon.get().is_some() && !wiped;
            let anon = has_pages.then(AnonId::fresh_inherited);
            let copy = vma.part_as(vma.start, vma.end, flags, anon)?;
            child.mmap_lock.get_mut().append_covered(copy);
            // What is not the area's own is found again by faults (`vma_needs_copy`).
            if has_pages {
                self.copy_pages(&child, vma, alone)?;
            }
        }
        let child_areas = child.mmap_lock.get_mut();
        child_areas.brk_start = areas.brk_start;
        child_areas.brk = areas.brk;
        child_areas.count_inherited(&areas);
        child.resident.note_peak();
        Ok(Arc::try_new(child)?)
    }

    /// Gives a child the pages of an area, which it has too. Nothing else lies in the addresses `alone`.
    fn copy_pages(&self, child: &Mm, vma: &Vma, alone: Range<usize>) -> Result {
        let alone = if shares_tables(vma) { alone } else { 0..0 };
        // The child's area is in the reverse map already: see there.
        let (mut copied, mut counts) = (PageCounts::default(), KindCounts::default());
        let mut table = self.page_table.lock();
        let mut child_table = child.page_table.lock_nested(rank::PAGE_TABLE_SECOND);
        let outcome = table.copy_range(&mut child_table, vma.start, vma.end, &alone, &mut counts);
        copied.add_kinds(&counts);
        child.resident.add_all(copied);
        if child_table.has_shared() {
            child.note_shared_tables();
            self.note_shared_tables();
        }
        drop((child_table, table));
        Ok(outcome?)
    }
}

/// Whether tables in which nothing else lies than this area may be shared with a child: there is nothing of a file in them, whose pages
/// somebody may take away, and no protection for userfaultfd.
fn shares_tables(vma: &Vma) -> bool {
    vma.source.is_none() && !vma.flags.intersects(VmFlags::UFFD)
}
