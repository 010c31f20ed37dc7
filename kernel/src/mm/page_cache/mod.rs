//! The page cache: file contents in frames, shared by read(2) and every mapping.
//!
//! A [`Mapping`] is one file's pages. A page that is not there is put in at once, locked, and a worker thread fills it (see
//! [`reader`]); the read belongs to the page, so whoever waits for it may leave without harm. A page whose read failed is
//! marked, and taken out by the next one who looks, who gets the error: the access after that tries again.
//!
//! Lock rank: PAGE (the tree of a mapping). Nothing sleeps under it.

mod bytes;
pub mod reader;
pub mod tree;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use super::addr::{PAGE_SHIFT, PAGE_SIZE};
use super::frame::{self, Frame, FrameNumber, Purpose};
use crate::arch;
use crate::errno::{Errno, OutOfMemory, Result};
use crate::sched::{Interrupted, Sleep, WaitQueue};
use crate::sync::{SpinLock, rank};
pub use bytes::{copy_from_page, copy_page_to_user, copy_to_page, copy_user_to_page};
use tree::FrameTree;

/// Bits of `FrameMeta::state`.
mod page_state {
    /// Being read: the contents belong to the reader.
    pub const LOCKED: u32 = 1 << 0;
    pub const UPTODATE: u32 = 1 << 1;
    /// The read failed.
    pub const ERROR: u32 = 1 << 2;
}

/// Where a file's contents come from.
pub trait Backing: Send + Sync {
    /// Fills `page` with the contents at `index * 4096`, zeros past the end of the file. Called by one worker thread at a time, which
    /// may sleep for the device. `EIO` if the device failed.
    fn read_page(&self, index: u64, page: &mut [u8; PAGE_SIZE]) -> Result;

    /// How much later than the device has it a page shall arrive, in nanoseconds: a slow disk for experiments.
    fn delay_ns(&self) -> u64 {
        0
    }
}

/// One file's pages.
pub struct Mapping {
    pages: SpinLock<FrameTree>,
    /// Bytes.
    size: AtomicU64,
    /// `None`: memory without a file behind it; missing pages are zero.
    backing: Option<Box<dyn Backing>>,
}

/// What a look into the cache found.
pub enum Lookup {
    /// Up to date.
    Ready(Frame),
    /// Being read, or about to be.
    Busy(Wait),
    /// Its last read failed; it is out of the cache now.
    Failed,
}

/// What has to come to pass before another look is worth it. Owned by nobody's fault: leaving it undoes nothing.
pub enum Wait {
    /// The page is read.
    Page(Frame),
    /// The worker has a place in its queue.
    Place(reader::Place),
}

impl Wait {
    /// Waits. The caller holds neither `mmap_lock` nor a spin lock.
    pub fn wait(&self, sleep: Sleep) -> core::result::Result<(), Interrupted> {
        match self {
            Wait::Page(page) => wait_unlocked(page.number(), sleep),
            Wait::Place(place) => place.wait(sleep),
        }
    }
}

impl Mapping {
    /// A file of `size` bytes.
    pub fn new(size: u64, backing: Box<dyn Backing>) -> Result<Arc<Mapping>> {
        Ok(Arc::try_new(Self::with(size, Some(backing)))?)
    }

    /// Shared memory of `size` bytes, zero at first.
    pub fn anonymous(size: u64) -> Result<Arc<Mapping>> {
        Ok(Arc::try_new(Self::with(size, None))?)
    }

    fn with(size: u64, backing: Option<Box<dyn Backing>>) -> Mapping {
        Mapping {
            pages: SpinLock::new(rank::PAGE, FrameTree::new()),
            size: AtomicU64::new(size),
            backing,
        }
    }

    /// The file's size in bytes.
    #[inline]
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// How many pages the file has, a partial last one included.
    #[inline]
    pub fn pages(&self) -> u64 {
        self.size().div_ceil(PAGE_SIZE as u64)
    }

    /// The page at `index`, below [`Mapping::pages`]; starts reading it if it is not there. Never sleeps.
    pub fn lookup(self: &Arc<Self>, index: u64) -> core::result::Result<Lookup, OutOfMemory> {
        let mut pages = self.pages.lock();
        if let Some(found) = pages.get(index) {
            let state = frame::meta(found).state.load(Ordering::Acquire);
            if state & page_state::ERROR != 0 {
                drop(pages.remove(index));
                return Ok(Lookup::Failed);
            }
            // SAFETY: the tree holds a reference, under its lock.
            let page = unsafe { Frame::share(found) };
            return Ok(if state & page_state::UPTODATE != 0 {
                Lookup::Ready(page)
            } else {
                Lookup::Busy(Wait::Page(page))
            });
        }
        if self.backing.is_none() {
            let page = Frame::alloc_zeroed(Purpose::User)?;
            frame::meta(page.number())
                .state
                .store(page_state::UPTODATE, Ordering::Release);
            pages.insert(index, page.clone())?;
            return Ok(Lookup::Ready(page));
        }
        let page = Frame::alloc(Purpose::User)?;
        frame::meta(page.number())
            .state
            .store(page_state::LOCKED, Ordering::Relaxed);
        pages.insert(index, page.clone())?;
        drop(pages);
        Ok(Lookup::Busy(match reader::submit(self, index, &page) {
            Ok(()) => Wait::Page(page),
            Err(full) => {
                // As if it had never been in the cache: whoever found it there looks again.
                drop(self.pages.lock().remove(index));
                unlock(page.number(), 0);
                Wait::Place(full)
            }
        }))
    }

    /// The page at `index`, up to date: waits for it. `EIO` if it cannot be read.
    pub fn read_page(self: &Arc<Self>, index: u64, sleep: Sleep) -> Result<Frame> {
        loop {
            match self.lookup(index)? {
                Lookup::Ready(page) => return Ok(page),
                Lookup::Failed => return Err(Errno::EIO),
                Lookup::Busy(wait) => wait.wait(sleep)?,
            }
        }
    }

    /// Copies file contents from byte `offset` to kernel memory; how many bytes, less than asked for only at the end of the file.
    pub fn read_at(self: &Arc<Self>, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let len = self.size().saturating_sub(offset).min(buf.len() as u64) as usize;
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let in_page = at as usize % PAGE_SIZE;
            let part = (PAGE_SIZE - in_page).min(len - done);
            let page = self.read_page(at >> PAGE_SHIFT, Sleep::Killable)?;
            copy_from_page(&page, in_page, &mut buf[done..done + part]);
            done += part;
        }
        Ok(done)
    }

    /// Takes all pages out that nobody else holds. Returns how many frames became free.
    pub fn reclaim(&self) -> usize {
        self.pages.lock().retain(|page| {
            !Frame::is_unique(page)
                || frame::meta(page).state.load(Ordering::Acquire) & page_state::UPTODATE == 0
        })
    }

    /// Reads the page at `index` into `page` and tells everybody. Worker threads only.
    fn fill(&self, index: u64, page: &Frame) {
        let backing = self.backing.as_ref().expect("only files are read");
        // SAFETY: a locked page belongs to its reader alone.
        let contents = unsafe { &mut *arch::frame_ptr(page.number()).cast::<[u8; PAGE_SIZE]>() };
        let outcome = backing.read_page(index, contents);
        if backing.delay_ns() > 0 {
            let until = arch::time::now_ns() + backing.delay_ns();
            let slept = crate::sched::wait::sleep_until(Sleep::Uninterruptible, until);
            debug_assert!(slept.is_ok());
        }
        unlock(
            page.number(),
            if outcome.is_ok() {
                page_state::UPTODATE
            } else {
                page_state::ERROR
            },
        );
    }
}

const WAIT_QUEUES: usize = 64;

/// Waiters for pages; pages share a queue by their number, and waiters look at their own page again when woken.
static QUEUES: [WaitQueue; WAIT_QUEUES] = [const { WaitQueue::new() }; WAIT_QUEUES];

fn queue_of(page: FrameNumber) -> &'static WaitQueue {
    &QUEUES[page.0 as usize % WAIT_QUEUES]
}

/// Waits until a page, of which the caller holds a reference, is not being read any more.
fn wait_unlocked(page: FrameNumber, sleep: Sleep) -> core::result::Result<(), Interrupted> {
    let meta = frame::meta(page);
    queue_of(page).wait_until(sleep, || {
        (meta.state.load(Ordering::Acquire) & page_state::LOCKED == 0).then_some(())
    })
}

fn unlock(page: FrameNumber, state: u32) {
    frame::meta(page).state.store(state, Ordering::Release);
    queue_of(page).wake_all();
}
