//! mremap(2): a mapping gets longer, shorter, or another place, with its pages.
//!
//! The order of the checks, and what is lost when one of them fails after something was unmapped, are those of Linux 6.18
//! (`mm/mremap.c`): since 6.17 a move that changes no length may go over several areas, each of which is moved for itself.

use super::addr::{PAGE_SHIFT, PAGE_SIZE, VirtAddr, page_align_up};
use super::limits;
use super::map::{Place, Range, choose_place};
use super::reverse_map::Entry;
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

/// What was done.
#[derive(Clone, Copy, Debug)]
pub struct Remapped {
    pub start: usize,
    /// A range (start, bytes) that the caller makes present: locked memory that got longer.
    pub populate: Option<(usize, usize)>,
}

impl From<usize> for Remapped {
    fn from(start: usize) -> Remapped {
        Remapped {
            start,
            populate: None,
        }
    }
}

/// One area's part in a call: whole pages, lengths in bytes.
#[derive(Clone, Copy)]
struct Piece {
    start: VirtAddr,
    old_len: usize,
    new_len: usize,
}

impl Piece {
    fn old_end(self) -> usize {
        self.start.get().saturating_add(self.old_len)
    }
}

impl Remap {
    /// The place that is asked for, if the mapping moves in any case.
    fn new_addr(self) -> Option<usize> {
        self.to.or(self.keep_old)
    }

    fn place(self) -> Place {
        match (self.to, self.keep_old) {
            (Some(to), _) => Place::Fixed(to),
            (None, wish) => Place::Hint(wish.unwrap_or(0)),
        }
    }
}

impl Mm {
    /// mremap(2), whose flags were checked but for the lengths. `EINVAL`, `EFAULT` (not mapped, or more than one area where only one
    /// is allowed), `ENOMEM`, `EAGAIN` (locked memory over the limit).
    pub fn remap(
        &self,
        addr: usize,
        old_len: usize,
        new_len: usize,
        how: Remap,
    ) -> Result<Remapped> {
        if !addr.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        let old_len = page_align_up(old_len).unwrap_or(0);
        let new_len = page_align_up(new_len)
            .filter(|&len| len > 0 && len <= USER_END)
            .ok_or(Errno::EINVAL)?;
        if let Some(to) = how.new_addr() {
            check_new_addr(addr, old_len, new_len, to, how)?;
        }
        let mut areas = self.write()?;
        if how.new_addr().is_some() && areas.count() + 2 >= MAX_MAP_COUNT - 3 {
            return Err(Errno::ENOMEM);
        }
        let start = VirtAddr::new(addr).ok_or(Errno::EFAULT)?;
        if let Some(to) = how.to.filter(|_| old_len == new_len) {
            return self.move_all(&mut areas, start, old_len, to, how);
        }
        let vma = areas.find(start).ok_or(Errno::EFAULT)?;
        let piece = Piece {
            start,
            old_len,
            new_len,
        };
        let expands = check_piece(&areas, &vma, piece, how)?;
        let start = if how.new_addr().is_some() {
            self.remap_to(&mut areas, piece, how)?
        } else {
            self.remap_at(&mut areas, &vma, piece, how)?
        };
        Ok(Remapped {
            start,
            populate: expands.then(|| (start + old_len, new_len - old_len)),
        })
    }

    /// Moves every area in a range, keeping their distances; the first one begins at its start.
    fn move_all(
        &self,
        areas: &mut MmapWriteGuard<'_>,
        start: VirtAddr,
        len: usize,
        to: usize,
        how: Remap,
    ) -> Result<Remapped> {
        let end = VirtAddr::new(start.get().saturating_add(len)).unwrap_or(VirtAddr::END);
        let mut at = start;
        while at < end
            && let Some(vma) = areas.find_at_or_above(at).filter(|vma| vma.start < end)
        {
            if at == start && vma.start > start {
                break;
            }
            if moves_alone(&vma) && (at != start || vma.end < end) {
                return Err(Errno::EFAULT);
            }
            areas.reserve()?;
            let from = vma.start.max(at);
            let len = vma.end.min(end).get() - from.get();
            let piece = Piece {
                start: from,
                old_len: len,
                new_len: len,
            };
            let how = Remap {
                to: Some(to + (from.get() - start.get())),
                ..how
            };
            check_piece(areas, &vma, piece, how)?;
            at = vma.end;
            self.remap_to(areas, piece, how)?;
        }
        if at == start {
            return Err(Errno::EFAULT);
        }
        Ok(to.into())
    }

    /// Without a new place: shorter, as it is, or longer.
    fn remap_at(
        &self,
        areas: &mut MmapWriteGuard<'_>,
        vma: &Vma,
        piece: Piece,
        how: Remap,
    ) -> Result<usize> {
        let addr = piece.start.get();
        if piece.old_len >= piece.new_len {
            self.shrink(areas, piece)?;
            return Ok(addr);
        }
        if piece.old_end() == vma.end.get()
            && self.extend(areas, vma, piece.new_len - piece.old_len)?
        {
            return Ok(addr);
        }
        if !how.may_move {
            return Err(Errno::ENOMEM);
        }
        let to = areas.find_gap(piece.new_len)?;
        self.move_part(areas, vma, piece, to, false)
    }

    /// Unmaps what is behind the new length, whatever is there.
    fn shrink(&self, areas: &mut MmapWriteGuard<'_>, piece: Piece) -> Result {
        if piece.old_len <= piece.new_len {
            return Ok(());
        }
        let from = piece.start.get() + piece.new_len;
        let rest = Range::new(from, piece.old_len - piece.new_len).ok_or(Errno::EINVAL)?;
        self.unmap_locked(areas, rest)
    }

    /// Makes an area longer in its place; false if there is no room.
    fn extend(&self, areas: &mut MmapWriteGuard<'_>, vma: &Vma, by: usize) -> Result<bool> {
        let Some(end) = VirtAddr::new(vma.end.get().saturating_add(by)) else {
            return Ok(false);
        };
        if end.get() > USER_END || !areas.is_free(vma.end, end) {
            return Ok(false);
        }
        if vma.flags.contains(VmFlags::ACCOUNT) {
            limits::may_charge(by)?;
        }
        let more = vma.part(vma.end, end, vma.flags)?;
        areas.insert_merged(more);
        Ok(true)
    }

    /// MREMAP_FIXED and MREMAP_DONTUNMAP.
    fn remap_to(
        &self,
        areas: &mut MmapWriteGuard<'_>,
        mut piece: Piece,
        how: Remap,
    ) -> Result<usize> {
        if let Some(to) = how.to {
            let target = Range::new(to, piece.new_len).ok_or(Errno::EINVAL)?;
            self.unmap_locked(areas, target)?;
        }
        self.shrink(areas, piece)?;
        piece.old_len = piece.old_len.min(piece.new_len);
        let vma = areas.find(piece.start).ok_or(Errno::EFAULT)?;
        if how.keep_old.is_some() {
            limits::may_expand(areas, vma.flags, piece.old_len, 0)?;
        }
        let to = choose_place(areas, how.place(), piece.new_len)?;
        self.move_part(areas, &vma, piece, to, how.keep_old.is_some())
    }

    /// Moves a part of one area with its pages to a free range. An old length of 0 (shared memory only) maps it a second time.
    fn move_part(
        &self,
        areas: &mut MmapWriteGuard<'_>,
        vma: &Vma,
        piece: Piece,
        to: VirtAddr,
        keep_old: bool,
    ) -> Result<usize> {
        if areas.count() >= MAX_MAP_COUNT - 3 {
            return Err(Errno::ENOMEM);
        }
        if vma.flags.contains(VmFlags::ACCOUNT) {
            let more = if keep_old { 0 } else { piece.old_len };
            limits::may_charge(piece.new_len - more)?;
        }
        let Piece { start, old_len, .. } = piece;
        let new_end = VirtAddr::new(to.get() + piece.new_len).ok_or(Errno::ENOMEM)?;
        let old_end = VirtAddr::new(piece.old_end()).ok_or(Errno::EFAULT)?;
        let moved = vma.part_at(start, to, new_end)?;
        if old_len == 0 {
            areas.insert_merged(moved);
        } else if keep_old {
            let whole = vma.start == start && vma.end == old_end;
            let _entry = self.move_pages(&moved, start, old_end)?;
            areas.insert_merged(moved);
            leave_empty(areas, vma, start, whole)?;
        } else {
            areas.split_at(start)?;
            areas.split_at(old_end)?;
            let _entry = self.move_pages(&moved, start, old_end)?;
            areas.insert_merged(moved);
            areas.cut_out(Range {
                start,
                end: old_end,
            })?;
        }
        Ok(to.get())
    }
}

impl Mm {
    /// Moves the translations of `start..old_end` to `moved`, which is not in the tree yet: the answer stands for it in the reverse map
    /// until it is. `ENOMEM`.
    fn move_pages(&self, moved: &Vma, start: VirtAddr, old_end: VirtAddr) -> Result<Option<Entry>> {
        let move_range = || {
            let mut table = self.page_table.lock();
            table.move_range(start, old_end, moved.start)
        };
        let Some((source, area)) = moved
            .source
            .as_ref()
            .zip(moved.to_area(self.translations()))
        else {
            return Ok(move_range().map(|()| None)?);
        };
        // Who takes pages away through the reverse map must find them at the old place or at the new one.
        let entry = Entry::new(&source.mapping)?;
        entry.enter(area);
        let walks = entry.lock();
        move_range()?;
        drop(walks);
        Ok(Some(entry))
    }
}

/// Whether an area does not move together with others: those of System V shared memory, and those that a userfaultfd has to hear of
/// (`vma_multi_allowed`).
fn moves_alone(vma: &Vma) -> bool {
    vma.flags.intersects(VmFlags::COUNTED | VmFlags::UFFD)
}

/// What MREMAP_DONTUNMAP leaves behind: the area is not locked any more and, if all of it was moved, as if it had never been written
/// (`dontunmap_complete`). Nothing is joined.
fn leave_empty(areas: &mut MmapWriteGuard<'_>, vma: &Vma, start: VirtAddr, whole: bool) -> Result {
    let Some(old) = areas.find(start) else {
        return Ok(());
    };
    let joined = old.len() != vma.len();
    let anon = old.anon.get().filter(|_| !whole || joined);
    let flags = old.flags - (VmFlags::LOCKED | VmFlags::LOCKONFAULT);
    let left = old.part_as(old.start, old.end, flags, anon)?;
    areas.remove(old.start);
    areas.insert(left);
    Ok(())
}

/// The checks of a call with a new place that look at no area.
fn check_new_addr(addr: usize, old_len: usize, new_len: usize, to: usize, how: Remap) -> Result {
    let overlaps = addr < to.saturating_add(new_len) && to < addr.saturating_add(old_len);
    if to > USER_END - new_len
        || !to.is_multiple_of(PAGE_SIZE)
        || !how.may_move
        || how.keep_old.is_some() && old_len != new_len
        || overlaps
    {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// Whether the area lets its part be moved or become longer (`check_prep_vma`), and whether what it becomes longer by has to be made present.
fn check_piece(areas: &MmapWriteGuard<'_>, vma: &Vma, piece: Piece, how: Remap) -> Result<bool> {
    let Piece {
        start,
        old_len,
        new_len,
    } = piece;
    if how.new_addr().is_none() && new_len <= old_len {
        return Ok(false);
    }
    if old_len == 0 && !vma.is_shared() {
        return Err(Errno::EINVAL);
    }
    // What becomes shorter may have been as long as it likes.
    if old_len.min(new_len) > vma.end.get() - start.get() {
        return Err(Errno::EFAULT);
    }
    if new_len <= old_len {
        return Ok(false);
    }
    let delta = new_len - old_len;
    let locked = vma.flags.contains(VmFlags::LOCKED);
    if locked {
        limits::may_lock(areas, (delta >> PAGE_SHIFT) as u64, Errno::EAGAIN)?;
    }
    limits::may_expand(areas, vma.flags, delta, 0)?;
    Ok(locked)
}
