//! Kernel stacks: in a part of the address space of their own, with an unmapped guard page below each.
//!
//! A few that are free stay mapped for the next threads, until memory is short ([`free_spares`]). Lock rank: LEAF.

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

/// Free stacks that are kept at most, as many as Linux keeps for each CPU.
const SPARES: usize = 2;

/// Slots of mapped stacks that nobody uses.
static SPARE: IrqLock<heapless::Vec<usize, SPARES>> =
    IrqLock::new(rank::LEAF, heapless::Vec::new());

/// Gives the memory of free stacks back; how many frames.
pub fn free_spares() -> usize {
    let mut freed = 0;
    loop {
        // A statement of its own: the lock is free again when the stack goes.
        let slot = SPARE.lock().pop();
        let Some(slot) = slot else {
            return freed;
        };
        unmap(slot, PAGES);
        freed += PAGES;
    }
}

/// One thread's kernel stack.
pub(super) struct KernelStack {
    slot: usize,
    mapped: usize,
}

impl KernelStack {
    pub fn new() -> Result<KernelStack, OutOfMemory> {
        let spare = SPARE.lock().pop();
        if let Some(slot) = spare {
            return Ok(KernelStack {
                slot,
                mapped: PAGES,
            });
        }
        let mut stack = KernelStack {
            slot: take_slot().ok_or(OutOfMemory)?,
            mapped: 0,
        };
        for page in 0..PAGES {
            // Nobody reads a new stack.
            let frame = Frame::alloc_as(FrameKind::KernelStack, Purpose::User)?;
            map_kernel_page(page_of(stack.slot, page), frame)?;
            stack.mapped += 1;
        }
        Ok(stack)
    }

    /// The address above the stack, where it begins.
    pub fn top(&self) -> usize {
        BASE + (self.slot + 1) * SLOT
    }
}

impl Drop for KernelStack {
    fn drop(&mut self) {
        let is_kept = self.mapped == PAGES && SPARE.lock().push(self.slot).is_ok();
        if !is_kept {
            unmap(self.slot, self.mapped);
        }
    }
}

/// The address of a page of a slot's stack.
fn page_of(slot: usize, index: usize) -> usize {
    BASE + slot * SLOT + PAGE_SIZE + index * PAGE_SIZE
}

/// Frees a stack of which the first `pages` are mapped.
fn unmap(slot: usize, pages: usize) {
    for page in 0..pages {
        drop(unmap_kernel_page(page_of(slot, page)));
    }
    USED.lock()[slot / 64] &= !(1 << (slot % 64));
    HINT.fetch_min((slot / 64) as u32, Ordering::Relaxed);
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
        const COUNT: usize = SPARES + 2;
        drop(KernelStack::new().expect("memory"));
        free_spares();
        let free = free_frames();
        let stacks = [(); COUNT].map(|()| KernelStack::new().expect("memory"));
        let tops = stacks.each_ref().map(KernelStack::top);
        assert_eq!(free_frames(), free - COUNT * PAGES);
        drop(stacks);
        // A few are kept, and used first.
        assert_eq!(free_frames(), free - SPARES * PAGES);
        let spare = KernelStack::new().expect("memory");
        assert_eq!(free_frames(), free - SPARES * PAGES);
        drop(spare);
        assert_eq!(free_spares(), SPARES * PAGES);
        assert_eq!(free_frames(), free);
        // The slots are used again, too.
        let again = [(); COUNT].map(|()| KernelStack::new().expect("memory"));
        assert_eq!(again.each_ref().map(KernelStack::top), tops);
        drop(again);
        free_spares();
    }
}
