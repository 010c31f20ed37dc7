//! Writing to regular files in memory.
//!
//! Bytes go page by page from user memory to the file's pages with no lock held, so a write may be seen in part, as on Linux without
//! the inode lock. An append takes its range of the file first, under the node's lock, and gives back what a bad pointer left
//! unwritten.

use alloc::sync::Arc;

use linux_raw_sys::general as abi;

use super::{Content, Node};
use crate::errno::{Errno, Result};
use crate::fs::io::{Src, partial};
use crate::mm::PAGE_SIZE;
use crate::mm::page_cache::Mapping;
use crate::mm::reclaim::make_room_for_files;
use crate::sched::{Sleep, current};

/// Largest file, bytes.
pub const MAX_FILE_SIZE: u64 = i64::MAX as u64 & !(PAGE_SIZE as u64 - 1);

impl Node {
    fn pages(&self) -> Result<&Arc<Mapping>> {
        match &self.content {
            Content::File(pages) => Ok(pages),
            _ => Err(Errno::EINVAL),
        }
    }

    pub(super) fn set_size(&self, size: u64) -> Result {
        if size > MAX_FILE_SIZE {
            return Err(Errno::EFBIG);
        }
        let pages = self.pages()?;
        self.seals.check_size(pages.size(), size)?;
        pages.resize(size);
        self.touch();
        Ok(())
    }

    /// Makes the bytes `start..end` a hole. `EPERM` for sealed files, `EIO`, `ENOMEM`.
    pub fn punch(&self, start: u64, end: u64) -> Result {
        let _writer = self.begin_write()?;
        self.pages()?.punch(start, end)?;
        self.touch();
        Ok(())
    }

    /// fallocate(2) for `start..end`, with a mode that was checked. `EOPNOTSUPP`, `EPERM`, `ENOSPC`, `EINTR`.
    pub fn fallocate(&self, mode: u32, start: u64, end: u64) -> Result {
        let pages = self.pages()?;
        let keep_size = mode & abi::FALLOC_FL_KEEP_SIZE != 0;
        match mode & !abi::FALLOC_FL_KEEP_SIZE {
            0 => {
                self.seals.check_size(pages.size(), end.max(pages.size()))?;
                pages.allocate(start / PAGE_SIZE as u64, end.div_ceil(PAGE_SIZE as u64))?;
            }
            abi::FALLOC_FL_PUNCH_HOLE => return self.punch(start, end),
            abi::FALLOC_FL_ZERO_RANGE if pages.tracks_writes() => {
                pages.punch(start, end.min(pages.size()).max(start))?;
            }
            _ => return Err(Errno::EOPNOTSUPP),
        }
        if !keep_size && end > pages.size() {
            pages.resize(end);
        }
        self.touch();
        Ok(())
    }

    /// Writes at byte `offset`; the file grows as needed. `EFBIG`, `ENOSPC` without memory, `EFAULT`.
    pub fn write_at(&self, offset: u64, src: &mut Src<'_>) -> Result<usize> {
        let pages = self.pages()?;
        if src.left() == 0 {
            return Ok(0);
        }
        if offset >= MAX_FILE_SIZE {
            return Err(Errno::EFBIG);
        }
        let _writer = self.begin_write()?;
        src.limit((MAX_FILE_SIZE - offset).min(usize::MAX as u64) as usize);
        let mut done = 0;
        while src.left() > 0 {
            let at = offset + done as u64;
            let part = (PAGE_SIZE - at as usize % PAGE_SIZE).min(src.left());
            let copied = self
                .seals
                .check_size(pages.size(), pages.size().max(at + part as u64))
                .and_then(|()| write_page(pages, at, part, src));
            let copied = match copied {
                Ok(copied) => copied,
                Err(error) => return self.written(done, error),
            };
            done += copied;
            if copied < part {
                return self.written(done, Errno::EFAULT);
            }
            if crate::signal::fatal_signal_pending(&current()) {
                break;
            }
        }
        self.written(done, Errno::EINTR)
    }

    fn written(&self, done: usize, error: Errno) -> Result<usize> {
        if done > 0 {
            self.touch();
        }
        partial(done, error)
    }

    /// Writes at the end of the file; where the bytes went, and how many.
    pub fn append(&self, src: &mut Src<'_>) -> Result<(u64, usize)> {
        let pages = self.pages()?;
        let len = src.left() as u64;
        self.seals.check_write()?;
        self.seals
            .check_size(pages.size(), pages.size().saturating_add(len))?;
        let start = {
            let _state = self.state.lock();
            let start = pages.size();
            if start.saturating_add(len) > MAX_FILE_SIZE {
                return Err(Errno::EFBIG);
            }
            pages.resize(start + len);
            start
        };
        let outcome = self.write_at(start, src);
        let done = *outcome.as_ref().unwrap_or(&0) as u64;
        if done < len {
            pages.resize_from(start + len, start + done);
        }
        outcome.map(|done| (start, done))
    }
}

/// Writes `part` bytes at byte `at`, which lie in one page; how many.
fn write_page(pages: &Arc<Mapping>, at: u64, part: usize, src: &mut Src<'_>) -> Result<usize> {
    let (index, in_page) = (at / PAGE_SIZE as u64, at as usize % PAGE_SIZE);
    loop {
        if !make_room_for_files() {
            return Err(Errno::ENOSPC);
        }
        let page = match pages.page_for_writing(index, Sleep::Killable) {
            Err(Errno::ENOMEM) => return Err(Errno::ENOSPC),
            page => page?,
        };
        pages.prepare_write(at);
        let before = src.clone();
        let copied = src.take_to_page(&page, in_page, part);
        if copied == 0 {
            pages.discard_behind_end(index, &page);
            return Ok(0);
        }
        if pages.commit(&page, at + copied as u64) {
            return Ok(copied);
        }
        // The page was truncated during the copy.
        *src = before;
    }
}
