//! Writing to a file's pages.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::{Contents, Mapping, Want, page_state, truncate};
use crate::errno::{Errno, Result};
use crate::mm::frame::{self, Frame};
use crate::mm::reclaim;
use crate::sched::Sleep;

/// What came of [`Mapping::note_write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    Yes,
    /// The page has left the file.
    Gone,
    /// One more page that memory alone has would leave too little of it.
    NoRoom,
}

impl Mapping {
    /// Whether pages must not be writable in any address space before [`Mapping::note_write`] knows: it has to be remembered which pages
    /// differ from what the device has.
    #[inline]
    pub fn tracks_writes(&self) -> bool {
        self.of_disk
    }

    /// Notes that `page` will be written through a shared mapping (Linux's `page_mkwrite`).
    pub fn note_write(&self, page: &Frame) -> Noted {
        let state = frame::meta(page.number()).state.load(Ordering::Relaxed);
        if state & page_state::MODIFIED == 0 && !reclaim::make_room_for_files() {
            return Noted::NoRoom;
        }
        let _pages = self.pages.lock();
        if self.mark_modified(page) {
            Noted::Yes
        } else {
            Noted::Gone
        }
    }

    /// From now on nobody can map the file so that it can be written. `EBUSY` if somebody has.
    pub fn seal(&self) -> Result {
        self.areas.seal()
    }

    /// From now on writes through shared mappings to the pages `first..=last` are noted anew.
    pub fn protect(&self, first: u64, last: u64) {
        if self.tracks_writes() {
            self.areas.protect(first, last);
        }
    }

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
        if self.of_disk && now & page_state::MODIFIED == 0 {
            state.store(now | page_state::MODIFIED, Ordering::Release);
        }
        true
    }

    /// A write at byte `at` comes. As on ext4, what a mapping has written behind the end does not become part of the file.
    pub fn prepare_write(&self, at: u64) {
        if self.of_disk && at > self.size() {
            let pages = self.pages.lock();
            truncate::zero_tail(&pages, self.size());
        }
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
