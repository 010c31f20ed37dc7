//! What is done to all entries of a range.

use core::ops::ControlFlow;
use core::sync::atomic::{AtomicU64, Ordering};

use super::super::kernel_pages::{frame_in, index};
use super::PageTable;
use super::flush::{Stale, root_in_use};
use super::fork::{is_own, sharers};
use super::form::{MARKER, UFFD_WP, from_hardware, owned, seen_through, with_flags};
use super::path::Path;
use super::slots::{
    count_down, each_used, entries, free_empty, lowest_table, next_at, zap_entries,
};
use crate::errno::OutOfMemory;
use crate::mm::frame::{Frame, Frames, KindCounts};
use crate::mm::pte::{NotMapped, Pte, PteFlags};
use crate::mm::{PAGE_SIZE, VirtAddr};

impl PageTable {
    pub fn zap_range(&mut self, start: VirtAddr, end: VirtAddr, gone: &mut KindCounts) {
        let in_use = root_in_use() == self.root.phys();
        let (mut at, end) = (start.get(), end.get());
        while let Some((page, path)) = self.next_path(at, end) {
            at = next_at(page, 1).min(end);
            if !is_own(path[2]) && self.zap_shared(&path, page, at, gone) {
                continue;
            }
            if in_use {
                self.zap_in_use(page, at, gone);
            } else {
                self.zap_unused(&path, page, at, gone);
            }
        }
    }

    fn zap_in_use(&mut self, start: usize, end: usize, gone: &mut KindCounts) {
        self.remove_range(start, end, &mut |_| 0, &mut |_, value| {
            if let Some(frame) = owned(value) {
                // SAFETY: the reference was the entry's, and is given up here.
                unsafe { Frames::all().give_up(frame.into_raw(), gone) };
            }
        });
    }

    /// The same for one lowest table of which nothing is cached, so that there is no flush to wait for.
    fn zap_unused(&mut self, path: &Path, start: usize, end: usize, gone: &mut KindCounts) {
        let [.., low] = path;
        let (slots, in_table) = lowest_table(low, start, end);
        let emptied = zap_entries(slots, in_table, gone);
        count_down(low, emptied);
        if emptied == in_table as u64 {
            free_empty(self.detach_empty(path));
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

    pub(super) fn unmap_leaving(
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
    pub(super) fn remove_range(
        &mut self,
        start: usize,
        end: usize,
        rest: &mut impl FnMut(u64) -> u64,
        f: &mut impl FnMut(usize, u64),
    ) {
        let mut at = start;
        while let Some((first, path)) = self.next_path(at, end) {
            let stop = next_at(first, 1).min(end);
            if !is_own(path[2])
                && !self.own_to_change(path[2], first, stop, &mut |_, value| rest(value))
            {
                at = stop;
                continue;
            }
            at = self.remove_batch(&path, first, stop, rest, f);
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
        self.own_range(start, end)?;
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
        f: &mut impl FnMut(VirtAddr, Pte, u32),
    ) -> Option<VirtAddr> {
        let (first, [.., low]) = self.next_path(start.get(), end.get())?;
        let stop = next_at(first, 1).min(end.get());
        let (slots, _) = lowest_table(low, first, stop);
        let (above, sharers) = (low.load(Ordering::Relaxed), sharers(low));
        let _ = each_used(slots, first, |page, _, value| {
            if value != MARKER
                && let Some(address) = VirtAddr::new(page)
            {
                f(address, seen_through(above, value), sharers);
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
        let mut new_value = |page: usize, value: u64| match VirtAddr::new(page) {
            Some(address) if value != MARKER => with_flags(value, f(address, from_hardware(value))),
            _ => value,
        };
        let mut stale = Stale::of(self.root);
        let (mut at, end) = (start.get(), end.get());
        while let Some((page, [.., low])) = self.next_path(at, end) {
            at = next_at(page, 1).min(end);
            if is_own(low) || self.own_to_change(low, page, at, &mut new_value) {
                protect_table(low, page, at, &mut new_value, &mut stale);
            }
        }
        stale.flush();
    }
}

/// Puts `new_value` of each entry in use between `start` and `stop` in its place.
#[inline]
fn protect_table(
    low: &AtomicU64,
    start: usize,
    stop: usize,
    new_value: &mut impl FnMut(usize, u64) -> u64,
    stale: &mut Stale,
) {
    let (slots, in_table) = lowest_table(low, start, stop);
    let mut seen = 0;
    let _ = each_used(slots, start, |page, at, value| {
        let new = new_value(page, value);
        if new != value {
            at.store(new, Ordering::Relaxed);
            stale.add(page);
        }
        seen += 1;
        match seen == in_table {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
}
