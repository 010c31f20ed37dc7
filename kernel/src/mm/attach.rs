//! Unmapping all that one shmat(2) mapped, whatever has become of it since.

use alloc::sync::Arc;

use super::addr::{PAGE_SHIFT, VirtAddr, page_align_up};
use super::map::Range;
use super::space::Mm;
use super::vma::{MappedFile, Source, VmFlags, Vma};
use crate::errno::{Errno, Result};

/// The source of an area that is a part of what was attached at `addr`: it stands where it would if nothing had been moved.
fn part_of_attachment(vma: &Vma, addr: usize) -> Option<&Source> {
    let offset = vma.start.get().checked_sub(addr)?;
    let source = vma.source.as_ref()?;
    let fits =
        vma.flags.contains(VmFlags::COUNTED) && source.first_page == (offset >> PAGE_SHIFT) as u64;
    fits.then_some(source)
}

fn file_of(source: &Source) -> Option<&Arc<dyn MappedFile>> {
    source.file.as_ref()
}

impl Mm {
    /// shmdt(2): unmaps the first area that may be a part of what was attached at `addr`, and all other parts of the same attachment.
    /// `EINVAL` if there is none. As on Linux it costs the areas up to the first part, and then those that the attachment reached over.
    pub fn detach(&self, addr: usize) -> Result {
        let start = VirtAddr::new(addr)
            .filter(|start| start.is_aligned())
            .ok_or(Errno::EINVAL)?;
        let mut areas = self.write()?;
        let found = areas
            .overlapping(start, VirtAddr::END)
            .find_map(|vma| Some((vma.start, part_of_attachment(vma, addr)?.clone())));
        let (first, source) = found.ok_or(Errno::EINVAL)?;
        let len = page_align_up(source.mapping.size() as usize).unwrap_or(usize::MAX);
        let same_file = |other: &Source| match (file_of(other), file_of(&source)) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        let mut at = first;
        while let Some(vma) = areas.find_at_or_above(at) {
            // The first part may be anywhere, the others not behind what was attached.
            if vma.start != first && vma.end.get() - addr > len {
                break;
            }
            at = vma.end;
            if part_of_attachment(&vma, addr).is_some_and(same_file) {
                let part = Range::new(vma.start.get(), vma.len()).ok_or(Errno::EINVAL)?;
                self.unmap_locked(&mut areas, part)?;
            }
        }
        Ok(())
    }
}
