//! Changing an address space: mmap(2), munmap(2), mprotect(2), brk(2) and their like.
//!
//! Each takes the write side of `mmap_lock` once, checks everything, and then changes. The calls are system calls' bodies: they
//! answer with the errors of the manual pages.

use super::addr::{PAGE_SHIFT, VirtAddr, page_align_up};
use super::space::{Areas, MAX_MAP_COUNT, MMAP_MIN_ADDR, Mm, MmapWriteGuard};
use super::vma::{Source, VmFlags, Vma};
use crate::arch::USER_END;
use crate::errno::{Errno, Result};
use crate::sched::current;
use crate::task::rlimit::Resource;

/// Where a mapping shall go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Anywhere; the address is a wish.
    Hint(usize),
    /// Exactly there, in place of what is there.
    Fixed(usize),
    /// Exactly there, if nothing is there.
    FixedNoReplace(usize),
}

/// A checked page-aligned range of user addresses.
#[derive(Clone, Copy)]
struct Range {
    start: VirtAddr,
    end: VirtAddr,
}

impl Range {
    /// `None` if `addr` is not page-aligned, the length is 0, or the range leaves the user's half.
    fn new(addr: usize, len: usize) -> Option<Range> {
        let start = VirtAddr::new(addr).filter(|start| start.is_aligned())?;
        let len = page_align_up(len).filter(|&len| len > 0)?;
        let end = VirtAddr::new(addr.checked_add(len)?)?;
        Some(Range { start, end })
    }
}

impl Mm {
    /// Maps `len` bytes; returns the address. `source` as it will be at the first page. `EINVAL`, `EEXIST`, `ENOMEM`, `EPERM` (below
    /// `mmap_min_addr`).
    pub fn map(
        &self,
        place: Place,
        len: usize,
        flags: VmFlags,
        source: Option<Source>,
    ) -> Result<usize> {
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        let len = page_align_up(len)
            .filter(|&len| len <= USER_END)
            .ok_or(Errno::ENOMEM)?;
        let mut areas = self.write()?;
        self.map_locked(&mut areas, place, len, flags, source)
    }

    fn map_locked(
        &self,
        areas: &mut MmapWriteGuard<'_>,
        place: Place,
        len: usize,
        flags: VmFlags,
        source: Option<Source>,
    ) -> Result<usize> {
        let start = choose_place(areas, place, len)?;
        let end = VirtAddr::new(start.get() + len).ok_or(Errno::ENOMEM)?;
        check_limit(areas, len)?;
        let vma = Vma::new(start, end, flags, source)?;
        if matches!(place, Place::Fixed(_)) {
            self.unmap_locked(areas, Range { start, end })?;
        }
        if areas.count() >= MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        areas.insert_merged(vma);
        Ok(start.get())
    }

    /// munmap(2).
    pub fn unmap(&self, addr: usize, len: usize) -> Result {
        let range = Range::new(addr, len).ok_or(Errno::EINVAL)?;
        let mut areas = self.write()?;
        self.unmap_locked(&mut areas, range)
    }

    fn unmap_locked(&self, areas: &mut Areas, range: Range) -> Result {
        areas.split_at(range.start)?;
        areas.split_at(range.end)?;
        let mut removed = false;
        while let Some(vma) = areas
            .find_at_or_above(range.start)
            .filter(|vma| vma.start < range.end)
        {
            areas.remove(vma.start);
            removed = true;
        }
        if removed {
            self.zap(range.start, range.end);
        }
        Ok(())
    }

    /// mprotect(2): gives the range the permissions in `prot`. `ENOMEM` if a part is not mapped, `EACCES` if an area may not have them;
    /// areas before that one are changed then.
    pub fn protect(&self, addr: usize, len: usize, prot: VmFlags) -> Result {
        if len == 0 {
            return VirtAddr::new(addr)
                .filter(|addr| addr.is_aligned())
                .map(|_| ())
                .ok_or(Errno::EINVAL);
        }
        if !addr.is_multiple_of(super::PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        let range = Range::new(addr, len).ok_or(Errno::ENOMEM)?;
        let mut areas = self.write()?;
        let mut at = range.start;
        while at < range.end {
            let vma = areas.find(at).ok_or(Errno::ENOMEM)?;
            let end = vma.end.min(range.end);
            self.protect_part(&mut areas, &vma, Range { start: at, end }, prot)?;
            at = end;
        }
        Ok(())
    }

    /// Changes the permissions of a part of one area.
    fn protect_part(&self, areas: &mut Areas, vma: &Vma, part: Range, prot: VmFlags) -> Result {
        let flags = (vma.flags - VmFlags::PERMISSIONS) | prot;
        if !may_have(flags) {
            return Err(Errno::EACCES);
        }
        if flags == vma.flags {
            return Ok(());
        }
        let changed = vma.part(part.start, part.end, flags)?;
        areas.split_at(part.start)?;
        areas.split_at(part.end)?;
        areas.remove(part.start);
        let pte_flags = changed.pte_flags();
        let shared = changed.is_shared();
        areas.insert_merged(changed);
        self.page_table
            .lock()
            .protect_range(part.start, part.end, |_, pte| {
                let mut new = pte_flags | (pte.flags & KEPT);
                if !shared && !pte.flags.contains(super::pte::PteFlags::WRITE) {
                    // Private pages become writable by a fault, which sees whether they are still shared.
                    new.remove(super::pte::PteFlags::WRITE);
                }
                new
            });
        Ok(())
    }

    /// Places an empty heap at `start`, for exec.
    pub fn set_brk_start(&self, start: usize) -> Result {
        let mut areas = self.write()?;
        areas.brk_start = start;
        areas.brk = start;
        Ok(())
    }

    /// brk(2): moves the end of the heap; returns where it is then.
    pub fn set_brk(&self, brk: usize) -> Result<usize> {
        let mut areas = self.write()?;
        match self.move_brk(&mut areas, brk) {
            Ok(()) => areas.brk = brk,
            Err(_) => return Ok(areas.brk),
        }
        Ok(brk)
    }

    fn move_brk(&self, areas: &mut MmapWriteGuard<'_>, brk: usize) -> Result {
        let data_limit = current().process.rlimits.soft(Resource::Data);
        if brk < areas.brk_start || (brk - areas.brk_start) as u64 > data_limit {
            return Err(Errno::ENOMEM);
        }
        let old_end = page_align_up(areas.brk).ok_or(Errno::ENOMEM)?;
        let new_end = page_align_up(brk).ok_or(Errno::ENOMEM)?;
        if new_end > old_end {
            let flags = VmFlags::READ
                | VmFlags::WRITE
                | VmFlags::MAYREAD
                | VmFlags::MAYWRITE
                | VmFlags::MAYEXEC;
            self.map_locked(
                areas,
                Place::FixedNoReplace(old_end),
                new_end - old_end,
                flags,
                None,
            )?;
        } else if new_end < old_end {
            let range = Range::new(new_end, old_end - new_end).ok_or(Errno::ENOMEM)?;
            self.unmap_locked(areas, range)?;
        }
        Ok(())
    }

    /// madvise(MADV_DONTNEED): private contents go back to what is behind them. `ENOMEM` if a part is not mapped (the rest is done),
    /// `EINVAL`.
    pub fn discard(&self, addr: usize, len: usize) -> Result {
        if !addr.is_multiple_of(super::PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        if len == 0 {
            return Ok(());
        }
        let range = Range::new(addr, len).ok_or(Errno::ENOMEM)?;
        let areas = self.write()?;
        let mapped: usize = areas
            .iter()
            .skip_while(|vma| vma.end <= range.start)
            .take_while(|vma| vma.start < range.end)
            .map(|vma| vma.end.min(range.end).get() - vma.start.max(range.start).get())
            .sum();
        self.zap(range.start, range.end);
        if mapped == range.end.get() - range.start.get() {
            Ok(())
        } else {
            Err(Errno::ENOMEM)
        }
    }
}

/// State of a page-table entry that a change of permissions keeps.
const KEPT: super::pte::PteFlags = super::pte::PteFlags::ACCESSED
    .union(super::pte::PteFlags::DIRTY)
    .union(super::pte::PteFlags::SPECIAL)
    .union(super::pte::PteFlags::UFFD_WP);

/// Whether an area's permissions are within what it may ever have.
fn may_have(flags: VmFlags) -> bool {
    let wants = |permission, may| !flags.contains(permission) || flags.contains(may);
    wants(VmFlags::READ, VmFlags::MAYREAD)
        && wants(VmFlags::WRITE, VmFlags::MAYWRITE)
        && wants(VmFlags::EXEC, VmFlags::MAYEXEC)
}

fn choose_place(areas: &Areas, place: Place, len: usize) -> Result<VirtAddr> {
    match place {
        Place::Fixed(addr) | Place::FixedNoReplace(addr) => {
            if addr % super::PAGE_SIZE != 0 {
                return Err(Errno::EINVAL);
            }
            let range = Range::new(addr, len).ok_or(Errno::ENOMEM)?;
            if addr < MMAP_MIN_ADDR {
                return Err(Errno::EPERM);
            }
            if matches!(place, Place::FixedNoReplace(_)) && !areas.is_free(range.start, range.end) {
                return Err(Errno::EEXIST);
            }
            Ok(range.start)
        }
        Place::Hint(addr) => {
            let wish = page_align_up(addr).and_then(|addr| Range::new(addr, len));
            match wish.filter(|wish| addr >= MMAP_MIN_ADDR && areas.is_free(wish.start, wish.end)) {
                Some(wish) => Ok(wish.start),
                None => areas.find_gap(len),
            }
        }
    }
}

/// RLIMIT_AS.
fn check_limit(areas: &Areas, len: usize) -> Result {
    let limit = current().process.rlimits.soft(Resource::AddressSpace);
    let bytes = (areas.pages() << PAGE_SHIFT).saturating_add(len as u64);
    if bytes > limit {
        Err(Errno::ENOMEM)
    } else {
        Ok(())
    }
}
