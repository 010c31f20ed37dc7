//! Copies for fork(2).

use core::sync::atomic::AtomicU64;

use super::PageTable;
use super::flush::Stale;
use super::form::bits;
use super::slots::{copy_entries, count_up, free_empty, lowest_table, next_at};
use crate::errno::OutOfMemory;
use crate::mm::frame::KindCounts;
use crate::mm::{PAGE_SIZE, VirtAddr};

impl PageTable {
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
}
