//! mremap(2): a mapping gets longer, shorter, or another place, with its pages.

use super::addr::{PAGE_SHIFT, VirtAddr, page_align_up};
use super::limits;
use super::map::{Place, Range, choose_place};
use super::space::{MAX_MAP_COUNT, Mm, MmapWriteGuard};
use super::vma::{VmFlags, Vma};
use crate::arch::USER_END;
use crate::errno::{Errno, Result};

/// What mremap(2) may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remap {
    /// Move it if it has no room to grow.
    pub may_move: bool,
    /// Move it exactly there, in place of what is there.
    pub to: Option<usize>,
    /// Move the pages, and leave the old range mapped and empty. With the place that is wished for, unless `to` is given.
    pub keep_old: Option<usize>,
}

impl Mm {
    /// mremap(2), whose flags were checked; returns where the mapping is then. `EINVAL`, `EFAULT` (not mapped, or more than one area),
    /// `ENOMEM`, `EAGAIN` (locked memory over the limit).
    pub fn remap(&self, addr: usize, old_len: usize, new_len: usize, how: Remap) -> Result<usize> {
        let start = VirtAddr::new(addr)
            .filter(|start| start.is_aligned())
            .ok_or(if addr.is_multiple_of(super::PAGE_SIZE) {
                Errno::EFAULT
            } else {
                Errno::EINVAL
            })?;
        let old_len = page_align_up(old_len).unwrap_or(0);
        let new_len = page_align_up(new_len)
            .filter(|&len| len > 0)
            .ok_or(Errno::EINVAL)?;
        let mut areas = self.write()?;
        let vma = areas.find(start).ok_or(Errno::EFAULT)?;
        if how.to.is_some() || how.keep_old.is_some() {
            return self.remap_to(&mut areas, start, old_len, new_len, how);
        }
        if old_len >= new_len {
            if old_len > new_len {
                let rest = Range::new(addr + new_len, old_len - new_len).ok_or(Errno::EINVAL)?;
                self.unmap_locked(&mut areas, rest)?;
            }
            return Ok(addr);
        }
        may_resize(&areas, &vma, start, old_len, new_len)?;
        if start.get() + old_len == vma.end.get()
            && self.extend(&mut areas, &vma, new_len - old_len)?
        {
            return Ok(addr);
        }
        if !how.may_move {
            return Err(Errno::ENOMEM);
        }
        let to = areas.find_gap(new_len)?;
        self.move_part(&mut areas, &vma, (start, old_len), (to, new_len), false)
    }

    /// Makes an area longer in its place; false if there is no room.
    fn extend(&self, areas: &mut MmapWriteGuard<'_>, vma: &Vma, by: usize) -> Result<bool> {
        let Some(end) = VirtAddr::new(vma.end.get().saturating_add(by)) else {
            return Ok(false);
        };
        if !areas.is_free(vma.end, end) {
            return Ok(false);
        }
        if vma.flags.contains(VmFlags::ACCOUNT) {
            limits::may_charge(by)?;
        }
        let grown = vma.part(vma.start, end, vma.flags)?;
        areas.remove(vma.start);
        areas.insert_merged(grown);
        Ok(true)
    }

    /// MREMAP_FIXED and MREMAP_DONTUNMAP.
    fn remap_to(
        &self,
        areas: &mut MmapWriteGuard<'_>,
        start: VirtAddr,
        mut old_len: usize,
        new_len: usize,
        how: Remap,
    ) -> Result<usize> {
        let place = match how {
            Remap { to: Some(to), .. } => Place::Fixed(to),
            Remap { keep_old, .. } => Place::Hint(keep_old.unwrap_or(0)),
        };
        let (Place::Fixed(to) | Place::Hint(to) | Place::FixedNoReplace(to)) = place;
        let fits = new_len <= USER_END && to <= USER_END - new_len;
        let overlaps =
            start.get() < to.saturating_add(new_len) && to < start.get().saturating_add(old_len);
        if !to.is_multiple_of(super::PAGE_SIZE) || !fits || overlaps {
            return Err(Errno::EINVAL);
        }
        if areas.count() + 2 >= MAX_MAP_COUNT - 3 {
            return Err(Errno::ENOMEM);
        }
        if matches!(place, Place::Fixed(_)) {
            let target = Range::new(to, new_len).ok_or(Errno::EINVAL)?;
            choose_place(areas, place, new_len)?;
            self.unmap_locked(areas, target)?;
        }
        if old_len > new_len {
            let rest = Range::new(start.get() + new_len, old_len - new_len).ok_or(Errno::EINVAL)?;
            self.unmap_locked(areas, rest)?;
            old_len = new_len;
        }
        let vma = areas.find(start).ok_or(Errno::EFAULT)?;
        may_resize(areas, &vma, start, old_len, new_len)?;
        if how.keep_old.is_some() {
            limits::may_expand(areas, vma.flags, old_len, 0)?;
        }
        let to = choose_place(areas, place, new_len)?;
        self.move_part(
            areas,
            &vma,
            (start, old_len),
            (to, new_len),
            how.keep_old.is_some(),
        )
    }

    /// Moves a part of one area with its pages to a free range. An old length of 0 (shared memory only) maps it a second time.
    fn move_part(
        &self,
        areas: &mut MmapWriteGuard<'_>,
        vma: &Vma,
        (start, old_len): (VirtAddr, usize),
        (to, new_len): (VirtAddr, usize),
        keep_old: bool,
    ) -> Result<usize> {
        if areas.count() >= MAX_MAP_COUNT - 3 {
            return Err(Errno::ENOMEM);
        }
        if vma.flags.contains(VmFlags::ACCOUNT) {
            limits::may_charge(new_len)?;
        }
        let new_end = VirtAddr::new(to.get() + new_len).ok_or(Errno::ENOMEM)?;
        let moved = vma.part_at(start, to, new_end)?;
        let old_end = VirtAddr::new(start.get() + old_len).ok_or(Errno::EFAULT)?;
        areas.split_at(start)?;
        areas.split_at(old_end)?;
        self.page_table.lock().move_range(start, old_end, to)?;
        if old_len > 0 && !keep_old {
            areas.remove(start);
        } else if let Some(old) = areas.find(start).filter(|_| keep_old) {
            let flags = old.flags - (VmFlags::LOCKED | VmFlags::LOCKONFAULT);
            // Only the lock's count is lost if there is no memory to say that it is gone.
            let _ = areas.set_flags(&old, start, old_end, flags);
        }
        areas.insert_merged(moved);
        Ok(to.get())
    }
}

/// `vma_to_resize` in Linux's `mm/mremap.c`.
fn may_resize(
    areas: &MmapWriteGuard<'_>,
    vma: &Vma,
    start: VirtAddr,
    old_len: usize,
    new_len: usize,
) -> Result {
    if old_len == 0 && !vma.is_shared() {
        return Err(Errno::EINVAL);
    }
    if old_len > vma.end.get() - start.get() {
        return Err(Errno::EFAULT);
    }
    if new_len == old_len {
        return Ok(());
    }
    let more = new_len - old_len;
    if vma.flags.contains(VmFlags::LOCKED) {
        limits::may_lock(areas, (more >> PAGE_SHIFT) as u64, Errno::EAGAIN)?;
    }
    limits::may_expand(areas, vma.flags, more, 0)
}
