//! The entries of one table.

use core::ops::ControlFlow;
use core::sync::atomic::{AtomicU64, Ordering};

use super::super::kernel_pages::{self, ENTRIES, entry, frame_in, index};
use super::form::{MARKER, SPECIAL, UFFD_WP, bits};
use crate::errno::OutOfMemory;
use crate::mm::frame::{Frame, FrameKind, FrameNumber, Frames, KindCounts, Purpose, Shelf};
use crate::mm::{PAGE_SHIFT, PAGE_SIZE};

/// A table's entries.
#[inline]
pub(super) fn entries(table: FrameNumber) -> &'static [AtomicU64; ENTRIES] {
    // SAFETY: the frame is a table as long as an entry or a `PageTable` names it; all accesses are atomic, as the hardware's are.
    unsafe { &*entry(table, 0).cast() }
}

/// The start of what the next entry in a table of `level` (0: the lowest) maps.
#[inline]
pub(super) const fn next_at(address: usize, level: u32) -> usize {
    let span = PAGE_SIZE << (9 * level);
    (address | (span - 1)) + 1
}

/// How many entries of the table of `level` that maps `at` there are before those of `end` and above.
#[inline]
pub(super) fn entries_before(at: usize, end: usize, level: u32) -> usize {
    let last = end - 1;
    if (at ^ last) >> (PAGE_SHIFT + 9 * (level as usize + 1)) == 0 {
        index(last, level) + 1
    } else {
        ENTRIES
    }
}

/// The entries from `start` to `stop` of the lowest table that `low` points to, and how many the whole table has in use: after so
/// many there is nothing more to look for.
#[inline]
pub(super) fn lowest_table(
    low: &AtomicU64,
    start: usize,
    stop: usize,
) -> (&'static [AtomicU64], usize) {
    let value = low.load(Ordering::Relaxed);
    let first = index(start, 0);
    let slots = &entries(frame_in(value))[first..first + (stop - start).div_ceil(PAGE_SIZE)];
    (slots, ((value & bits::COUNT) / bits::COUNT_ONE) as usize)
}

/// A table without entries.
pub(super) fn empty_table() -> Result<Frame, OutOfMemory> {
    let (table, is_known) = Frame::alloc_known(Shelf::Zeros, FrameKind::PageTable, Purpose::User)?;
    if !is_known {
        kernel_pages::zero_frame(table.number());
    }
    Ok(table)
}

/// Frees tables of which nothing is cached any more.
pub(super) fn free_empty(tables: [Option<Frame>; 3]) {
    for table in tables.into_iter().flatten() {
        debug_assert!(is_empty(entries(table.number())));
        table.shelve(Shelf::Zeros);
    }
}

#[inline]
pub(super) fn count_up(parent: &AtomicU64, entries: u64) {
    parent.fetch_add(entries * bits::COUNT_ONE, Ordering::Relaxed);
}

#[inline]
pub(super) fn count_down(parent: &AtomicU64, entries: u64) {
    parent.fetch_sub(entries * bits::COUNT_ONE, Ordering::Relaxed);
}

/// Calls `f` with the page, the place and the value of each entry in use, until it breaks. Mostly empty tables are passed over in
/// larger steps.
#[inline]
pub(super) fn each_used<B>(
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
pub(super) fn zap_entries(
    slots: &'static [AtomicU64],
    in_table: usize,
    gone: &mut KindCounts,
) -> u64 {
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

/// Copies the entries of a parent's table to the same places of a child's; both lose WRITE. How many there are.
#[inline(never)]
pub(super) fn copy_entries(
    slots: &'static [AtomicU64],
    own: &'static [AtomicU64],
    in_table: usize,
    copied: &mut KindCounts,
    changed: &mut dyn FnMut(usize),
) -> u64 {
    let (frames, mut added) = (Frames::all(), 0);
    for_each_in_use(slots, in_table, |index, at, before| {
        if before == MARKER {
            return;
        }
        let value = before & !bits::WRITE;
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
pub(super) fn is_empty(part: &[AtomicU64]) -> bool {
    let any = part
        .iter()
        .fold(0, |any, at| any | at.load(Ordering::Relaxed));
    any == 0
}

/// How many empty entries come first.
#[inline]
pub(super) fn first_used(slots: &[AtomicU64]) -> Option<usize> {
    let is_used = |at: &AtomicU64| at.load(Ordering::Relaxed) != 0;
    if slots.first().is_some_and(is_used) {
        return Some(0);
    }
    let part = slots.chunks(STEP).position(|part| !is_empty(part))?;
    let start = part * STEP;
    Some(start + slots[start..].iter().position(is_used)?)
}
