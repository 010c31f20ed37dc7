//! The page table on the real MMU: what is written through one mapping is read through another, and every frame comes back.

use super::super::{copy_from_user, copy_to_user};
use super::*;
use crate::mm::frame::free_frames;

const RW: PteFlags = PteFlags::READ.union(PteFlags::WRITE);
const SEEN: PteFlags = PteFlags::ACCESSED.union(PteFlags::DIRTY);
const BASE: usize = 0x20_0000_0000;

fn page(index: usize) -> VirtAddr {
    VirtAddr::new(BASE + index * PAGE_SIZE).expect("a user address")
}

fn frame() -> Frame {
    Frame::alloc_zeroed(Purpose::User).expect("memory")
}

/// Maps `count` new frames from page 0 on; they are counted by the table alone.
fn table_with(count: usize, flags: PteFlags) -> PageTable {
    let mut table = PageTable::new().expect("memory");
    for index in 0..count {
        assert!(table.map(page(index), frame(), flags).is_ok());
    }
    table
}

/// Unmaps everything; how many frames came out.
fn clear(table: &mut PageTable, count: usize) -> usize {
    let mut frames = 0;
    table.unmap_range(page(0), page(count), &mut |_, _, frame| {
        frames += usize::from(frame.is_some())
    });
    frames
}

/// Runs `f` with the CPU on `table`. This thread has no address space, so a fault ends the user copy that made it.
fn on<R>(table: &PageTable, f: impl FnOnce() -> R) -> R {
    table.activate();
    let value = f();
    PageTable::deactivate();
    value
}

/// Writes through the mapping; whether it could.
fn write(at: VirtAddr, value: u64) -> bool {
    // SAFETY: the value is readable.
    unsafe { copy_to_user(at.get(), (&raw const value).cast(), size_of::<u64>()) == 0 }
}

fn read(at: VirtAddr) -> Option<u64> {
    let mut value = 0;
    // SAFETY: there is room for the value.
    let missing = unsafe { copy_from_user((&raw mut value).cast(), at.get(), size_of::<u64>()) };
    (missing == 0).then_some(value)
}

#[test_case]
fn pages_are_what_they_are_mapped_to_and_all_frames_come_back() {
    // More than is flushed one by one, over the border of two tables.
    const COUNT: usize = 600;
    let free = free_frames();
    let mut table = table_with(COUNT, RW);
    on(&table, || {
        assert!((0..COUNT).all(|index| write(page(index), index as u64)));
        assert!((0..COUNT).all(|index| read(page(index)) == Some(index as u64)));
        assert_eq!(read(page(COUNT)), None);
    });
    let pte = table.get(page(5)).expect("mapped");
    assert!(pte.flags.contains(RW | SEEN) && !pte.flags.contains(PteFlags::EXEC));
    // SAFETY: the frame is the table's, which nobody changes now.
    let contents = unsafe { super::super::frame_ptr(pte.frame).cast::<u64>().read() };
    assert_eq!(contents, 5);
    assert_eq!(clear(&mut table, COUNT), COUNT);
    assert_eq!(table.get(page(5)), None);
    on(&table, || {
        assert!(
            (0..COUNT).all(|index| read(page(index)).is_none()),
            "nothing stale is left"
        )
    });
    drop(table);
    assert_eq!(free_frames(), free);
}

#[test_case]
fn a_replaced_page_is_seen_at_once() {
    let mut table = table_with(1, RW);
    assert!(on(&table, || write(page(0), 1)));
    let old = table.get(page(0)).expect("mapped").frame;
    table.activate();
    assert_eq!(read(page(0)), Some(1));
    let (before, flush) = table.replace(page(0), frame(), RW);
    flush.flush();
    assert_eq!(before.map(|frame| frame.number()), Some(old));
    assert_eq!(read(page(0)), Some(0));
    PageTable::deactivate();
    assert_eq!(clear(&mut table, 1), 1);
}

#[test_case]
fn permissions_change_and_prot_none_keeps_the_page() {
    let mut table = table_with(2, RW);
    table.activate();
    assert!(write(page(0), 1) && write(page(1), 2));
    table.protect_range(page(0), page(1), |_, pte| {
        assert!(pte.flags.contains(RW));
        PteFlags::READ
    });
    table.protect_range(page(1), page(2), |_, _| PteFlags::NONE);
    let flags = |index| table.get(page(index)).expect("still there").flags;
    assert!(!flags(0).contains(PteFlags::WRITE) && flags(0).contains(PteFlags::READ));
    assert!(flags(1).contains(PteFlags::NONE) && !flags(1).contains(PteFlags::READ));
    assert!(!write(page(0), 9) && read(page(0)) == Some(1));
    assert!(!write(page(1), 9) && read(page(1)).is_none());
    table.set_flags(page(1), RW).flush();
    assert_eq!(read(page(1)), Some(2));
    PageTable::deactivate();
    assert_eq!(clear(&mut table, 2), 2);
}

#[test_case]
fn a_copy_shares_frames_and_neither_side_may_write() {
    const COUNT: usize = 40;
    let free = free_frames();
    let mut parent = table_with(COUNT, RW);
    let zero = crate::mm::frame::zero_page();
    assert!(
        parent
            .map_special(page(COUNT), zero, PteFlags::READ)
            .is_ok()
    );
    assert!(on(&parent, || write(page(3), 33)));
    let mut child = PageTable::new().expect("memory");
    let (copied, outcome) = parent.copy_range(&mut child, page(0), page(COUNT + 1), false);
    assert!(
        outcome.is_ok() && copied == COUNT as u64,
        "the zero page is not counted"
    );
    for table in [&parent, &child] {
        let pte = table.get(page(3)).expect("in both");
        assert!(!pte.flags.contains(PteFlags::WRITE) && !Frame::is_unique(pte.frame));
        assert_eq!(on(table, || read(page(3))), Some(33));
        assert!(!on(table, || write(page(3), 34)));
        assert_eq!(table.get(page(COUNT)).map(|pte| pte.frame), Some(zero));
    }
    let shared = parent.get(page(3)).expect("mapped").frame;
    assert_eq!(clear(&mut parent, COUNT + 1), COUNT);
    assert!(Frame::is_unique(shared), "the child has the last reference");
    assert_eq!(on(&child, || read(page(3))), Some(33));
    assert_eq!(clear(&mut child, COUNT + 1), COUNT);
    drop((parent, child));
    assert_eq!(free_frames(), free);
}
