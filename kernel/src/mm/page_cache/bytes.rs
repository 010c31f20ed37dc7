//! Bytes in and out of cached pages.
//!
//! Pages that user mappings share may change during a copy, as they may on hardware: the bytes are then either old or new.

use super::Mapping;
use crate::arch;
use crate::mm::addr::PAGE_SIZE;
use crate::mm::frame::{Frame, FrameNumber};

/// Copies from a page that is up to date to kernel memory.
pub fn copy_from_page(page: &Frame, offset: usize, buf: &mut [u8]) {
    assert!(offset + buf.len() <= PAGE_SIZE);
    // SAFETY: the range lies in the frame, of which `page` is a reference, and `buf` is the kernel's own.
    unsafe {
        core::ptr::copy_nonoverlapping(
            arch::frame_ptr(page.number()).add(offset),
            buf.as_mut_ptr(),
            buf.len(),
        )
    };
}

/// Copies kernel memory into a page of shared memory.
pub fn copy_to_page(page: &Frame, offset: usize, bytes: &[u8]) {
    assert!(offset + bytes.len() <= PAGE_SIZE);
    // SAFETY: the range lies in the frame, of which `page` is a reference; no Rust reference to its bytes exists.
    unsafe {
        core::ptr::copy_nonoverlapping(
            bytes.as_ptr(),
            arch::frame_ptr(page.number()).add(offset),
            bytes.len(),
        )
    };
}

/// Copies `len` bytes of a page that is up to date to user memory; how many. May sleep.
pub fn copy_page_to_user(page: &Frame, offset: usize, dst: usize, len: usize) -> usize {
    assert!(offset + len <= PAGE_SIZE);
    // SAFETY: the range lies in the frame, of which `page` is a reference.
    let missing =
        unsafe { arch::copy_to_user(dst, arch::frame_ptr(page.number()).add(offset), len) };
    len - missing
}

/// Copies `len` bytes of user memory into a page of shared memory; how many. May sleep.
pub fn copy_user_to_page(page: &Frame, offset: usize, src: usize, len: usize) -> usize {
    assert!(offset + len <= PAGE_SIZE);
    // SAFETY: as in `copy_to_page`.
    let missing =
        unsafe { arch::copy_from_user(arch::frame_ptr(page.number()).add(offset), src, len) };
    len - missing
}

/// Makes the bytes `from..to` of a page zero. A reference of it is held.
pub(super) fn zero_part(page: FrameNumber, from: usize, to: usize) {
    assert!(from <= to && to <= PAGE_SIZE);
    // SAFETY: the range lies in the frame, which is a page of shared memory: no Rust reference to its bytes exists.
    unsafe { core::ptr::write_bytes(arch::frame_ptr(page).add(from), 0, to - from) };
}

impl Mapping {
    /// Whether it pays to ask for pages before they are needed: contents come from a device, and not one that is slow or
    /// fails on purpose.
    pub fn reads_ahead(&self) -> bool {
        self.backing
            .as_ref()
            .is_some_and(|backing| backing.delay_ns() == 0 && !backing.fails())
    }
}
