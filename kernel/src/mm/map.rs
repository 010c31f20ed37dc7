//! Changing an address space: mmap(2), munmap(2), mprotect(2), brk(2) and their like.
//!
//! Each takes the write side of `mmap_lock` once, checks everything, and then changes. The calls are system calls' bodies: they
//! answer with the errors of the manual pages.

use super::addr::{PAGE_SHIFT, PAGE_SIZE, VirtAddr, page_align_down, page_align_up};
use super::fault;
use super::limits;
use super::pte::PteFlags;
use super::space::{Areas, MAX_MAP_COUNT, MMAP_MIN_ADDR, Mm, MmapWriteGuard};
use super::vma::{self, Source, VmFlags, Vma};
use crate::arch::USER_END;
use crate::errno::{Errno, Result};
use crate::sched::current;
use crate::task::rlimit::Resource;

/// Locked areas that one mprotect(2) makes present for writing.
const MOST_POPULATED: usize = 16;

/// Where a mapping shall go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Anywhere; the address is a wish.
    Hint(usize),
    /// Anywhere in the first 2 GiB; the address is a wish.
    Low(usize),
    /// Exactly there, in place of what is there.
    Fixed(usize),
    /// Exactly there, if nothing is there.
    FixedNoReplace(usize),
}

/// Where MAP_32BIT places mappings (`find_start_end` in Linux's `arch/x86/kernel/sys_x86_64.c`).
const LOW_START: usize = 0x4000_0000;
const LOW_END: usize = 0x8000_0000;

/// A checked page-aligned range of user addresses.
#[derive(Clone, Copy, Debug)]
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
        let is_shared_memory = source.as_ref().is_some_and(|source| source.file.is_none());
        if is_shared_memory && !flags.contains(VmFlags::NORESERVE) {
            limits::may_charge(range.len())?;
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
        self.prepare_to_zap(range.start, range.end)?;
        if areas.cut_out(range)? {
            self.zap(range.start, range.end);
            areas.forget_removed();
        }
        Ok(())
    }

    /// mprotect(2): gives the range the permissions in `prot`; `grows_down`: from the start of the stack that holds `addr`. `ENOMEM` if a
    /// part is not mapped, `EACCES` if an area may not have them; areas before that one are changed then.
    pub fn protect(&self, addr: usize, len: usize, prot: VmFlags, grows_down: bool) -> Result {
        let mut areas = self.write()?;
        let mut start = VirtAddr::new(addr).ok_or(Errno::ENOMEM)?;
        let end = page_align_up(len)
            .and_then(|len| addr.checked_add(len))
            .ok_or(Errno::ENOMEM)?;
        if grows_down {
            let first = areas
                .find_at_or_above(start)
                .filter(|first| first.start.get() < end)
                .ok_or(Errno::ENOMEM)?;
            if !first.flags.contains(VmFlags::GROWSDOWN) {
                return Err(Errno::EINVAL);
            }
            start = first.start;
        }
        let mut at = start;
        let mut to_write = heapless::Vec::<Range, MOST_POPULATED>::new();
        let outcome = loop {
            if at.get() >= end {
                break Ok(());
            }
            let Some(vma) = areas.find(at) else {
                break Err(Errno::ENOMEM);
            };
            let part = Range {
                start: at,
                end: vma.end.min(VirtAddr::new(end).unwrap_or(VirtAddr::END)),
            };
            at = part.end;
            if let Err(errno) = self.protect_part(&mut areas, &vma, part, prot) {
                break Err(errno);
            }
            let locked = VmFlags::LOCKED | VmFlags::SHARED | VmFlags::WRITE;
            if vma.flags & locked == VmFlags::LOCKED && prot.contains(VmFlags::WRITE) {
                // What has no place here is left to faults.
                let _ = to_write.push(part);
            }
        };
        drop(areas);
        for part in &to_write {
            // Locked memory of the process's own that can be written is there to be written.
            self.populate_what_can_be_had(part.start.get(), part.len());
        }
        outcome
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
        if flags.contains(VmFlags::WRITE) {
            if !vma.flags.intersects(uncounted) {
                limits::may_charge(part.len())?;
                flags |= VmFlags::ACCOUNT;
            }
        } else if vma.source.is_none() && vma.anon.get().is_none() {
            // Never written: it need not be there until it can be written again.
            flags -= VmFlags::ACCOUNT;
        }
        self.prepare_to_change(part.start, part.end)?;
        areas.set_flags(vma, part.start, part.end, flags)?;
        let pte_flags = vma::pte_flags(flags);
        let (at_once, private) = (vma.writable_at_once(), !vma.is_shared());
        self.page_table
            .lock()
            .protect_range(part.start, part.end, |_, pte| {
                let mut new = pte_flags | (pte.flags & KEPT);
                let protected = pte.flags.contains(PteFlags::UFFD_WP);
                let writable = at_once
                    || pte.flags.contains(PteFlags::WRITE)
                    || private && fault::reusable(pte);
                if protected || !writable {
                    // Such pages become writable by a fault: private ones that are still shared, and those whose changes are noted.
                    new.remove(PteFlags::WRITE);
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
            self.extend_brk(areas, old_end, new_end)?;
        } else if new_end < old_end {
            let range = Range::new(new_end, old_end - new_end).ok_or(Errno::ENOMEM)?;
            if areas.is_free(range.start, range.end) {
                return Err(Errno::ENOMEM);
            }
            self.unmap_locked(areas, range)?;
        }
        Ok(())
    }

    /// Makes the heap longer: `do_brk_flags` in Linux's `mm/vma.c`, and the checks before it. A page stays free above it.
    fn extend_brk(&self, areas: &mut MmapWriteGuard<'_>, start: usize, end: usize) -> Result {
        let flags = VmFlags::READ
            | VmFlags::WRITE
            | VmFlags::MAYREAD
            | VmFlags::MAYWRITE
            | VmFlags::MAYEXEC
            | VmFlags::ACCOUNT
            | areas.default_flags;
        let len = end - start;
        let range = Range::new(start, len).ok_or(Errno::ENOMEM)?;
        if flags.contains(VmFlags::LOCKED) {
            limits::may_lock(areas, (len >> PAGE_SHIFT) as u64, Errno::EAGAIN)?;
        }
        let above = VirtAddr::new(end + PAGE_SIZE).ok_or(Errno::ENOMEM)?;
        if !areas.is_free_for_mapping(range.start, above) {
            return Err(Errno::ENOMEM);
        }
        limits::may_expand(areas, flags, len, 0)?;
        if areas.count() > MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        limits::may_charge(len)?;
        let vma = Vma::new(range.start, range.end, flags, None)?;
        areas.insert_merged_below(vma);
        Ok(())
    }
}

/// State of a page-table entry that a change of permissions keeps.
const KEPT: PteFlags = PteFlags::ACCESSED
    .union(PteFlags::DIRTY)
    .union(PteFlags::SPECIAL)
    .union(PteFlags::UFFD_WP);

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
            // Root may (CAP_SYS_RAWIO): emulators want the first page.
            if addr < MMAP_MIN_ADDR && !limits::is_root() {
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
        Place::Low(addr) => {
            let wish = page_align_up(addr)
                .filter(|&addr| addr >= MMAP_MIN_ADDR)
                .and_then(|addr| Range::new(addr, len))
                .filter(|wish| wish.end.get() <= LOW_END)
                .filter(|wish| areas.is_free_for_mapping(wish.start, wish.end));
            wish.map_or_else(
                || areas.find_gap_in(len, LOW_START, LOW_END),
                |wish| Ok(wish.start),
            )
        }
    }
}
