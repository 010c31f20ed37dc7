//! UFFDIO_WRITEPROTECT: pages whose next write is the handler's business.
//!
//! Invariant: an entry with UFFD_WP has no WRITE. Under the read side of `mmap_lock`; the page-table lock is released every so many pages.

use super::register::checked_range;
use super::{Context, Features};
use crate::errno::{Errno, Result};
use crate::mm::addr::{PAGE_SIZE, VirtAddr};
use crate::mm::fault::reusable;
use crate::mm::map::Range;
use crate::mm::pte::{Pte, PteFlags};
use crate::mm::reclaim;
use crate::mm::space::Mm;
use crate::mm::vma::{VmFlags, Vma};
use crate::sched::{Sleep, current};
use crate::signal::fatal_signal_pending;

/// Bytes that are marked with the page-table lock held.
const STEP: usize = 512 * PAGE_SIZE;

impl Context {
    /// Protects the pages of the range, or lets writes through again; does not wake anybody. `EINVAL`, `ESRCH`, `ENOENT` (an area that is
    /// not registered for that; those before it are done), `ENOMEM`.
    pub fn write_protect(&self, start: usize, len: usize, protect: bool) -> Result {
        let range = checked_range(start, len)?;
        let mm = self.mm()?;
        let areas = mm.read(Sleep::Killable).map_err(|_| Errno::EINTR)?;
        let mut found = Err(Errno::ENOENT);
        for vma in areas.overlapping(range.start, range.end) {
            if !vma.flags.contains(VmFlags::UFFD_WP) {
                return Err(Errno::ENOENT);
            }
            let part = range.part_in(vma);
            if protect {
                mm.protect_area(vma, part)?;
            } else {
                mm.unprotect_area(vma, part);
            }
            found = Ok(());
        }
        found
    }
}

impl Mm {
    fn protect_area(&self, vma: &Vma, part: Range) -> Result {
        self.page_table
            .lock()
            .protect_range(part.start, part.end, |_, pte| pte.flags.write_protected());
        if marks_missing(vma) {
            self.mark_missing(part)?;
        }
        Ok(())
    }

    fn mark_missing(&self, part: Range) -> Result {
        let mut at = part.start;
        while at < part.end {
            let end = VirtAddr::new((at.get() & !(STEP - 1)) + STEP).unwrap_or(part.end);
            let end = end.min(part.end);
            reclaim::retry(|| self.page_table.lock().mark_missing(at, end))?;
            if fatal_signal_pending(&current()) {
                return Err(Errno::EINTR);
            }
            crate::sched::yield_if_wanted();
            at = end;
        }
        Ok(())
    }

    /// Takes protection and marks away. Pages that may be written to without asking anybody become writable at once.
    pub(super) fn unprotect_area(&self, vma: &Vma, part: Range) {
        if !vma.flags.contains(VmFlags::UFFD_WP) {
            return;
        }
        let may_write = vma.flags.contains(VmFlags::WRITE);
        let at_once = vma.writable_at_once();
        let mut table = self.page_table.lock();
        table.protect_range(part.start, part.end, |_, pte| {
            let mut flags = pte.flags - PteFlags::UFFD_WP;
            if is_protected(pte) && may_write && (at_once || !vma.is_shared() && reusable(pte)) {
                flags |= PteFlags::WRITE;
            }
            flags
        });
        table.unmark(part.start, part.end);
    }
}

fn is_protected(pte: Pte) -> bool {
    pte.flags.contains(PteFlags::UFFD_WP)
}

/// Whether pages that are not there are marked (`userfaultfd_wp_use_markers`): always in a file, whose pages come back.
fn marks_missing(vma: &Vma) -> bool {
    vma.source.is_some()
        || vma
            .userfault
            .as_ref()
            .is_some_and(|context| context.has(Features::WP_UNPOPULATED))
}
