//! User page tables: four levels of 512 entries, edited through the direct map (SDM volume 3, chapter 4).
//!
//! A present entry owns one reference of its frame, unless it is SPECIAL. Entries that nobody may access (PROT_NONE) stay in the table
//! without the hardware's present bit. An entry without a page may be a [`MARKER`]; those are in use, but not shown as entries.
//!
//! The entry of a table in the table above it owns the table's frame, and counts the table's own entries in bits that the hardware
//! ignores. So a table that becomes empty goes at once, up to the root, and nothing has to be searched when an address space ends.
//! What is empty is all zeros: tables and roots are kept apart when they are free, and need not be cleared to be used again.

use core::cell::Cell;
use core::marker::PhantomData;
use core::ops::ControlFlow;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::VirtAddr as HardwareAddr;
use x86_64::instructions::tlb;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::PhysFrame;

use super::kernel_pages::{self, ENTRIES, KERNEL_HALF, entry, frame_in, index};
use super::percpu;
use crate::errno::OutOfMemory;
use crate::mm::frame::{Frame, FrameKind, FrameNumber, Frames, KindCounts, Purpose, Shelf};
use crate::mm::pte::{NotMapped, Pte, PteFlags};
use crate::mm::{PAGE_SHIFT, PAGE_SIZE, VirtAddr};

/// Bits of an entry. 9 to 11 are free for software everywhere, 52 to 61 in entries of tables.
pub(super) mod bits {
    pub const PRESENT: u64 = 1 << 0;
    pub const WRITE: u64 = 1 << 1;
    pub const USER: u64 = 1 << 2;
    /// Uncached, together with the next bit (SDM volume 3, 12.5).
    pub const WRITE_THROUGH: u64 = 1 << 3;
    pub const CACHE_DISABLE: u64 = 1 << 4;
    pub const ACCESSED: u64 = 1 << 5;
    pub const DIRTY: u64 = 1 << 6;
    pub const HUGE: u64 = 1 << 7;
    pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    pub const NO_EXECUTE: u64 = 1 << 63;
    /// One unit in the count of the entries of the table below.
    pub const COUNT_ONE: u64 = 1 << 52;
    pub const COUNT: u64 = 0x3ff << 52;
    /// What entries of upper levels have; the lowest decides. Accessed, so that the hardware need not write it.
    pub const TABLE: u64 = PRESENT | WRITE | USER | ACCESSED;
}

/// Entries of the lowest level keep the generic flags of the hardware's and the software's kind together, two and four bits further up.
const SEEN: u64 = PteFlags::ACCESSED.bits() | PteFlags::DIRTY.bits();
const SOFTWARE: u64 = PteFlags::SPECIAL.bits() | PteFlags::NONE.bits() | PteFlags::UFFD_WP.bits();
const _: () = assert!(PteFlags::WRITE.bits() == bits::WRITE);
const _: () = assert!(SEEN << 2 == bits::ACCESSED | bits::DIRTY);
const _: () = assert!(SOFTWARE << 4 == 0b111 << 9);

/// SPECIAL in an entry.
const SPECIAL: u64 = PteFlags::SPECIAL.bits() << 4;

/// UFFD_WP in an entry.
const UFFD_WP: u64 = PteFlags::UFFD_WP.bits() << 4;

/// The entry of a page that is not there, and is write-protected for userfaultfd as soon as it comes.
const MARKER: u64 = UFFD_WP;

/// More pages than these are flushed by reloading CR3.
const FLUSH_ONE_BY_ONE: usize = 32;

/// A stale translation.
#[must_use = "a stale translation survives until this is flushed"]
pub struct TlbFlush(usize);

impl TlbFlush {
    /// Drops the page's translation, and all cached entries of tables (SDM volume 3, 4.10.4.1).
    #[inline]
    pub fn flush(self) {
        tlb::flush(HardwareAddr::new_truncate(self.0 as u64));
    }

    /// Leaves it where it is, as it only permits less than there is now: who meets it makes a fault, which drops it (SDM volume 3,
    /// 4.10.4.3).
    #[inline]
    pub fn leave_to_faults(self) {}
}

/// Drops the translations that a range operation makes stale when it ends: page by page, or all if there are many.
struct Stale {
    /// Of a table that is not in use nothing can be cached.
    in_use: bool,
    pages: heapless::Vec<usize, FLUSH_ONE_BY_ONE>,
    /// There were more.
    all: bool,
}

impl Stale {
    #[inline]
    fn of(root: FrameNumber) -> Stale {
        Stale {
            in_use: root.phys() == root_in_use(),
            pages: heapless::Vec::new(),
            all: false,
        }
    }

    /// The page's entry has just been changed.
    #[inline]
    fn add(&mut self, page: usize) {
        self.all |= self.in_use && self.pages.push(page).is_err();
    }

    /// From here on nothing stale is left.
    #[inline]
    fn flush(self) {
        if self.all {
            tlb::flush_all();
        } else {
            self.pages.iter().for_each(|&page| TlbFlush(page).flush());
        }
    }
}

/// A present entry, found once and then changed.
pub struct Entry<'table> {
    at: &'static AtomicU64,
    address: VirtAddr,
    table: PhantomData<&'table mut PageTable>,
}

impl Entry<'_> {
    #[inline]
    pub fn pte(&self) -> Pte {
        from_hardware(self.at.load(Ordering::Relaxed))
    }

    #[inline]
    pub fn set_flags(self, flags: PteFlags) -> TlbFlush {
        let value = self.at.load(Ordering::Relaxed);
        self.at.store(with_flags(value, flags), Ordering::Relaxed);
        TlbFlush(self.address.get())
    }

    #[inline]
    pub fn replace(self, frame: Frame, flags: PteFlags) -> (Option<Frame>, TlbFlush) {
        let value = to_hardware(frame.into_raw(), flags - PteFlags::SPECIAL);
        let before = self.at.swap(value, Ordering::Relaxed);
        (owned(before), TlbFlush(self.address.get()))
    }
}

/// A table's entries.
#[inline]
fn entries(table: FrameNumber) -> &'static [AtomicU64; ENTRIES] {
    // SAFETY: the frame is a table as long as an entry or a `PageTable` names it; all accesses are atomic, as the hardware's are.
    unsafe { &*entry(table, 0).cast() }
}

/// The start of what the next entry in a table of `level` (0: the lowest) maps.
#[inline]
const fn next_at(address: usize, level: u32) -> usize {
    let span = PAGE_SIZE << (9 * level);
    (address | (span - 1)) + 1
}

/// How many entries of the table of `level` that maps `at` there are before those of `end` and above.
#[inline]
fn entries_before(at: usize, end: usize, level: u32) -> usize {
    let last = end - 1;
    if (at ^ last) >> (PAGE_SHIFT + 9 * (level as usize + 1)) == 0 {
        index(last, level) + 1
    } else {
        ENTRIES
    }
}

#[inline]
fn to_hardware(frame: FrameNumber, flags: PteFlags) -> u64 {
    let allowed = match flags.contains(PteFlags::NONE) {
        true => 0,
        false => bits::PRESENT | bits::USER,
    };
    let no_execute = match flags.contains(PteFlags::EXEC) {
        true => 0,
        false => bits::NO_EXECUTE,
    };
    let flags = flags.bits();
    let moved = flags & bits::WRITE | (flags & SEEN) << 2 | (flags & SOFTWARE) << 4;
    frame.phys() | allowed | moved | no_execute
}

#[inline]
fn from_hardware(value: u64) -> Pte {
    let read = (value & bits::PRESENT) * PteFlags::READ.bits();
    let exec = (!value >> 63) * PteFlags::EXEC.bits();
    let moved = value & bits::WRITE | (value >> 2) & SEEN | (value >> 4) & SOFTWARE;
    Pte {
        frame: frame_in(value),
        flags: PteFlags::from_bits_retain(read | exec | moved),
    }
}

/// Takes the reference that a cleared entry owned.
#[inline]
fn owned(value: u64) -> Option<Frame> {
    let pte = from_hardware(value);
    // SAFETY: an entry without SPECIAL owns a reference, and the caller has just taken the entry out.
    (!pte.flags.contains(PteFlags::SPECIAL)).then(|| unsafe { Frame::from_raw(pte.frame) })
}

/// A user address space's translations.
pub struct PageTable {
    root: FrameNumber,
    /// Entries in the user's half of the root.
    used: u32,
    /// Frames of all tables, the root among them.
    frames: u64,
    /// The way that was gone last, to the lowest table of these addresses (divided by what such a table maps), as long as it is there:
    /// faults mostly come where others were, and look several times.
    recent: Cell<usize>,
    recent_path: Cell<Path>,
}

/// No addresses.
const NOWHERE: usize = usize::MAX;

/// Bits of an address within what a lowest table maps.
const TABLE_SHIFT: usize = PAGE_SHIFT + 9;

/// The entries on the way from the root to the lowest table of an address.
type Path = [&'static AtomicU64; 3];

impl PageTable {
    pub fn new() -> Result<PageTable, OutOfMemory> {
        let (root, is_known) =
            Frame::alloc_known(Shelf::Root, FrameKind::PageTable, Purpose::User)?;
        let root = root.into_raw();
        if !is_known {
            // SAFETY: both tables are frames of 512 entries; the new one is ours alone, and the kernel's half never changes.
            unsafe {
                entry(root, 0).write_bytes(0, KERNEL_HALF);
                ptr::copy_nonoverlapping(
                    entry(kernel_pages::root_frame(), KERNEL_HALF),
                    entry(root, KERNEL_HALF),
                    ENTRIES - KERNEL_HALF,
                );
            }
        }
        Ok(PageTable {
            root,
            used: 0,
            frames: 1,
            recent: Cell::new(NOWHERE),
            recent_path: Cell::new([&entries(root)[0]; 3]),
        })
    }

    /// The way to the lowest table of `address`, if it is there.
    #[inline]
    fn path(&self, address: usize) -> Option<Path> {
        if self.recent.get() == address >> TABLE_SHIFT {
            return Some(self.recent_path.get());
        }
        self.walk_down(address)
    }

    /// The last step of that way.
    #[inline]
    fn low(&self, address: usize) -> Option<&'static AtomicU64> {
        if self.recent.get() == address >> TABLE_SHIFT {
            return Some(self.recent_path.get()[2]);
        }
        self.walk_down(address).map(|[.., low]| low)
    }

    #[cold]
    fn walk_down(&self, address: usize) -> Option<Path> {
        let top = &entries(self.root)[index(address, 3)];
        let value = top.load(Ordering::Relaxed);
        if value == 0 {
            return None;
        }
        let middle = &entries(frame_in(value))[index(address, 2)];
        let value = middle.load(Ordering::Relaxed);
        if value == 0 {
            return None;
        }
        let low = &entries(frame_in(value))[index(address, 1)];
        if low.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.recent.set(address >> TABLE_SHIFT);
        self.recent_path.set([top, middle, low]);
        Some([top, middle, low])
    }

    /// The first lowest table that maps something of a range: the address where it or the range begins, and the way to it.
    fn next_path(&self, start: usize, end: usize) -> Option<(usize, Path)> {
        if self.used == 0 || start >= end {
            return None;
        }
        if let Some(path) = self.path(start) {
            return Some((start, path));
        }
        // What that table would map has nothing.
        if next_at(start, 1) >= end {
            return None;
        }
        self.next_path_after(start, end)
    }

    /// The same if there is no table at the start.
    fn next_path_after(&self, start: usize, end: usize) -> Option<(usize, Path)> {
        let mut at = start;
        let mut path = [&entries(self.root)[0]; 3];
        'from_the_root: while at < end {
            let mut table = self.root;
            for (depth, level) in (1..=3).rev().enumerate() {
                let first = index(at, level);
                let stop = entries_before(at, end, level);
                let Some(skipped) = first_used(&entries(table)[first..stop]) else {
                    if level == 3 {
                        return None;
                    }
                    at = next_at(at, level + 1);
                    continue 'from_the_root;
                };
                if skipped > 0 {
                    let span = PAGE_SIZE << (9 * level);
                    at = (at & !(span - 1)) + skipped * span;
                    if at >= end {
                        return None;
                    }
                }
                path[depth] = &entries(table)[first + skipped];
                table = frame_in(path[depth].load(Ordering::Relaxed));
            }
            return Some((at, path));
        }
        None
    }

    /// The same, with tables made where they are missing: the caller puts an entry into the lowest one.
    #[inline]
    fn low_or_new(&mut self, address: usize) -> Result<&'static AtomicU64, OutOfMemory> {
        match self.low(address) {
            Some(low) => Ok(low),
            None => self.new_path(address).map(|[.., low]| low),
        }
    }

    #[cold]
    fn new_path(&mut self, address: usize) -> Result<Path, OutOfMemory> {
        let mut path = [&entries(self.root)[index(address, 3)]; 3];
        for depth in 0..3 {
            if path[depth].load(Ordering::Relaxed) == 0 {
                let Ok(table) = empty_table() else {
                    // Nothing can be cached of tables that were never filled.
                    free_empty(self.detach_empty(&path[..depth]));
                    return Err(OutOfMemory);
                };
                path[depth].store(table.into_raw().phys() | bits::TABLE, Ordering::Relaxed);
                self.frames += 1;
                match depth {
                    0 => self.used += 1,
                    _ => count_up(path[depth - 1], 1),
                }
            }
            if depth < 2 {
                let table = frame_in(path[depth].load(Ordering::Relaxed));
                path[depth + 1] = &entries(table)[index(address, 2 - depth as u32)];
            }
        }
        Ok(path)
    }

    /// Takes tables without entries out of those above them, from the lowest on. The caller drops them after a flush.
    fn detach_empty(&mut self, path: &[&'static AtomicU64]) -> [Option<Frame>; 3] {
        let mut detached = [None, None, None];
        for depth in (0..path.len()).rev() {
            let value = path[depth].load(Ordering::Relaxed);
            if value & bits::COUNT != 0 {
                break;
            }
            path[depth].store(0, Ordering::Relaxed);
            self.recent.set(NOWHERE);
            self.frames -= 1;
            match depth {
                0 => self.used -= 1,
                _ => count_down(path[depth - 1], 1),
            }
            // SAFETY: the entry owned the table, and is gone.
            detached[depth] = Some(unsafe { Frame::from_raw(frame_in(value)) });
        }
        detached
    }

    /// Frames that the tables take.
    pub fn table_frames(&self) -> u64 {
        self.frames
    }

    /// The place of an address's lowest-level entry, if there is a table for it.
    #[inline]
    fn slot(&self, address: VirtAddr) -> Option<&'static AtomicU64> {
        let low = self.low(address.get())?;
        Some(&entries(frame_in(low.load(Ordering::Relaxed)))[index(address.get(), 0)])
    }

    /// The lowest-level entry of an address, if it has a page.
    #[inline]
    fn find(&self, address: VirtAddr) -> Option<&'static AtomicU64> {
        let at = self.slot(address)?;
        (at.load(Ordering::Relaxed) & !MARKER != 0).then_some(at)
    }

    #[inline]
    pub fn get(&self, address: VirtAddr) -> Option<Pte> {
        let at = self.find(address)?;
        Some(from_hardware(at.load(Ordering::Relaxed)))
    }

    #[inline]
    pub fn map(
        &mut self,
        address: VirtAddr,
        frame: Frame,
        flags: PteFlags,
    ) -> Result<(), (NotMapped, Frame)> {
        let value = to_hardware(frame.number(), flags - PteFlags::SPECIAL);
        match self.fill(address, value) {
            Ok(()) => {
                let _ = frame.into_raw();
                Ok(())
            }
            Err(why) => Err((why, frame)),
        }
    }

    #[inline]
    pub fn map_special(
        &mut self,
        address: VirtAddr,
        frame: FrameNumber,
        flags: PteFlags,
    ) -> Result<(), NotMapped> {
        self.fill(address, to_hardware(frame, flags | PteFlags::SPECIAL))
    }

    #[inline]
    fn fill(&mut self, address: VirtAddr, value: u64) -> Result<(), NotMapped> {
        let low = self.low_or_new(address.get())?;
        let at = &entries(frame_in(low.load(Ordering::Relaxed)))[index(address.get(), 0)];
        match at.load(Ordering::Relaxed) {
            0 => {
                at.store(value, Ordering::Relaxed);
                count_up(low, 1);
            }
            MARKER => at.store(value & !bits::WRITE | UFFD_WP, Ordering::Relaxed),
            _ => return Err(NotMapped::Occupied),
        }
        Ok(())
    }

    pub fn fill_empty(
        &mut self,
        start: VirtAddr,
        pages: usize,
        flags: PteFlags,
        frame_for: &mut impl FnMut(usize) -> Option<Frame>,
    ) -> u64 {
        let bits_of_all = to_hardware(FrameNumber(0), flags - PteFlags::SPECIAL);
        let (mut at, end) = (start.get(), start.get() + pages * PAGE_SIZE);
        let (mut filled, mut number) = (0, 0);
        while at < end {
            let stop = next_at(at, 1).min(end);
            let Ok(low) = self.low_or_new(at) else {
                break;
            };
            let (slots, _) = lowest_table(low, at, stop);
            let mut added = 0;
            for slot in slots {
                let before = slot.load(Ordering::Relaxed);
                if before & !MARKER == 0
                    && let Some(frame) = frame_for(number)
                {
                    let value = bits_of_all | frame.into_raw().phys();
                    let value = match before {
                        MARKER => value & !bits::WRITE | UFFD_WP,
                        _ => value,
                    };
                    slot.store(value, Ordering::Relaxed);
                    added += u64::from(before != MARKER);
                    filled += 1;
                }
                number += 1;
            }
            count_up(low, added);
            self.drop_if_empty(at, low);
            at = stop;
        }
        filled
    }

    /// Frees the lowest table of an address if nothing is in it, and nothing was since the last flush.
    #[inline]
    fn drop_if_empty(&mut self, address: usize, low: &AtomicU64) {
        if low.load(Ordering::Relaxed) & bits::COUNT == 0
            && let Some(path) = self.path(address)
        {
            free_empty(self.detach_empty(&path));
        }
    }

    /// Whether a page that is not there is marked to be write-protected when it comes.
    pub fn is_marked(&self, address: VirtAddr) -> bool {
        let slot = self.slot(address);
        slot.is_some_and(|at| at.load(Ordering::Relaxed) == MARKER)
    }

    pub fn mark_missing(&mut self, start: VirtAddr, end: VirtAddr) -> Result<(), OutOfMemory> {
        for page in (start.get()..end.get()).step_by(PAGE_SIZE) {
            let low = self.low_or_new(page)?;
            let at = &entries(frame_in(low.load(Ordering::Relaxed)))[index(page, 0)];
            if at.load(Ordering::Relaxed) == 0 {
                at.store(MARKER, Ordering::Relaxed);
                count_up(low, 1);
            }
        }
        Ok(())
    }

    pub fn unmark(&mut self, start: VirtAddr, end: VirtAddr) {
        let mut unmarked = |value| if value == MARKER { 0 } else { value };
        self.remove_range(start.get(), end.get(), &mut unmarked, &mut |_, _| {});
    }

    #[inline]
    pub fn entry(&mut self, address: VirtAddr) -> Option<Entry<'_>> {
        let at = self.find(address)?;
        Some(Entry {
            at,
            address,
            table: PhantomData,
        })
    }

    pub fn unmap_range(
        &mut self,
        start: VirtAddr,
        end: VirtAddr,
        f: &mut impl FnMut(VirtAddr, Pte, Option<Frame>),
    ) {
        self.unmap_leaving(start.get(), end.get(), &mut |_| 0, f);
    }

    pub fn zap_range(&mut self, start: VirtAddr, end: VirtAddr, gone: &mut KindCounts) {
        if root_in_use() == self.root.phys() {
            return self.unmap_range(start, end, &mut |_, _, frame| {
                if let Some(frame) = frame {
                    // SAFETY: the reference was the entry's, and is given up here.
                    unsafe { Frames::all().give_up(frame.into_raw(), gone) };
                }
            });
        }
        // Nothing is cached, so there is no flush to wait for.
        let (mut at, end) = (start.get(), end.get());
        while let Some((page, path)) = self.next_path(at, end) {
            at = next_at(page, 1).min(end);
            let [.., low] = path;
            let (slots, in_table) = lowest_table(low, page, at);
            let emptied = zap_entries(slots, in_table, gone);
            count_down(low, emptied);
            if emptied == in_table as u64 {
                free_empty(self.detach_empty(&path));
            }
        }
    }

    pub fn unmap_range_if(
        &mut self,
        start: VirtAddr,
        end: VirtAddr,
        wanted: &mut impl FnMut(Pte) -> bool,
        f: &mut impl FnMut(VirtAddr, Pte, Option<Frame>),
    ) {
        let mut rest = |value| match value {
            MARKER => MARKER,
            value if wanted(from_hardware(value)) => value & MARKER,
            value => value,
        };
        self.unmap_leaving(start.get(), end.get(), &mut rest, f);
    }

    fn unmap_leaving(
        &mut self,
        start: usize,
        end: usize,
        rest: &mut impl FnMut(u64) -> u64,
        f: &mut impl FnMut(VirtAddr, Pte, Option<Frame>),
    ) {
        self.remove_range(start, end, rest, &mut |page, value| {
            if let Some(address) = VirtAddr::new(page) {
                f(address, from_hardware(value), owned(value));
            }
        });
    }

    /// Puts `rest` of each entry in use of a range in its place, which is nothing, a marker, or what it was, and hands on after the flush
    /// those that had a page and have none any more.
    fn remove_range(
        &mut self,
        start: usize,
        end: usize,
        rest: &mut impl FnMut(u64) -> u64,
        f: &mut impl FnMut(usize, u64),
    ) {
        let mut at = start;
        while let Some((first, path)) = self.next_path(at, end) {
            at = self.remove_batch(&path, first, next_at(first, 1).min(end), rest, f);
        }
    }

    /// Takes some entries out of one lowest table, up to `stop`, and tells where to go on. Tables that became empty are freed after the
    /// flush, too.
    fn remove_batch(
        &mut self,
        path: &Path,
        start: usize,
        stop: usize,
        rest: &mut impl FnMut(u64) -> u64,
        f: &mut impl FnMut(usize, u64),
    ) -> usize {
        const BATCH: usize = 64;
        let mut removed = heapless::Vec::<(usize, u64), BATCH>::new();
        let mut stale = Stale::of(self.root);
        let [.., low] = path;
        let (slots, in_table) = lowest_table(low, start, stop);
        let (mut seen, mut emptied) = (0, 0);
        let last = each_used(slots, start, |page, at, value| {
            seen += 1;
            let left = rest(value);
            if left != value {
                at.store(left, Ordering::Relaxed);
                emptied += u64::from(left == 0);
                if value != MARKER && stale.in_use {
                    // There is room: a full list ends the batch.
                    let _ = removed.push((page, value));
                    stale.add(page);
                } else if value != MARKER {
                    // Nothing is cached, so there is no flush to wait for.
                    f(page, value);
                }
            }
            if seen == in_table || removed.is_full() {
                ControlFlow::Break(page)
            } else {
                ControlFlow::Continue(())
            }
        });
        count_down(low, emptied);
        let tables = self.detach_empty(path);
        stale.flush();
        let is_gone = tables[2].is_some();
        free_empty(tables);
        removed.iter().for_each(|&(page, value)| f(page, value));
        match last {
            ControlFlow::Break(page) if !is_gone => page + PAGE_SIZE,
            _ => stop,
        }
    }

    pub fn move_range(
        &mut self,
        start: VirtAddr,
        end: VirtAddr,
        to: VirtAddr,
    ) -> Result<(), OutOfMemory> {
        // Both places have the entries for a moment, so that there is nothing to move back if memory runs out.
        let (start, end, to) = (start.get(), end.get(), to.get());
        let outcome = self.copy_within(start, end, to);
        let done_with = match outcome {
            Ok(()) => (start, end),
            Err(OutOfMemory) => (to, to + (end - start)),
        };
        self.remove_range(done_with.0, done_with.1, &mut |_| 0, &mut |_, _| {});
        outcome
    }

    /// Puts the entries of a range into another one too, without protection for userfaultfd.
    fn copy_within(&mut self, start: usize, end: usize, to: usize) -> Result<(), OutOfMemory> {
        let mut page = start;
        while let Some((next, [.., low])) = self.next_path(page, end) {
            page = next;
            let at = &entries(frame_in(low.load(Ordering::Relaxed)))[index(page, 0)];
            let value = at.load(Ordering::Relaxed) & !UFFD_WP;
            if value != 0
                && let Some(target) = VirtAddr::new(page - start + to)
            {
                // Nothing is there.
                match self.fill(target, value) {
                    Err(NotMapped::OutOfMemory) => return Err(OutOfMemory),
                    filled => debug_assert_eq!(filled, Ok(())),
                }
            }
            page += PAGE_SIZE;
        }
        Ok(())
    }

    /// The entries of one lowest table.
    pub fn visit_some(
        &self,
        start: VirtAddr,
        end: VirtAddr,
        f: &mut impl FnMut(VirtAddr, Pte),
    ) -> Option<VirtAddr> {
        let (first, [.., low]) = self.next_path(start.get(), end.get())?;
        let stop = next_at(first, 1).min(end.get());
        let (slots, _) = lowest_table(low, first, stop);
        let _ = each_used(slots, first, |page, _, value| {
            if value != MARKER
                && let Some(address) = VirtAddr::new(page)
            {
                f(address, from_hardware(value));
            }
            ControlFlow::<()>::Continue(())
        });
        VirtAddr::new(stop)
    }

    pub fn protect_range(
        &mut self,
        start: VirtAddr,
        end: VirtAddr,
        mut f: impl FnMut(VirtAddr, Pte) -> PteFlags,
    ) {
        let mut stale = Stale::of(self.root);
        let Ok(()) = self.walk(start, end, |page, at, value, _| {
            if value != MARKER
                && let Some(address) = VirtAddr::new(page)
            {
                let new = with_flags(value, f(address, from_hardware(value)));
                if new != value {
                    at.store(new, Ordering::Relaxed);
                    stale.add(page);
                }
            }
            Ok::<(), core::convert::Infallible>(())
        });
        stale.flush();
    }

    pub fn copy_range(
        &mut self,
        child: &mut PageTable,
        start: VirtAddr,
        end: VirtAddr,
        share_writable: bool,
        copied: &mut KindCounts,
    ) -> Result<(), OutOfMemory> {
        let mut stale = Stale::of(self.root);
        let kept = match share_writable {
            true => !0,
            false => !bits::WRITE,
        };
        let (mut at, end) = (start.get(), end.get());
        let mut outcome = Ok(());
        while let Some((page, [.., low])) = self.next_path(at, end) {
            at = next_at(page, 1).min(end);
            let (slots, in_table) = lowest_table(low, page, at);
            outcome = child.copy_table(page, slots, in_table, kept, copied, &mut stale);
            if outcome.is_err() {
                break;
            }
        }
        stale.flush();
        outcome
    }

    /// Copies what is in `slots` of a parent's lowest table, which map what begins at `start`; both sides keep of their bits those in
    /// `kept`.
    fn copy_table(
        &mut self,
        start: usize,
        slots: &'static [AtomicU64],
        in_table: usize,
        kept: u64,
        copied: &mut KindCounts,
        stale: &mut Stale,
    ) -> Result<(), OutOfMemory> {
        let path = match self.path(start) {
            Some(path) => path,
            None => self.new_path(start)?,
        };
        let [.., low] = path;
        let (own, _) = lowest_table(low, start, start + slots.len() * PAGE_SIZE);
        let mut changed = |index: usize| stale.add(start + index * PAGE_SIZE);
        let added = copy_entries(slots, own, in_table, kept, copied, &mut changed);
        count_up(low, added);
        if added == 0 {
            // Nothing can be cached of a table that was never filled.
            free_empty(self.detach_empty(&path));
        }
        Ok(())
    }

    /// Calls `f` with every entry in use: its page, its place, its value, and whether it is the first one of its table.
    #[inline]
    fn walk<E>(
        &self,
        start: VirtAddr,
        end: VirtAddr,
        mut f: impl FnMut(usize, &'static AtomicU64, u64, bool) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut at, end) = (start.get(), end.get());
        while let Some((page, [.., low])) = self.next_path(at, end) {
            let stop = next_at(page, 1).min(end);
            let (slots, in_table) = lowest_table(low, page, stop);
            let mut seen = 0;
            let ended = each_used(slots, page, |page, at, value| {
                let outcome = f(page, at, value, seen == 0);
                seen += 1;
                match outcome {
                    Err(error) => ControlFlow::Break(Err(error)),
                    Ok(()) if seen == in_table => ControlFlow::Break(Ok(())),
                    Ok(()) => ControlFlow::Continue(()),
                }
            });
            if let ControlFlow::Break(outcome) = ended {
                outcome?;
            }
            at = stop;
        }
        Ok(())
    }

    /// This CPU uses the address space from now on.
    pub fn activate(&self) {
        load_root(self.root.phys());
    }

    /// This CPU goes on with the kernel's own tables.
    pub fn deactivate() {
        load_root(kernel_pages::root());
    }
}

impl Drop for PageTable {
    fn drop(&mut self) {
        assert_eq!(self.used, 0, "a page table was dropped with pages in it");
        if root_in_use() == self.root.phys() {
            PageTable::deactivate();
        }
        debug_assert!(is_empty(&entries(self.root)[..KERNEL_HALF]));
        // SAFETY: the root was allocated by `new` and is not in use any more.
        unsafe { Frame::from_raw(self.root) }.shelve(Shelf::Root);
    }
}

/// A table without entries.
fn empty_table() -> Result<Frame, OutOfMemory> {
    let (table, is_known) = Frame::alloc_known(Shelf::Zeros, FrameKind::PageTable, Purpose::User)?;
    if !is_known {
        kernel_pages::zero_frame(table.number());
    }
    Ok(table)
}

/// Frees tables of which nothing is cached any more.
fn free_empty(tables: [Option<Frame>; 3]) {
    for table in tables.into_iter().flatten() {
        debug_assert!(is_empty(entries(table.number())));
        table.shelve(Shelf::Zeros);
    }
}

/// The entries from `start` to `stop` of the lowest table that `low` points to, and how many the whole table has in use: after so
/// many there is nothing more to look for.
#[inline]
fn lowest_table(low: &AtomicU64, start: usize, stop: usize) -> (&'static [AtomicU64], usize) {
    let value = low.load(Ordering::Relaxed);
    let first = index(start, 0);
    let slots = &entries(frame_in(value))[first..first + (stop - start).div_ceil(PAGE_SIZE)];
    (slots, ((value & bits::COUNT) / bits::COUNT_ONE) as usize)
}

/// Calls `f` with the page, the place and the value of each entry in use, until it breaks. Mostly empty tables are passed over in
/// larger steps.
#[inline]
fn each_used<B>(
    slots: &'static [AtomicU64],
    start: usize,
    mut f: impl FnMut(usize, &'static AtomicU64, u64) -> ControlFlow<B>,
) -> ControlFlow<B> {
    let mut page = start;
    for part in slots.chunks(STEP) {
        if !is_empty(part) {
            for (index, at) in part.iter().enumerate() {
                let value = at.load(Ordering::Relaxed);
                if value != 0 {
                    f(page + index * PAGE_SIZE, at, value)?;
                }
            }
        }
        page += STEP * PAGE_SIZE;
    }
    ControlFlow::Continue(())
}

/// Calls `f` with the index, the place and the value of each entry in use. `in_table` says how many the whole table has.
#[inline(always)]
fn for_each_in_use(
    slots: &'static [AtomicU64],
    in_table: usize,
    mut f: impl FnMut(usize, &'static AtomicU64, u64),
) {
    if in_table >= ENTRIES / 4 {
        for (index, at) in slots.iter().enumerate() {
            let value = at.load(Ordering::Relaxed);
            if value != 0 {
                f(index, at, value);
            }
        }
        return;
    }
    let mut seen = 0;
    for (number, part) in slots.chunks(STEP).enumerate() {
        if is_empty(part) {
            continue;
        }
        for (index, at) in part.iter().enumerate() {
            let value = at.load(Ordering::Relaxed);
            if value != 0 {
                seen += 1;
                f(number * STEP + index, at, value);
            }
        }
        if seen == in_table {
            return;
        }
    }
}

/// Empties entries of a table of which nothing is cached, `in_table` of which are in use; how many were.
#[inline(never)]
fn zap_entries(slots: &'static [AtomicU64], in_table: usize, gone: &mut KindCounts) -> u64 {
    let (frames, mut emptied) = (Frames::all(), 0);
    for_each_in_use(slots, in_table, |_, at, value| {
        at.store(0, Ordering::Relaxed);
        emptied += 1;
        if value & SPECIAL == 0 && value != MARKER {
            // SAFETY: the entry owned a reference, and is gone.
            unsafe { frames.give_up(frame_in(value), gone) };
        }
    });
    emptied
}

/// Copies the entries of a parent's table to the same places of a child's; both keep of their bits those in `kept`. How many there are.
#[inline(never)]
fn copy_entries(
    slots: &'static [AtomicU64],
    own: &'static [AtomicU64],
    in_table: usize,
    kept: u64,
    copied: &mut KindCounts,
    changed: &mut dyn FnMut(usize),
) -> u64 {
    let (frames, mut added) = (Frames::all(), 0);
    for_each_in_use(slots, in_table, |index, at, before| {
        if before == MARKER {
            return;
        }
        let value = before & kept;
        if value != before {
            at.store(value, Ordering::Relaxed);
            changed(index);
        }
        if value & SPECIAL == 0 {
            // SAFETY: the parent's entry owns a reference, and stays while its table is borrowed.
            unsafe { frames.share(frame_in(value), copied) };
        }
        own[index].store(value & !UFFD_WP, Ordering::Relaxed);
        added += 1;
    });
    added
}

/// Tables are mostly empty: they are looked through in parts of so many entries.
const STEP: usize = 8;

#[inline]
fn is_empty(part: &[AtomicU64]) -> bool {
    let any = part
        .iter()
        .fold(0, |any, at| any | at.load(Ordering::Relaxed));
    any == 0
}

/// How many empty entries come first.
#[inline]
fn first_used(slots: &[AtomicU64]) -> Option<usize> {
    let is_used = |at: &AtomicU64| at.load(Ordering::Relaxed) != 0;
    if slots.first().is_some_and(is_used) {
        return Some(0);
    }
    let part = slots.chunks(STEP).position(|part| !is_empty(part))?;
    let start = part * STEP;
    Some(start + slots[start..].iter().position(is_used)?)
}

#[inline]
fn count_up(parent: &AtomicU64, entries: u64) {
    parent.fetch_add(entries * bits::COUNT_ONE, Ordering::Relaxed);
}

#[inline]
fn count_down(parent: &AtomicU64, entries: u64) {
    parent.fetch_sub(entries * bits::COUNT_ONE, Ordering::Relaxed);
}

/// The entry with other flags, but for SPECIAL, which belongs to the frame.
#[inline]
fn with_flags(value: u64, flags: PteFlags) -> u64 {
    let pte = from_hardware(value);
    let special = pte.flags & PteFlags::SPECIAL;
    to_hardware(pte.frame, (flags - PteFlags::SPECIAL) | special)
}

/// Physical address of the root that this CPU uses.
#[inline]
fn root_in_use() -> u64 {
    // SAFETY: this CPU's own field, written by `load_root` alone, which interrupt handlers do not call.
    unsafe { *percpu::this().root.get() }
}

fn load_root(root: u64) {
    let flags = crate::arch::irq::save();
    // SAFETY: this CPU's own field, interrupts off.
    let current = unsafe { &mut *percpu::this().root.get() };
    if *current != root {
        *current = root;
        // SAFETY: the table holds the kernel's half, so the kernel goes on where it is.
        unsafe {
            Cr3::write(
                PhysFrame::containing_address(x86_64::PhysAddr::new(root)),
                Cr3Flags::empty(),
            )
        };
    }
    crate::arch::irq::restore(flags);
}

#[cfg(test)]
mod tests;
