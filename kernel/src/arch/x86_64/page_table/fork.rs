//! Copies for fork(2), and lowest tables that several address spaces have.
//!
//! A lowest table that is well filled, and lies in one area of private memory alone, is not copied: parent and child have the same one. Its
//! entry in the table above loses WRITE on both sides, which the hardware asks for at every level (SDM volume 3, 4.6); the entries
//! in it keep theirs, so whoever has the table alone in the end goes on as if there had been no fork.
//!
//! Invariant: the entry of a table with several references is without WRITE everywhere, and nothing in the table is changed, but that WRITE
//! is taken away. Whoever changes more has the table for itself before ([`PageTable::own`]): by a copy, or by being the last. That costs
//! memory, and can fail; so what must not fail is prepared ([`PageTable::own_edges`], [`PageTable::own_range`]).
//!
//! Each holder has its own page-table lock. The reference count orders them: who sees that it is the last, sees all that the others did.

use core::ops::{ControlFlow, Range};
use core::sync::atomic::{AtomicU64, Ordering};

use super::super::kernel_pages::{ENTRIES, frame_in};
use super::PageTable;
use super::flush::{Stale, TlbFlush, flush_all, root_in_use};
use super::form::{MARKER, SPECIAL, UFFD_WP, bits};
use super::path::Path;
use super::slots::{
    copy_entries, count_up, each_used, empty_table, entries, free_empty, lowest_table, next_at,
    zap_entries,
};
use crate::errno::OutOfMemory;
use crate::mm::frame::{Frame, FrameKind, FrameNumber, KindCounts, Shelf};
use crate::mm::{PAGE_SIZE, VirtAddr};

/// Bytes that a lowest table maps.
const TABLE_SPAN: usize = PAGE_SIZE * ENTRIES;

/// Tables with fewer entries are copied at once: that costs no more than a fault for each side later.
const SHARED_FROM: usize = ENTRIES / 4;

/// Whether a lowest table may be changed, as nobody else has it.
#[inline]
pub(super) fn is_own(low: &AtomicU64) -> bool {
    low.load(Ordering::Relaxed) & bits::WRITE != 0
}

/// How many address spaces have the table that `low` points to.
pub(super) fn sharers(low: &AtomicU64) -> u32 {
    match is_own(low) {
        true => 1,
        false => Frame::references(frame_in(low.load(Ordering::Relaxed))),
    }
}

impl PageTable {
    pub fn copy_range(
        &mut self,
        child: &mut PageTable,
        start: VirtAddr,
        end: VirtAddr,
        alone: &Range<usize>,
        copied: &mut KindCounts,
    ) -> Result<(), OutOfMemory> {
        let mut stale = Stale::of(self.root);
        let (mut at, end) = (start.get(), end.get());
        let mut outcome = Ok(());
        while let Some((page, [.., low])) = self.next_path(at, end) {
            at = next_at(page, 1).min(end);
            outcome = match may_share(low, page, alone) {
                Some(owned) => {
                    self.has_shared = true;
                    child.share_table(page, low, owned, copied, &mut stale)
                }
                None => child.copy_table(page, at, low, copied, &mut stale),
            };
            if outcome.is_err() {
                break;
            }
        }
        stale.flush();
        outcome
    }

    pub fn has_shared(&self) -> bool {
        self.has_shared
    }

    /// Copies what a parent's lowest table has between `start` and `stop`; both sides lose WRITE.
    fn copy_table(
        &mut self,
        start: usize,
        stop: usize,
        parents: &AtomicU64,
        copied: &mut KindCounts,
        stale: &mut Stale,
    ) -> Result<(), OutOfMemory> {
        let (slots, in_table) = lowest_table(parents, start, stop);
        let path = match self.path(start) {
            Some(path) => path,
            None => self.new_path(start)?,
        };
        let [.., low] = path;
        let (own, _) = lowest_table(low, start, stop);
        let mut changed = |index: usize| stale.add(start + index * PAGE_SIZE);
        let added = copy_entries(slots, own, in_table, copied, &mut changed);
        count_up(low, added);
        if added == 0 {
            // Nothing can be cached of a table that was never filled.
            free_empty(self.detach_empty(&path));
        }
        Ok(())
    }

    /// Takes over a parent's lowest table as it is, where there is none.
    fn share_table(
        &mut self,
        address: usize,
        parents: &AtomicU64,
        owned: u32,
        copied: &mut KindCounts,
        stale: &mut Stale,
    ) -> Result<(), OutOfMemory> {
        let [_, middle, low] = self.new_path_of(address, 2)?;
        debug_assert_eq!(low.load(Ordering::Relaxed), 0, "something else lies there");
        let before = parents.load(Ordering::Relaxed);
        let value = before & !bits::WRITE;
        if before != value {
            parents.store(value, Ordering::Relaxed);
            stale.add_many();
        }
        // SAFETY: the parent's entry owns a reference, and stays while its page table is borrowed. The new one is the child's entry's.
        let _ = unsafe { Frame::share(frame_in(value)) }.into_raw();
        low.store(value, Ordering::Relaxed);
        count_up(middle, 1);
        copied.add_many(FrameKind::Anonymous, owned.into());
        self.frames += 1;
        self.has_shared = true;
        Ok(())
    }

    /// Makes the lowest table of `address`, to which `low` points, this address space's own. Nothing that the CPU may have cached becomes
    /// wrong by that, though it may permit less than the entries then do.
    #[cold]
    #[inline(never)]
    pub(super) fn own(&mut self, address: usize, low: &AtomicU64) -> Result<(), OutOfMemory> {
        let value = low.load(Ordering::Relaxed);
        let table = frame_in(value);
        if Frame::is_unique(table) {
            Frame::forget_census(table);
            low.store(value | bits::WRITE, Ordering::Relaxed);
            return Ok(());
        }
        let copy = empty_table()?;
        let (slots, in_table) = whole_table(low);
        let mut counts = KindCounts::default();
        let copied = copy_entries(
            slots,
            entries(copy.number()),
            in_table,
            &mut counts,
            &mut |_| {},
        );
        debug_assert_eq!(copied as usize, in_table, "a shared table has no marks");
        let place = copy.into_raw().phys();
        low.store(
            value & !bits::ADDRESS | place | bits::WRITE,
            Ordering::Relaxed,
        );
        if root_in_use() == self.root.phys() {
            // The translations are still right, but the way to the table may be cached, too (SDM volume 3, 4.10.3).
            TlbFlush(address).flush();
        }
        // What is in it, this address space has still.
        give_up_table(table, in_table, &mut KindCounts::default());
        Ok(())
    }

    /// Removes all that a table has between `start` and `stop`, if others have the table, too. False if it is this address space's own now.
    #[cold]
    #[inline(never)]
    pub(super) fn zap_shared(
        &mut self,
        path: &Path,
        start: usize,
        stop: usize,
        gone: &mut KindCounts,
    ) -> bool {
        let [.., low] = path;
        let (here, in_table) = part_in_use(low, start, stop);
        if here == 0 {
            return true;
        }
        let value = low.load(Ordering::Relaxed);
        let table = frame_in(value);
        if here < in_table || Frame::is_unique(table) {
            self.own(start, low).expect("own_edges has been called");
            return false;
        }
        low.store(value & !bits::COUNT, Ordering::Relaxed);
        let [top, middle, shared] = self.detach_empty(path);
        if root_in_use() == self.root.phys() {
            flush_all();
        }
        free_empty([top, middle, None]);
        debug_assert_eq!(shared.as_ref().map(Frame::number), Some(table));
        let _ = shared.map(Frame::into_raw);
        give_up_table(table, in_table, gone);
        true
    }

    /// Makes a table own if `new_value` of one of its entries between `start` and `stop` is another one; whether it has become that.
    #[cold]
    #[inline(never)]
    pub(super) fn own_to_change(
        &mut self,
        low: &AtomicU64,
        start: usize,
        stop: usize,
        new_value: &mut dyn FnMut(usize, u64) -> u64,
    ) -> bool {
        let (slots, _) = lowest_table(low, start, stop);
        let changes = each_used(slots, start, |page, _, value| {
            match new_value(page, value) == value {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
        if changes.is_break() {
            self.own(start, low).expect("own_range has been called");
        }
        changes.is_break()
    }

    /// Makes all lowest tables own that have something in the range.
    pub fn own_range(&mut self, start: VirtAddr, end: VirtAddr) -> Result<(), OutOfMemory> {
        let (mut at, end) = (start.get(), end.get());
        while self.has_shared
            && let Some((page, [.., low])) = self.next_path(at, end)
        {
            at = next_at(page, 1).min(end);
            if !is_own(low) && part_in_use(low, page, at).0 > 0 {
                self.own(page, low)?;
            }
        }
        Ok(())
    }

    /// The same for those that have something outside of it, too.
    pub fn own_edges(&mut self, start: VirtAddr, end: VirtAddr) -> Result<(), OutOfMemory> {
        let (start, end) = (start.get(), end.get());
        if start >= end {
            return Ok(());
        }
        for edge in [start, end - PAGE_SIZE] {
            let Some(low) = self.low(edge).filter(|low| !is_own(low)) else {
                continue;
            };
            let table = edge & !(TABLE_SPAN - 1);
            let (page, stop) = (start.max(table), end.min(table + TABLE_SPAN));
            let (here, in_table) = part_in_use(low, page, stop);
            if here > 0 && here < in_table {
                self.own(page, low)?;
            }
        }
        Ok(())
    }
}

/// Whether a fork shares the table of `page`, as it is worth it, and `alone` says that nothing else can lie in it: then how many references
/// of frames its entries own.
fn may_share(low: &AtomicU64, page: usize, alone: &Range<usize>) -> Option<u32> {
    let table = page & !(TABLE_SPAN - 1);
    if table < alone.start || table + TABLE_SPAN > alone.end {
        return None;
    }
    let (slots, in_table) = whole_table(low);
    if in_table < SHARED_FROM {
        return None;
    }
    let number = frame_in(low.load(Ordering::Relaxed));
    if !is_own(low)
        && let Some(owned) = Frame::census(number)
    {
        return Some(owned);
    }
    let owned = census(slots)?;
    Frame::set_census(number, owned);
    Some(owned)
}

/// How many of a table's entries own a reference; `None` if one is protected for userfaultfd, as that is not inherited.
#[inline(never)]
fn census(slots: &[AtomicU64]) -> Option<u32> {
    let (mut owned, mut all) = (0, 0);
    for at in slots {
        let value = at.load(Ordering::Relaxed);
        all |= value;
        owned += u32::from(value != 0) - u32::from(value & SPECIAL != 0);
    }
    (all & UFFD_WP == 0).then_some(owned)
}

const _: () = assert!(MARKER & UFFD_WP != 0);

/// All entries of the lowest table that `low` points to, and how many are in use.
fn whole_table(low: &AtomicU64) -> (&'static [AtomicU64], usize) {
    lowest_table(low, 0, TABLE_SPAN)
}

/// How many entries between `start` and `stop` are in use, and how many in the whole table.
fn part_in_use(low: &AtomicU64, start: usize, stop: usize) -> (usize, usize) {
    let (slots, in_table) = lowest_table(low, start, stop);
    if slots.len() == ENTRIES {
        return (in_table, in_table);
    }
    let is_used = |at: &&AtomicU64| at.load(Ordering::Relaxed) != 0;
    (slots.iter().filter(is_used).count(), in_table)
}

/// Gives up an entry's reference of a table that was shared, with what is in it if the others went just now. `gone` counts the frames in it.
fn give_up_table(table: FrameNumber, in_table: usize, gone: &mut KindCounts) {
    let owned = Frame::census(table).unwrap_or(0);
    // SAFETY: the reference was owned by an entry that does not name the table any more.
    match unsafe { Frame::from_raw(table) }.into_last() {
        None => gone.add_many(FrameKind::Anonymous, owned.into()),
        Some(last) => {
            zap_entries(entries(table), in_table, gone);
            last.shelve(Shelf::Zeros);
        }
    }
}
