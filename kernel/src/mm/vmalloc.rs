//! Large blocks of the kernel heap: whole pages at addresses of their own, whose frames go back when the block is free.
//!
//! Addresses are cut into slots of a power of two of pages, each size in a range of its own, so that finding one costs the same however
//! many there are. A slot's first page stays when it is free: it holds the way to the next free slot.
//!
//! Locked by the heap (rank HEAP); frames and kernel page tables are taken under that lock.

use core::ptr::{self, NonNull};

use super::addr::PAGE_SIZE;
use super::frame::{Frame, Purpose, free_frames};
use crate::arch::{map_kernel_page, unmap_kernel_page};
use crate::errno::OutOfMemory;

/// Where the ranges lie, one after the other.
const BASE: usize = 0xffff_e900_0000_0000;
/// Addresses of one range.
const RANGE: usize = 256 << 30;
/// The pages of a slot are two to the power of its class; this is the largest.
const LARGEST_CLASS: usize = 20;
/// The largest block, bytes.
pub const LARGEST: usize = PAGE_SIZE << LARGEST_CLASS;

/// A free slot, in its own first page.
struct FreeSlot {
    next: *mut FreeSlot,
}

/// The slots of one size.
#[derive(Clone, Copy)]
struct Class {
    free: *mut FreeSlot,
    /// Slots that were ever in use: those behind have no pages at all.
    carved: usize,
}

/// All slots.
pub struct LargeBlocks {
    classes: [Class; LARGEST_CLASS + 1],
}

// SAFETY: free slots are the allocator's alone.
unsafe impl Send for LargeBlocks {}

impl LargeBlocks {
    pub const fn new() -> LargeBlocks {
        let class = Class {
            free: ptr::null_mut(),
            carved: 0,
        };
        LargeBlocks {
            classes: [class; LARGEST_CLASS + 1],
        }
    }

    /// A block of `bytes`, aligned to a page. `None` if there is no memory, or if they are more than [`LARGEST`].
    pub fn allocate(&mut self, bytes: usize) -> Option<NonNull<u8>> {
        // What cannot be had whole would only take the last memory from everybody else.
        if bytes > LARGEST || bytes.div_ceil(PAGE_SIZE) >= free_frames() {
            return None;
        }
        let (number, pages) = class_of(bytes);
        let class = &mut self.classes[number];
        if !class.free.is_null() {
            let slot = class.free;
            // SAFETY: a free slot's first page is mapped and holds a `FreeSlot`.
            let next = unsafe { (*slot).next };
            map(slot.addr() + PAGE_SIZE, pages - 1).ok()?;
            class.free = next;
            return NonNull::new(slot.cast());
        }
        let slot_size = PAGE_SIZE << number;
        if class.carved == RANGE / slot_size {
            return None;
        }
        let slot = BASE + number * RANGE + class.carved * slot_size;
        map(slot, pages).ok()?;
        class.carved += 1;
        NonNull::new(ptr::with_exposed_provenance_mut(slot))
    }

    /// # Safety
    /// `block` came from [`LargeBlocks::allocate`] with the same size, and is not used any more.
    pub unsafe fn free(&mut self, block: NonNull<u8>, bytes: usize) {
        let (number, pages) = class_of(bytes);
        unmap(block.addr().get() + PAGE_SIZE, pages - 1);
        let class = &mut self.classes[number];
        let slot = block.cast::<FreeSlot>().as_ptr();
        // SAFETY: the first page of the block is mapped, and nobody's but the allocator's now.
        unsafe { slot.write(FreeSlot { next: class.free }) };
        class.free = slot;
    }
}

/// The class of a block's slot, and the block's pages.
fn class_of(bytes: usize) -> (usize, usize) {
    let pages = bytes.div_ceil(PAGE_SIZE).max(1);
    (pages.next_power_of_two().trailing_zeros() as usize, pages)
}

/// Gives `pages` from `start` on new frames; all or none.
fn map(start: usize, pages: usize) -> Result<(), OutOfMemory> {
    for page in 0..pages {
        let mapped = Frame::alloc(Purpose::Kernel)
            .and_then(|frame| map_kernel_page(start + page * PAGE_SIZE, frame));
        if mapped.is_err() {
            unmap(start, page);
            return Err(OutOfMemory);
        }
    }
    Ok(())
}

fn unmap(start: usize, pages: usize) {
    for page in 0..pages {
        drop(unmap_kernel_page(start + page * PAGE_SIZE));
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::mm::heap::tests::block;

    #[test_case]
    fn large_blocks_come_back_and_leave_one_page() {
        const BYTES: usize = 100 * PAGE_SIZE;
        drop(block(BYTES, 1));
        let free = free_frames();
        for round in 0..3 {
            let first = block(BYTES, round);
            let second = block(BYTES - 1, round + 1);
            assert!(free - free_frames() >= 199);
            assert!(first.iter().all(|&byte| byte == round));
            assert!(second.iter().all(|&byte| byte == round + 1));
            drop((first, second));
        }
        // One slot more was in use than before; and there may be page tables for it.
        assert!(free - free_frames() <= 3);
    }

    #[test_case]
    fn a_block_that_grows_keeps_what_is_in_it() {
        let mut growing = block(1, 7);
        while growing.len() < 3 << 20 {
            let len = growing.len();
            assert!(growing.try_reserve(len).is_ok());
            growing.resize(2 * len, 7);
        }
        assert!(growing.iter().all(|&byte| byte == 7));
    }
}
