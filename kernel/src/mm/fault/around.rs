//! Around a fault on a file: pages that will be needed next are read with it, and those that are there already are mapped with it.
//!
//! Both look at the window of [`WINDOW`] bytes, aligned, that holds the page, as far as it lies in the area. Nothing here waits,
//! and nothing is owed: what cannot be had at once is left to its own fault. `mmap_lock` is held for reading.

use crate::mm::addr::{PAGE_SHIFT, PAGE_SIZE, VirtAddr};
use crate::mm::pte::PteFlags;
use crate::mm::space::Mm;
use crate::mm::vma::{Source, Vma};

/// Bytes, as the disk is read.
const WINDOW: usize = 64 << 10;

/// The part of the window in the area: its first page, and how many there are.
fn window(vma: &Vma, page: VirtAddr) -> (VirtAddr, usize) {
    let start = VirtAddr::new(page.get() & !(WINDOW - 1)).map_or(vma.start, |at| at.max(vma.start));
    let end = ((page.get() & !(WINDOW - 1)) + WINDOW).min(vma.end.get());
    (start, (end - start.get()) >> PAGE_SHIFT)
}

/// Starts reading the window, unless the file is one that is slow on purpose.
pub(super) fn read_ahead(vma: &Vma, source: &Source, page: VirtAddr) {
    let (start, pages) = window(vma, page);
    if let Some(first) = vma.page_index_of(start)
        && source.mapping.reads_ahead()
    {
        source.mapping.read_ahead(first, pages as u64);
    }
}

/// Maps the pages of the window that are up to date and not mapped, but for `page` itself. Without the permission to write, unless the area lets
/// its pages have that at once.
pub(super) fn map_neighbours(mm: &Mm, vma: &Vma, source: &Source, page: VirtAddr) {
    let (start, pages) = window(vma, page);
    let Some(first) = vma.page_index_of(start) else {
        return;
    };
    let mut flags = vma.pte_flags();
    if !vma.writable_at_once() {
        flags.remove(PteFlags::WRITE);
    }
    let own = (page.get() - start.get()) >> PAGE_SHIFT;
    let mut mapped = 0;
    source
        .mapping
        .for_each_run(first, pages, |offset, len, run| {
            let Some(at) = VirtAddr::new(start.get() + offset * PAGE_SIZE) else {
                return;
            };
            let own = own.wrapping_sub(offset);
            let mut frame_for = move |n: usize| if n == own { None } else { run.get(n) };
            let mut table = mm.page_table.lock();
            mapped += table.fill_empty(at, len, flags, &mut frame_for);
        });
    mm.resident.add(source.mapping.kind(), mapped);
}
