//! The page cache: file contents in frames, shared by read(2) and every mapping.
//!
//! A [`Mapping`] is one file's pages. A page that is not there is put in at once, locked, and a worker thread fills it (see
//! [`reader`]); the read belongs to the page, so whoever waits for it may leave without harm. A page whose read failed is
//! marked, and taken out by the next one who looks, who gets the error: the access after that tries again.
//!
//! A page that is taken out ([`truncate`], [`reclaim`](self::evict)) is marked as gone under the tree's lock, and only then are its translations
//! removed, through the [reverse map](super::reverse_map). A fault looks for the mark under the lock of the page table before it maps
//! the page: so it sees the mark, or its translation is among those that are removed.
//!
//! Lock rank: PAGE (the tree of a mapping), inside REVERSE_MAP. Nothing sleeps under it.

mod allocate;
mod bytes;
mod evict;
mod memory;
pub mod reader;
pub mod tree;
mod truncate;
mod write;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use super::addr::{PAGE_SHIFT, PAGE_SIZE};
use super::frame::{self, Frame, FrameKind, FrameNumber, Frames, Purpose};
use super::reclaim;
use super::reverse_map::ReverseMap;
use crate::arch;
use crate::errno::{Errno, OutOfMemory, Result};
use crate::sched::{Interrupted, Sleep, WaitQueue};
use crate::sync::{SpinLock, rank};
pub use bytes::{copy_from_page, copy_page_to_user, copy_to_page, copy_user_to_page};
use tree::FrameTree;
pub use tree::indexed_pages;
pub use write::Noted;

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
    /// Not in its file any more: truncated, punched out or reclaimed. Never mapped again.
    pub const GONE: u32 = 1 << 5;
    /// Differs from what the device has.
    pub const MODIFIED: u32 = 1 << 6;
    /// Set aside by fallocate(2), and not used since.
    pub const UNUSED: u32 = 1 << 7;

    /// Whether a page of this state holds more than room.
    pub fn is_data(state: u32) -> bool {
        state & (UPTODATE | UNUSED) == UPTODATE
    }
}

/// Whether a frame is or was a page of a file, not private memory. For frames that are mapped.
#[inline]
pub fn holds(frame: FrameNumber) -> bool {
    frame::meta(frame).state.load(Ordering::Relaxed) != 0
}

/// Whether a page has left its file since it was looked up: it must not be mapped. Means something under the lock of the page table.
#[inline]
pub fn is_gone(page: &Frame) -> bool {
    frame::meta(page.number()).state.load(Ordering::Relaxed) & page_state::GONE != 0
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

    /// Whether reads fail on purpose, so that each has to be one that was asked for.
    fn fails(&self) -> bool {
        false
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
    /// Whether it is a file of a file system on a disk, whatever it has there.
    of_disk: bool,
    /// Bytes from the start that the backing has; missing pages behind it are zero. Changed under the tree's lock.
    backed: AtomicU64,
    /// Where reclaim goes on: the index of a page.
    reclaim_hand: AtomicU64,
    areas: ReverseMap,
}

/// What a look into the cache found.
pub enum Lookup {
    /// Up to date.
    Ready(Frame),
    /// Being read, or about to be.
    Busy(Wait),
    /// Its last read failed; it is out of the cache now.
    Failed,
    /// Not there, and zero, for those who only want to know.
    Hole,
    /// The file is not that long.
    PastEnd,
}

/// What a page is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// To be mapped.
    Map,
    /// To be read.
    Read,
    /// To be written, also behind the end of the file.
    Write,
    /// Soon, perhaps.
    Ahead,
}

/// Pages of a file that follow each other, under the lock of its pages.
pub struct ReadyRun<'tree> {
    run: tree::Run<'tree>,
    frames: Frames,
}

impl ReadyRun<'_> {
    /// A reference to the `n`th page, if it is there and up to date.
    #[inline]
    pub fn get(&self, n: usize) -> Option<Frame> {
        let page = self.run.get(n)?;
        // Room that was set aside is used by its own fault.
        // SAFETY: the tree holds a reference, under its lock.
        unsafe { self.frames.share_if(page, page_state::is_data) }
    }
}

/// What a reader finds in a page.
pub enum Contents {
    Page(Frame),
    /// A hole.
    Zeros,
    /// The file is not that long.
    End,
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
        let mapping = Arc::try_new(Self::with(size, Some(backing), true))?;
        reclaim::register(&mapping)?;
        Ok(mapping)
    }

    /// A new file of a file system on a disk that is never written: as [`Mapping::anonymous`], but writes to it are noted.
    pub fn unwritten() -> Result<Arc<Mapping>> {
        Ok(Arc::try_new(Self::with(0, None, true))?)
    }

    /// Shared memory of `size` bytes, zero at first.
    pub fn anonymous(size: u64) -> Result<Arc<Mapping>> {
        Ok(Arc::try_new(Self::with(size, None, false))?)
    }

    fn with(size: u64, backing: Option<Box<dyn Backing>>, of_disk: bool) -> Mapping {
        static LAST_ID: AtomicU64 = AtomicU64::new(0);
        Mapping {
            id: LAST_ID.fetch_add(1, Ordering::Relaxed),
            pages: SpinLock::new(rank::PAGE, FrameTree::new()),
            size: AtomicU64::new(size),
            backed: AtomicU64::new(if backing.is_some() { size } else { 0 }),
            backing,
            of_disk,
            reclaim_hand: AtomicU64::new(0),
            areas: ReverseMap::new(),
        }
    }

    /// A number that no other mapping has or ever had.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What its pages are counted as.
    #[inline]
    pub fn kind(&self) -> FrameKind {
        match self.of_disk {
            true => FrameKind::File,
            false => FrameKind::SharedMemory,
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

    /// The areas that map the file.
    pub(super) fn areas(&self) -> &ReverseMap {
        &self.areas
    }

    /// The page at `index` to be mapped; starts reading it if it is not there. Never sleeps.
    pub fn lookup(self: &Arc<Self>, index: u64) -> core::result::Result<Lookup, OutOfMemory> {
        self.lookup_for(index, Want::Map)
    }

    fn lookup_for(
        self: &Arc<Self>,
        index: u64,
        want: Want,
    ) -> core::result::Result<Lookup, OutOfMemory> {
        let mut pages = self.pages.lock();
        // Under the lock: no page gets behind the end again once it was cut off.
        if want != Want::Write && index >= self.pages() {
            return Ok(Lookup::PastEnd);
        }
        if let Some(found) = pages.get(index) {
            let state = frame::meta(found).state.load(Ordering::Acquire);
            if state & page_state::ERROR != 0 {
                drop(pages.remove(index));
                if want == Want::Ahead || state & page_state::AHEAD == 0 {
                    return Ok(Lookup::Failed);
                }
                // The error was nobody's: who needs the page now has it read once more.
                drop(pages);
                return self.lookup_for(index, want);
            }
            // SAFETY: the tree holds a reference, under its lock.
            let page = unsafe { Frame::share(found) };
            return Ok(if state & page_state::UPTODATE != 0 {
                let mut now = state | page_state::REFERENCED;
                if want != Want::Read {
                    now &= !page_state::UNUSED;
                }
                if now != state {
                    // Under the tree's lock nobody else changes the state of a page that is up to date.
                    frame::meta(found).state.store(now, Ordering::Release);
                }
                Lookup::Ready(page)
            } else {
                Lookup::Busy(Wait::Page(page))
            });
        }
        if !self.is_backed(index) {
            if want == Want::Read {
                return Ok(Lookup::Hole);
            }
            let page = Frame::alloc_zeroed_as(self.kind(), Purpose::User)?;
            frame::meta(page.number())
                .state
                .store(page_state::UPTODATE, Ordering::Release);
            pages.insert(index, page.clone())?;
            return Ok(Lookup::Ready(page));
        }
        let page = Frame::alloc_as(self.kind(), Purpose::User)?;
        let ahead = if want == Want::Ahead {
            page_state::AHEAD
        } else {
            0
        };
        frame::meta(page.number())
            .state
            .store(page_state::LOCKED | ahead, Ordering::Relaxed);
        pages.insert(index, page.clone())?;
        drop(pages);
        Ok(Lookup::Busy(match reader::submit(self, index, &page) {
            Ok(()) => Wait::Page(page),
            Err(full) => {
                // As if it had never been in the cache: whoever found it there looks again.
                self.take_out(index, &page);
                unlock(page.number(), 0);
                Wait::Place(full)
            }
        }))
    }

    /// Whether the backing has something of the page at `index`.
    fn is_backed(&self, index: u64) -> bool {
        index << PAGE_SHIFT < self.backed.load(Ordering::Relaxed)
    }

    /// Takes a page out if it is still the one at `index`.
    fn take_out(&self, index: u64, page: &Frame) {
        let mut pages = self.pages.lock();
        if pages.get(index) == Some(page.number()) {
            drop(pages.remove(index));
        }
    }

    /// The page at `index`, up to date: waits for it. `EIO` if it cannot be read or the file is not that long.
    #[cfg(test)]
    pub fn read_page(self: &Arc<Self>, index: u64, sleep: Sleep) -> Result<Frame> {
        match self.wait_for(index, Want::Map, sleep)? {
            Contents::Page(page) => Ok(page),
            Contents::Zeros | Contents::End => Err(Errno::EIO),
        }
    }

    /// What a reader finds in the page at `index`: waits for it. `EIO`, `ENOMEM`.
    pub fn contents(self: &Arc<Self>, index: u64, sleep: Sleep) -> Result<Contents> {
        self.wait_for(index, Want::Read, sleep)
    }

    fn wait_for(self: &Arc<Self>, index: u64, want: Want, sleep: Sleep) -> Result<Contents> {
        loop {
            match reclaim::retry(|| self.lookup_for(index, want))? {
                Lookup::Ready(page) => return Ok(Contents::Page(page)),
                Lookup::Failed => return Err(Errno::EIO),
                Lookup::Busy(wait) => wait.wait(sleep)?,
                Lookup::Hole => return Ok(Contents::Zeros),
                Lookup::PastEnd => return Ok(Contents::End),
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
            let part = &mut buf[done..len];
            let part_len = part.len().min(PAGE_SIZE - in_page);
            let part = &mut part[..part_len];
            match self.contents(at >> PAGE_SHIFT, Sleep::Killable)? {
                Contents::Page(page) => copy_from_page(&page, in_page, part),
                Contents::Zeros => part.fill(0),
                Contents::End => break,
            }
            done += part_len;
        }
        Ok(done)
    }

    /// Whether the page at `index` is in the cache and up to date.
    pub fn is_cached(&self, index: u64) -> bool {
        self.pages.lock().get(index).is_some_and(|page| {
            page_state::is_data(frame::meta(page).state.load(Ordering::Acquire))
        })
    }

    /// Shows up to `count` pages from `first` on, in runs: `f` gets how far behind `first` a run begins, how many pages it has at most, and
    /// the run. The tree is locked meanwhile, so that none leaves the file; a page table may be locked inside.
    pub fn for_each_run(
        &self,
        first: u64,
        count: usize,
        mut f: impl FnMut(usize, usize, ReadyRun<'_>),
    ) {
        let pages = self.pages.lock();
        let end = self.pages().min(first.saturating_add(count as u64));
        let frames = Frames::all();
        let mut index = first;
        while index < end {
            let (len, run) = pages.run(index, (end - index) as usize);
            if !run.is_empty() {
                f((index - first) as usize, len, ReadyRun { run, frames });
            }
            index += len as u64;
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
            match self.lookup_for(index, Want::Ahead) {
                Ok(Lookup::Busy(Wait::Place(_))) | Err(_) => return,
                Ok(_) => {}
            }
        }
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
        let pages = self.pages.lock();
        // The file may have become shorter during the read.
        let backed = self.backed.load(Ordering::Relaxed);
        let valid = backed
            .saturating_sub(index << PAGE_SHIFT)
            .min(PAGE_SIZE as u64);
        contents[valid as usize..].fill(0);
        drop(pages);
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
    let meta = &frame::meta(page).state;
    // The page may be truncated at any time.
    let _ = meta.fetch_update(Ordering::Release, Ordering::Relaxed, |before| {
        Some(before & page_state::GONE | state)
    });
    queue_of(page).wake_all();
}

/// Marks a page as gone. Under the tree's lock, before translations are removed.
fn mark_gone(page: FrameNumber) {
    frame::meta(page)
        .state
        .fetch_or(page_state::GONE, Ordering::Release);
}
