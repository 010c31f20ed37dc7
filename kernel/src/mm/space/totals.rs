//! How large an address space is, for /proc.

use super::{Areas, Mm};
use crate::mm::addr::PAGE_SHIFT;
use crate::mm::vma::VmFlags;
use crate::sched::Sleep;

/// Sizes of an address space, in pages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub pages: u64,
    /// Most there ever were.
    pub peak: u64,
    pub locked: u64,
    /// What counts against RLIMIT_DATA.
    pub data: u64,
    pub stack: u64,
    /// Executable and not writable.
    pub code: u64,
    /// Where the heap begins, an address.
    pub brk_start: usize,
}

impl Mm {
    /// Sizes of the address space. Costs the areas.
    pub fn totals(&self) -> Totals {
        self.read(Sleep::Uninterruptible)
            .map_or(Totals::default(), |areas| areas.totals())
    }
}

impl Areas {
    fn totals(&self) -> Totals {
        let mut totals = Totals {
            pages: self.pages,
            peak: self.peak,
            locked: self.locked,
            data: self.data,
            brk_start: self.brk_start,
            ..Totals::default()
        };
        for vma in self.vmas.iter() {
            let pages = (vma.len() >> PAGE_SHIFT) as u64;
            if vma.flags.contains(VmFlags::GROWSDOWN) {
                totals.stack += pages;
            } else if vma.flags & (VmFlags::EXEC | VmFlags::WRITE) == VmFlags::EXEC {
                totals.code += pages;
            }
        }
        totals
    }
}
