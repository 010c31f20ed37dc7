//! madvise(2).
//!
//! Advice goes over the areas of a range in order; a hole does not end it, but is reported at the end.

use super::addr::{VirtAddr, page_align_up};
use super::fault::Access;
use super::lock::touch;
use super::map::Range;
use super::space::{Areas, Mm};
use super::vma::{VmFlags, Vma};
use crate::errno::{Errno, Result};
use crate::sched::Sleep;

/// What is advised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Flags of the areas that are taken away and given.
    Flags { clear: VmFlags, set: VmFlags },
    /// As `Flags`, for private anonymous memory only.
    WipeOnFork,
    /// Private contents go back to what is behind them, now. Locked memory only if `locked` says so.
    DontNeed { locked: bool },
    /// Private anonymous contents may go when memory is short. They are kept as long as there is some.
    Free,
    /// Contents of shared memory become zeros, for all who share it.
    Remove,
    /// Contents will be needed.
    WillNeed,
    /// Contents will not be needed soon: a hint.
    Cold,
    /// Make pages present as by reading or writing each.
    Populate(Access),
}

impl Mm {
    /// madvise(2) on the current process. `EINVAL`, `ENOMEM` if a part is not mapped, `EACCES`, `EFAULT`, `EINTR`.
    pub fn advise(&self, addr: usize, len: usize, advice: Advice) -> Result {
        if !addr.is_multiple_of(super::PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        let len = page_align_up(len).ok_or(Errno::EINVAL)?;
        let end = addr.checked_add(len).ok_or(Errno::EINVAL)?;
        if len == 0 {
            return Ok(());
        }
        let (Some(start), end) = (
            VirtAddr::new(addr),
            VirtAddr::new(end.min(crate::arch::USER_END)).ok_or(Errno::ENOMEM)?,
        ) else {
            return Err(Errno::ENOMEM);
        };
        let range = Range { start, end };
        if range.start >= range.end {
            return Err(Errno::ENOMEM);
        }
        let outcome = match advice {
            Advice::Populate(access) => return self.populate_for(range, access),
            Advice::Flags { .. } | Advice::WipeOnFork => self.advise_flags(range, advice),
            _ => self.advise_contents(range, advice),
        };
        // What lies above user memory is a hole too.
        if addr + len > crate::arch::USER_END {
            outcome.and(Err(Errno::ENOMEM))
        } else {
            outcome
        }
    }

    fn advise_flags(&self, range: Range, advice: Advice) -> Result {
        let mut areas = self.write()?;
        let mut at = range.start;
        let mut hole = false;
        while at < range.end {
            let Some(vma) = areas
                .find_at_or_above(at)
                .filter(|vma| vma.start < range.end)
            else {
                return Err(Errno::ENOMEM);
            };
            hole |= vma.start > at;
            let part = range.part_in(&vma);
            let flags = match advice {
                Advice::WipeOnFork if vma.source.is_some() => return Err(Errno::EINVAL),
                Advice::WipeOnFork => vma.flags | VmFlags::WIPEONFORK,
                Advice::Flags { clear, set } => (vma.flags - clear) | set,
                _ => vma.flags,
            };
            areas.set_flags(&vma, part.start.max(at), part.end, flags)?;
            at = part.end;
        }
        if hole { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    fn advise_contents(&self, range: Range, advice: Advice) -> Result {
        let areas = self.read(Sleep::Killable).map_err(|_| Errno::EINTR)?;
        let mut at = range.start;
        let mut hole = false;
        for vma in areas.overlapping(range.start, range.end) {
            hole |= vma.start > at;
            let part = range.part_in(vma);
            self.advise_area(&areas, vma, part, advice)?;
            at = part.end;
        }
        if hole || at < range.end {
            Err(Errno::ENOMEM)
        } else {
            Ok(())
        }
    }

    fn advise_area(&self, _held: &Areas, vma: &Vma, part: Range, advice: Advice) -> Result {
        let locked = vma.flags.contains(VmFlags::LOCKED);
        match advice {
            Advice::DontNeed { locked: false } | Advice::Free | Advice::Cold | Advice::Remove
                if locked =>
            {
                Err(Errno::EINVAL)
            }
            Advice::DontNeed { .. } => {
                if vma.source.is_some() {
                    self.zap_contents(part.start, part.end);
                } else {
                    // There is a copy of page tables to be made, for which there is no memory now.
                    self.prepare_to_zap(part.start, part.end)
                        .map_err(|_| Errno::EAGAIN)?;
                    self.zap(part.start, part.end);
                }
                Ok(())
            }
            Advice::Free if vma.source.is_some() => Err(Errno::EINVAL),
            Advice::Remove => self.remove_contents(vma, part),
            Advice::WillNeed => {
                if let Some((source, first)) =
                    vma.source.as_ref().zip(vma.page_index_of(part.start))
                {
                    source
                        .mapping
                        .read_ahead(first, (part.len() >> super::PAGE_SHIFT) as u64);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// MADV_REMOVE: zeros for all who share the memory.
    fn remove_contents(&self, vma: &Vma, part: Range) -> Result {
        let (Some(source), Some(first)) = (&vma.source, vma.page_index_of(part.start)) else {
            return Err(Errno::EINVAL);
        };
        if !vma.flags.contains(VmFlags::SHARED | VmFlags::MAYWRITE) {
            return Err(Errno::EACCES);
        }
        let start = first << super::PAGE_SHIFT;
        match &source.file {
            Some(file) => file.punch_hole(start, part.len() as u64),
            None => source.mapping.punch(start, start + part.len() as u64),
        }
    }

    /// MADV_POPULATE_READ and MADV_POPULATE_WRITE.
    fn populate_for(&self, range: Range, access: Access) -> Result {
        let mut at = range.start;
        while at < range.end {
            let end = {
                let areas = self.read(Sleep::Killable).map_err(|_| Errno::EINTR)?;
                let vma = areas.find(at).ok_or(Errno::ENOMEM)?;
                let wanted = if access == Access::Write {
                    VmFlags::WRITE
                } else {
                    VmFlags::READ
                };
                if !vma.flags.contains(wanted) {
                    return Err(Errno::EINVAL);
                }
                vma.end.min(range.end)
            };
            touch(at, end, access)?;
            at = end;
        }
        Ok(())
    }
}
