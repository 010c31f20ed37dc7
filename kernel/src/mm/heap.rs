//! The kernel heap: three ways to a block, by its size.
//!
//! Small blocks are in spans that hold one size ([`super::slab`]), large ones in pages of their own ([`super::vmalloc`]): both give their
//! memory back. What is between, or has an unusual alignment, comes from linked_list_allocator over a range of kernel addresses that grows
//! by frames. That one searches its free blocks from the first on; so what is freed goes to lists by size and comes from there in constant
//! time, and is never joined to larger blocks again.
//!
//! Not used on the fault, signal and switch paths. Lock rank: HEAP; frames and kernel page tables are taken under it.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use linked_list_allocator::Heap;

use super::addr::PAGE_SIZE;
use super::frame::{Frame, Purpose, free_frames};
use super::slab::{self, GRAIN, Slabs};
use super::vmalloc::LargeBlocks;
use crate::arch::map_kernel_page;
use crate::errno::OutOfMemory;
use crate::sync::{IrqLock, rank};

/// Where the heap lies.
const BASE: usize = 0xffff_e800_0000_0000;
/// It never gets larger than this.
const MAX_SIZE: usize = 64 << 30;
const INITIAL_SIZE: usize = 256 << 10;
/// It grows by at least this much.
const STEP: usize = 64 << 10;

/// Blocks up to this size are kept in lists; larger ones have pages of their own.
const LARGEST_LISTED: usize = 16 << 10;

/// A free block of a list, in its own memory.
struct FreeBlock {
    next: Option<NonNull<FreeBlock>>,
}

struct KernelHeap {
    heap: Heap,
    size: usize,
    slabs: Slabs,
    large: LargeBlocks,
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
        large: LargeBlocks::new(),
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

/// Who has the blocks of a layout.
enum Place {
    Slab,
    /// The list of this number, all of whose blocks have this layout.
    List(usize, Layout),
    Pages,
    /// The allocator below, without a list.
    Heap,
}

impl Place {
    fn of(layout: Layout) -> Place {
        let size = layout.size();
        match layout.align() {
            ..=GRAIN if size <= slab::LARGEST => Place::Slab,
            ..=GRAIN if size <= LARGEST_LISTED => {
                let grains = size.div_ceil(GRAIN);
                Layout::from_size_align(grains * GRAIN, GRAIN)
                    .map_or(Place::Heap, |block| Place::List(grains - 1, block))
            }
            ..=PAGE_SIZE if size > LARGEST_LISTED => Place::Pages,
            _ => Place::Heap,
        }
    }
}

impl KernelHeap {
    /// A block, or null.
    #[inline(never)]
    fn allocate(&mut self, layout: Layout) -> *mut u8 {
        self.try_allocate(layout)
            .map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    fn try_allocate(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        let (list, block) = match Place::of(layout) {
            Place::Slab => return self.slabs.allocate(layout.size(), &mut self.large),
            Place::Pages => return self.large.allocate(layout.size()),
            Place::Heap => return self.take_from_heap(layout),
            Place::List(list, block) => (list, block),
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
    #[inline(never)]
    unsafe fn free(&mut self, block: NonNull<u8>, layout: Layout) {
        match Place::of(layout) {
            // SAFETY: the caller's promise.
            Place::Slab => unsafe { self.slabs.free(block, layout.size(), &mut self.large) },
            // SAFETY: the caller's promise.
            Place::Pages => unsafe { self.large.free(block, layout.size()) },
            // SAFETY: the caller's promise.
            Place::Heap => unsafe { self.heap.deallocate(block, layout) },
            Place::List(list, _) => {
                let free = block.cast::<FreeBlock>();
                // SAFETY: the block is free now, and a grain is large and aligned enough.
                unsafe {
                    free.write(FreeBlock {
                        next: self.lists[list],
                    });
                }
                self.lists[list] = Some(free);
            }
        }
    }
}

/// How often memory was asked for since the start, in tests.
#[cfg(all(test, target_os = "none"))]
static ALLOCATIONS: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(0);

/// How often `body` asks for memory, with all that runs meanwhile.
#[cfg(all(test, target_os = "none"))]
pub fn allocations_of(body: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.load(core::sync::atomic::Ordering::Relaxed);
    body();
    ALLOCATIONS.load(core::sync::atomic::Ordering::Relaxed) - before
}

// SAFETY: the wrapped allocator keeps GlobalAlloc's rules, and the lock makes it one call at a time.
unsafe impl GlobalAlloc for Global {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > MAX_SIZE {
            return ptr::null_mut();
        }
        #[cfg(all(test, target_os = "none"))]
        ALLOCATIONS.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        let mut global = self.0.lock();
        if layout.align() <= GRAIN
            && let Some(block) = global.slabs.allocate_quickly(layout.size())
        {
            return block.as_ptr();
        }
        global.allocate(layout)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            let mut global = self.0.lock();
            // SAFETY: the caller gives back what `alloc` gave with the same layout.
            unsafe {
                if layout.align() > GRAIN || !global.slabs.free_quickly(block, layout.size()) {
                    global.free(block, layout);
                }
            }
        }
    }
}

#[cfg(all(test, target_os = "none"))]
pub(super) mod tests {
    use alloc::vec::Vec;

    use super::*;

    /// A block of `bytes`, all of which are `value`.
    pub fn block(bytes: usize, value: u8) -> Vec<u8> {
        let mut block = Vec::new();
        assert!(block.try_reserve_exact(bytes).is_ok());
        block.resize(bytes, value);
        block
    }

    #[test_case]
    fn the_heap_grows_and_keeps_what_is_in_it() {
        const BLOCKS: usize = 640;
        const BLOCK: usize = 15_000;
        let before = GLOBAL.0.lock().size;
        let block_of = |index: usize| block(BLOCK, index as u8);
        let blocks: Vec<_> = (0..BLOCKS).map(block_of).collect();
        let grown = GLOBAL.0.lock().size;
        assert!(grown > before && grown.is_multiple_of(PAGE_SIZE));
        for (index, block) in blocks.iter().enumerate() {
            assert!(block.iter().all(|&byte| byte == index as u8));
        }
        drop(blocks);
        // What was given back is used again.
        let again: Vec<_> = (0..BLOCKS).map(block_of).collect();
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
