//! The kernel heap: linked_list_allocator over a range of kernel addresses that grows by frames.
//!
//! Small blocks are not there but in pages of their own, which come and go ([`super::slab`]). The allocator searches its free blocks from
//! the first on; so blocks of middle size go to lists when they are freed, and come from there in constant time; they are never joined
//! to larger ones again.
//!
//! Not used on the fault, signal and switch paths. Lock rank: HEAP; frames and kernel page tables are taken under it.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use linked_list_allocator::Heap;

use super::addr::PAGE_SIZE;
use super::frame::{Frame, Purpose, free_frames};
use super::slab::{GRAIN, LARGEST, Slabs};
use crate::arch::map_kernel_page;
use crate::errno::OutOfMemory;
use crate::sync::{IrqLock, rank};

/// Where the heap lies.
const BASE: usize = 0xffff_e800_0000_0000;
/// It never gets larger than this.
const MAX_SIZE: usize = 64 << 30;
const INITIAL_SIZE: usize = 1 << 20;
/// It grows by at least this much.
const STEP: usize = 256 << 10;

/// Blocks up to this size are kept in lists.
const LARGEST_LISTED: usize = 16 << 10;

/// A free block of a list, in its own memory.
struct FreeBlock {
    next: Option<NonNull<FreeBlock>>,
}

struct KernelHeap {
    heap: Heap,
    size: usize,
    slabs: Slabs,
    /// Free blocks of 1, 2, ... grains.
    lists: [Option<NonNull<FreeBlock>>; LARGEST_LISTED / GRAIN],
}

// SAFETY: free blocks are the heap's alone.
unsafe impl Send for KernelHeap {}

struct Global(IrqLock<KernelHeap>);

#[global_allocator]
static GLOBAL: Global = Global(IrqLock::new(
    rank::HEAP,
    KernelHeap {
        heap: Heap::empty(),
        size: 0,
        slabs: Slabs::new(),
        lists: [None; LARGEST_LISTED / GRAIN],
    },
));

/// Gives the heap its first memory. After the frame allocator, once.
pub fn init() -> Result<(), OutOfMemory> {
    let mut global = GLOBAL.0.lock();
    let mapped = global.map_more(INITIAL_SIZE);
    if mapped < INITIAL_SIZE {
        return Err(OutOfMemory);
    }
    // SAFETY: the range was just mapped and is the heap's alone.
    unsafe { global.heap.init(BASE as *mut u8, INITIAL_SIZE) };
    Ok(())
}

impl KernelHeap {
    /// Maps up to `bytes` more after the end; how many it could.
    fn map_more(&mut self, bytes: usize) -> usize {
        let mut mapped = 0;
        while mapped < bytes && self.size < MAX_SIZE {
            let Ok(frame) = Frame::alloc(Purpose::Kernel) else {
                break;
            };
            if map_kernel_page(BASE + self.size, frame).is_err() {
                break;
            }
            self.size += PAGE_SIZE;
            mapped += PAGE_SIZE;
        }
        mapped
    }

    fn grow(&mut self, layout: Layout) {
        // Room for the worst alignment and the allocator's own header.
        let wanted = layout
            .size()
            .saturating_add(layout.align())
            .saturating_add(64);
        let pages = wanted.max(STEP).div_ceil(PAGE_SIZE);
        // What cannot be had whole would only take the last memory from everybody else.
        if pages >= free_frames() {
            return;
        }
        let bytes = pages * PAGE_SIZE;
        let mapped = self.map_more(bytes);
        if mapped > 0 {
            // SAFETY: the pages follow the heap's end and were just mapped.
            unsafe { self.heap.extend(mapped) };
        }
    }
}

/// Whether blocks of a layout are in pages of their own.
fn is_small(layout: Layout) -> bool {
    layout.size() <= LARGEST && layout.align() <= GRAIN
}

/// The list for blocks of a layout, and the layout that they all have; `None` for blocks without a list.
fn list_of(layout: Layout) -> Option<(usize, Layout)> {
    if layout.size() > LARGEST_LISTED || layout.align() > GRAIN {
        return None;
    }
    let grains = layout.size().div_ceil(GRAIN).max(1);
    let block = Layout::from_size_align(grains * GRAIN, GRAIN).ok()?;
    Some((grains - 1, block))
}

impl KernelHeap {
    fn allocate(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        if is_small(layout) {
            return self.slabs.allocate(layout.size());
        }
        let Some((list, block)) = list_of(layout) else {
            return self.take_from_heap(layout);
        };
        let Some(free) = self.lists[list] else {
            return self.take_from_heap(block);
        };
        // SAFETY: what is in a list is free and holds a `FreeBlock`.
        self.lists[list] = unsafe { free.as_ref().next };
        Some(free.cast())
    }

    fn take_from_heap(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        if let Ok(block) = self.heap.allocate_first_fit(layout) {
            return Some(block);
        }
        self.grow(layout);
        self.heap.allocate_first_fit(layout).ok()
    }

    /// # Safety
    /// `block` came from [`KernelHeap::allocate`] with the same layout, and is not used any more.
    unsafe fn free(&mut self, block: NonNull<u8>, layout: Layout) {
        if is_small(layout) {
            // SAFETY: the caller's promise.
            return unsafe { self.slabs.free(block, layout.size()) };
        }
        match list_of(layout) {
            Some((list, _)) => {
                let free = block.cast::<FreeBlock>();
                // SAFETY: the block is free now, and a grain is large and aligned enough.
                unsafe {
                    free.write(FreeBlock {
                        next: self.lists[list],
                    });
                }
                self.lists[list] = Some(free);
            }
            // SAFETY: the caller's promise.
            None => unsafe { self.heap.deallocate(block, layout) },
        }
    }
}

// SAFETY: the wrapped allocator keeps GlobalAlloc's rules, and the lock makes it one call at a time.
unsafe impl GlobalAlloc for Global {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > MAX_SIZE {
            return ptr::null_mut();
        }
        let mut global = self.0.lock();
        global
            .allocate(layout)
            .map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller gives back what `alloc` gave with the same layout.
            unsafe { self.0.lock().free(block, layout) };
        }
    }
}

#[cfg(all(test, target_os = "none"))]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test_case]
    fn the_heap_grows_and_keeps_what_is_in_it() {
        const BLOCKS: usize = 64;
        const BLOCK: usize = 100_000;
        let before = GLOBAL.0.lock().size;
        let mut blocks: Vec<Vec<u8>> = Vec::new();
        for index in 0..BLOCKS {
            let mut block = Vec::new();
            assert!(block.try_reserve_exact(BLOCK).is_ok());
            block.resize(BLOCK, index as u8);
            blocks.push(block);
        }
        let grown = GLOBAL.0.lock().size;
        assert!(grown > before && grown.is_multiple_of(PAGE_SIZE));
        for (index, block) in blocks.iter().enumerate() {
            assert!(block.iter().all(|&byte| byte == index as u8));
        }
        drop(blocks);
        // What was given back is used again.
        let again: Vec<u8> = Vec::with_capacity(BLOCKS * BLOCK / 2);
        assert_eq!(GLOBAL.0.lock().size, grown);
        drop(again);
    }

    #[test_case]
    fn what_cannot_be_had_is_an_error() {
        let free = free_frames();
        let mut block: Vec<u8> = Vec::new();
        assert!(block.try_reserve_exact(MAX_SIZE).is_err());
        assert!(block.try_reserve_exact(free * PAGE_SIZE).is_err());
        assert_eq!(free_frames(), free, "the failed requests took nothing");
        assert!(block.try_reserve_exact(isize::MAX as usize).is_err());
    }
}
