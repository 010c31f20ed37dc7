//! What inodes open as, and how many files may be open.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::errno::{Errno, Result};
use crate::fs::io::{Dst, Src};
use crate::fs::poll::{self, PollQueue};
use crate::fs::stream::{PollEvents, Stream};
use crate::fs::tmpfs;
use crate::ipc::posix_queue::Queue;
use crate::mm::frame;
use crate::mm::page_cache::Mapping;

/// What an inode opens as.
pub enum Opened {
    /// Contents in the page cache, and the node to write them through if that is possible.
    Regular(Arc<Mapping>, Option<Arc<tmpfs::Node>>),
    Directory,
    /// Bytes that are made as they are asked for, found by their position.
    Positioned(Box<dyn Positioned>),
    Stream(Box<dyn Stream>),
    /// O_PATH: only a place in the tree.
    Path,
}

/// What is read and written by position, without a page cache.
pub trait Positioned: Send + Sync {
    /// Copies bytes from `offset` on; how many, 0 at the end. May sleep.
    fn read_at(&self, offset: u64, dst: &mut Dst<'_>) -> Result<usize>;

    /// Takes bytes to `offset`; how many. `EINVAL` where nothing can be written.
    fn write_at(&self, _offset: u64, _src: &mut Src<'_>) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    /// What would not block now. Never sleeps.
    fn poll(&self) -> PollEvents {
        PollEvents::READABLE | PollEvents::WRITABLE
    }

    /// Those who want to be told when that changes. As on Linux the files of /proc can be watched, although nothing ever happens.
    fn poll_queue(&self) -> &PollQueue {
        &poll::SHARED
    }

    /// The message queue, if it is one.
    fn queue(&self) -> Option<&Arc<Queue>> {
        None
    }
}

/// Files that are open in the whole system.
static OPEN_FILES: AtomicUsize = AtomicUsize::new(0);

/// One of [`OPEN_FILES`].
pub(super) struct OpenFile;

impl OpenFile {
    /// `ENFILE` if there are so many that a tenth of the memory would go to them (`/proc/sys/fs/file-max`).
    pub(super) fn new() -> Result<OpenFile> {
        if OPEN_FILES.load(Ordering::Relaxed) >= max_open_files() {
            return Err(Errno::ENFILE);
        }
        OPEN_FILES.fetch_add(1, Ordering::Relaxed);
        Ok(OpenFile)
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        OPEN_FILES.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Most files that can be open at a time: one for every 10 KiB of memory, at about 1 KiB each with what belongs to them.
pub fn max_open_files() -> usize {
    frame::total_frames() * 2 / 5
}
