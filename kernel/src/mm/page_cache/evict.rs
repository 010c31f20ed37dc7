//! Giving clean pages back: those that nobody has used for a while, mapped or not.

use core::sync::atomic::Ordering;

use super::tree::Sweep;
use super::{Mapping, mark_gone, page_state};
use crate::mm::frame::{self, Frame};
use crate::mm::vma::VmFlags;

/// Pages that one call looks at, with the tree's lock held.
const SCAN: usize = 512;

/// Pages that are taken away from address spaces at a time.
const MAPPED: usize = 32;

/// What a call of [`Mapping::reclaim`] came to.
#[derive(Default)]
struct Progress {
    freed: usize,
    /// Mapped pages that may go.
    mapped: heapless::Vec<(u64, Frame), MAPPED>,
}

impl Mapping {
    /// Takes up to `wanted` clean pages out that were not used since the last pass, going on where the last call ended; those that are
    /// mapped lose their translations, unless they are locked in memory. Looks at no more than [`SCAN`] entries. Returns how many frames
    /// became free, and whether the end of the file was reached, so that the next call starts at its beginning.
    pub fn reclaim(&self, wanted: usize) -> (usize, bool) {
        let mut progress = Progress::default();
        let mut seen = 0;
        let hand = self.reclaim_hand.load(Ordering::Relaxed);
        let stopped = self.pages.lock().sweep(hand, |index, page| {
            let enough = progress.freed + progress.mapped.len() >= wanted;
            if enough || progress.mapped.is_full() || seen == SCAN {
                return Sweep::Stop;
            }
            seen += 1;
            let state = &frame::meta(page).state;
            let now = state.load(Ordering::Acquire);
            if now & (page_state::UPTODATE | page_state::MODIFIED) != page_state::UPTODATE {
                return Sweep::Keep;
            }
            if now & page_state::REFERENCED != 0 {
                state.store(now & !page_state::REFERENCED, Ordering::Release);
                return Sweep::Keep;
            }
            if !Frame::is_unique(page) {
                // SAFETY: the tree holds a reference, under its lock.
                let page = unsafe { Frame::share(page) };
                // There is room: see above.
                let _ = progress.mapped.push((index, page));
                return Sweep::Keep;
            }
            mark_gone(page);
            progress.freed += 1;
            Sweep::Drop
        });
        self.reclaim_hand
            .store(stopped.unwrap_or(0), Ordering::Relaxed);
        for (index, page) in progress.mapped {
            progress.freed += usize::from(self.evict(index, page));
        }
        (progress.freed, stopped.is_none())
    }

    /// Takes a page away from all who map it, and out of the file, unless it was used since the last time or is used in another way.
    fn evict(&self, index: u64, page: Frame) -> bool {
        let mut unmapped = true;
        self.areas.for_each_at(index, &mut |area, address| {
            unmapped &= !area.flags.contains(VmFlags::LOCKED)
                && area.translations.evict(address, page.number());
        });
        if !unmapped {
            return false;
        }
        let mut pages = self.pages.lock();
        let state = frame::meta(page.number()).state.load(Ordering::Acquire);
        // New references come from the tree alone, and it is locked: two are the tree's and ours.
        if state & (page_state::GONE | page_state::MODIFIED) != 0
            || !Frame::has_references(page.number(), 2)
        {
            return false;
        }
        mark_gone(page.number());
        drop(pages.remove(index));
        true
    }
}
