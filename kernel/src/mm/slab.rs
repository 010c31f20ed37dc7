//! Small blocks of the kernel heap: each span of memory holds blocks of one size, and goes back when the last of them is free, so that
//! memory which one program made the kernel use is there for the next.
//!
//! A span is a page for the smaller sizes, some pages of [`super::vmalloc`] for the larger ones. It begins with its header. Spans with a
//! free block are in a list by size; so taking and giving back cost the same however many there are. One span of each size is kept when
//! it is empty, lest a single block come and go with its span.
//!
//! Locked by the heap (rank HEAP); frames are taken under that lock.

use core::ptr::{self, NonNull};

use super::addr::PAGE_SIZE;
use super::frame::{Frame, FrameNumber, Purpose};
use super::vmalloc::LargeBlocks;
use crate::arch;

/// Sizes are multiples of this, which is also the alignment of all blocks.
pub const GRAIN: usize = 64;
/// The largest block in a page: two fit beside the header.
const LARGEST_IN_PAGE: usize = (PAGE_SIZE - GRAIN) / 2 / GRAIN * GRAIN;
const PAGE_CLASSES: usize = LARGEST_IN_PAGE / GRAIN;

/// Sizes of blocks in larger spans are multiples of this.
const COARSE: usize = 512;
/// Bytes of a larger span, which is aligned to its size.
const LARGE_SPAN: usize = 8 * PAGE_SIZE;
/// The largest block: three fit in a span beside its header.
pub const LARGEST: usize = (LARGE_SPAN - GRAIN) / 3 / COARSE * COARSE;
/// The multiples of [`COARSE`] that fit in a page: not used.
const SKIPPED: usize = LARGEST_IN_PAGE / COARSE;
const CLASSES: usize = PAGE_CLASSES + LARGEST / COARSE - SKIPPED;

/// The blocks of one size.
#[derive(Clone, Copy)]
struct Class(usize);

impl Class {
    /// The class of the smallest blocks for `bytes`, at most [`LARGEST`].
    #[inline]
    fn of(bytes: usize) -> Class {
        Class(if bytes <= LARGEST_IN_PAGE {
            bytes.max(1).div_ceil(GRAIN) - 1
        } else {
            PAGE_CLASSES + bytes.div_ceil(COARSE) - 1 - SKIPPED
        })
    }

    fn is_in_page(self) -> bool {
        self.0 < PAGE_CLASSES
    }

    /// Bytes of a block.
    fn size(self) -> usize {
        if self.is_in_page() {
            (self.0 + 1) * GRAIN
        } else {
            (self.0 - PAGE_CLASSES + 1 + SKIPPED) * COARSE
        }
    }

    /// Bytes of a span.
    fn span(self) -> usize {
        if self.is_in_page() {
            PAGE_SIZE
        } else {
            LARGE_SPAN
        }
    }

    /// Blocks of a span.
    fn capacity(self) -> u16 {
        ((self.span() - GRAIN) / self.size()) as u16
    }
}

/// Memory for a span of a class, and the frame if it is a page.
fn take_span(
    class: Class,
    large: &mut LargeBlocks,
) -> Option<(NonNull<Span>, Option<FrameNumber>)> {
    if class.is_in_page() {
        let frame = Frame::alloc(Purpose::Kernel).ok()?.into_raw();
        Some((NonNull::new(arch::frame_ptr(frame).cast())?, Some(frame)))
    } else {
        Some((large.allocate(LARGE_SPAN)?.cast(), None))
    }
}

/// # Safety
/// The span came from [`take_span`], with this frame, and nobody uses it any more.
unsafe fn give_span_back(span: NonNull<Span>, frame: Option<FrameNumber>, large: &mut LargeBlocks) {
    match frame {
        // SAFETY: the reference to the frame was given up when it was taken.
        Some(frame) => drop(unsafe { Frame::from_raw(frame) }),
        // SAFETY: it came from there, with the same size.
        None => unsafe { large.free(span.cast(), LARGE_SPAN) },
    }
}

/// The header of a span; blocks follow after one grain.
struct Span {
    prev: *mut Span,
    next: *mut Span,
    free: *mut FreeBlock,
    /// Of a span that is a page.
    frame: Option<FrameNumber>,
    /// Blocks in use.
    used: u16,
    /// Blocks that were ever in use: those behind are not in the list of free ones.
    carved: u16,
    /// Blocks there are.
    capacity: u16,
}

const _: () = assert!(size_of::<Span>() <= GRAIN);

/// A free block of a span, in its own memory.
struct FreeBlock {
    next: *mut FreeBlock,
}

/// The spans with free blocks, by size.
pub struct Slabs {
    partial: [*mut Span; CLASSES],
}

// SAFETY: spans are the slabs' alone.
unsafe impl Send for Slabs {}

impl Slabs {
    pub const fn new() -> Slabs {
        Slabs {
            partial: [ptr::null_mut(); CLASSES],
        }
    }

    /// A block that was free before, if `bytes` are few and that leaves its span in the list of those with free blocks.
    #[inline]
    pub fn allocate_quickly(&mut self, bytes: usize) -> Option<NonNull<u8>> {
        if bytes > LARGEST_IN_PAGE {
            return None;
        }
        // SAFETY: spans in a list are initialised and the slabs' own, and what is in their list of free blocks is free.
        unsafe {
            let span = self.partial[Class::of(bytes).0].as_mut()?;
            let block = NonNull::new(span.free)?;
            if span.used + 1 >= span.capacity {
                return None;
            }
            span.used += 1;
            span.free = block.as_ref().next;
            Some(block.cast())
        }
    }

    /// Frees a block, if that leaves its span in the list of those with free blocks; whether it did.
    ///
    /// # Safety
    /// As for [`Slabs::free`].
    #[inline]
    pub unsafe fn free_quickly(&mut self, block: NonNull<u8>, bytes: usize) -> bool {
        if bytes > LARGEST_IN_PAGE {
            return false;
        }
        let at = block.as_ptr().map_addr(|addr| addr & !(PAGE_SIZE - 1));
        // SAFETY: a block of this size lies behind the header of its span, a page that is the slabs' own; it is free now, and large enough.
        unsafe {
            let span = &mut *at.cast::<Span>();
            if span.used == span.capacity || span.used == 1 {
                return false;
            }
            let block = block.cast::<FreeBlock>();
            block.write(FreeBlock { next: span.free });
            span.free = block.as_ptr();
            span.used -= 1;
        }
        true
    }

    /// A block of `bytes`, at most [`LARGEST`], aligned to [`GRAIN`]. `None` if there is no memory.
    pub fn allocate(&mut self, bytes: usize, large: &mut LargeBlocks) -> Option<NonNull<u8>> {
        let class = Class::of(bytes);
        if self.partial[class.0].is_null() {
            self.partial[class.0] = new_span(class, large)?.as_ptr();
        }
        let at = self.partial[class.0];
        // SAFETY: spans in a list are initialised and the slabs' alone, and have a free block: one in the list of free ones, or one that
        // was never used.
        unsafe {
            let span = &mut *at;
            span.used += 1;
            let block = if span.free.is_null() {
                let offset = GRAIN + span.carved as usize * class.size();
                span.carved += 1;
                at.cast::<u8>().add(offset)
            } else {
                let block = span.free;
                span.free = (*block).next;
                block.cast()
            };
            if (*at).used == (*at).capacity {
                self.unlink(at, class);
            }
            NonNull::new(block)
        }
    }

    /// # Safety
    /// `block` came from [`Slabs::allocate`] with the same size, and is not used any more.
    pub unsafe fn free(&mut self, block: NonNull<u8>, bytes: usize, large: &mut LargeBlocks) {
        let class = Class::of(bytes);
        let at = block
            .as_ptr()
            .map_addr(|addr| addr & !(class.span() - 1))
            .cast::<Span>();
        // SAFETY: blocks lie behind the header of their span, which is the slabs' own; the block is free now, and large enough.
        unsafe {
            let was_full = (*at).used == (*at).capacity;
            let block = block.as_ptr().cast::<FreeBlock>();
            block.write(FreeBlock { next: (*at).free });
            (*at).free = block;
            (*at).used -= 1;
            if was_full {
                self.link(at, class);
            }
            let is_only_one = (*at).prev.is_null() && (*at).next.is_null();
            if (*at).used > 0 || is_only_one {
                return;
            }
            self.unlink(at, class);
            give_span_back(NonNull::new_unchecked(at), (*at).frame, large);
        }
    }

    /// # Safety
    /// The span is in no list.
    unsafe fn link(&mut self, at: *mut Span, class: Class) {
        let next = core::mem::replace(&mut self.partial[class.0], at);
        // SAFETY: spans in lists are valid, and so is the caller's.
        unsafe {
            (*at).prev = ptr::null_mut();
            (*at).next = next;
            if let Some(next) = next.as_mut() {
                next.prev = at;
            }
        }
    }

    /// # Safety
    /// The span is in the list.
    unsafe fn unlink(&mut self, at: *mut Span, class: Class) {
        // SAFETY: spans in lists are valid.
        unsafe {
            let (prev, next) = ((*at).prev, (*at).next);
            match prev.as_mut() {
                Some(prev) => prev.next = next,
                None => self.partial[class.0] = next,
            }
            if let Some(next) = next.as_mut() {
                next.prev = prev;
            }
            (*at).prev = ptr::null_mut();
            (*at).next = ptr::null_mut();
        }
    }
}

fn new_span(class: Class, large: &mut LargeBlocks) -> Option<NonNull<Span>> {
    let (at, frame) = take_span(class, large)?;
    // SAFETY: the memory is new and nobody else's.
    unsafe {
        at.write(Span {
            prev: ptr::null_mut(),
            next: ptr::null_mut(),
            free: ptr::null_mut(),
            frame,
            used: 0,
            carved: 0,
            capacity: class.capacity(),
        });
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::mm::frame::free_frames;
    use crate::mm::heap::tests::block;

    #[test_case]
    fn every_size_has_the_smallest_class_that_holds_it() {
        let mut last = 0;
        for bytes in 1..=LARGEST {
            let class = Class::of(bytes);
            assert!(class.0 < CLASSES && class.size() >= bytes && class.capacity() >= 2);
            assert!(class.0 == 0 || Class(class.0 - 1).size() < bytes);
            assert!(class.0 == last || class.0 == last + 1);
            last = class.0;
        }
        assert_eq!(last, CLASSES - 1);
    }

    #[test_case]
    fn spans_come_back_in_whatever_order_their_blocks_are_freed() {
        for bytes in [320, 6000] {
            let free = free_frames();
            let mut blocks: Vec<Option<Vec<u8>>> =
                (0..1000).map(|n| Some(block(bytes, n as u8))).collect();
            assert!(free - free_frames() > 1000 * bytes / PAGE_SIZE);
            for step in [7, 3, 1] {
                for n in (0..blocks.len()).step_by(step) {
                    if let Some(block) = blocks[n].take() {
                        assert!(block.iter().all(|&byte| byte == n as u8));
                    }
                }
            }
            drop(blocks);
            // What stays: a span of each of two sizes, and of the larger ones a page each and their page tables.
            let spans = 1000usize.div_ceil(Class::of(bytes).capacity() as usize);
            let kept = if Class::of(bytes).is_in_page() {
                0
            } else {
                spans + 8
            };
            assert!(free - free_frames() <= kept + 16);
        }
    }
}
