//! Splitting and joining areas, exactly where Linux does it (`mm/vma.c`), as /proc/self/maps shows.
//!
//! Areas that touch become one if their flags are equal, the same contents go on from one to the other, and their identities agree
//! (see [`super::anon`]). That is tried when an area is made, changed, moved or extended, and then only with what it touches; nothing
//! is joined later because a neighbour has become equal by itself.
//!
//! Everything is allocated before the tree is changed. Caller: the write side of `mmap_lock`.

use alloc::sync::Arc;

use super::addr::VirtAddr;
use super::anon::AnonId;
use super::map::Range;
use super::space::{Areas, MAX_MAP_COUNT};
use super::vma::{AreaEvent, VmFlags, Vma};
use crate::errno::{Errno, OutOfMemory, Result};

/// How an area came to be joined with its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A new mapping, or pages moved from elsewhere.
    New,
    /// A part of an area whose flags changed.
    Changed,
}

/// What an area becomes with its neighbours.
struct Joined {
    vma: Arc<Vma>,
    below: bool,
    above: bool,
}

impl Areas {
    /// Gives the part `start..end` of an area in the tree other flags: splits it, and joins what fits. `ENOMEM`, also for too many areas.
    pub fn set_flags(
        &mut self,
        vma: &Vma,
        start: VirtAddr,
        end: VirtAddr,
        flags: VmFlags,
    ) -> Result {
        if flags == vma.flags {
            return Ok(());
        }
        self.replace_part(vma, vma.part(start, end, flags)?)
    }

    /// Puts `changed`, a part of an area in the tree, in its place: splits the area, and joins what fits. `ENOMEM`, also for too many areas.
    pub fn replace_part(&mut self, vma: &Vma, changed: Arc<Vma>) -> Result {
        let (start, end) = (changed.start, changed.end);
        let (first, last) = (start == vma.start, end == vma.end);
        // An area that its file counts never goes but by being unmapped (`can_merge_remove_vma`).
        let may_go = !(first && last && vma.flags.contains(VmFlags::COUNTED));
        let joined = self.join(&changed, Origin::Changed, first && may_go, last && may_go)?;
        let (mut below, mut above) = (false, false);
        if let Some(joined) = &joined {
            (below, above) = (joined.below, joined.above);
        }
        if first && last && joined.is_none() {
            self.replace_whole(changed);
            return Ok(());
        }
        let splits = usize::from(!first) + usize::from(!last);
        if !below && !above && self.count() + splits > MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        let low = (!first)
            .then(|| vma.part(vma.start, start, vma.flags))
            .transpose()?;
        let high = (!last)
            .then(|| vma.part(end, vma.end, vma.flags))
            .transpose()?;
        let (old_start, old_end) = (vma.start, vma.end);
        let middle = joined.map_or(changed, |joined| joined.vma);
        let new = [low, Some(middle), high].into_iter().flatten();
        // A stack has a guard gap of its own below it.
        if vma.flags.contains(VmFlags::GROWSDOWN) {
            self.remove(old_start);
            if below {
                self.remove_below(old_start);
            }
            if above {
                self.remove(old_end);
            }
            new.for_each(|vma| self.insert(vma));
        } else {
            if splits > 0 && !below && !above {
                vma.tell_file(AreaEvent::Opened);
            }
            self.remove_covered(old_start);
            if below {
                self.remove_covered_below(old_start);
            }
            if above {
                self.remove_covered(old_end);
            }
            new.for_each(|vma| self.insert_covered(vma));
        }
        Ok(())
    }

    /// Puts a new area in and joins it with the neighbours that it continues, if there is memory for that.
    pub fn insert_merged(&mut self, vma: Arc<Vma>) {
        let Ok(Some(joined)) = self.join(&vma, Origin::New, true, true) else {
            return self.insert(vma);
        };
        self.put_joined(&vma, joined);
    }

    /// Puts in what a new area became with its neighbours.
    fn put_joined(&mut self, vma: &Vma, joined: Joined) {
        if vma.flags.contains(VmFlags::GROWSDOWN) {
            if joined.below {
                self.remove_below(vma.start);
            }
            if joined.above {
                self.remove(vma.end);
            }
            return self.insert(joined.vma);
        }
        if joined.below {
            self.remove_covered_below(vma.start);
        }
        if joined.above {
            self.remove_covered(vma.end);
        }
        self.cover(vma);
        self.insert_covered(joined.vma);
    }

    /// As [`Areas::insert_merged`], but never with what lies above (brk(2)).
    pub fn insert_merged_below(&mut self, vma: Arc<Vma>) {
        let Ok(Some(joined)) = self.join(&vma, Origin::New, true, false) else {
            return self.insert(vma);
        };
        self.put_joined(&vma, joined);
    }

    fn remove_covered_below(&mut self, start: VirtAddr) {
        if let Some(below) = self.find_below(start) {
            self.remove_covered(below.start);
        }
    }

    fn remove_below(&mut self, start: VirtAddr) {
        if let Some(below) = self.find_below(start) {
            self.remove(below.start);
        }
    }

    /// One area for `vma`, which need not be in the tree, and those of its neighbours that it may be joined with; `None` if it stays
    /// alone. `below`, `above`: which neighbours to look at.
    fn join(
        &self,
        vma: &Vma,
        origin: Origin,
        below: bool,
        above: bool,
    ) -> core::result::Result<Option<Joined>, OutOfMemory> {
        let (low, high) = self.neighbours(vma);
        let low = low.filter(|low| below && goes_on(low, vma) && anon_agrees(low, vma, origin));
        let high = high
            .filter(|high| above && goes_on(vma, high) && anon_agrees(high, vma, origin))
            // Both may agree with the one between them and not with each other.
            .filter(|high| {
                low.is_none_or(|low| {
                    both_agree(low.anon.get(), high.anon.get())
                        && !vma.flags.contains(VmFlags::COUNTED)
                })
            });
        if low.is_none() && high.is_none() {
            return Ok(None);
        }
        let anon = |vma: Option<&Vma>| vma.and_then(|vma| vma.anon.get());
        let anon = anon(low).or(anon(high)).or(vma.anon.get());
        let first = low.unwrap_or(vma);
        let end = high.map_or(vma.end, |high| high.end);
        Ok(Some(Joined {
            vma: first.part_as(first.start, end, vma.flags, anon)?,
            below: low.is_some(),
            above: high.is_some(),
        }))
    }

    /// Ends areas at `address`: splits the one that reaches across it. `ENOMEM`, also for too many areas.
    pub fn split_at(&mut self, address: VirtAddr) -> Result {
        let Some(vma) = self.find(address).filter(|vma| vma.start < address) else {
            return Ok(());
        };
        if self.count() >= MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        let low = vma.part(vma.start, address, vma.flags)?;
        let high = vma.part(address, vma.end, vma.flags)?;
        if vma.flags.contains(VmFlags::GROWSDOWN) {
            self.remove(vma.start);
            self.insert(low);
            self.insert(high);
        } else {
            vma.tell_file(AreaEvent::Opened);
            self.remove_covered(vma.start);
            self.insert_covered(low);
            self.insert_covered(high);
        }
        Ok(())
    }

    /// Takes out the areas in `range`, and of those that reach across its ends the part inside; whether there were any. `ENOMEM`, with
    /// nothing changed: no memory, or one area too many because a hole comes into one.
    pub(super) fn cut_out(&mut self, range: Range) -> Result<bool> {
        let low = self.find(range.start).filter(|vma| vma.start < range.start);
        let high = self.find(range.end).filter(|vma| vma.start < range.end);
        if let (Some(low), Some(high)) = (&low, &high)
            && low.start == high.start
            && self.count() >= MAX_MAP_COUNT
        {
            return Err(Errno::ENOMEM);
        }
        let low = low
            .map(|vma| vma.part(vma.start, range.start, vma.flags))
            .transpose()?;
        let high = high
            .map(|vma| vma.part(range.end, vma.end, vma.flags))
            .transpose()?;
        let mut removed = false;
        while let Some(vma) = self
            .find_at_or_above(range.start)
            .filter(|vma| vma.start < range.end)
        {
            self.remove(vma.start);
            vma.tell_file(AreaEvent::Closed);
            removed = true;
        }
        for rest in [low, high].into_iter().flatten() {
            self.insert(rest);
        }
        Ok(removed)
    }
}

/// Whether `high` begins where `low` ends and is more of the same (`is_mergeable_vma`).
fn goes_on(low: &Vma, high: &Vma) -> bool {
    low.end == high.start
        && low.flags == high.flags
        && low.same_userfault(high)
        && low.same_contents(high)
}

/// Whether the identities let `vma` become part of `neighbour` (`is_mergeable_anon_vma`). Pages that may be a parent's stay in an area
/// that has been written.
fn anon_agrees(neighbour: &Vma, vma: &Vma, origin: Origin) -> bool {
    match (neighbour.anon.get(), vma.anon.get()) {
        (None, Some(own)) => origin == Origin::New || !own.is_inherited(),
        (Some(other), None) => !other.is_inherited(),
        (other, own) => other == own,
    }
}

fn both_agree(low: Option<AnonId>, high: Option<AnonId>) -> bool {
    low.is_none() || high.is_none() || low == high
}
