//! Writing to a file's pages.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::{Contents, Mapping, Want, page_state};
use crate::errno::{Errno, Result};
use crate::mm::frame::{self, Frame};
use crate::sched::Sleep;

impl Mapping {
    /// The page at `index`, also behind the end of the file, up to date, to be written; the bytes count when [`Mapping::commit`] has said so.
    /// `EIO`, `ENOMEM`.
    pub fn page_for_writing(self: &Arc<Self>, index: u64, sleep: Sleep) -> Result<Frame> {
        match self.wait_for(index, Want::Write, sleep)? {
            Contents::Page(page) => Ok(page),
            Contents::Zeros | Contents::End => Err(Errno::EIO),
        }
    }

    /// Bytes were written to `page`, up to byte `end` of the file, which grows as needed. False if the page was taken out of the file
    /// meanwhile: then they have to be written again.
    pub fn commit(&self, page: &Frame, end: u64) -> bool {
        let pages = self.pages.lock();
        if !self.mark_modified(page) {
            return false;
        }
        self.size.fetch_max(end, Ordering::Relaxed);
        drop(pages);
        true
    }

    /// Under the tree's lock: notes that a page differs from what the device has. False if it is gone.
    fn mark_modified(&self, page: &Frame) -> bool {
        let state = &frame::meta(page.number()).state;
        let now = state.load(Ordering::Relaxed);
        if now & page_state::GONE != 0 {
            return false;
        }
        if self.backing.is_some() && now & page_state::MODIFIED == 0 {
            state.store(now | page_state::MODIFIED, Ordering::Release);
        }
        true
    }

    /// A page behind the end that was not written after all goes again.
    pub fn discard_behind_end(&self, index: u64, page: &Frame) {
        let mut pages = self.pages.lock();
        if index >= self.pages() && pages.get(index) == Some(page.number()) {
            super::mark_gone(page.number());
            drop(pages.remove(index));
        }
    }
}
