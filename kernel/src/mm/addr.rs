//! Addresses and pages: one-word types that cannot be mixed up.

use core::fmt;

use crate::arch::USER_END;

/// Bytes in a page.
pub const PAGE_SIZE: usize = 4096;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: usize = 12;

/// A user virtual address, below [`USER_END`] (or equal to it, as the end of a range).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct VirtAddr(usize);

impl VirtAddr {
    /// The end of all user addresses.
    pub const END: VirtAddr = VirtAddr(USER_END);

    /// `None` if `raw` is not a user address.
    #[inline]
    pub const fn new(raw: usize) -> Option<VirtAddr> {
        if raw <= USER_END {
            Some(VirtAddr(raw))
        } else {
            None
        }
    }

    #[inline]
    pub const fn get(self) -> usize {
        self.0
    }

    /// The start of the page that holds the address.
    #[inline]
    pub const fn page(self) -> VirtAddr {
        VirtAddr(self.0 & !(PAGE_SIZE - 1))
    }

    /// The start of the next page; `None` at the end of user memory.
    #[inline]
    pub const fn next_page(self) -> Option<VirtAddr> {
        VirtAddr::new(self.page().0 + PAGE_SIZE)
    }

    /// Whether the address is the start of a page.
    #[inline]
    pub const fn is_aligned(self) -> bool {
        self.0.is_multiple_of(PAGE_SIZE)
    }
}

impl fmt::Debug for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// `bytes` rounded up to whole pages, in bytes; `None` on overflow.
pub const fn page_align_up(bytes: usize) -> Option<usize> {
    match bytes.checked_add(PAGE_SIZE - 1) {
        Some(sum) => Some(sum & !(PAGE_SIZE - 1)),
        None => None,
    }
}

/// `bytes` rounded down to whole pages, in bytes.
pub const fn page_align_down(bytes: usize) -> usize {
    bytes & !(PAGE_SIZE - 1)
}
