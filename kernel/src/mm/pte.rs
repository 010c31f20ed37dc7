//! What one page-table entry says, in words that every architecture shares.

use bitflags::bitflags;

use super::frame::FrameNumber;
use crate::errno::OutOfMemory;

bitflags! {
    /// Permissions and state of a present page-table entry.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PteFlags: u64 {
        const READ = 1 << 0;
        const WRITE = 1 << 1;
        const EXEC = 1 << 2;
        /// The hardware saw an access.
        const ACCESSED = 1 << 3;
        /// The hardware saw a write.
        const DIRTY = 1 << 4;
        /// The entry does not own a reference of its frame: the shared zero page.
        const SPECIAL = 1 << 5;
        /// The page is kept although nobody may access it (PROT_NONE): present in software only.
        const NONE = 1 << 6;
        /// Write-protected for userfaultfd.
        const UFFD_WP = 1 << 7;
    }
}

impl PteFlags {
    /// The same, write-protected for userfaultfd.
    pub fn write_protected(self) -> PteFlags {
        (self - PteFlags::WRITE) | PteFlags::UFFD_WP
    }
}

/// Why an entry was not filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotMapped {
    /// Somebody else has filled it.
    Occupied,
    OutOfMemory,
}

impl From<OutOfMemory> for NotMapped {
    fn from(_: OutOfMemory) -> NotMapped {
        NotMapped::OutOfMemory
    }
}

/// A present page-table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pte {
    pub frame: FrameNumber,
    pub flags: PteFlags,
}
