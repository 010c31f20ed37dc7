//! The way from the root to the lowest table of an address: found, made, and taken apart when tables become empty.

use core::sync::atomic::{AtomicU64, Ordering};

use super::super::kernel_pages::{frame_in, index};
use super::PageTable;
use super::fork::is_own;
use super::form::bits;
use super::slots::{
    count_down, count_up, empty_table, entries, entries_before, first_used, free_empty, next_at,
};
use crate::errno::OutOfMemory;
use crate::mm::frame::Frame;
use crate::mm::{PAGE_SHIFT, PAGE_SIZE};

/// No addresses.
pub(super) const NOWHERE: usize = usize::MAX;

/// Bits of an address within what a lowest table maps.
const TABLE_SHIFT: usize = PAGE_SHIFT + 9;

/// The entries on the way from the root to the lowest table of an address.
pub(super) type Path = [&'static AtomicU64; 3];

impl PageTable {
    /// The way to the lowest table of `address`, if it is there.
    #[inline]
    pub(super) fn path(&self, address: usize) -> Option<Path> {
        if self.recent.get() == address >> TABLE_SHIFT {
            return Some(self.recent_path.get());
        }
        self.walk_down(address)
    }

    /// The last step of that way.
    #[inline(always)]
    pub(super) fn low(&self, address: usize) -> Option<&'static AtomicU64> {
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
    pub(super) fn next_path(&self, start: usize, end: usize) -> Option<(usize, Path)> {
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

    /// The same, with tables made where they are missing, and none that others have: the caller puts an entry into the lowest one.
    #[inline(always)]
    pub(super) fn low_to_fill(
        &mut self,
        address: usize,
    ) -> Result<&'static AtomicU64, OutOfMemory> {
        match self.low(address) {
            Some(low) if is_own(low) => Ok(low),
            low => self.own_or_new(address, low),
        }
    }

    #[cold]
    #[inline(never)]
    fn own_or_new(
        &mut self,
        address: usize,
        low: Option<&'static AtomicU64>,
    ) -> Result<&'static AtomicU64, OutOfMemory> {
        match low {
            Some(low) => self.own(address, low).map(|()| low),
            None => self.new_path(address).map(|[.., low]| low),
        }
    }

    /// The way to the lowest table of `address`, made where it is missing; the table may be empty.
    pub(super) fn new_path(&mut self, address: usize) -> Result<Path, OutOfMemory> {
        self.new_path_of(address, 3)
    }

    /// The same as far as the first `tables` tables under the root.
    #[cold]
    pub(super) fn new_path_of(
        &mut self,
        address: usize,
        tables: usize,
    ) -> Result<Path, OutOfMemory> {
        let mut path = [&entries(self.root)[index(address, 3)]; 3];
        for depth in 0..3 {
            if depth < tables && path[depth].load(Ordering::Relaxed) == 0 {
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
    pub(super) fn detach_empty(&mut self, path: &[&'static AtomicU64]) -> [Option<Frame>; 3] {
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
}
