//! Which areas belong to a userfaultfd: UFFDIO_REGISTER, UFFDIO_UNREGISTER, and the end of the last descriptor.
//!
//! Registered areas are split and joined as mprotect(2) splits and joins them. All under the write side of `mmap_lock`.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::Context;
use crate::arch::USER_END;
use crate::errno::{Errno, Result};
use crate::mm::addr::VirtAddr;
use crate::mm::map::Range;
use crate::mm::space::{Mm, MmapWriteGuard};
use crate::mm::vma::{VmFlags, Vma};

/// Whether an area's faults can be handled: private memory, or a file in memory (`vma_can_userfault`).
fn can_be_handled(vma: &Vma) -> bool {
    vma.source
        .as_ref()
        .is_none_or(|source| source.mapping.is_memory())
}

/// A range as the ioctls take it. `EINVAL` if it is not page-aligned, empty, or reaches out of where user memory can be.
pub(super) fn checked_range(start: usize, len: usize) -> Result<Range> {
    Range::new(start, len)
        .filter(|range| range.len() == len && range.end.get() <= USER_END)
        .ok_or(Errno::EINVAL)
}

impl Context {
    /// Registers the areas in the range for the faults that `mode` (UFFD_MISSING, UFFD_WP) names. `EINVAL` (range, nothing there, an area
    /// that cannot be handled), `EPERM` (an area that can never be written to), `EBUSY` (another userfaultfd's), `ENOMEM`.
    pub fn register(self: &Arc<Self>, start: usize, len: usize, mode: VmFlags) -> Result {
        let range = checked_range(start, len)?;
        let mm = self.mm.upgrade().ok_or(Errno::ENOMEM)?;
        let mut areas = mm.write()?;
        let mut found = false;
        for vma in areas.overlapping(range.start, range.end) {
            self.may_register(vma)?;
            found = true;
        }
        if !found {
            return Err(Errno::EINVAL);
        }
        if mode.contains(VmFlags::UFFD_WP) {
            // What changes protection later cannot fail; and from now on forks copy these tables.
            mm.prepare_to_change(range.start, range.end)?;
        }
        each_area(&mut areas, range, |areas, vma, part| {
            if self.owns(vma) && vma.flags.contains(mode) {
                return Ok(());
            }
            let flags = (vma.flags - VmFlags::UFFD) | mode;
            let registered = vma.part_with(part.start, part.end, flags, self.clone())?;
            areas.replace_part(vma, registered)
        })
    }

    fn may_register(&self, vma: &Vma) -> Result {
        if !can_be_handled(vma) {
            return Err(Errno::EINVAL);
        }
        if !vma.flags.contains(VmFlags::MAYWRITE) {
            return Err(Errno::EPERM);
        }
        let other = vma.userfault.as_ref().filter(|_| !self.owns(vma));
        if other.is_some_and(|other| !other.is_released()) {
            return Err(Errno::EBUSY);
        }
        Ok(())
    }

    fn owns(&self, vma: &Vma) -> bool {
        vma.userfault
            .as_ref()
            .is_some_and(|context| core::ptr::eq(&**context, self))
    }

    /// Ends the registration of the range; whoever waits there goes on. `EINVAL` (range, nothing there, an area that another userfaultfd
    /// has or that could not be registered), `ENOMEM`.
    pub fn unregister(&self, start: usize, len: usize) -> Result {
        let range = checked_range(start, len)?;
        let mm = self.mm.upgrade().ok_or(Errno::ENOMEM)?;
        let mut areas = mm.write()?;
        let mut found = false;
        for vma in areas.overlapping(range.start, range.end) {
            let others = vma.userfault.is_some() && !self.owns(vma);
            if others || !can_be_handled(vma) {
                return Err(Errno::EINVAL);
            }
            found = true;
        }
        if !found {
            return Err(Errno::EINVAL);
        }
        each_area(&mut areas, range, |areas, vma, part| {
            if !self.owns(vma) {
                return Ok(());
            }
            let plain = vma.part(part.start, part.end, vma.flags - VmFlags::UFFD)?;
            // They find the new area as soon as the lock is free.
            self.wake(part.start.get(), part.len());
            mm.unprotect_area(vma, part);
            areas.replace_part(vma, plain)
        })
    }

    /// The last descriptor is gone: nobody will resolve a fault any more. Everybody who waits goes on, and finds ordinary memory. May
    /// sleep.
    pub fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
        if let Ok(mm) = self.mm() {
            self.leave_areas(&mm);
        }
        self.wake(0, usize::MAX);
    }

    fn leave_areas(&self, mm: &Mm) {
        let mut areas = mm.write_uninterruptible();
        let Some(all) = Range::new(0, USER_END) else {
            return;
        };
        let outcome = each_area(&mut areas, all, |areas, vma, part| {
            if self.owns(vma) {
                mm.unprotect_area(vma, part);
                // Without memory for that the area keeps its flags, which mean nothing any more.
                if let Ok(plain) = vma.part(vma.start, vma.end, vma.flags - VmFlags::UFFD) {
                    areas.replace_part(vma, plain)?;
                }
            }
            Ok(())
        });
        debug_assert_eq!(outcome, Ok(()), "whole areas need no room");
    }
}

/// Calls `f` with each area of the range and its part of it, by rising address. `f` may put another area in the place of that part.
fn each_area(
    areas: &mut MmapWriteGuard<'_>,
    range: Range,
    mut f: impl FnMut(&mut MmapWriteGuard<'_>, &Vma, Range) -> Result,
) -> Result {
    let mut at = range.start;
    while let Some(vma) = areas
        .find_at_or_above(at)
        .filter(|vma| vma.start < range.end)
    {
        let part = Range {
            start: vma.start.max(at),
            end: vma.end.min(range.end),
        };
        f(areas, &vma, part)?;
        let Some(next) = VirtAddr::new(part.end.get()).filter(|next| *next < range.end) else {
            break;
        };
        at = next;
    }
    Ok(())
}
