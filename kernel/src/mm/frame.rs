//! Physical frames: who owns them, and the allocator.
//!
//! Every frame of usable memory has a [`FrameMeta`] in one array, indexed by frame number. A frame is in use while its
//! reference count is not zero; [`Frame`] is one such reference, and the last to go frees the frame. Allocation and freeing
//! are O(1), see [`allocator`]. User pages leave [`RESERVE`] frames free for the kernel itself, and what the kernel can do without
//! leaves some for what it cannot.
//!
//! Lock rank: FRAMES. Not from interrupt handlers.

mod allocator;
mod kind;
mod many;
mod reserve;

use core::ops::Range;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicUsize, Ordering, fence};

use self::allocator::ALLOCATOR;
use crate::arch;
use crate::errno::OutOfMemory;

pub use self::allocator::{
    Shelf, alloc_contiguous, free_frames, total_frames, turnover, used_frames,
};
pub use self::kind::{FrameKind, KindCounts};
pub use self::many::Frames;
pub use self::reserve::{NoFail, Purpose, RESERVE, user_memory_left};

/// A frame's number: physical address / 4096.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameNumber(pub u32);

impl FrameNumber {
    /// The frame's physical address.
    pub const fn phys(self) -> u64 {
        (self.0 as u64) << 12
    }
}

const NONE: u32 = u32::MAX;

/// What is known of one frame.
pub struct FrameMeta {
    refcount: AtomicU32,
    /// Page-cache state, see [`crate::mm::page_cache`]; of a page table its census, see [`Frame::set_census`].
    pub(super) state: AtomicU32,
    /// The next free frame while this one is free.
    next_free: AtomicU32,
    /// A [`FrameKind`], fixed from allocation to freeing.
    kind: AtomicU8,
}

impl FrameMeta {
    /// A frame that is free and was never used; all bytes zero.
    pub const fn new() -> FrameMeta {
        FrameMeta {
            refcount: AtomicU32::new(0),
            state: AtomicU32::new(0),
            next_free: AtomicU32::new(0),
            kind: AtomicU8::new(0),
        }
    }

    #[inline(always)]
    fn kind(&self) -> FrameKind {
        const ANONYMOUS: u8 = FrameKind::Anonymous as u8;
        match self.kind.load(Ordering::Relaxed) {
            // Nearly all that is asked about.
            ANONYMOUS => FrameKind::Anonymous,
            other => FrameKind::ALL[other as usize],
        }
    }

    /// Takes away a reference that the caller owned; the last one frees the frame, which is `number`.
    #[inline]
    fn put(&self, number: FrameNumber) {
        if self.refcount.fetch_sub(1, Ordering::Release) == 1 {
            self.free(number);
        }
    }

    /// The last reference is gone.
    #[inline(never)]
    fn free(&self, number: FrameNumber) {
        fence(Ordering::Acquire);
        ALLOCATOR.lock().give_back(number, self);
    }
}

impl Default for FrameMeta {
    fn default() -> Self {
        FrameMeta::new()
    }
}

static META: AtomicPtr<FrameMeta> = AtomicPtr::new(core::ptr::null_mut());
static META_LEN: AtomicUsize = AtomicUsize::new(0);
static ZERO_PAGE: AtomicU32 = AtomicU32::new(NONE);

/// Hands usable memory to the allocator: `regions` of frame numbers (surplus ones beyond 32 are left unused), and the
/// metadata array that covers all of them. The direct map is in place.
///
/// # Safety
/// The frames are unused and readable and writable through the direct map from now on; nobody holds a [`Frame`] of an earlier
/// initialisation (simulated machines initialise again).
pub unsafe fn init(regions: impl Iterator<Item = Range<u32>>, meta: &'static mut [FrameMeta]) {
    let mut allocator = ALLOCATOR.lock();
    allocator.start(regions, meta.len());
    META_LEN.store(meta.len(), Ordering::Relaxed);
    META.store(meta.as_mut_ptr(), Ordering::Release);
    drop(allocator);
    let zero = Frame::alloc_zeroed(Purpose::Kernel).expect("memory at boot");
    ZERO_PAGE.store(zero.into_raw().0, Ordering::Relaxed);
}

/// Metadata of a frame that the allocator manages. Panics on any other number: that is a kernel bug.
#[inline(always)]
pub(super) fn meta(frame: FrameNumber) -> &'static FrameMeta {
    assert!(
        (frame.0 as usize) < META_LEN.load(Ordering::Relaxed),
        "{frame:?} is not memory"
    );
    // SAFETY: `init` stored a static array of at least META_LEN elements, and the index was just checked.
    unsafe { &*META.load(Ordering::Relaxed).add(frame.0 as usize) }
}

/// One reference of a frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame(FrameNumber);

impl Frame {
    /// A frame of the kernel's own with undefined contents.
    pub fn alloc(purpose: Purpose) -> Result<Frame, OutOfMemory> {
        Frame::alloc_as(FrameKind::Kernel, purpose)
    }

    /// A frame with undefined contents.
    #[inline(always)]
    pub fn alloc_as(kind: FrameKind, purpose: Purpose) -> Result<Frame, OutOfMemory> {
        let number = ALLOCATOR.lock().take(purpose.leaves(), kind)?;
        Ok(Frame::new_reference(number, kind))
    }

    /// A frame from a shelf, whose contents are known, or else one with undefined contents; and whether it is the first.
    pub fn alloc_known(
        shelf: Shelf,
        kind: FrameKind,
        purpose: Purpose,
    ) -> Result<(Frame, bool), OutOfMemory> {
        let (number, is_known) = ALLOCATOR.lock().take_known(purpose.leaves(), kind, shelf)?;
        Ok((Frame::new_reference(number, kind), is_known))
    }

    /// Frees a frame, of which this must be the only reference, and whose contents are those of the shelf.
    pub fn shelve(self, shelf: Shelf) {
        let number = self.into_raw();
        let meta = meta(number);
        let before = meta.refcount.swap(0, Ordering::AcqRel);
        debug_assert_eq!(before, 1, "{number:?} is shared");
        ALLOCATOR.lock().give_to_shelf(number, meta, shelf);
    }

    /// The first reference of a frame that was just taken.
    #[inline(always)]
    fn new_reference(number: FrameNumber, kind: FrameKind) -> Frame {
        let meta = meta(number);
        debug_assert_eq!(
            meta.refcount.load(Ordering::Relaxed),
            0,
            "{number:?} was not free"
        );
        meta.refcount.store(1, Ordering::Relaxed);
        meta.state.store(0, Ordering::Relaxed);
        meta.kind.store(kind as u8, Ordering::Relaxed);
        Frame(number)
    }

    /// A frame of the kernel's own filled with zeros.
    pub fn alloc_zeroed(purpose: Purpose) -> Result<Frame, OutOfMemory> {
        Frame::alloc_zeroed_as(FrameKind::Kernel, purpose)
    }

    /// A frame filled with zeros.
    pub fn alloc_zeroed_as(kind: FrameKind, purpose: Purpose) -> Result<Frame, OutOfMemory> {
        let frame = Frame::alloc_as(kind, purpose)?;
        arch::zero_frame(frame.0);
        Ok(frame)
    }

    #[inline]
    pub fn number(&self) -> FrameNumber {
        self.0
    }

    /// Whether this is the only reference. Stays true until the holder shares it, as nobody else can.
    #[inline(always)]
    pub fn is_unique(frame: FrameNumber) -> bool {
        meta(frame).refcount.load(Ordering::Acquire) == 1
    }

    /// Whether there are exactly `count` references.
    pub fn has_references(frame: FrameNumber, count: u32) -> bool {
        meta(frame).refcount.load(Ordering::Acquire) == count
    }

    /// What a frame in use holds.
    #[inline(always)]
    pub fn kind(frame: FrameNumber) -> FrameKind {
        meta(frame).kind()
    }

    /// Gives the reference up as dropping it does; what the frame holds, or held.
    #[inline]
    pub fn release(self) -> FrameKind {
        let number = self.into_raw();
        let meta = meta(number);
        let kind = meta.kind();
        meta.put(number);
        kind
    }

    /// Gives the reference up, unless it is the last one.
    pub fn into_last(self) -> Option<Frame> {
        let number = self.into_raw();
        let meta = meta(number);
        if meta.refcount.fetch_sub(1, Ordering::AcqRel) > 1 {
            return None;
        }
        // Nobody else has one to share, so nobody has seen that there was none.
        meta.refcount.store(1, Ordering::Relaxed);
        Some(Frame(number))
    }

    /// Notes of a page table that does not change how many references of frames its entries own.
    pub fn set_census(table: FrameNumber, owned: u32) {
        meta(table).state.store(owned + 1, Ordering::Relaxed);
    }

    /// What was noted, since the last [`Frame::forget_census`].
    pub fn census(table: FrameNumber) -> Option<u32> {
        meta(table).state.load(Ordering::Relaxed).checked_sub(1)
    }

    /// The page table is going to change.
    pub fn forget_census(table: FrameNumber) {
        meta(table).state.store(0, Ordering::Relaxed);
    }

    /// References of a frame in use.
    pub fn references(frame: FrameNumber) -> u32 {
        meta(frame).refcount.load(Ordering::Relaxed)
    }

    /// Gives the reference up to be kept as a bare number, in a page-table entry for example.
    #[inline]
    pub fn into_raw(self) -> FrameNumber {
        let number = self.0;
        core::mem::forget(self);
        number
    }

    /// Takes a reference back.
    ///
    /// # Safety
    /// `number` came from [`Frame::into_raw`] and is taken back once.
    #[inline]
    pub unsafe fn from_raw(number: FrameNumber) -> Frame {
        Frame(number)
    }

    /// Another reference to a frame of which somebody else holds one for the duration of the call.
    ///
    /// # Safety
    /// A reference is held, for example by a page-table entry under its lock.
    #[inline]
    pub unsafe fn share(number: FrameNumber) -> Frame {
        let before = meta(number).refcount.fetch_add(1, Ordering::Relaxed);
        debug_assert!(before > 0, "{number:?} shared while free");
        Frame(number)
    }
}

impl Clone for Frame {
    #[inline]
    fn clone(&self) -> Frame {
        // SAFETY: `self` is a reference.
        unsafe { Frame::share(self.0) }
    }
}

impl Drop for Frame {
    #[inline]
    fn drop(&mut self) {
        meta(self.0).put(self.0);
    }
}

/// The page of zeros that all untouched memory shares. Never freed.
#[inline]
pub fn zero_page() -> FrameNumber {
    FrameNumber(ZERO_PAGE.load(Ordering::Relaxed))
}

/// References to all frames of one kind. Looks at every frame there is: for the machine's end.
pub fn references(kind: FrameKind) -> usize {
    let frames = META_LEN.load(Ordering::Relaxed) as u32;
    (0..frames)
        .map(|number| meta(FrameNumber(number)))
        .filter(|meta| meta.kind.load(Ordering::Relaxed) == kind as u8)
        .map(|meta| meta.refcount.load(Ordering::Relaxed) as usize)
        .sum()
}
