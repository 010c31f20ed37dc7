//! Which frames are free.
//!
//! A stack of freed frames, threaded through the metadata, in front of memory that was never used, so that nothing has to be
//! prepared at boot; beside it a [`Shelf`] for each kind of known contents.
//!
//! Lock rank: FRAMES.

use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::kind::KINDS;
use super::{FrameKind, FrameMeta, FrameNumber, NONE, meta};
use crate::errno::OutOfMemory;
use crate::sync::{SpinLock, rank};

const MAX_REGIONS: usize = 32;

/// Free frames whose contents are known and wanted again: they are kept apart, and given to others when there are no more besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shelf {
    /// All bytes are zero.
    Zeros = 0,
    /// As the architecture wants a new root of page tables.
    Root = 1,
}

const SHELVES: usize = 2;

pub(super) struct Allocator {
    free_head: u32,
    /// The same for each [`Shelf`].
    shelves: [u32; SHELVES],
    /// All of them.
    free: usize,
    /// Frames in use, by kind.
    used: [usize; KINDS],
    /// Frames ever taken, and ever given back.
    taken: u64,
    given_back: u64,
    /// Never-used memory, taken from the front; `regions[current..]` still have some.
    regions: [Range<u32>; MAX_REGIONS],
    current: usize,
}

static TOTAL: AtomicUsize = AtomicUsize::new(0);
pub(super) static ALLOCATOR: SpinLock<Allocator> = SpinLock::new(rank::FRAMES, Allocator::EMPTY);

impl Allocator {
    const EMPTY: Allocator = Allocator {
        free_head: NONE,
        shelves: [NONE; SHELVES],
        free: 0,
        used: [0; KINDS],
        taken: 0,
        given_back: 0,
        regions: [const { 0..0 }; MAX_REGIONS],
        current: 0,
    };

    /// Begins with never-used memory; there is metadata of `frames` frames.
    pub(super) fn start(&mut self, regions: impl Iterator<Item = Range<u32>>, frames: usize) {
        *self = Allocator::EMPTY;
        let regions = regions.filter(|region| !region.is_empty());
        for (slot, region) in regions.take(MAX_REGIONS).enumerate() {
            assert!(region.end as usize <= frames, "frame metadata too short");
            self.free += region.len();
            self.regions[slot] = region;
        }
        TOTAL.store(self.free, Ordering::Relaxed);
    }

    pub(super) fn take(
        &mut self,
        reserve: usize,
        kind: FrameKind,
    ) -> Result<FrameNumber, OutOfMemory> {
        if self.free <= reserve {
            return Err(OutOfMemory);
        }
        let number = match pop(&mut self.free_head) {
            Some(number) => number,
            None => self.take_fresh(1).or_else(|_| self.take_any_known())?,
        };
        self.count_taken(kind);
        Ok(number)
    }

    /// The same from a shelf, or else from what is not on one; and whether it is from there.
    pub(super) fn take_known(
        &mut self,
        reserve: usize,
        kind: FrameKind,
        shelf: Shelf,
    ) -> Result<(FrameNumber, bool), OutOfMemory> {
        if self.free > reserve
            && let Some(number) = pop(&mut self.shelves[shelf as usize])
        {
            self.count_taken(kind);
            return Ok((number, true));
        }
        Ok((self.take(reserve, kind)?, false))
    }

    #[cold]
    fn take_any_known(&mut self) -> Result<FrameNumber, OutOfMemory> {
        self.shelves.iter_mut().find_map(pop).ok_or(OutOfMemory)
    }

    #[inline]
    fn count_taken(&mut self, kind: FrameKind) {
        self.free -= 1;
        self.taken += 1;
        self.used[kind as usize] += 1;
    }

    /// `count` adjacent frames of never-used memory; the caller counts them as taken.
    fn take_fresh(&mut self, count: u32) -> Result<FrameNumber, OutOfMemory> {
        while self.current < MAX_REGIONS && self.regions[self.current].is_empty() {
            self.current += 1;
        }
        let regions = &mut self.regions[self.current.min(MAX_REGIONS - 1)..];
        let region = regions
            .iter_mut()
            .find(|r| r.len() >= count as usize)
            .ok_or(OutOfMemory)?;
        let first = region.start;
        region.start += count;
        Ok(FrameNumber(first))
    }

    pub(super) fn give_back(&mut self, number: FrameNumber, meta: &FrameMeta) {
        meta.next_free.store(self.free_head, Ordering::Relaxed);
        self.free_head = number.0;
        self.count_given_back(meta);
    }

    pub(super) fn give_to_shelf(&mut self, number: FrameNumber, meta: &FrameMeta, shelf: Shelf) {
        let head = &mut self.shelves[shelf as usize];
        meta.next_free.store(*head, Ordering::Relaxed);
        *head = number.0;
        self.count_given_back(meta);
    }

    #[inline]
    fn count_given_back(&mut self, meta: &FrameMeta) {
        self.free += 1;
        self.given_back += 1;
        self.used[meta.kind.load(Ordering::Relaxed) as usize] -= 1;
    }
}

/// Takes the first frame off a list of free ones.
#[inline]
fn pop(head: &mut u32) -> Option<FrameNumber> {
    let number = FrameNumber(*head);
    if *head == NONE {
        return None;
    }
    *head = meta(number).next_free.load(Ordering::Relaxed);
    Some(number)
}

/// `count` physically adjacent frames with undefined contents, never freed: for devices at boot. They come from memory that
/// was never used, so later calls may fail although memory is free.
pub fn alloc_contiguous(count: u32) -> Result<FrameNumber, OutOfMemory> {
    let mut allocator = ALLOCATOR.lock();
    let first = allocator.take_fresh(count)?;
    allocator.free -= count as usize;
    allocator.used[FrameKind::Kernel as usize] += count as usize;
    for number in first.0..first.0 + count {
        meta(FrameNumber(number))
            .refcount
            .store(1, Ordering::Relaxed);
    }
    Ok(first)
}

/// Frames that are free now, the reserve included.
pub fn free_frames() -> usize {
    ALLOCATOR.lock().free
}

/// Frames in use of one kind.
pub fn used_frames(kind: FrameKind) -> usize {
    ALLOCATOR.lock().used[kind as usize]
}

/// How many frames were ever taken, and how many given back.
pub fn turnover() -> (u64, u64) {
    let allocator = ALLOCATOR.lock();
    (allocator.taken, allocator.given_back)
}

/// Frames that the allocator was given.
pub fn total_frames() -> usize {
    TOTAL.load(Ordering::Relaxed)
}
