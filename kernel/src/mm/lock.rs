//! Locked memory: mlock(2) and its like, and making pages present before they are touched.
//!
//! There is no swap, so a lock means that pages are made present at once, that the advice to drop them is refused, and that they
//! count against RLIMIT_MEMLOCK.

use super::addr::{PAGE_SHIFT, PAGE_SIZE, VirtAddr, page_align_down};
use super::fault::{Access, fault_in};
use super::limits;
use super::map::Range;
use super::space::{Areas, Mm};
use super::vma::VmFlags;
use crate::errno::{Errno, Result};
use crate::sched::{Sleep, current};
use crate::signal::fatal_signal_pending;

const LOCKS: VmFlags = VmFlags::LOCKED.union(VmFlags::LOCKONFAULT);

impl Mm {
    /// mlock2(2) with `locks` (LOCKED, LOCKONFAULT), munlock(2) with none: changes the areas; the caller makes pages present
    /// afterwards. Returns the range in whole pages, `None` if it is empty. `EPERM`, `ENOMEM` (over the limit, or a part is not
    /// mapped), `EINVAL` (the range wraps).
    pub fn set_locks(
        &self,
        addr: usize,
        len: usize,
        locks: VmFlags,
    ) -> Result<Option<(usize, usize)>> {
        let start = page_align_down(addr);
        // Linux lets the length wrap when it rounds it up.
        let len = page_align_down(
            len.wrapping_add(addr - start)
                .wrapping_add(super::PAGE_SIZE - 1),
        );
        if !locks.is_empty() {
            limits::can_lock()?;
        }
        let mut areas = self.write()?;
        let first = VirtAddr::new(start);
        let end = start.checked_add(len);
        if !locks.is_empty() {
            let last = VirtAddr::new(end.unwrap_or(0)).unwrap_or(VirtAddr::END);
            let already = first.map_or(0, |first| areas.locked_in(first, last));
            let pages = (len >> PAGE_SHIFT) as u64;
            limits::may_lock(&areas, pages.saturating_sub(already), Errno::ENOMEM)?;
        }
        let end = end.ok_or(Errno::EINVAL)?;
        if len == 0 {
            return Ok(None);
        }
        let mut at = first.ok_or(Errno::ENOMEM)?;
        while at.get() < end {
            let vma = areas.find(at).ok_or(Errno::ENOMEM)?;
            let part_end = vma.end.min(VirtAddr::new(end).unwrap_or(VirtAddr::END));
            areas.set_flags(&vma, at, part_end, (vma.flags - LOCKS) | locks)?;
            at = part_end;
        }
        Ok(Some((start, len)))
    }

    /// mlockall(2) and munlockall(2): `current` for all areas there are (`None`: leaves them), `future` for those to come. `ENOMEM`.
    pub fn set_all_locks(&self, present: Option<VmFlags>, future: VmFlags) -> Result {
        let mut areas = self.write()?;
        if present.is_some_and(|locks| !locks.is_empty()) {
            limits::may_lock_all(&areas)?;
        }
        areas.default_flags = future;
        let Some(locks) = present else {
            return Ok(());
        };
        let mut at = VirtAddr::new(0);
        while let Some(vma) = at.and_then(|at| areas.find_at_or_above(at)) {
            let flags = (vma.flags - LOCKS) | locks;
            // As on Linux, an area for whose change there is no memory stays as it is.
            let _ = areas.set_flags(&vma, vma.start, vma.end, flags);
            at = Some(vma.end).filter(|end| end.get() < crate::arch::USER_END);
        }
        Ok(())
    }

    /// Whether new mappings are locked at once, by mlockall(MCL_FUTURE).
    pub fn locks_new(&self) -> bool {
        self.read(Sleep::Uninterruptible)
            .is_ok_and(|areas| areas.default_flags.contains(VmFlags::LOCKED))
    }

    /// The next stretch of `range` from `at` on that lies in one area: its end, how it has to be touched (`None`: nobody may), and
    /// whether its pages wait to be touched. `ENOMEM` for a hole.
    fn stretch(&self, at: VirtAddr, end: VirtAddr) -> Result<(VirtAddr, Option<Access>, bool)> {
        let areas = self.read(Sleep::Killable).map_err(|_| Errno::EINTR)?;
        let vma = areas.find(at).ok_or(Errno::ENOMEM)?;
        let access = if vma.flags & (VmFlags::WRITE | VmFlags::SHARED) == VmFlags::WRITE {
            Some(Access::Write)
        } else {
            vma.flags
                .intersects(VmFlags::PERMISSIONS)
                .then_some(Access::Read)
        };
        Ok((
            vma.end.min(end),
            access,
            vma.flags.contains(VmFlags::LOCKONFAULT),
        ))
    }

    /// Makes the pages of the current process in `addr..addr + len` present (`mm_populate`): private writable ones with memory of their
    /// own. `ENOMEM` for a hole or memory that nobody may access, `EFAULT` past the end of a file, `EINTR` if the process is being
    /// killed. No lock may be held.
    pub fn populate(&self, addr: usize, len: usize) -> Result {
        let Some(range) = Range::new(addr, len) else {
            return Ok(());
        };
        let mut at = range.start;
        while at < range.end {
            let (end, access, waits) = self.stretch(at, range.end)?;
            if !waits {
                touch(at, end, access.ok_or(Errno::ENOMEM)?)?;
            }
            at = end;
        }
        Ok(())
    }

    /// The same as far as it can be had: holes are passed over, and an area whose pages cannot be had is left to faults.
    pub fn populate_what_can_be_had(&self, addr: usize, len: usize) {
        let mut at = VirtAddr::new(addr);
        let end = VirtAddr::new(addr.saturating_add(len)).unwrap_or(VirtAddr::END);
        while let Some(start) = at.and_then(|at| self.mapped_at_or_above(at, end)) {
            let Ok((stretch_end, access, waits)) = self.stretch(start, end) else {
                return;
            };
            let touched = match access.filter(|_| !waits) {
                Some(access) => touch(start, stretch_end, access),
                None => Ok(()),
            };
            if touched == Err(Errno::EINTR) {
                return;
            }
            at = Some(stretch_end);
        }
    }

    /// The first mapped address in `at..end`.
    fn mapped_at_or_above(&self, at: VirtAddr, end: VirtAddr) -> Option<VirtAddr> {
        let areas = self.read(Sleep::Killable).ok()?;
        let start = areas.find_at_or_above(at)?.start.max(at);
        (start < end).then_some(start)
    }
}

impl Areas {
    /// Locked pages in `start..end`. Costs the areas there.
    fn locked_in(&self, start: VirtAddr, end: VirtAddr) -> u64 {
        self.overlapping(start, end)
            .filter(|vma| vma.flags.contains(VmFlags::LOCKED))
            .map(|vma| (Range { start, end }.part_in(vma).len() >> PAGE_SHIFT) as u64)
            .sum()
    }
}

/// Makes pages present for `access`. `EFAULT`, `EINTR`.
pub(super) fn touch(start: VirtAddr, end: VirtAddr, access: Access) -> Result {
    for page in (start.get()..end.get()).step_by(PAGE_SIZE) {
        if fatal_signal_pending(&current()) {
            return Err(Errno::EINTR);
        }
        fault_in(page, access)?;
    }
    Ok(())
}
