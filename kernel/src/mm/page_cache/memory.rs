//! Pages of files in memory that come from outside: userfaultfd(2) fills them.

use core::sync::atomic::Ordering;

use super::{Mapping, mark_gone, page_state};
use crate::errno::{Errno, Result};
use crate::mm::frame::{self, Frame};

impl Mapping {
    /// Whether this is memory without a device behind it: shared memory, or a file of a tmpfs.
    pub fn is_memory(&self) -> bool {
        !self.of_disk
    }

    /// Puts a complete page in at `index`. `EFAULT` past the end of the file, `EEXIST`, `ENOMEM`.
    pub fn add(&self, index: u64, page: &Frame) -> Result {
        let mut pages = self.pages.lock();
        if index >= self.pages() {
            return Err(Errno::EFAULT);
        }
        if pages.get(index).is_some() {
            return Err(Errno::EEXIST);
        }
        frame::meta(page.number())
            .state
            .store(page_state::UPTODATE, Ordering::Release);
        Ok(pages.insert(index, page.clone())?)
    }

    /// Takes a page out again that [`Mapping::add`] has put in.
    pub fn take_back(&self, index: u64, page: &Frame) {
        let mut pages = self.pages.lock();
        if pages.get(index) != Some(page.number()) {
            return;
        }
        mark_gone(page.number());
        let taken = pages.remove(index);
        drop(pages);
        drop(taken);
        self.areas.zap(index, index, false);
    }
}
