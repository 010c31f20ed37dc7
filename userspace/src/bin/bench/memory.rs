//! Mappings that are made for one operation.

use linux_raw_sys::general as abi;

use crate::check::{self, done};
use crate::sys::{self, Fd};

pub const PAGE: usize = 4096;
pub const NONE: u32 = abi::PROT_NONE;
pub const READ: u32 = abi::PROT_READ;
pub const RW: u32 = abi::PROT_READ | abi::PROT_WRITE;
const PRIVATE: u32 = abi::MAP_PRIVATE;
const ANONYMOUS: u32 = abi::MAP_PRIVATE | abi::MAP_ANONYMOUS;

/// A mapping; unmapped when it is dropped. Its bytes are touched by volatile accesses, as they may fault.
pub struct Region {
    start: usize,
    length: usize,
}

impl Region {
    /// Private anonymous memory.
    pub fn anonymous(length: usize) -> Self {
        Self::map(length, RW, ANONYMOUS, usize::MAX)
    }

    /// Anonymous memory that a fork shares.
    pub fn shared(length: usize) -> Self {
        Self::map(length, RW, abi::MAP_SHARED | abi::MAP_ANONYMOUS, usize::MAX)
    }

    /// The start of a file, private.
    pub fn private_file(fd: Fd, length: usize, protection: u32) -> Self {
        Self::map(length, protection, PRIVATE, fd)
    }

    /// The start of a file, shared.
    pub fn shared_file(fd: Fd, length: usize, protection: u32) -> Self {
        Self::map(length, protection, abi::MAP_SHARED, fd)
    }

    #[inline(always)]
    fn map(length: usize, protection: u32, flags: u32, fd: Fd) -> Self {
        // SAFETY: new memory, where nothing was.
        let start = unsafe {
            sys::call6(
                abi::__NR_mmap,
                0,
                length,
                protection as usize,
                flags as usize,
                fd,
                0,
            )
        };
        let start = done(start, "mmap");
        Self { start, length }
    }

    #[inline(always)]
    pub fn address(&self) -> usize {
        self.start
    }

    #[inline(always)]
    pub fn pages(&self) -> usize {
        self.length / PAGE
    }

    /// Reads the first byte of a page.
    #[inline(always)]
    pub fn read(&self, page: usize) -> u8 {
        // SAFETY: within the mapping.
        unsafe { ((self.start + page * PAGE) as *const u8).read_volatile() }
    }

    /// Writes the first byte of a page.
    #[inline(always)]
    pub fn write(&self, page: usize, value: u8) {
        // SAFETY: within the mapping.
        unsafe { ((self.start + page * PAGE) as *mut u8).write_volatile(value) }
    }

    /// Whether all of a page but its first byte is zero.
    pub fn is_zero_behind_first(&self, page: usize) -> bool {
        let page = (self.start + page * PAGE) as *const u64;
        // SAFETY: within the mapping.
        let word = |at: usize| unsafe { page.add(at).read_volatile() };
        word(0) & !0xff == 0 && (1..PAGE / 8).all(|at| word(at) == 0)
    }

    /// Writes one byte to each page.
    pub fn fill(&self, value: u8) {
        for page in 0..self.pages() {
            self.write(page, value);
        }
    }

    #[inline(always)]
    pub fn protect(&self, page: usize, protection: u32) {
        // SAFETY: within the mapping.
        let result = unsafe {
            sys::call3(
                abi::__NR_mprotect,
                self.start + page * PAGE,
                PAGE,
                protection as usize,
            )
        };
        check::require(result == 0, "mprotect");
    }

    /// Gives one page back.
    pub fn forget_page(&self, page: usize) {
        // SAFETY: within the mapping.
        let result = unsafe {
            sys::call3(
                abi::__NR_madvise,
                self.start + page * PAGE,
                PAGE,
                abi::MADV_DONTNEED as usize,
            )
        };
        check::require(result == 0, "madvise");
    }

    /// Gives all pages back.
    #[inline(always)]
    pub fn forget(&self) {
        // SAFETY: within the mapping.
        let result = unsafe {
            sys::call3(
                abi::__NR_madvise,
                self.start,
                self.length,
                abi::MADV_DONTNEED as usize,
            )
        };
        check::require(result == 0, "madvise");
    }
}

impl Drop for Region {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: nobody uses it any more.
        let result = unsafe { sys::call2(abi::__NR_munmap, self.start, self.length) };
        check::require(result == 0, "munmap");
    }
}
