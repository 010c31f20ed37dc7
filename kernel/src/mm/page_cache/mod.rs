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
use super::reclaim;
use crate::arch;
use crate::errno::{Errno, OutOfMemory, Result};
use crate::sched::{Interrupted, Sleep, WaitQueue};
use crate::sync::{SpinLock, rank};
pub use bytes::{copy_from_page, copy_page_to_user, copy_to_page, copy_user_to_page};
use tree::{FrameTree, Sweep};

/// Pages that one call of [`Mapping::reclaim`] looks at, with the tree's lock held.
const RECLAIM_SCAN: usize = 512;

/// Most pages that one piece of advice starts to read: as many as may wait in the readers' queue without filling it.
const READ_AHEAD_MAX: u64 = 64;

/// Bits of `FrameMeta::state`.
mod page_state {
    /// Being read: the contents belong to the reader.
    pub const LOCKED: u32 = 1 << 0;
    pub const UPTODATE: u32 = 1 << 1;
    /// The read failed.
    pub const ERROR: u32 = 1 << 2;
    /// Looked up since the last pass of reclaim.
    pub const REFERENCED: u32 = 1 << 3;
    /// Read before anybody needed it.
    pub const AHEAD: u32 = 1 << 4;
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
    /// Tells mappings apart; never used again.
    id: u64,
    pages: SpinLock<FrameTree>,
    /// Bytes.
    size: AtomicU64,
    /// `None`: memory without a file behind it; missing pages are zero.
    backing: Option<Box<dyn Backing>>,
    /// Where reclaim goes on: the index of a page.
    reclaim_hand: AtomicU64,
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
        let mapping = Arc::try_new(Self::with(size, Some(backing)))?;
        reclaim::register(&mapping)?;
        Ok(mapping)
    }

    /// Shared memory of `size` bytes, zero at first.
    pub fn anonymous(size: u64) -> Result<Arc<Mapping>> {
        Ok(Arc::try_new(Self::with(size, None))?)
    }

    fn with(size: u64, backing: Option<Box<dyn Backing>>) -> Mapping {
        static LAST_ID: AtomicU64 = AtomicU64::new(0);
        Mapping {
            id: LAST_ID.fetch_add(1, Ordering::Relaxed),
            pages: SpinLock::new(rank::PAGE, FrameTree::new()),
            size: AtomicU64::new(size),
            backing,
            reclaim_hand: AtomicU64::new(0),
        }
    }

    /// A number that no other mapping has or ever had.
    pub fn id(&self) -> u64 {
        self.id
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
        self.lookup_as(index, 0)
    }

    /// [`Mapping::lookup`]; a page that has to be read gets `ahead` (0 or AHEAD) in its state.
    fn lookup_as(
        self: &Arc<Self>,
        index: u64,
        ahead: u32,
    ) -> core::result::Result<Lookup, OutOfMemory> {
        let mut pages = self.pages.lock();
        if let Some(found) = pages.get(index) {
            let state = frame::meta(found).state.load(Ordering::Acquire);
            if state & page_state::ERROR != 0 {
                drop(pages.remove(index));
                if ahead != 0 || state & page_state::AHEAD == 0 {
                    return Ok(Lookup::Failed);
                }
                // The error was nobody's: who needs the page now has it read once more.
                drop(pages);
                return self.lookup_as(index, 0);
            }
            // SAFETY: the tree holds a reference, under its lock.
            let page = unsafe { Frame::share(found) };
            return Ok(if state & page_state::UPTODATE != 0 {
                if state & page_state::REFERENCED == 0 {
                    // Under the tree's lock nobody else changes the state of a page that is up to date.
                    let referenced = state | page_state::REFERENCED;
                    frame::meta(found)
                        .state
                        .store(referenced, Ordering::Release);
                }
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
            .store(page_state::LOCKED | ahead, Ordering::Relaxed);
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
            match reclaim::retry(|| self.lookup(index))? {
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

    /// Whether the page at `index` is in the cache and up to date.
    pub fn is_cached(&self, index: u64) -> bool {
        self.pages.lock().get(index).is_some_and(|page| {
            frame::meta(page).state.load(Ordering::Acquire) & page_state::UPTODATE != 0
        })
    }

    /// The pages from `first` on that are up to date, as many as `found` has room for, each at its place.
    pub fn ready_pages(&self, first: u64, found: &mut [Option<Frame>]) {
        let pages = self.pages.lock();
        for (index, slot) in (first..self.pages()).zip(found) {
            *slot = pages
                .get(index)
                .filter(|&page| {
                    frame::meta(page).state.load(Ordering::Acquire) & page_state::UPTODATE != 0
                })
                // SAFETY: the tree holds a reference, under its lock.
                .map(|page| unsafe { Frame::share(page) });
        }
    }

    /// Starts reading up to `count` pages from `first` on that are in the file and not in the cache; not more than [`READ_AHEAD_MAX`].
    pub fn read_ahead(self: &Arc<Self>, first: u64, count: u64) {
        if self.backing.is_none() {
            return;
        }
        let end = self
            .pages()
            .min(first.saturating_add(count.min(READ_AHEAD_MAX)));
        for index in first..end {
            // Only a beginning: who needs the page looks again, and gets the error if there is one.
            match self.lookup_as(index, page_state::AHEAD) {
                Ok(Lookup::Busy(Wait::Place(_))) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// Makes the pages `first..end` zero, for all who share the memory. `EINVAL` for files on a disk.
    pub fn punch(&self, first: u64, end: u64) -> Result {
        if self.backing.is_some() {
            return Err(Errno::EINVAL);
        }
        let mut next = Some(first);
        while let Some(from) = next {
            let (mut seen, mut index_end) = (0, false);
            next = self.pages.lock().sweep(from, |index, page| {
                if index >= end {
                    index_end = true;
                    return Sweep::Stop;
                }
                if seen == RECLAIM_SCAN {
                    return Sweep::Stop;
                }
                seen += 1;
                if Frame::is_unique(page) {
                    return Sweep::Drop;
                }
                // Others map the frame, and go on sharing it.
                arch::zero_frame(page);
                Sweep::Keep
            });
            if index_end {
                break;
            }
        }
        Ok(())
    }

    /// Takes up to `wanted` pages out that nobody else holds and that were not looked up since the last pass, going on where the last
    /// call ended. Looks at no more than [`RECLAIM_SCAN`] entries. Returns how many frames became free, and whether the end of the
    /// file was reached, so that the next call starts at its beginning.
    pub fn reclaim(&self, wanted: usize) -> (usize, bool) {
        let (mut freed, mut seen) = (0, 0);
        let hand = self.reclaim_hand.load(Ordering::Relaxed);
        let stopped = self.pages.lock().sweep(hand, |_, page| {
            if freed == wanted || seen == RECLAIM_SCAN {
                return Sweep::Stop;
            }
            seen += 1;
            let state = &frame::meta(page).state;
            let now = state.load(Ordering::Acquire);
            if now & page_state::UPTODATE == 0 || !Frame::is_unique(page) {
                return Sweep::Keep;
            }
            if now & page_state::REFERENCED != 0 {
                state.store(now & !page_state::REFERENCED, Ordering::Release);
                return Sweep::Keep;
            }
            freed += 1;
            Sweep::Drop
        });
        self.reclaim_hand
            .store(stopped.unwrap_or(0), Ordering::Relaxed);
        (freed, stopped.is_none())
    }

    /// Reads the page at `index` into `page` and tells everybody. Worker threads only.
    fn fill(&self, index: u64, page: &Frame) {
        let backing = self.backing.as_ref().expect("only files are read");
        // SAFETY: a locked page belongs to its reader alone.
        let contents = unsafe { &mut *arch::frame_ptr(page.number()).cast::<[u8; PAGE_SIZE]>() };
        let outcome = backing.read_page(index, contents);
        let ahead = frame::meta(page.number()).state.load(Ordering::Relaxed) & page_state::AHEAD;
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
                page_state::ERROR | ahead
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
