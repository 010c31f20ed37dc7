//! Pointers that a system call must refuse, each of another kind.

use std::io;

use nix::sys::mman::ProtFlags;

use crate::memory::{PAGE, RW, Region};

/// A kind of bad pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Null,
    /// In the lowest page, which is never mapped.
    LowestPage,
    /// In a hole between mappings.
    Unmapped,
    /// Mapped without any access.
    NoAccess,
    /// Mapped read-only: bad for what the kernel writes.
    ReadOnly,
    /// The last four bytes of a page before one that is not mapped: bad for anything longer.
    Straddling,
    /// The last user page's end: nothing is ever mapped there.
    EndOfUser,
    NonCanonical,
    /// The start of the kernel's half.
    KernelHalf,
    /// Where kernels have their code.
    KernelImage,
    /// So high that adding a length wraps around.
    Highest,
}

/// Every kind.
pub const KINDS: [Kind; 11] = [
    Kind::Null,
    Kind::LowestPage,
    Kind::Unmapped,
    Kind::NoAccess,
    Kind::ReadOnly,
    Kind::Straddling,
    Kind::EndOfUser,
    Kind::NonCanonical,
    Kind::KernelHalf,
    Kind::KernelImage,
    Kind::Highest,
];

/// The memory behind the pointers.
pub struct BadPointers {
    /// Page 0 writable, page 1 a hole, page 2 without access, page 3 read-only, page 4 a hole.
    base: usize,
    _first: Region,
    _rest: Region,
}

impl BadPointers {
    pub fn new() -> io::Result<Self> {
        let whole = Region::anonymous(5 * PAGE, RW)?;
        let base = whole.addr();
        drop(whole);
        let first = Region::at(base, PAGE, RW)?;
        let rest = Region::at(base + 2 * PAGE, 2 * PAGE, RW)?;
        rest.write(PAGE, 0);
        rest.protect(0, PAGE, ProtFlags::PROT_NONE)?;
        rest.protect(PAGE, PAGE, ProtFlags::PROT_READ)?;
        first.write(PAGE - 1, 0);
        Ok(Self {
            base,
            _first: first,
            _rest: rest,
        })
    }

    /// A pointer of this kind.
    pub fn pointer(&self, kind: Kind) -> u64 {
        let address = match kind {
            Kind::Null => 0,
            Kind::LowestPage => 8,
            Kind::Unmapped => self.base + PAGE + 64,
            Kind::NoAccess => self.base + 2 * PAGE + 64,
            Kind::ReadOnly => self.base + 3 * PAGE + 64,
            Kind::Straddling => self.base + PAGE - 4,
            Kind::EndOfUser => 0x7fff_ffff_f000 - 4,
            Kind::NonCanonical => 0x8000_0000_0000_0000 | 0x1000,
            Kind::KernelHalf => 0xffff_8000_0000_0000,
            Kind::KernelImage => 0xffff_ffff_8100_0000,
            Kind::Highest => usize::MAX - 3,
        };
        address as u64
    }
}
