//! Changing an address space: mmap(2), munmap(2), mprotect(2), brk(2) and their like.
//!
//! Each takes the write side of `mmap_lock` once, checks everything, and then changes. The calls are system calls' bodies: they
//! answer with the errors of the manual pages.

use super::addr::{PAGE_SHIFT, VirtAddr, page_align_down, page_align_up};
use super::limits;
use super::space::{Areas, MAX_MAP_COUNT, MMAP_MIN_ADDR, Mm, MmapWriteGuard};
use super::vma::{self, Source, VmFlags, Vma};
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
pub(super) struct Range {
    pub start: VirtAddr,
    pub end: VirtAddr,
}

impl Range {
    /// Bytes.
    pub fn len(self) -> usize {
        self.end.get() - self.start.get()
    }

    /// The area's part in the range. They overlap.
    pub fn part_in(self, vma: &Vma) -> Range {
        Range {
            start: self.start.max(vma.start),
            end: self.end.min(vma.end),
        }
    }

    /// `None` if `addr` is not page-aligned, the length is 0, or the range leaves the user's half.
    pub fn new(addr: usize, len: usize) -> Option<Range> {
        let start = VirtAddr::new(addr).filter(|start| start.is_aligned())?;
        let len = page_align_up(len).filter(|&len| len > 0)?;
        let end = VirtAddr::new(addr.checked_add(len)?)?;
        Some(Range { start, end })
    }
}

impl Mm {
    /// Maps `len` bytes; returns the address. `source` as it will be at the first page. `EINVAL`, `EEXIST`, `ENOMEM`, `EPERM` (below
    /// `mmap_min_addr`, or locked memory where none is allowed), `EAGAIN` (more locked memory than allowed).
    pub fn map(
        &self,
        place: Place,
        len: usize,
        flags: VmFlags,
        source: Option<Source>,
    ) -> Result<usize> {
        let mut areas = self.write()?;
        let flags = flags | areas.default_flags;
        self.map_locked(&mut areas, place, len, flags, source)
    }

    /// The errors that [`Mm::map`] would answer with before it looks at what is to be mapped.
    pub fn check_map(&self, place: Place, len: usize, flags: VmFlags) -> Result {
        let areas = self.write()?;
        admit(&areas, place, len, flags | areas.default_flags).map(|_| ())
    }

    fn map_locked(
        &self,
        areas: &mut MmapWriteGuard<'_>,
        place: Place,
        len: usize,
        mut flags: VmFlags,
        source: Option<Source>,
    ) -> Result<usize> {
        let range = admit(areas, place, len, flags)?;
        let replaced = match place {
            Place::Fixed(_) => areas.pages_in(range.start, range.end),
            _ => 0,
        };
        limits::may_expand(areas, flags, range.len(), replaced)?;
        if flags & (VmFlags::NORESERVE | VmFlags::SHARED | VmFlags::WRITE) == VmFlags::WRITE {
            limits::may_charge(range.len())?;
            flags |= VmFlags::ACCOUNT;
        }
        let vma = Vma::new(range.start, range.end, flags, source)?;
        if matches!(place, Place::Fixed(_)) {
            self.unmap_locked(areas, range)?;
        }
        areas.insert_merged(vma);
        Ok(range.start.get())
    }

    /// munmap(2).
    pub fn unmap(&self, addr: usize, len: usize) -> Result {
        let range = Range::new(addr, len).ok_or(Errno::EINVAL)?;
        let mut areas = self.write()?;
        self.unmap_locked(&mut areas, range)
    }

    pub(super) fn unmap_locked(&self, areas: &mut Areas, range: Range) -> Result {
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

    /// mprotect(2): gives the range the permissions in `prot`; `grows_down`: from the start of the stack that holds `addr`. `ENOMEM` if a
    /// part is not mapped, `EACCES` if an area may not have them; areas before that one are changed then.
    pub fn protect(&self, addr: usize, len: usize, prot: VmFlags, grows_down: bool) -> Result {
        let mut range = Range::new(addr, len).ok_or(Errno::ENOMEM)?;
        let mut areas = self.write()?;
        if grows_down {
            let first = areas.find_at_or_above(range.start).ok_or(Errno::ENOMEM)?;
            if first.start >= range.end {
                return Err(Errno::ENOMEM);
            }
            if !first.flags.contains(VmFlags::GROWSDOWN) {
                return Err(Errno::EINVAL);
            }
            range.start = first.start;
        }
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
        let mut flags = (vma.flags - VmFlags::PERMISSIONS) | prot;
        if !may_have(flags) {
            return Err(Errno::EACCES);
        }
        if flags == vma.flags {
            return Ok(());
        }
        if Vma::is_data(flags) && !Vma::is_data(vma.flags) {
            limits::may_expand(areas, flags, part.len(), (part.len() >> PAGE_SHIFT) as u64)?;
        }
        let uncounted = VmFlags::ACCOUNT | VmFlags::WRITE | VmFlags::SHARED | VmFlags::NORESERVE;
        if flags.contains(VmFlags::WRITE) && !vma.flags.intersects(uncounted) {
            limits::may_charge(part.len())?;
            flags |= VmFlags::ACCOUNT;
        }
        areas.set_flags(vma, part.start, part.end, flags)?;
        let pte_flags = vma::pte_flags(flags);
        let shared = vma.is_shared();
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
                | VmFlags::MAYEXEC
                | areas.default_flags;
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

/// The range of a new mapping, with the checks that come before those of what is mapped.
fn admit(areas: &Areas, place: Place, len: usize, flags: VmFlags) -> Result<Range> {
    if len == 0 {
        return Err(Errno::EINVAL);
    }
    let len = page_align_up(len).ok_or(Errno::ENOMEM)?;
    if areas.count() > MAX_MAP_COUNT || len > USER_END {
        return Err(Errno::ENOMEM);
    }
    let start = choose_place(areas, place, len)?;
    let end = VirtAddr::new(start.get() + len).ok_or(Errno::ENOMEM)?;
    if flags.contains(VmFlags::LOCKED) {
        limits::may_lock(areas, (len >> PAGE_SHIFT) as u64, Errno::EAGAIN)?;
    }
    Ok(Range { start, end })
}

/// Where `len` bytes go. As `get_unmapped_area` in Linux: a wish is rounded down, and followed if it is free.
pub(super) fn choose_place(areas: &Areas, place: Place, len: usize) -> Result<VirtAddr> {
    match place {
        Place::Fixed(addr) | Place::FixedNoReplace(addr) => {
            if USER_END.checked_sub(len).is_none_or(|most| addr > most) {
                return Err(Errno::ENOMEM);
            }
            let range = Range::new(addr, len).ok_or(Errno::EINVAL)?;
            if addr < MMAP_MIN_ADDR {
                return Err(Errno::EPERM);
            }
            if matches!(place, Place::FixedNoReplace(_)) && !areas.is_free(range.start, range.end) {
                return Err(Errno::EEXIST);
            }
            Ok(range.start)
        }
        Place::Hint(addr) => {
            let mut addr = page_align_down(addr);
            if addr != 0 && addr < MMAP_MIN_ADDR {
                addr = MMAP_MIN_ADDR;
            }
            let wish = Range::new(addr, len)
                .filter(|wish| addr != 0 && areas.is_free_for_mapping(wish.start, wish.end));
            wish.map_or_else(|| areas.find_gap(len), |wish| Ok(wish.start))
        }
    }
}
