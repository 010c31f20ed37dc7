//! Kernel stacks: in a part of the address space of their own, with an unmapped guard page below each.

use core::sync::atomic::{AtomicU32, Ordering};

use super::kernel_pages::{map_kernel_page, unmap_kernel_page};
use crate::errno::OutOfMemory;
use crate::mm::PAGE_SIZE;
use crate::mm::frame::{Frame, FrameKind, Purpose};
use crate::sync::{IrqLock, rank};

/// Where stacks lie.
const BASE: usize = 0xffff_e000_0000_0000;
/// Usable size of a stack, bytes.
const SIZE: usize = 32 << 10;
const PAGES: usize = SIZE / PAGE_SIZE;
/// Distance of two stacks: the guard page is at the lower end.
const SLOT: usize = SIZE + PAGE_SIZE;
/// Most stacks there can be; pid numbers end at the same count.
const SLOTS: usize = 65536;

/// Free slots, one bit each, with a hint where to look first.
static USED: IrqLock<[u64; SLOTS / 64]> = IrqLock::new(rank::LEAF, [0; SLOTS / 64]);
static HINT: AtomicU32 = AtomicU32::new(0);

/// One thread's kernel stack.
pub(super) struct KernelStack {
    slot: usize,
    mapped: usize,
}

impl KernelStack {
    pub fn new() -> Result<KernelStack, OutOfMemory> {
        let mut stack = KernelStack {
            slot: take_slot().ok_or(OutOfMemory)?,
            mapped: 0,
        };
        for page in 0..PAGES {
            // Nobody reads a new stack.
            let frame = Frame::alloc_as(FrameKind::KernelStack, Purpose::User)?;
            map_kernel_page(stack.page(page), frame)?;
            stack.mapped += 1;
        }
        Ok(stack)
    }

    fn page(&self, index: usize) -> usize {
        BASE + self.slot * SLOT + PAGE_SIZE + index * PAGE_SIZE
    }

    /// The address above the stack, where it begins.
    pub fn top(&self) -> usize {
        BASE + (self.slot + 1) * SLOT
    }
}

impl Drop for KernelStack {
    fn drop(&mut self) {
        for page in 0..self.mapped {
            drop(unmap_kernel_page(self.page(page)));
        }
        USED.lock()[self.slot / 64] &= !(1 << (self.slot % 64));
        HINT.fetch_min((self.slot / 64) as u32, Ordering::Relaxed);
    }
}

fn take_slot() -> Option<usize> {
    let mut used = USED.lock();
    let hint = HINT.load(Ordering::Relaxed) as usize;
    let word = (hint..used.len())
        .chain(0..hint)
        .find(|&word| used[word] != u64::MAX)?;
    HINT.store(word as u32, Ordering::Relaxed);
    let bit = used[word].trailing_ones() as usize;
    used[word] |= 1 << bit;
    Some(word * 64 + bit)
}

/// Whether `address` is in the guard page of a stack: a stack overflow.
pub(super) fn is_guard_page(address: usize) -> bool {
    let end = BASE + SLOTS * SLOT;
    (BASE..end).contains(&address) && (address - BASE) % SLOT < PAGE_SIZE
}

#[cfg(test)]
mod tests {
    use super::super::kernel_pages::phys_of;
    use super::*;
    use crate::mm::frame::free_frames;

    #[test_case]
    fn a_guard_page_lies_below_each_stack() {
        let stacks = [(); 3].map(|()| KernelStack::new().expect("memory"));
        for stack in &stacks {
            let bottom = stack.top() - SIZE;
            assert!(
                (bottom..stack.top())
                    .step_by(PAGE_SIZE)
                    .all(|page| phys_of(page).is_some())
            );
            assert_eq!(phys_of(bottom - 1), None);
            assert!(is_guard_page(bottom - 1) && is_guard_page(bottom - PAGE_SIZE));
            assert!(!is_guard_page(bottom) && !is_guard_page(stack.top() - 1));
        }
    }

    #[test_case]
    fn a_stack_gives_everything_back() {
        drop(KernelStack::new().expect("memory"));
        let free = free_frames();
        let [stack, again] = [(); 2].map(|()| KernelStack::new().expect("memory"));
        let top = stack.top();
        assert_eq!(free_frames(), free - 2 * PAGES);
        drop((stack, again));
        assert_eq!(free_frames(), free);
        // The slot is used again, too.
        assert_eq!(KernelStack::new().map(|stack| stack.top()), Ok(top));
    }
}
