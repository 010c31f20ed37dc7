//! Physical frames: who owns them, and the allocator.
//!
//! Every frame of usable memory has a [`FrameMeta`] in one array, indexed by frame number. A frame is in use while its
//! reference count is not zero; [`Frame`] is one such reference, and the last to go frees the frame. Allocation and freeing
//! are O(1): a stack of freed frames, threaded through the metadata, in front of memory that was never used, so that nothing
//! has to be prepared at boot. User pages leave [`RESERVE`] frames free for the kernel itself, and what the kernel can do without
//! leaves [`LAST_RESERVE`] for what it cannot.
//!
//! Lock rank: FRAMES. Not from interrupt handlers.

use core::ops::Range;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicUsize, Ordering, fence};

use crate::arch;
use crate::errno::OutOfMemory;
use crate::sync::{SpinLock, rank};

/// A frame's number: physical address / 4096.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameNumber(pub u32);

impl FrameNumber {
    /// The frame's physical address.
    pub const fn phys(self) -> u64 {
        (self.0 as u64) << 12
    }
}

/// Frames that only the kernel may take, so that its heap outlives the exhaustion of user memory.
pub const RESERVE: usize = 1024;

/// At least the frames that one fault takes: a page of a file and six nodes of its index, a private copy, and three page tables.
const ONE_FAULT: usize = 16;

/// Frames for allocations that cannot fail, see [`NoFail`].
pub const LAST_RESERVE: usize = 256;

const NONE: u32 = u32::MAX;
const MAX_REGIONS: usize = 32;

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

/// What a frame holds, for the figures in /proc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// The kernel's own: heap, pipes, indexes of files.
    Kernel = 0,
    /// Private memory of processes.
    Anonymous = 1,
    /// A page of a file on a disk.
    File = 2,
    /// A page of shared memory or of a file in memory.
    SharedMemory = 3,
    PageTable = 4,
    KernelStack = 5,
}

/// How many kinds there are.
const KINDS: usize = 6;

impl FrameKind {
    const ALL: [FrameKind; KINDS] = [
        FrameKind::Kernel,
        FrameKind::Anonymous,
        FrameKind::File,
        FrameKind::SharedMemory,
        FrameKind::PageTable,
        FrameKind::KernelStack,
    ];
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
}

impl FrameMeta {
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

/// Free frames whose contents are known and wanted again: they are kept apart, and given to others when there are no more besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shelf {
    /// All bytes are zero.
    Zeros = 0,
    /// As the architecture wants a new root of page tables.
    Root = 1,
}

const SHELVES: usize = 2;

struct Allocator {
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

static META: AtomicPtr<FrameMeta> = AtomicPtr::new(core::ptr::null_mut());
static META_LEN: AtomicUsize = AtomicUsize::new(0);
static TOTAL: AtomicUsize = AtomicUsize::new(0);
static ZERO_PAGE: AtomicU32 = AtomicU32::new(NONE);
static ALLOCATOR: SpinLock<Allocator> = SpinLock::new(
    rank::FRAMES,
    Allocator {
        free_head: NONE,
        shelves: [NONE; SHELVES],
        free: 0,
        used: [0; KINDS],
        taken: 0,
        given_back: 0,
        regions: [const { 0..0 }; MAX_REGIONS],
        current: 0,
    },
);

/// Hands usable memory to the allocator: `regions` of frame numbers (surplus ones beyond 32 are left unused), and the
/// metadata array that covers all of them. The direct map is in place.
///
/// # Safety
/// The frames are unused and readable and writable through the direct map from now on; nobody holds a [`Frame`] of an earlier
/// initialisation (simulated machines initialise again).
pub unsafe fn init(regions: impl Iterator<Item = Range<u32>>, meta: &'static mut [FrameMeta]) {
    let mut allocator = ALLOCATOR.lock();
    *allocator = Allocator {
        free_head: NONE,
        shelves: [NONE; SHELVES],
        free: 0,
        used: [0; KINDS],
        taken: 0,
        given_back: 0,
        regions: [const { 0..0 }; MAX_REGIONS],
        current: 0,
    };
    for (slot, region) in regions
        .filter(|r| !r.is_empty())
        .take(MAX_REGIONS)
        .enumerate()
    {
        assert!(
            region.end as usize <= meta.len(),
            "frame metadata too short"
        );
        allocator.free += region.len();
        allocator.regions[slot] = region;
    }
    TOTAL.store(allocator.free, Ordering::Relaxed);
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

/// For whom memory is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// User pages, page cache, and what each process needs to exist: fails while only [`RESERVE`] frames are left.
    User,
    /// The kernel's own needs, which may fail: leaves [`LAST_RESERVE`].
    Kernel,
    /// What must not fail.
    Critical,
}

impl Purpose {
    /// Frames that have to stay free.
    fn leaves(self) -> usize {
        match self {
            Purpose::User => RESERVE,
            Purpose::Kernel if NO_FAIL.load(Ordering::Relaxed) == 0 => LAST_RESERVE,
            Purpose::Kernel | Purpose::Critical => 0,
        }
    }
}

/// Sections now being run that must not fail.
static NO_FAIL: AtomicUsize = AtomicUsize::new(0);

/// While it lives, the kernel may use the last reserve too: for code of others that takes memory from the heap without a way to fail.
/// Such code runs one thread at a time, behind a sleeping lock, and gives back what it took, so the reserve is enough.
pub struct NoFail(());

impl NoFail {
    pub fn new() -> NoFail {
        NO_FAIL.fetch_add(1, Ordering::Relaxed);
        NoFail(())
    }
}

impl Default for NoFail {
    fn default() -> Self {
        NoFail::new()
    }
}

impl Drop for NoFail {
    fn drop(&mut self) {
        NO_FAIL.fetch_sub(1, Ordering::Relaxed);
    }
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

/// How many frames there were of each kind, in a sum over many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindCounts([u64; KIND_SLOTS]);

/// A power of two, so that a masked kind needs no check.
const KIND_SLOTS: usize = KINDS.next_power_of_two();

impl KindCounts {
    #[inline]
    fn add(&mut self, kind: u8) {
        self.0[usize::from(kind) % KIND_SLOTS] += 1;
    }

    /// `count` more frames of one kind.
    pub fn add_many(&mut self, kind: FrameKind, count: u64) {
        self.0[kind as usize] += count;
    }

    pub fn of(&self, kind: FrameKind) -> u64 {
        self.0[kind as usize]
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// All frames, for those who take or give up references of many.
#[derive(Clone, Copy)]
pub struct Frames(&'static [FrameMeta]);

impl Frames {
    #[inline]
    pub fn all() -> Frames {
        let len = META_LEN.load(Ordering::Relaxed);
        // SAFETY: `init` stored a static array of at least META_LEN elements.
        Frames(unsafe { core::slice::from_raw_parts(META.load(Ordering::Relaxed), len) })
    }

    /// Another reference, kept as the bare number, as by [`Frame::share`] and [`Frame::into_raw`]; counts the frame.
    ///
    /// # Safety
    /// As for [`Frame::share`].
    #[inline]
    pub unsafe fn share(self, number: FrameNumber, counts: &mut KindCounts) {
        let meta = &self.0[number.0 as usize];
        let before = meta.refcount.fetch_add(1, Ordering::Relaxed);
        debug_assert!(before > 0, "{number:?} shared while free");
        counts.add(meta.kind.load(Ordering::Relaxed));
    }

    /// Another reference of a frame, if its page-cache state is `wanted`.
    ///
    /// # Safety
    /// As for [`Frame::share`].
    #[inline]
    pub(super) unsafe fn share_if(
        self,
        number: FrameNumber,
        wanted: impl FnOnce(u32) -> bool,
    ) -> Option<Frame> {
        let meta = &self.0[number.0 as usize];
        if !wanted(meta.state.load(Ordering::Acquire)) {
            return None;
        }
        let before = meta.refcount.fetch_add(1, Ordering::Relaxed);
        debug_assert!(before > 0, "{number:?} shared while free");
        Some(Frame(number))
    }

    /// Gives up a reference that was kept as the bare number; counts the frame.
    ///
    /// # Safety
    /// As for [`Frame::from_raw`].
    #[inline]
    pub unsafe fn give_up(self, number: FrameNumber, counts: &mut KindCounts) {
        let meta = &self.0[number.0 as usize];
        counts.add(meta.kind.load(Ordering::Relaxed));
        meta.put(number);
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

impl Allocator {
    fn take(&mut self, reserve: usize, kind: FrameKind) -> Result<FrameNumber, OutOfMemory> {
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
    fn take_known(
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

    fn give_back(&mut self, number: FrameNumber, meta: &FrameMeta) {
        meta.next_free.store(self.free_head, Ordering::Relaxed);
        self.free_head = number.0;
        self.count_given_back(meta);
    }

    fn give_to_shelf(&mut self, number: FrameNumber, meta: &FrameMeta, shelf: Shelf) {
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

/// The page of zeros that all untouched memory shares. Never freed.
#[inline]
pub fn zero_page() -> FrameNumber {
    FrameNumber(ZERO_PAGE.load(Ordering::Relaxed))
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

/// References to all frames of one kind. Looks at every frame there is: for the machine's end.
pub fn references(kind: FrameKind) -> usize {
    let frames = META_LEN.load(Ordering::Relaxed) as u32;
    (0..frames)
        .map(|number| meta(FrameNumber(number)))
        .filter(|meta| meta.kind.load(Ordering::Relaxed) == kind as u8)
        .map(|meta| meta.refcount.load(Ordering::Relaxed) as usize)
        .sum()
}

/// How many frames were ever taken, and how many given back.
pub fn turnover() -> (u64, u64) {
    let allocator = ALLOCATOR.lock();
    (allocator.taken, allocator.given_back)
}

/// Whether there is user memory for whatever one fault may need: so that who has failed and finds it true does not fail again for the
/// same reason.
pub fn user_memory_left() -> bool {
    free_frames() >= RESERVE + ONE_FAULT
}

/// Frames that the allocator was given.
pub fn total_frames() -> usize {
    TOTAL.load(Ordering::Relaxed)
}
