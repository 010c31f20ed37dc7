//! Small blocks of the kernel heap: each page holds blocks of one size, and goes back to the frame allocator when the last of them is
//! free, so that memory which one program made the kernel use is there for the next.
//!
//! A page begins with its header. Pages with a free block are in a list by size; so taking and giving back cost the same however many
//! there are. One page of each size is kept when it is empty, lest a single block come and go with its page.
//!
//! Locked by the heap (rank HEAP); frames are taken under that lock.

use core::ptr::{self, NonNull};

use super::addr::PAGE_SIZE;
use super::frame::{Frame, FrameNumber, Purpose};
use crate::arch;

/// Sizes are multiples of this, which is also the alignment of all blocks.
pub const GRAIN: usize = 64;
/// The largest block: two fit in a page beside its header.
pub const LARGEST: usize = (PAGE_SIZE - GRAIN) / 2 / GRAIN * GRAIN;
const SIZES: usize = LARGEST / GRAIN;

/// The header of a page; blocks follow after one grain.
struct Page {
    prev: *mut Page,
    next: *mut Page,
    free: *mut FreeBlock,
    frame: FrameNumber,
    /// Blocks in use.
    used: u16,
    /// Blocks that were ever in use: those behind are not in the list of free ones.
    carved: u16,
    /// Bytes of a block.
    size: u16,
}

const _: () = assert!(size_of::<Page>() <= GRAIN);

/// A free block of a page, in its own memory.
struct FreeBlock {
    next: *mut FreeBlock,
}

impl Page {
    fn capacity(&self) -> u16 {
        ((PAGE_SIZE - GRAIN) / self.size as usize) as u16
    }

    fn is_full(&self) -> bool {
        self.used == self.capacity()
    }
}

/// The pages with free blocks, by size.
pub struct Slabs {
    partial: [*mut Page; SIZES],
}

// SAFETY: pages are the slabs' alone.
unsafe impl Send for Slabs {}

impl Slabs {
    pub const fn new() -> Slabs {
        Slabs {
            partial: [ptr::null_mut(); SIZES],
        }
    }

    /// A block of `bytes`, at most [`LARGEST`], aligned to [`GRAIN`]. `None` if there is no memory.
    pub fn allocate(&mut self, bytes: usize) -> Option<NonNull<u8>> {
        let index = index_of(bytes);
        if self.partial[index].is_null() {
            self.partial[index] = new_page(index)?;
        }
        let at = self.partial[index];
        // SAFETY: pages in a list are initialised and the slabs' alone, and have a free block: one in the list of free ones, or one that
        // was never used.
        unsafe {
            let page = &mut *at;
            page.used += 1;
            let block = if page.free.is_null() {
                let offset = GRAIN + page.carved as usize * page.size as usize;
                page.carved += 1;
                at.cast::<u8>().add(offset)
            } else {
                let block = page.free;
                page.free = (*block).next;
                block.cast()
            };
            if (*at).is_full() {
                self.unlink(at, index);
            }
            NonNull::new(block)
        }
    }

    /// # Safety
    /// `block` came from [`Slabs::allocate`] with the same size, and is not used any more.
    pub unsafe fn free(&mut self, block: NonNull<u8>, bytes: usize) {
        let index = index_of(bytes);
        let at = block
            .as_ptr()
            .map_addr(|addr| addr & !(PAGE_SIZE - 1))
            .cast::<Page>();
        // SAFETY: blocks lie behind the header of their page, which is the slabs' own; the block is free now, and large enough.
        let frame = unsafe {
            let was_full = (*at).is_full();
            let block = block.as_ptr().cast::<FreeBlock>();
            block.write(FreeBlock { next: (*at).free });
            (*at).free = block;
            (*at).used -= 1;
            if was_full {
                self.link(at, index);
            }
            let is_only_one = (*at).prev.is_null() && (*at).next.is_null();
            if (*at).used > 0 || is_only_one {
                return;
            }
            self.unlink(at, index);
            Frame::from_raw((*at).frame)
        };
        drop(frame);
    }

    /// # Safety
    /// The page is in no list.
    unsafe fn link(&mut self, at: *mut Page, index: usize) {
        let next = core::mem::replace(&mut self.partial[index], at);
        // SAFETY: pages in lists are valid, and so is the caller's.
        unsafe {
            (*at).prev = ptr::null_mut();
            (*at).next = next;
            if let Some(next) = next.as_mut() {
                next.prev = at;
            }
        }
    }

    /// # Safety
    /// The page is in the list.
    unsafe fn unlink(&mut self, at: *mut Page, index: usize) {
        // SAFETY: pages in lists are valid.
        unsafe {
            let (prev, next) = ((*at).prev, (*at).next);
            match prev.as_mut() {
                Some(prev) => prev.next = next,
                None => self.partial[index] = next,
            }
            if let Some(next) = next.as_mut() {
                next.prev = prev;
            }
            (*at).prev = ptr::null_mut();
            (*at).next = ptr::null_mut();
        }
    }
}

fn index_of(bytes: usize) -> usize {
    bytes.max(1).div_ceil(GRAIN) - 1
}

fn new_page(index: usize) -> Option<*mut Page> {
    let frame = Frame::alloc(Purpose::Kernel).ok()?.into_raw();
    let at = arch::frame_ptr(frame).cast::<Page>();
    // SAFETY: the frame is new and covered by the direct map.
    unsafe {
        at.write(Page {
            prev: ptr::null_mut(),
            next: ptr::null_mut(),
            free: ptr::null_mut(),
            frame,
            used: 0,
            carved: 0,
            size: ((index + 1) * GRAIN) as u16,
        });
    }
    Some(at)
}

#[cfg(all(test, target_os = "none"))]
mod tests {
    use alloc::boxed::Box;
    use alloc::vec::Vec;

    use crate::mm::frame::free_frames;

    #[test_case]
    fn pages_of_small_blocks_come_back_in_whatever_order_they_are_freed() {
        let free = free_frames();
        let mut blocks: Vec<Option<Box<[u64; 40]>>> = Vec::new();
        assert!(blocks.try_reserve_exact(2000).is_ok());
        let table = free - free_frames();
        for n in 0..2000 {
            blocks.push(Box::try_new([n; 40]).ok());
        }
        assert!(free - free_frames() > 150);
        for step in [7, 3, 1] {
            for n in (0..2000).step_by(step) {
                if let Some(block) = blocks[n].take() {
                    assert!(block.iter().all(|&word| word == n as u64));
                }
            }
        }
        assert!(free - free_frames() <= table + 1);
    }
}
