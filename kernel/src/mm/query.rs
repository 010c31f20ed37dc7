//! Asking about memory without changing it: mincore(2), msync(2), and what /proc shows of pages.

use super::addr::{PAGE_SHIFT, PAGE_SIZE, VirtAddr, page_align_down};
use super::map::Range;
use super::pte::Pte;
use super::space::Mm;
use super::vma::{VmFlags, Vma};
use crate::errno::{Errno, Result};
use crate::sched::Sleep;

impl Mm {
    /// Calls `f` for each page in `start..end` that has an entry, by rising address, with the page table's lock held, and how many address
    /// spaces have that very entry. Costs what is there, not what could be.
    pub fn for_each_page(
        &self,
        start: VirtAddr,
        end: VirtAddr,
        f: &mut impl FnMut(VirtAddr, Pte, u32),
    ) {
        let mut at = start;
        while let Some(next) = self.page_table.lock().visit_some(at, end, f) {
            at = next;
        }
    }

    /// The same for `count` pages from the address `start` on; `f` gets the number of the page in the address space.
    pub fn for_each_page_in(
        &self,
        start: usize,
        count: usize,
        f: &mut impl FnMut(usize, Pte, u32),
    ) {
        let end = (start + count * PAGE_SIZE).min(crate::arch::USER_END);
        if let (Some(start), Some(end)) = (VirtAddr::new(start), VirtAddr::new(end)) {
            self.for_each_page(start, end, &mut |page, pte, sharers| {
                f(page.get() >> PAGE_SHIFT, pte, sharers)
            });
        }
    }

    /// mincore(2) for as many pages as `out` has bytes, from `start` on: 1 for a page that can be had without waiting for a device.
    /// `ENOMEM` if a part is not mapped.
    pub fn residency(&self, start: VirtAddr, out: &mut [u8]) -> Result {
        let areas = self.read(Sleep::Killable).map_err(|_| Errno::EINTR)?;
        let mut at = start;
        for byte in out {
            let vma = areas.find(at).ok_or(Errno::ENOMEM)?;
            *byte = u8::from(self.is_present(&vma, at));
            at = VirtAddr::new(at.get() + PAGE_SIZE).ok_or(Errno::ENOMEM)?;
        }
        Ok(())
    }

    /// Whether an area holds `address`.
    pub fn is_mapped(&self, address: VirtAddr) -> bool {
        self.read(Sleep::Uninterruptible)
            .is_ok_and(|areas| areas.find(address).is_some())
    }

    fn is_present(&self, vma: &Vma, page: VirtAddr) -> bool {
        if self.page_table.lock().get(page).is_some() {
            return true;
        }
        match (&vma.source, vma.page_index_of(page)) {
            (Some(source), Some(index)) => source.mapping.is_cached(index),
            _ => false,
        }
    }

    /// msync(2), whose work is done as soon as it is asked for: all who share a page share its frame. `write_back`: what is written
    /// afterwards changes the file's times again. `invalidate`: `EBUSY` for locked memory. `ENOMEM` if a part is not mapped.
    pub fn sync(&self, addr: usize, len: usize, write_back: bool, invalidate: bool) -> Result {
        // Linux lets the length wrap when it rounds it up.
        let len = page_align_down(len.wrapping_add(PAGE_SIZE - 1));
        if len == 0 {
            return Ok(());
        }
        let range = Range::new(addr, len).ok_or(Errno::ENOMEM)?;
        let areas = self.read(Sleep::Killable).map_err(|_| Errno::EINTR)?;
        let mut mapped = 0;
        for vma in areas.overlapping(range.start, range.end) {
            if invalidate && vma.flags.contains(VmFlags::LOCKED) {
                return Err(Errno::EBUSY);
            }
            let part = range.part_in(vma);
            if let Some((source, first)) = vma.source.as_ref().zip(vma.page_index_of(part.start))
                && write_back
                && vma.is_shared()
            {
                let pages = (part.len() >> PAGE_SHIFT) as u64;
                source.mapping.protect(first, first + pages - 1);
            }
            mapped += part.len();
        }
        if mapped >> PAGE_SHIFT == range.len() >> PAGE_SHIFT {
            Ok(())
        } else {
            Err(Errno::ENOMEM)
        }
    }
}
