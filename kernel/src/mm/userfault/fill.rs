//! UFFDIO_COPY and UFFDIO_ZEROPAGE: pages for an address space from outside (`mfill_atomic` in Linux's `mm/userfaultfd.c`).
//!
//! Each page is made complete before it is mapped, so nobody ever sees a part of it. The source is read with faults turned off while
//! `mmap_lock` is held; if that fails, the lock is released, the page is read into the same frame with faults, and everything is looked
//! up again.

use super::Context;
use super::register::checked_range;
use crate::arch::USER_END;
use crate::errno::{Errno, OutOfMemory, Result};
use crate::mm::addr::{PAGE_SIZE, VirtAddr};
use crate::mm::frame::{Frame, FrameKind, Purpose, user_memory_left, zero_page};
use crate::mm::map::Range;
use crate::mm::page_cache::{copy_user_to_page, is_gone};
use crate::mm::pte::{NotMapped, PteFlags};
use crate::mm::reclaim;
use crate::mm::space::Mm;
use crate::mm::uaccess::NoFault;
use crate::mm::vma::{Source, VmFlags, Vma};
use crate::sched::{Sleep, current};
use crate::signal::fatal_signal_pending;

/// What pages are filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Bytes of the current process from `src` on, and whether the pages are write-protected.
    Copy {
        src: usize,
        protect: bool,
    },
    Zeros,
}

/// Why filling has to stop for now.
enum Stop {
    /// The source cannot be read without a fault: into this frame it has to be.
    Source(Frame),
    Memory,
    Error(Errno),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Stop {
        match errno {
            Errno::ENOMEM => Stop::Memory,
            errno => Stop::Error(errno),
        }
    }
}

impl From<NotMapped> for Stop {
    fn from(why: NotMapped) -> Stop {
        match why {
            NotMapped::Occupied => Stop::Error(Errno::EEXIST),
            NotMapped::OutOfMemory => Stop::Memory,
        }
    }
}

impl From<OutOfMemory> for Stop {
    fn from(_: OutOfMemory) -> Stop {
        Stop::Memory
    }
}

/// The source of a copy: any user range of whole pages, at any address.
fn check_source(src: usize, len: usize) -> Result {
    let fits = src < USER_END && len <= USER_END - src;
    if fits && len > 0 && len.is_multiple_of(PAGE_SIZE) {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

impl Context {
    /// The checks that [`Context::fill`] makes before it looks at the address space. `EINVAL`.
    pub fn check_fill(dst: usize, len: usize, fill: Fill) -> Result {
        if let Fill::Copy { src, .. } = fill {
            check_source(src, len)?;
        }
        checked_range(dst, len).map(|_| ())
    }

    /// Fills the missing pages of `dst..dst + len`, which lie in one registered area; how many bytes, at least one page. Does not wake
    /// anybody. `EINVAL`, `ESRCH`, `ENOENT` (no such area), `EEXIST` (there is a page), `EFAULT` (the source, or past the end of the file),
    /// `ENOMEM`; all of them only if they concern the first page.
    pub fn fill(&self, dst: usize, len: usize, fill: Fill) -> Result<usize> {
        Context::check_fill(dst, len, fill)?;
        let range = checked_range(dst, len)?;
        let mm = self.mm()?;
        let (mut filled, mut ready) = (0, None);
        let error = loop {
            match mm.fill(range, fill, &mut filled, ready.take()) {
                Ok(()) => return Ok(filled),
                Err(Stop::Source(frame)) => {
                    let Fill::Copy { src, .. } = fill else {
                        break Errno::EFAULT;
                    };
                    if copy_user_to_page(&frame, 0, src + filled, PAGE_SIZE) < PAGE_SIZE {
                        break Errno::EFAULT;
                    }
                    ready = Some(frame);
                }
                Err(Stop::Memory) if !user_memory_left() && reclaim::reclaim() > 0 => {}
                Err(Stop::Memory) => break Errno::ENOMEM,
                Err(Stop::Error(errno)) => break errno,
            }
        };
        if filled > 0 { Ok(filled) } else { Err(error) }
    }
}

impl Mm {
    /// Fills from `filled` on, which moves on with it; `ready` has the contents of the first page. `mmap_lock` is held meanwhile, and only
    /// meanwhile.
    fn fill(
        &self,
        range: Range,
        fill: Fill,
        filled: &mut usize,
        mut ready: Option<Frame>,
    ) -> core::result::Result<(), Stop> {
        let areas = self.read(Sleep::Killable).map_err(|_| Errno::EINTR)?;
        let vma = areas
            .find(range.start)
            .filter(|vma| range.end <= vma.end && vma.flags.intersects(VmFlags::UFFD))
            .ok_or(Errno::ENOENT)?;
        if !vma.is_shared() {
            areas.prepare_anon(&vma);
        }
        if matches!(fill, Fill::Copy { protect: true, .. }) && !vma.flags.contains(VmFlags::UFFD_WP)
        {
            return Err(Errno::EINVAL.into());
        }
        while let Some(page) =
            VirtAddr::new(range.start.get() + *filled).filter(|page| *page < range.end)
        {
            match fill {
                Fill::Copy { src, protect } => {
                    let kind = kind_of_pages(&vma);
                    let ready = ready
                        .take()
                        .filter(|frame| Frame::kind(frame.number()) == kind);
                    let contents = match ready {
                        Some(frame) => frame,
                        None => read_source(src + *filled, kind)?,
                    };
                    self.fill_page(&vma, page, contents, protect)?;
                }
                Fill::Zeros => self.fill_zeros(&vma, page)?,
            }
            *filled += PAGE_SIZE;
            if fatal_signal_pending(&current()) {
                return Err(Errno::EINTR.into());
            }
            crate::sched::yield_if_wanted();
        }
        Ok(())
    }

    fn fill_zeros(&self, vma: &Vma, page: VirtAddr) -> core::result::Result<(), Stop> {
        if vma.is_shared() {
            let zeros = Frame::alloc_zeroed_as(kind_of_pages(vma), Purpose::User)?;
            return self.fill_page(vma, page, zeros, false);
        }
        file_page(vma, page)?;
        let flags = (vma.pte_flags() - PteFlags::WRITE) | PteFlags::ACCESSED;
        let mut table = self.page_table.lock();
        if table.is_marked(page) {
            return Err(Errno::EEXIST.into());
        }
        Ok(table.map_special(page, zero_page(), flags)?)
    }

    /// Maps a page that is complete, and puts it into the file if the area is shared.
    fn fill_page(
        &self,
        vma: &Vma,
        page: VirtAddr,
        contents: Frame,
        protect: bool,
    ) -> core::result::Result<(), Stop> {
        match file_page(vma, page)? {
            Some((source, index)) if vma.is_shared() => {
                source.mapping.add(index, &contents)?;
                let outcome = self.put_page(vma, page, contents.clone(), protect);
                if outcome.is_err() {
                    source.mapping.take_back(index, &contents);
                }
                outcome
            }
            _ => self.put_page(vma, page, contents, protect),
        }
    }

    fn put_page(
        &self,
        vma: &Vma,
        page: VirtAddr,
        contents: Frame,
        protect: bool,
    ) -> core::result::Result<(), Stop> {
        let mut flags = vma.pte_flags() | PteFlags::ACCESSED | PteFlags::DIRTY;
        if protect {
            flags = flags.write_protected();
        }
        let mut table = self.page_table.lock();
        if vma.is_shared() && is_gone(&contents) {
            // The file was cut off meanwhile.
            return Err(Errno::EFAULT.into());
        }
        if table.get(page).is_some() {
            return Err(Errno::EEXIST.into());
        }
        if vma.flags.contains(VmFlags::UFFD_WP)
            && let Some(next) = VirtAddr::new(page.get() + PAGE_SIZE)
        {
            // The caller says whether the page is protected, not its mark.
            table.unmark(page, next);
        }
        let kind = Frame::kind(contents.number());
        table.map(page, contents, flags).map_err(|(why, _)| why)?;
        self.resident.add(kind, 1);
        Ok(())
    }
}

/// What the area's pages are counted as.
fn kind_of_pages(vma: &Vma) -> FrameKind {
    match &vma.source {
        Some(source) if vma.is_shared() => source.mapping.kind(),
        _ => FrameKind::Anonymous,
    }
}

/// A frame with the page of the current process at `src`, or as much of it as could be read without a fault.
fn read_source(src: usize, kind: FrameKind) -> core::result::Result<Frame, Stop> {
    let frame = Frame::alloc_as(kind, Purpose::User)?;
    let _no_fault = NoFault::new();
    if copy_user_to_page(&frame, 0, src, PAGE_SIZE) < PAGE_SIZE {
        return Err(Stop::Source(frame));
    }
    Ok(frame)
}

/// Where in its file a page of an area lies, `None` in memory without one. `EFAULT` past the end of the file.
fn file_page(vma: &Vma, page: VirtAddr) -> Result<Option<(&Source, u64)>> {
    let Some(source) = &vma.source else {
        return Ok(None);
    };
    vma.page_index_of(page)
        .filter(|&index| index < source.mapping.pages())
        .map(|index| Some((source, index)))
        .ok_or(Errno::EFAULT)
}
