//! A frame as a buffer of the kernel's own: memory that goes back to everybody when it is not needed any more, as the heap's does not.

use super::addr::PAGE_SIZE;
use super::frame::{Frame, Purpose};
use crate::arch;
use crate::errno::OutOfMemory;

/// One page of memory that nobody else has.
pub struct PageBuffer(Frame);

impl PageBuffer {
    /// A buffer with undefined contents: what its last owner left. Counts as user memory.
    pub fn new() -> Result<PageBuffer, OutOfMemory> {
        Frame::alloc(Purpose::User).map(PageBuffer)
    }

    #[inline]
    pub fn bytes(&self) -> &[u8; PAGE_SIZE] {
        // SAFETY: the frame is this buffer's alone and covered by the direct map; it is only reached through `self`.
        unsafe { &*arch::frame_ptr(self.0.number()).cast() }
    }

    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8; PAGE_SIZE] {
        // SAFETY: as in `bytes`, and `self` is borrowed mutably.
        unsafe { &mut *arch::frame_ptr(self.0.number()).cast() }
    }
}
