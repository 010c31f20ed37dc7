//! Locked memory: mlock(2) and its like, and making pages present before they are touched.
//!
//! There is no swap, so a lock means that pages are made present at once, that the advice to drop them is refused, and that they
//! count against RLIMIT_MEMLOCK.

use super::addr::{PAGE_SHIFT, PAGE_SIZE, VirtAddr, page_align_down};
use super::fault::{Access, fault_in};
use super::limits;
use super::map::Range;
use super::space::Mm;
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
        let len = len
            .checked_add(addr - start)
            .and_then(super::addr::page_align_up)
            .ok_or(Errno::EINVAL)?;
        if !locks.is_empty() {
            limits::can_lock()?;
        }
        let mut areas = self.write()?;
        let range = Range::new(start, len);
        if !locks.is_empty() {
            let locked_already: u64 = range.map_or(0, |range| {
                areas
                    .overlapping(range.start, range.end)
                    .filter(|vma| vma.flags.contains(VmFlags::LOCKED))
                    .map(|vma| (range.part_in(vma).len() >> PAGE_SHIFT) as u64)
                    .sum()
            });
            let pages = (len >> PAGE_SHIFT) as u64 - locked_already.min((len >> PAGE_SHIFT) as u64);
            limits::may_lock(&areas, pages, Errno::ENOMEM)?;
        }
        if start.checked_add(len).is_none() {
            return Err(Errno::EINVAL);
        }
        if len == 0 {
            return Ok(None);
        }
        let range = range.ok_or(Errno::ENOMEM)?;
        let mut at = range.start;
        while at < range.end {
            let vma = areas.find(at).ok_or(Errno::ENOMEM)?;
            let end = vma.end.min(range.end);
            areas.set_flags(&vma, at, end, (vma.flags - LOCKS) | locks)?;
            at = end;
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
            areas.set_flags(&vma, vma.start, vma.end, (vma.flags - LOCKS) | locks)?;
            at = Some(vma.end).filter(|end| end.get() < crate::arch::USER_END);
        }
        Ok(())
    }

    /// Whether new mappings are locked at once, by mlockall(MCL_FUTURE).
    pub fn locks_new(&self) -> bool {
        self.read(Sleep::Uninterruptible)
            .is_ok_and(|areas| areas.default_flags.contains(VmFlags::LOCKED))
    }

    /// Whether the area at `addr` is locked.
    pub fn is_locked(&self, addr: usize) -> bool {
        let areas = self.read(Sleep::Uninterruptible);
        areas.is_ok_and(|areas| {
            VirtAddr::new(addr)
                .and_then(|addr| areas.find(addr))
                .is_some_and(|vma| vma.flags.contains(VmFlags::LOCKED))
        })
    }

    /// Makes the pages of all locked areas present, as far as they can be had.
    pub fn populate_locked(&self) {
        let mut at = VirtAddr::new(0);
        while let Some((start, len)) = at.and_then(|at| self.next_locked(at)) {
            if self.populate(start, len) == Err(Errno::EINTR) {
                return;
            }
            at = VirtAddr::new(start + len).filter(|end| end.get() < crate::arch::USER_END);
        }
    }

    /// The first locked area at or above `at`: start and bytes.
    fn next_locked(&self, at: VirtAddr) -> Option<(usize, usize)> {
        let areas = self.read(Sleep::Killable).ok()?;
        let end = VirtAddr::new(crate::arch::USER_END)?;
        areas
            .overlapping(at, end)
            .find(|vma| vma.flags.contains(VmFlags::LOCKED))
            .map(|vma| (vma.start.get(), vma.len()))
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
