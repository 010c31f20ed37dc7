//! Lowest tables that several address spaces have.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::*;
use crate::mm::frame::used_frames;

/// Where nothing but the memory of these tests lies.
const ALL: core::ops::Range<usize> = 0..1 << 40;

fn fork(parent: &mut PageTable, start: usize, end: usize) -> (PageTable, u64) {
    let mut child = PageTable::new().expect("memory");
    let mut copied = KindCounts::default();
    parent
        .copy_range(&mut child, at(start), at(end), &ALL, &mut copied)
        .expect("memory");
    (child, copied.total())
}

fn anonymous() -> Frame {
    Frame::alloc_zeroed_as(FrameKind::Anonymous, Purpose::User).expect("memory")
}

/// What a write fault does.
fn write(table: &mut PageTable, page: usize) -> FrameNumber {
    let Some(entry) = table.entry(at(page)).expect("memory") else {
        let frame = anonymous();
        let number = frame.number();
        table.map(at(page), frame, RW).expect("it is empty");
        return number;
    };
    let pte = entry.pte();
    if pte.flags.contains(PteFlags::WRITE) || Frame::is_unique(pte.frame) {
        entry.set_flags(RW).flush();
        return pte.frame;
    }
    let copy = anonymous();
    let number = copy.number();
    let (old, flush) = entry.replace(copy, RW);
    flush.flush();
    assert!(old.is_some());
    number
}

fn zap(table: &mut PageTable, start: usize, end: usize) -> u64 {
    let mut gone = KindCounts::default();
    table.own_edges(at(start), at(end)).expect("memory");
    table.zap_range(at(start), at(end), &mut gone);
    gone.total()
}

#[test_case]
fn a_fork_takes_well_filled_tables_as_they_are() {
    let free = free_frames();
    let mut parent = PageTable::new().expect("memory");
    // A full table, one with too little, and one in which something else may lie.
    for n in 0..520 {
        write(&mut parent, 0x4000_0000 + n * PAGE_SIZE);
    }
    let before = free_frames();
    let (mut child, copied) = fork(&mut parent, 0x4000_0000, 0x4040_0000);
    assert_eq!(copied, 520);
    assert_eq!(
        before - free_frames(),
        4,
        "a root, two upper tables, and that of eight pages"
    );
    let [one, other] = [&parent, &child].map(|table| table.get(at(0x4000_3000)).expect("there"));
    assert_eq!(one, other);
    assert_eq!(child.sharers(at(0x4000_3000)), 2);
    assert!(!one.flags.contains(PteFlags::WRITE));
    assert!(Frame::is_unique(one.frame), "the table has the reference");
    // Copied as ever.
    assert!(!Frame::is_unique(
        child.get(at(0x4020_3000)).expect("there").frame
    ));
    assert_eq!(zap(&mut child, 0x4000_0000, 0x4040_0000), 520);
    drop(child);
    assert_eq!(free_frames(), before);
    // Who is alone again writes without a copy.
    assert_eq!(write(&mut parent, 0x4000_3000), one.frame);
    let again = parent.get(at(0x4000_5000)).expect("there");
    assert!(again.flags.contains(PteFlags::WRITE));
    assert_eq!(zap(&mut parent, 0x4000_0000, 0x4040_0000), 520);
    drop(parent);
    assert_eq!(free_frames(), free);
}

#[test_case]
fn what_lies_beside_other_things_is_copied() {
    let mut parent = PageTable::new().expect("memory");
    for n in 0..512 {
        write(&mut parent, 0x4000_0000 + n * PAGE_SIZE);
    }
    let mut child = PageTable::new().expect("memory");
    let mut copied = KindCounts::default();
    let alone = 0x4000_1000..0x4020_0000;
    parent
        .copy_range(
            &mut child,
            at(0x4000_1000),
            at(0x4020_0000),
            &alone,
            &mut copied,
        )
        .expect("memory");
    assert_eq!(copied.total(), 511);
    let copy = child.get(at(0x4000_1000)).expect("there");
    assert!(!Frame::is_unique(copy.frame));
    assert_eq!(child.get(at(0x4000_0000)), None);
    // A page that is protected for userfaultfd is not in the child.
    let entry = parent
        .entry(at(0x4000_2000))
        .expect("memory")
        .expect("there");
    entry.set_flags(RW.write_protected()).flush();
    let (mut other, _) = fork(&mut parent, 0x4000_0000, 0x4020_0000);
    let copy = other.get(at(0x4000_2000)).expect("there");
    assert!(!copy.flags.contains(PteFlags::UFFD_WP));
    for table in [&mut parent, &mut child, &mut other] {
        zap(table, 0x4000_0000, 0x4020_0000);
    }
}

#[test_case]
fn the_cpu_may_not_write_into_a_shared_table() {
    let mut parent = PageTable::new().expect("memory");
    for n in 0..512 {
        write(&mut parent, 0x4000_0000 + n * PAGE_SIZE);
    }
    parent.activate();
    let store = |value: u8| crate::mm::uaccess::write_bytes(0x4000_7000, &[value]).is_ok();
    let load = || {
        let mut byte = [0];
        crate::mm::uaccess::read_bytes(0x4000_7000, &mut byte)
            .is_ok()
            .then_some(byte[0])
    };
    assert!(store(1));
    let (mut child, _) = fork(&mut parent, 0x4000_0000, 0x4020_0000);
    assert!(!store(2), "the translation was not flushed");
    write(&mut parent, 0x4000_7000);
    assert!(store(3));
    child.activate();
    assert_eq!(load(), Some(1));
    assert!(!store(4));
    assert_eq!(zap(&mut child, 0x4000_7000, 0x4000_8000), 1);
    assert_eq!(load(), None, "the way to the shared table was still cached");
    assert_eq!(zap(&mut child, 0x4000_0000, 0x4020_0000), 511);
    assert!(!store(5));
    parent.activate();
    assert_eq!(load(), Some(3));
    let (mut other, _) = fork(&mut parent, 0x4000_0000, 0x4020_0000);
    other.activate();
    assert_eq!(load(), Some(3));
    assert_eq!(zap(&mut other, 0x4000_0000, 0x4020_0000), 512);
    assert_eq!(load(), None, "the whole table is gone");
    PageTable::deactivate();
    zap(&mut parent, 0x4000_0000, 0x4020_0000);
}

/// A generator of numbers (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// What a process should see: each page's contents, and whether it may write at once is left open.
type Model = BTreeMap<usize, u64>;

const BASE: usize = 0x4000_0000;
/// Two whole tables and a half.
const PAGES: usize = 512 * 5 / 2;

struct Space {
    table: PageTable,
    model: Model,
    resident: u64,
}

fn contents(frame: FrameNumber) -> *mut u64 {
    crate::arch::frame_ptr(frame).cast()
}

impl Space {
    fn write(&mut self, page: usize, value: u64) {
        let address = BASE + page * PAGE_SIZE;
        let was = self.table.get(at(address));
        let frame = write(&mut self.table, address);
        self.resident += u64::from(was.is_none());
        // SAFETY: the frame is this space's alone now.
        unsafe { contents(frame).write(value) };
        self.model.insert(page, value);
    }

    fn zap(&mut self, start: usize, end: usize) {
        self.resident -= zap(
            &mut self.table,
            BASE + start * PAGE_SIZE,
            BASE + end * PAGE_SIZE,
        );
        self.model.retain(|page, _| !(start..end).contains(page));
    }

    fn protect(&mut self, start: usize, end: usize) {
        let [start, end] = [start, end].map(|page| at(BASE + page * PAGE_SIZE));
        self.table.own_range(start, end).expect("memory");
        self.table
            .protect_range(start, end, |_, pte| pte.flags - PteFlags::WRITE);
    }

    fn fork(&mut self) -> Space {
        let (table, resident) = fork(&mut self.table, BASE, BASE + PAGES * PAGE_SIZE);
        assert_eq!(resident, self.resident);
        Space {
            table,
            model: self.model.clone(),
            resident,
        }
    }

    /// What the hardware would find.
    fn check(&self) {
        let mut seen = 0;
        let mut start = at(BASE);
        let end = at(BASE + PAGES * PAGE_SIZE);
        let mut see = |page: VirtAddr, pte: Pte, sharers: u32| {
            seen += 1;
            let number = (page.get() - BASE) / PAGE_SIZE;
            // SAFETY: the entry holds the frame.
            let value = unsafe { contents(pte.frame).read() };
            assert_eq!(Some(&value), self.model.get(&number), "page {number}");
            let alone = sharers == 1 && Frame::is_unique(pte.frame);
            assert!(alone || !pte.flags.contains(PteFlags::WRITE));
        };
        while let Some(next) = self.table.visit_some(start, end, &mut see) {
            start = next;
        }
        assert_eq!(seen, self.model.len());
        assert_eq!(seen as u64, self.resident);
    }
}

#[test_case]
fn any_order_of_forks_writes_and_removals_keeps_contents_apart() {
    let used = || [FrameKind::Anonymous, FrameKind::PageTable].map(used_frames);
    let before = used();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut spaces = Vec::new();
    spaces.push(Space {
        table: PageTable::new().expect("memory"),
        model: Model::new(),
        resident: 0,
    });
    for page in 0..PAGES {
        spaces[0].write(page, page as u64);
    }
    for step in 0..400 {
        let which = random.below(spaces.len());
        let start = random.below(PAGES);
        let end = start + 1 + random.below(PAGES - start);
        let count = spaces.len();
        let space = &mut spaces[which];
        match random.below(8) {
            0 if count < 6 => {
                let child = space.fork();
                spaces.push(child);
            }
            0 | 1 if count > 1 => {
                let mut ended = spaces.swap_remove(which);
                ended.zap(0, PAGES);
            }
            2 => space.zap(start, end.min(start + 40)),
            3 => space.zap(start & !511, ((end + 511) & !511).min(PAGES)),
            4 => space.protect(start, end),
            5 => (start..end).for_each(|page| space.write(page, step << 32 | page as u64)),
            _ => space.write(start, step << 32),
        }
        spaces.iter().for_each(Space::check);
    }
    for mut space in spaces {
        space.zap(0, PAGES);
    }
    assert_eq!(used(), before);
}
