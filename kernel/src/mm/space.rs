//! An address space: the areas, the page table, and the locks of both.
//!
//! Invariant: a present page-table entry never grants more than its area does, and lies in an area.
//!
//! Locks, outermost first: `mmap_lock` (sleeps; read side: look at areas and fault; write side: change them), the page
//! table's spin lock.

mod fork;
mod totals;

use alloc::sync::Arc;
use core::ops::{Deref, DerefMut};
use intrusive_collections::Bound;

use intrusive_collections::{RBTree, SinglyLinkedList};

use super::addr::{PAGE_SHIFT, PAGE_SIZE, VirtAddr};
use super::gaps::Gaps;
use super::reclaim;
use super::translations::Translations;
use super::vma::{AreaEvent, RemovedAdapter, VmFlags, Vma, VmaAdapter};
use crate::arch::{PageTable, USER_END};
use crate::errno::{Errno, Result};
use crate::sched::{Interrupted, RwSleepLock, RwSleepReadGuard, RwSleepWriteGuard, Sleep};

pub use self::totals::Totals;

pub type MmapReadGuard<'a> = RwSleepReadGuard<'a, Areas>;

/// The write side of `mmap_lock`.
#[must_use]
pub struct MmapWriteGuard<'a>(RwSleepWriteGuard<'a, Areas>);

impl Deref for MmapWriteGuard<'_> {
    type Target = Areas;
    fn deref(&self) -> &Areas {
        &self.0
    }
}

impl DerefMut for MmapWriteGuard<'_> {
    fn deref_mut(&mut self) -> &mut Areas {
        &mut self.0
    }
}

impl Drop for MmapWriteGuard<'_> {
    fn drop(&mut self) {
        self.0.forget_removed();
    }
}

/// The lowest address that can be mapped or grown to (`vm.mmap_min_addr`).
pub const MMAP_MIN_ADDR: usize = 65536;

/// Most areas a process may have (`vm.max_map_count`).
pub const MAX_MAP_COUNT: usize = 65530;

/// Distance kept free below a stack, in bytes (`stack_guard_gap`).
pub const STACK_GUARD_GAP: usize = 256 * PAGE_SIZE;

/// Where mappings without a wish are placed, downwards from here: below the largest stack there normally is.
const MMAP_BASE: usize = USER_END - (128 << 20) - STACK_GUARD_GAP;

/// Most areas that one call adds, those among them that go again.
const NEW_AREAS: usize = 16;

/// Bytes below an area that those who look for room leave free: a stack's guard gap.
fn guard_below(vma: &Vma) -> usize {
    if vma.flags.contains(VmFlags::GROWSDOWN) {
        STACK_GUARD_GAP
    } else {
        0
    }
}

/// A process's areas, under `mmap_lock`.
///
/// An area that is taken out stays in its file's reverse map until the write side of the lock is given up or its pages were taken
/// away ([`Areas::forget_removed`]), and what takes its place is there at once. So nobody who walks over a reverse map meanwhile misses
/// pages: areas are split and joined as if in one step.
pub struct Areas {
    vmas: RBTree<VmaAdapter>,
    /// Areas that were taken out and are still in reverse maps.
    removed: SinglyLinkedList<RemovedAdapter>,
    translations: Arc<Translations>,
    /// Where there is room between them.
    gaps: Gaps,
    count: usize,
    /// Pages in all areas, and most there ever were.
    pages: u64,
    peak: u64,
    /// Pages in locked areas.
    locked: u64,
    /// Pages that count against RLIMIT_DATA.
    data: u64,
    /// Whether there has been an area that its file counts.
    counted: bool,
    /// What new areas get: LOCKED and LOCKONFAULT after mlockall(2).
    pub default_flags: VmFlags,
    /// The heap of brk(2): `brk_start..brk`, bytes.
    pub brk_start: usize,
    pub brk: usize,
}

/// An address space.
pub struct Mm {
    mmap_lock: RwSleepLock<Areas>,
    translations: Arc<Translations>,
}

impl Deref for Mm {
    type Target = Translations;
    #[inline]
    fn deref(&self) -> &Translations {
        &self.translations
    }
}

impl Mm {
    pub fn new() -> Result<Arc<Mm>> {
        let table = reclaim::retry(PageTable::new)?;
        Ok(Arc::try_new(Mm::with(table)?)?)
    }

    fn with(page_table: PageTable) -> Result<Mm> {
        let translations = Arc::try_new(Translations::new(page_table))?;
        Ok(Mm {
            mmap_lock: RwSleepLock::new(Areas::new(translations.clone())),
            translations,
        })
    }

    /// The read side of `mmap_lock`.
    #[inline]
    pub fn read(&self, sleep: Sleep) -> core::result::Result<MmapReadGuard<'_>, Interrupted> {
        self.mmap_lock.read(sleep)
    }

    /// The write side of `mmap_lock`, for system calls: `EINTR` if the process is being killed, which it will not see.
    /// `ENOMEM` if there is no memory for changes.
    pub fn write(&self) -> Result<MmapWriteGuard<'_>> {
        let mut areas = self
            .mmap_lock
            .write(Sleep::Killable)
            .map_err(|Interrupted| Errno::EINTR)?;
        areas.gaps.reserve(NEW_AREAS)?;
        Ok(MmapWriteGuard(areas))
    }

    pub(super) fn translations(&self) -> &Arc<Translations> {
        &self.translations
    }

    /// The CPU uses this address space from now on.
    pub fn activate(&self) {
        self.page_table.lock().activate();
    }

    /// Frames that hold the page tables.
    pub fn table_pages(&self) -> u64 {
        self.page_table.lock().table_frames()
    }

    /// Calls `f` for each area that ends above `address`, by rising address, until it says false. `f` must not touch user memory.
    pub fn for_each_vma_from(&self, address: usize, f: &mut dyn FnMut(&Vma) -> bool) {
        let (Some(start), Some(end)) = (VirtAddr::new(address), VirtAddr::new(USER_END)) else {
            return;
        };
        if let Ok(areas) = self.read(Sleep::Uninterruptible) {
            let _ = areas.overlapping(start, end).all(f);
        }
    }

    /// `brk_start..brk`, for naming the heap in /proc.
    pub fn heap_range(&self) -> (usize, usize) {
        self.read(Sleep::Uninterruptible)
            .map_or((0, 0), |areas| (areas.brk_start, areas.brk))
    }

    /// The write side whatever signals come, for what has to be done: changes may fail for want of memory.
    pub(super) fn write_uninterruptible(&self) -> MmapWriteGuard<'_> {
        loop {
            if let Ok(mut areas) = self.mmap_lock.write(Sleep::Uninterruptible) {
                let _ = areas.gaps.reserve(NEW_AREAS);
                return MmapWriteGuard(areas);
            }
        }
    }
}

impl Drop for Mm {
    fn drop(&mut self) {
        // All pages lie in areas; so the empty parts of the tables need not be searched.
        let areas = self.mmap_lock.get_mut().vmas.iter();
        self.translations
            .zap_each(areas.map(|vma| (vma.start, vma.end)));
        debug_assert_eq!(
            self.resident_pages(),
            0,
            "resident pages of a dead address space"
        );
    }
}

impl Drop for Areas {
    fn drop(&mut self) {
        // Those in the tree leave their reverse maps with it.
        self.forget_removed();
        if self.counted {
            for vma in self.vmas.iter() {
                vma.tell_file(AreaEvent::Closed);
                vma.tell_file(AreaEvent::Less);
            }
        }
    }
}

impl Areas {
    fn new(translations: Arc<Translations>) -> Areas {
        Areas {
            vmas: RBTree::new(VmaAdapter::NEW),
            removed: SinglyLinkedList::new(RemovedAdapter::NEW),
            translations,
            gaps: Gaps::new(crate::arch::machine::random_u64()),
            count: 0,
            pages: 0,
            peak: 0,
            locked: 0,
            data: 0,
            counted: false,
            default_flags: VmFlags::empty(),
            brk_start: 0,
            brk: 0,
        }
    }

    /// The area that holds `address`.
    #[inline]
    pub fn find(&self, address: VirtAddr) -> Option<Arc<Vma>> {
        let cursor = self.vmas.upper_bound(Bound::Included(&address));
        if cursor.get()?.contains(address) {
            cursor.clone_pointer()
        } else {
            None
        }
    }

    /// The first area that ends above `address`: the one that holds it, or the next one.
    pub fn find_at_or_above(&self, address: VirtAddr) -> Option<Arc<Vma>> {
        self.find(address).or_else(|| {
            self.vmas
                .lower_bound(Bound::Excluded(&address))
                .clone_pointer()
        })
    }

    /// The last area that ends at or below `address`.
    pub fn find_below(&self, address: VirtAddr) -> Option<Arc<Vma>> {
        self.vmas
            .upper_bound(Bound::Excluded(&address))
            .clone_pointer()
    }

    /// The areas on both sides of `vma`, which is where nothing is, or a part of an area in the tree. They need not touch it.
    pub(super) fn neighbours(&self, vma: &Vma) -> (Option<&Vma>, Option<&Vma>) {
        let mut below = self.vmas.upper_bound(Bound::Included(&vma.start));
        let mut above = below.clone();
        above.move_next();
        if below.get().is_some_and(|here| here.start == vma.start) {
            below.move_prev();
        }
        (below.get(), above.get())
    }

    /// Whether nothing is mapped in `start..end`.
    pub fn is_free(&self, start: VirtAddr, end: VirtAddr) -> bool {
        self.find_at_or_above(start)
            .is_none_or(|vma| vma.start >= end)
    }

    /// The same for a new mapping, which keeps its distance from a stack above it.
    pub fn is_free_for_mapping(&self, start: VirtAddr, end: VirtAddr) -> bool {
        self.find_at_or_above(start)
            .is_none_or(|vma| end.get() <= vma.start.get().saturating_sub(guard_below(&vma)))
    }

    /// Pages of areas in `start..end`. Costs the areas there.
    pub fn pages_in(&self, start: VirtAddr, end: VirtAddr) -> u64 {
        self.overlapping(start, end)
            .map(|vma| {
                let bytes = vma.end.min(end).get() - vma.start.max(start).get();
                (bytes >> PAGE_SHIFT) as u64
            })
            .sum()
    }

    /// The areas that overlap `start..end`, by rising address. Costs the areas there.
    pub fn overlapping(&self, start: VirtAddr, end: VirtAddr) -> impl Iterator<Item = &Vma> {
        let mut cursor = self.vmas.upper_bound(Bound::Included(&start));
        if cursor.get().is_none_or(|vma| vma.end <= start) {
            cursor = self.vmas.lower_bound(Bound::Excluded(&start));
        }
        core::iter::from_fn(move || {
            let vma = cursor.get().filter(|vma| vma.start < end)?;
            cursor.move_next();
            Some(vma)
        })
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// Pages in all areas.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Pages in locked areas.
    pub fn locked(&self) -> u64 {
        self.locked
    }

    /// Pages that count against RLIMIT_DATA.
    pub fn data(&self) -> u64 {
        self.data
    }

    /// Makes sure that a call which adds many areas can put in [`NEW_AREAS`] more.
    pub fn reserve(&mut self) -> Result {
        Ok(self.gaps.reserve(NEW_AREAS)?)
    }

    /// Tells the files that count their areas of those in a copy of `parent`.
    fn count_inherited(&mut self, parent: &Areas) {
        if parent.counted {
            self.counted = true;
            for vma in self.vmas.iter() {
                vma.tell_file(AreaEvent::Opened);
                vma.tell_file(AreaEvent::More);
            }
        }
    }

    /// Puts an area where nothing is. Cannot fail: every holder of the write side has room for [`NEW_AREAS`] more.
    pub fn insert(&mut self, vma: Arc<Vma>) {
        self.cover(&vma);
        vma.tell_file(AreaEvent::Opened);
        self.insert_covered(vma);
    }

    /// There is no room any more where `vma` is.
    pub(super) fn cover(&mut self, vma: &Vma) {
        self.gaps
            .insert(vma.start.get(), vma.end.get(), guard_below(vma));
    }

    /// There is room where `vma` was not inherited.
    fn uncover(&mut self, vma: &Vma) -> Result {
        self.gaps.reserve(1)?;
        self.gaps.remove(vma.start.get(), vma.end.get());
        Ok(())
    }

    /// Puts an area where there is no room already: in the place of others, which cover the same together.
    pub(super) fn insert_covered(&mut self, vma: Arc<Vma>) {
        debug_assert!(self.is_free(vma.start, vma.end), "areas overlap");
        self.enter_counted(&vma);
        self.vmas.insert(vma);
    }

    /// The same above all others.
    fn append_covered(&mut self, vma: Arc<Vma>) {
        self.enter(&vma);
        let mut last = self.vmas.back_mut();
        debug_assert!(last.get().is_none_or(|last| last.end <= vma.start));
        last.insert_after(vma);
    }

    /// Puts an area in the place of the one with the same bounds; both are stacks, or neither.
    pub(super) fn replace_whole(&mut self, vma: Arc<Vma>) {
        let peak = self.peak;
        self.enter_counted(&vma);
        // Both are counted for a moment.
        self.peak = peak;
        let replaced = self.vmas.find_mut(&vma.start).replace_with(vma);
        debug_assert!(replaced.is_ok(), "there is one");
        if let Ok(old) = replaced {
            self.leave(old);
        }
    }

    /// As [`Areas::enter`], and tells a file that counts its areas.
    #[inline]
    fn enter_counted(&mut self, vma: &Vma) {
        self.enter(vma);
        if vma.flags.contains(VmFlags::COUNTED) {
            self.counted = true;
            vma.tell_file(AreaEvent::More);
        }
    }

    /// Counts a new area, and enters it into its reverse map.
    fn enter(&mut self, vma: &Vma) {
        let pages = (vma.len() >> PAGE_SHIFT) as u64;
        self.count += 1;
        self.pages += pages;
        self.peak = self.peak.max(self.pages);
        if vma.flags.contains(VmFlags::LOCKED) {
            self.locked += pages;
        }
        if Vma::is_data(vma.flags) {
            self.data += pages;
        }
        vma.enter_reverse_map(&self.translations);
    }

    /// Counts an area out that is not in the tree any more; it stays in its reverse map for a while.
    fn leave(&mut self, vma: Arc<Vma>) {
        let pages = (vma.len() >> PAGE_SHIFT) as u64;
        self.count -= 1;
        self.pages -= pages;
        if vma.flags.contains(VmFlags::LOCKED) {
            self.locked -= pages;
        }
        if Vma::is_data(vma.flags) {
            self.data -= pages;
        }
        if vma.source.is_some() {
            self.removed.push_front(vma);
        }
    }

    /// Takes out the area that starts at `start`.
    pub fn remove(&mut self, start: VirtAddr) -> Option<Arc<Vma>> {
        let vma = self.remove_covered(start)?;
        self.gaps.remove(start.get(), vma.end.get());
        Some(vma)
    }

    /// Takes out the area that starts at `start`; others are to come in its place.
    pub(super) fn remove_covered(&mut self, start: VirtAddr) -> Option<Arc<Vma>> {
        let vma = self.vmas.find_mut(&start).remove()?;
        self.leave(vma.clone());
        Some(vma)
    }

    /// Takes areas that were removed out of their reverse maps: their pages are gone, or belong to other areas.
    pub(super) fn forget_removed(&mut self) {
        while let Some(vma) = self.removed.pop_front() {
            vma.leave_reverse_map();
        }
    }

    /// A free range of `len` bytes, as high as possible below the usual base, or above it if there is no room; `ENOMEM`.
    pub fn find_gap(&self, len: usize) -> Result<VirtAddr> {
        self.find_gap_in(len, MMAP_MIN_ADDR, MMAP_BASE)
            .or_else(|_| self.find_gap_in(len, MMAP_BASE, USER_END))
    }

    /// The same in `bottom..top`.
    pub fn find_gap_in(&self, len: usize, bottom: usize, top: usize) -> Result<VirtAddr> {
        self.gaps
            .highest(len, bottom, top)
            .and_then(VirtAddr::new)
            .ok_or(Errno::ENOMEM)
    }
}
