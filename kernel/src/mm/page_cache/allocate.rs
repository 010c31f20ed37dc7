//! Which pages of a file take room, and setting room aside.

use core::sync::atomic::Ordering;

use super::tree::Sweep;
use super::{Mapping, mark_gone, page_state};
use crate::errno::{Errno, Result};
use crate::mm::addr::{PAGE_SHIFT, PAGE_SIZE};
use crate::mm::frame::{self, Frame, FrameNumber, Purpose};
use crate::mm::reclaim;
use crate::sched::current;
use crate::signal::fatal_signal_pending;

/// Pages that are looked at with the tree's lock held once.
const BATCH: u64 = 512;

impl Mapping {
    /// Pages that the file takes, in memory or on its device.
    pub fn pages_allocated(&self) -> u64 {
        let on_device = self
            .backed
            .load(Ordering::Relaxed)
            .div_ceil(PAGE_SIZE as u64);
        match self.backing {
            None => self.pages.lock().count(),
            // Pages in memory are mostly copies of those on the device.
            Some(_) => on_device.max(self.pages()),
        }
    }

    /// Sets room aside for the pages `first..end`, which stay zero until they are written. `ENOSPC`, `EINTR`: then nothing was done.
    pub fn allocate(&self, first: u64, end: u64) -> Result {
        for index in first..end {
            let outcome = self.allocate_page(index);
            if outcome.is_err() || fatal_signal_pending(&current()) {
                self.give_unused_back(first, index);
                return outcome.and(Err(Errno::EINTR));
            }
        }
        Ok(())
    }

    fn allocate_page(&self, index: u64) -> Result {
        if self.is_backed(index) || self.pages.lock().get(index).is_some() {
            return Ok(());
        }
        if !reclaim::make_room_for_files() {
            return Err(Errno::ENOSPC);
        }
        let page = Frame::alloc_zeroed_as(self.kind(), Purpose::User).map_err(|_| Errno::ENOSPC)?;
        frame::meta(page.number())
            .state
            .store(page_state::UPTODATE | page_state::UNUSED, Ordering::Release);
        let mut pages = self.pages.lock();
        if pages.get(index).is_some() {
            return Ok(());
        }
        pages.insert(index, page).map_err(|_| Errno::ENOSPC)
    }

    fn give_unused_back(&self, first: u64, end: u64) {
        let mut next = Some(first);
        while let Some(from) = next.filter(|&from| from < end) {
            let mut seen = 0;
            next = self.pages.lock().sweep(from, |index, page| {
                if index >= end || seen == BATCH {
                    return Sweep::Stop;
                }
                seen += 1;
                if !is_data(page) {
                    mark_gone(page);
                    return Sweep::Drop;
                }
                Sweep::Keep
            });
        }
    }

    /// The first byte at `at` or behind it, below `size`, that belongs to data, or to a hole, as lseek(2) counts. `None`: there is none.
    pub fn seek(&self, at: u64, data: bool, size: u64) -> Option<u64> {
        let end = size.div_ceil(PAGE_SIZE as u64);
        let mut index = at >> PAGE_SHIFT;
        while index < end {
            let (found, next) = self.seek_batch(index, end, data);
            if let Some(found) = found {
                return Some(at.max(found << PAGE_SHIFT)).filter(|&found| found < size);
            }
            index = next;
        }
        None
    }

    /// Looks at some pages from `first` on: the one looked for, and where to go on.
    fn seek_batch(&self, first: u64, end: u64, data: bool) -> (Option<u64>, u64) {
        let backed = self
            .backed
            .load(Ordering::Relaxed)
            .div_ceil(PAGE_SIZE as u64);
        if first < backed {
            return (data.then_some(first), backed);
        }
        let (mut found, mut next) = (None, first);
        let stopped = self.pages.lock().sweep(first, |index, page| {
            if index >= end || next - first >= BATCH {
                return Sweep::Stop;
            }
            match (data, is_data(page)) {
                (true, true) => found = Some(index),
                (false, _) if index > next => found = Some(next),
                (false, false) => found = Some(index),
                _ => {
                    next = index + 1;
                    return Sweep::Keep;
                }
            }
            Sweep::Stop
        });
        match (found, stopped) {
            (Some(_), _) => (found, next),
            // Nothing but a hole follows.
            (None, None) if !data => (Some(next), end),
            (None, Some(index)) if !data && index > next => (Some(next), end),
            (None, None) => (None, end),
            (None, Some(index)) => (None, index),
        }
    }
}

/// Whether a page holds more than room.
fn is_data(page: FrameNumber) -> bool {
    page_state::is_data(frame::meta(page).state.load(Ordering::Relaxed))
}
