//! Taking contents away: truncation and holes.
//!
//! Pages leave the file first, marked as gone, and then the address spaces that map them. Truncation takes private copies, too, as they
//! lie behind the end of the file; a hole leaves them.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::bytes::zero_part;
use super::tree::{FrameTree, Sweep};
use super::{Contents, Mapping, Want, mark_gone, page_state};
use crate::errno::Result;
use crate::mm::addr::{PAGE_SHIFT, PAGE_SIZE};
use crate::mm::frame::{self, Frame, FrameNumber, Purpose};
use crate::mm::reclaim;
use crate::sched::Sleep;

/// Pages that are taken out with the tree's lock held once.
const BATCH: usize = 512;

impl Mapping {
    /// Sets the file's size in bytes. What lies behind it is gone, for all who map it, and reads as zeros should the file grow again.
    pub fn resize(&self, size: u64) {
        self.resize_if(None, size);
    }

    /// The same, but only if the size is `expected` now.
    pub fn resize_from(&self, expected: u64, size: u64) {
        self.resize_if(Some(expected), size);
    }

    fn resize_if(&self, expected: Option<u64>, size: u64) {
        let mut pages = self.pages.lock();
        let old = self.size();
        if expected.is_some_and(|expected| expected != old) {
            return;
        }
        self.size.store(size, Ordering::Relaxed);
        if size >= old {
            if self.of_disk {
                // As on ext4, what a mapping has written behind the end does not become part of the file.
                zero_tail(&pages, old);
            }
            return;
        }
        zero_tail(&pages, size);
        self.backed.fetch_min(size, Ordering::Relaxed);
        let first = size.div_ceil(PAGE_SIZE as u64);
        pages.sweep(first, |_, page| {
            mark_gone(page);
            Sweep::Drop
        });
        drop(pages);
        self.areas.zap(first, u64::MAX, true);
    }

    /// Makes the bytes `start..end` a hole that reads as zeros. `EIO`, `ENOMEM`, `EINTR`.
    pub fn punch(self: &Arc<Self>, start: u64, end: u64) -> Result {
        let (first, last) = (start.div_ceil(PAGE_SIZE as u64), end >> PAGE_SHIFT);
        if first > last {
            return self.zero_in_page(start, end);
        }
        self.zero_in_page(start, first << PAGE_SHIFT)?;
        self.punch_pages(first, last)?;
        self.zero_in_page(last << PAGE_SHIFT, end)
    }

    /// Zeros in a part of one page, if there is something.
    fn zero_in_page(self: &Arc<Self>, start: u64, end: u64) -> Result {
        if start >= end {
            return Ok(());
        }
        let from = start as usize % PAGE_SIZE;
        let to = from + (end - start) as usize;
        loop {
            let Contents::Page(page) =
                self.wait_for(start >> PAGE_SHIFT, Want::Read, Sleep::Killable)?
            else {
                return Ok(());
            };
            zero_part(page.number(), from, to);
            if self.commit(&page, 0) {
                return Ok(());
            }
        }
    }

    /// Makes the pages `first..end` a hole.
    fn punch_pages(&self, first: u64, end: u64) -> Result {
        let mut next = Some(first);
        while let Some(from) = next.filter(|&from| from < end) {
            let mut seen = 0;
            next = self.pages.lock().sweep(from, |index, page| {
                if index >= end || seen == BATCH {
                    return Sweep::Stop;
                }
                seen += 1;
                mark_gone(page);
                Sweep::Drop
            });
        }
        // What the device has is hidden by pages of zeros.
        let backed = self.backed.load(Ordering::Relaxed);
        let mut outcome = Ok(());
        for index in first..end.min(backed.div_ceil(PAGE_SIZE as u64)) {
            outcome = reclaim::retry(|| {
                let zeros = Frame::alloc_zeroed_as(self.kind(), Purpose::User)?;
                let mut pages = self.pages.lock();
                if !self.is_backed(index) {
                    return Ok(());
                }
                frame::meta(zeros.number()).state.store(
                    page_state::UPTODATE | page_state::MODIFIED,
                    Ordering::Release,
                );
                if let Some(page) = pages.get(index) {
                    mark_gone(page);
                    drop(pages.remove(index));
                }
                pages.insert(index, zeros)
            })
            .map_err(|oom: crate::errno::OutOfMemory| oom.into());
            if outcome.is_err() {
                break;
            }
        }
        if first < end {
            self.areas.zap(first, end - 1, false);
        }
        outcome
    }
}

/// Zeros behind byte `size` in the page that holds it, if that is there.
pub(super) fn zero_tail(pages: &FrameTree, size: u64) {
    let in_page = size as usize % PAGE_SIZE;
    let up_to_date = |&page: &FrameNumber| {
        frame::meta(page).state.load(Ordering::Acquire) & page_state::UPTODATE != 0
    };
    // A page that is being read is cut off by its reader.
    if let Some(page) = pages
        .get(size >> PAGE_SHIFT)
        .filter(|page| in_page != 0 && up_to_date(page))
    {
        zero_part(page, in_page, PAGE_SIZE);
    }
}
