//! Page tables on the real MMU.

mod shared;

use super::*;
use crate::mm::frame::{KindCounts, free_frames};

const RW: PteFlags = PteFlags::READ
    .union(PteFlags::WRITE)
    .union(PteFlags::ACCESSED)
    .union(PteFlags::DIRTY);

fn at(address: usize) -> VirtAddr {
    VirtAddr::new(address).expect("a user address")
}

fn frame() -> Frame {
    Frame::alloc_zeroed(Purpose::User).expect("memory")
}

/// Removes every entry and mark of a range.
fn unmap_range(
    table: &mut PageTable,
    start: VirtAddr,
    end: VirtAddr,
    f: &mut impl FnMut(VirtAddr, Pte, Option<Frame>),
) {
    table.unmap_leaving(start.get(), end.get(), &mut |_| 0, f);
}

fn unmap_all(table: &mut PageTable) -> usize {
    let mut count = 0;
    unmap_range(table, at(0), at(crate::arch::USER_END), &mut |_, _, _| {
        count += 1
    });
    count
}

#[test_case]
fn flags_survive_the_hardwares_form() {
    for flags in (0..=0xff).map(PteFlags::from_bits_retain) {
        let value = to_hardware(FrameNumber(0x12345), flags);
        let back = from_hardware(value);
        assert_eq!(back.frame, FrameNumber(0x12345));
        // Whether it can be read follows from its being present.
        let mut expected = flags;
        expected.set(PteFlags::READ, !flags.contains(PteFlags::NONE));
        assert_eq!(back.flags, expected, "{flags:?}");
        assert_eq!(value & bits::PRESENT == 0, flags.contains(PteFlags::NONE));
        assert_eq!(
            value & bits::NO_EXECUTE == 0,
            flags.contains(PteFlags::EXEC)
        );
    }
}

#[test_case]
fn tables_go_with_their_last_entry() {
    let mut table = PageTable::new().expect("memory");
    let free = free_frames();
    // Neighbours, the next lowest table, another middle one, and the very end.
    let pages = [
        0,
        0x1000,
        0x20_0000,
        0x4000_0000,
        1 << 40,
        crate::arch::USER_END - 4096,
    ];
    for page in pages {
        table.map(at(page), frame(), RW).expect("memory");
    }
    assert!(free_frames() < free - pages.len());
    assert!(table.get(at(0x1000)).is_some() && table.get(at(0x2000)).is_none());
    assert_eq!(unmap_all(&mut table), pages.len());
    assert_eq!(free_frames(), free, "a table or a page is missing");
    assert_eq!(table.used, 0);
}

#[test_case]
fn many_pages_come_back_in_order() {
    let mut table = PageTable::new().expect("memory");
    let free = free_frames();
    // More than a batch, over the border of two lowest tables, with holes.
    let pages = || (0x1f_0000..0x2f_0000).step_by(2 * PAGE_SIZE);
    for page in pages() {
        table.map(at(page), frame(), RW).expect("memory");
    }
    let mut expected = pages();
    unmap_range(
        &mut table,
        at(0x1f_0000),
        at(0x2f_0000),
        &mut |page, pte, frame| {
            assert_eq!(Some(page.get()), expected.next());
            assert_eq!(frame.map(|frame| frame.number()), Some(pte.frame));
        },
    );
    assert_eq!(expected.next(), None);
    assert_eq!(free_frames(), free);
}

#[test_case]
fn moved_entries_take_their_frames_along() {
    let free = free_frames();
    let mut table = PageTable::new().expect("memory");
    let before = table.table_frames();
    let pages = [0x10_0000, 0x1f_f000, 0x20_0000];
    let frames = pages.map(|page| {
        let frame = frame();
        let number = frame.number();
        table.map(at(page), frame, RW).expect("memory");
        number
    });
    table
        .move_range(at(0x10_0000), at(0x30_0000), at(0x5000_0000))
        .expect("memory");
    for (page, number) in pages.into_iter().zip(frames) {
        assert_eq!(table.get(at(page)), None);
        let moved = table.get(at(page - 0x10_0000 + 0x5000_0000));
        assert_eq!(moved.map(|pte| pte.frame), Some(number));
        assert!(Frame::is_unique(number));
    }
    assert_eq!(unmap_all(&mut table), pages.len());
    assert_eq!(table.table_frames(), before);
    drop(table);
    assert_eq!(free_frames(), free);
}

#[test_case]
fn fork_shares_frames_and_takes_the_right_to_write() {
    let free = free_frames();
    let mut parent = PageTable::new().expect("memory");
    let mut child = PageTable::new().expect("memory");
    let zero = crate::mm::frame::zero_page();
    parent.map(at(0x1000), frame(), RW).expect("memory");
    parent
        .map_special(at(0x3000), zero, PteFlags::READ)
        .expect("memory");
    let mut copied = KindCounts::default();
    let outcome = parent.copy_range(&mut child, at(0), at(0x10_0000), &(0..0), &mut copied);
    assert_eq!((copied.total(), outcome), (1, Ok(())));
    let [one, other] = [&parent, &child].map(|table| table.get(at(0x1000)).expect("mapped"));
    assert_eq!(one, other);
    assert!(!one.flags.contains(PteFlags::WRITE) && one.flags.contains(PteFlags::DIRTY));
    assert!(!Frame::is_unique(one.frame));
    assert_eq!(child.get(at(0x3000)).map(|pte| pte.frame), Some(zero));
    assert_eq!(unmap_all(&mut parent), 2);
    assert!(Frame::is_unique(other.frame));
    assert_eq!(unmap_all(&mut child), 2);
    drop((parent, child));
    assert_eq!(free_frames(), free);
}

#[test_case]
fn what_the_cpu_sees_follows_the_table() {
    let mut table = PageTable::new().expect("memory");
    let address = 0x1234_5000;
    table.map(at(address), frame(), RW).expect("memory");
    // As the test's thread has no address space of its own, faults on user memory end at the exception table.
    table.activate();
    let write = |value: u8| crate::mm::uaccess::write_bytes(address, &[value]).is_ok();
    let read = || {
        let mut byte = [0];
        crate::mm::uaccess::read_bytes(address, &mut byte)
            .is_ok()
            .then_some(byte[0])
    };
    assert!(write(1));
    let entry = table
        .entry(at(address))
        .ok()
        .flatten()
        .expect("it is mapped");
    entry.set_flags(PteFlags::READ).flush();
    assert!(!write(2));
    assert_eq!(read(), Some(1));
    table.protect_range(at(address), at(address + PAGE_SIZE), |_, _| PteFlags::NONE);
    assert_eq!(read(), None);
    let entry = table
        .entry(at(address))
        .ok()
        .flatten()
        .expect("it is mapped");
    let (old, flush) = entry.replace(frame(), RW);
    flush.flush();
    assert!(old.is_some());
    assert_eq!(read(), Some(0));
    assert_eq!(unmap_all(&mut table), 1);
    assert_eq!(read(), None);
    PageTable::deactivate();
}

#[test_case]
fn a_mark_waits_for_its_page_and_protects_it() {
    let mut table = PageTable::new().expect("memory");
    let frames = table.table_frames();
    let base = 0x40_0000_0000;
    let page = |n: usize| at(base + n * PAGE_SIZE);
    assert_eq!(table.map(page(1), frame(), RW), Ok(()));
    table.mark_missing(page(0), page(4)).expect("memory");
    let marked = |table: &PageTable| [0, 1, 2, 3].map(|n| table.is_marked(page(n)));
    assert_eq!(marked(&table), [true, false, true, true]);
    assert_eq!(table.get(page(0)), None);
    assert_eq!(table.map(page(2), frame(), RW), Ok(()));
    let protected = table.get(page(2)).expect("mapped").flags;
    assert!(protected.contains(PteFlags::UFFD_WP) && !protected.contains(PteFlags::WRITE));
    let mut seen = 0;
    table.protect_range(page(0), page(4), |_, pte| {
        seen += 1;
        pte.flags
    });
    assert_eq!(seen, 2, "marks are not entries");
    let mut child = PageTable::new().expect("memory");
    let mut copied = KindCounts::default();
    let outcome = table.copy_range(&mut child, page(0), page(4), &(0..0), &mut copied);
    assert_eq!((copied.total(), outcome), (2, Ok(())));
    assert_eq!(marked(&child), [false; 4]);
    let copy = child.get(page(2)).expect("copied").flags;
    assert!(
        !copy.contains(PteFlags::UFFD_WP),
        "protection is not inherited"
    );
    let mut dropped = 0;
    table.unmap_range_if(page(0), page(4), &mut |_| true, &mut |_, _, frame| {
        dropped += usize::from(frame.is_some());
    });
    assert_eq!(dropped, 2);
    assert_eq!(marked(&table), [true, false, true, true]);
    assert_eq!(table.move_range(page(2), page(3), page(9)), Ok(()));
    assert!(
        !table.is_marked(page(2)) && !table.is_marked(page(9)),
        "marks do not move"
    );
    table.unmark(page(0), page(1));
    assert_eq!(marked(&table), [false, false, false, true]);
    unmap_all(&mut table);
    unmap_all(&mut child);
    assert_eq!(
        table.table_frames(),
        frames,
        "tables with marks alone go too"
    );
}
