//! `handle_mm_fault`: makes one page-table entry agree with its area, or says why it cannot.
//!
//! Invariant: the page-table lock is held while an entry is looked at and changed, and never while memory is cleared, copied or
//! waited for; after it was released the entry is looked at again. `mmap_lock` is released only to wait, and only where the flags
//! allow a retry.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::outcome::{FaultError, FaultOutcome};
use super::{FaultFlags, VmFault, around};
use crate::arch::{self, Entry, PageTable};
use crate::errno::OutOfMemory;
use crate::mm::addr::VirtAddr;
use crate::mm::frame::{Frame, FrameKind, FrameNumber, Purpose};
use crate::mm::page_cache::{self, Lookup, Noted, Wait};
use crate::mm::pte::{NotMapped, Pte, PteFlags};
use crate::mm::space::{Mm, MmapReadGuard};
use crate::mm::userfault::fault::{self as userfault, Reason};
use crate::mm::vma::{Source, VmFlags, Vma};
use crate::sched::{Sleep, current};
use crate::sync::SpinLockGuard;
use crate::trace;

/// An area, and the read side of `mmap_lock` that keeps it what it is.
pub struct LockedVma<'mm> {
    mm: &'mm Mm,
    guard: MmapReadGuard<'mm>,
    vma: Arc<Vma>,
}

impl<'mm> LockedVma<'mm> {
    pub(super) fn new(mm: &'mm Mm, guard: MmapReadGuard<'mm>, vma: Arc<Vma>) -> Self {
        LockedVma { mm, guard, vma }
    }
}

/// One way in which a step of the handler ends; what it means for the lock is decided in one place.
enum Step {
    Done,
    Failed(FaultError),
    /// The page is being read.
    Blocked(Wait),
    /// A userfaultfd's handler has to be asked.
    Asked(Reason),
}

impl From<NotMapped> for Step {
    fn from(why: NotMapped) -> Step {
        match why {
            // Somebody else filled it: as good.
            NotMapped::Occupied => Step::Done,
            NotMapped::OutOfMemory => Step::Failed(FaultError::OutOfMemory),
        }
    }
}

impl From<OutOfMemory> for Step {
    fn from(_: OutOfMemory) -> Step {
        Step::Failed(FaultError::OutOfMemory)
    }
}

/// Resolves a fault at `address`, which the area permits. May sleep after releasing the lock if `flags` allow a retry; from the
/// second round on (TRIED) it waits for a page with the lock held, so that it makes progress against those who change the address
/// space. Faults are counted here, but not those that are tried again.
#[inline(always)]
pub fn handle_mm_fault<'mm>(
    locked: LockedVma<'mm>,
    address: VirtAddr,
    flags: FaultFlags,
) -> FaultOutcome<'mm> {
    let LockedVma { mm, guard, vma } = locked;
    if flags.contains(FaultFlags::WRITE) && !vma.is_shared() {
        guard.prepare_anon(&vma);
    }
    let outcome = match handle_pte_fault(mm, &vma, address.page(), flags) {
        Step::Done => FaultOutcome::done(guard),
        Step::Failed(error) => FaultOutcome::error(error, guard),
        Step::Blocked(wait) => wait_for_page(guard, wait, flags),
        Step::Asked(reason) => userfault::wait(mm, guard, &vma, address, flags, reason),
    };
    account(outcome.flags(), flags);
    outcome
}

/// Which signals end a fault's wait: those for which `fault_signal_pending` then ends the fault, and no others, or a pending signal
/// would turn the wait into a busy loop.
pub fn wait_kind(flags: FaultFlags) -> Sleep {
    if flags.contains(FaultFlags::INTERRUPTIBLE) {
        Sleep::Interruptible
    } else {
        Sleep::Killable
    }
}

/// Waits, as the flags say: what is waited for belongs to the page, so whatever ends the wait loses nothing.
#[cold]
fn wait_for_page(guard: MmapReadGuard<'_>, wait: Wait, flags: FaultFlags) -> FaultOutcome<'_> {
    let sleep = wait_kind(flags);
    let held = flags.contains(FaultFlags::TRIED).then_some(guard);
    // Interrupted or not, the round is over: the signal check or the next round finds out.
    let _ = wait.wait(sleep);
    drop(held);
    FaultOutcome::retry().major()
}

#[inline]
fn account(outcome: VmFault, flags: FaultFlags) {
    if outcome.contains(VmFault::RETRY) {
        trace::RETRIES.fetch_add(1, Ordering::Relaxed);
        return;
    }
    if outcome.intersects(VmFault::ERROR) {
        return;
    }
    let thread = current();
    if outcome.contains(VmFault::MAJOR) || flags.contains(FaultFlags::TRIED) {
        thread.faults.major.fetch_add(1, Ordering::Relaxed);
        trace::FAULTS_MAJOR.fetch_add(1, Ordering::Relaxed);
    } else {
        thread.faults.minor.fetch_add(1, Ordering::Relaxed);
        trace::FAULTS_MINOR.fetch_add(1, Ordering::Relaxed);
    }
}

/// Private memory is dealt with in place, what is dearer has functions of its own.
#[inline(always)]
fn handle_pte_fault(mm: &Mm, vma: &Vma, page: VirtAddr, flags: FaultFlags) -> Step {
    let write = flags.contains(FaultFlags::WRITE);
    let mut table = mm.page_table.lock();
    let entry = match table.entry(page) {
        Ok(entry) => entry,
        Err(oom) => return oom.into(),
    };
    let Some(entry) = entry else {
        if vma.flags.contains(VmFlags::UFFD_MISSING) {
            drop(table);
            if userfault::catches_missing(vma, page) {
                return Step::Asked(Reason::Missing);
            }
            table = mm.page_table.lock();
        }
        return match &vma.source {
            None if !write => map_zero_page(table, vma, page),
            None => {
                drop(table);
                map_zeroed_page(mm, vma, page)
            }
            Some(source) => {
                drop(table);
                file_fault(mm, vma, source, page, flags)
            }
        };
    };
    let pte = entry.pte();
    if !write || pte.flags.contains(PteFlags::WRITE) {
        // Somebody else was faster, or the translation that faulted was stale.
        entry.set_flags(pte.flags | PteFlags::ACCESSED).flush();
        return Step::Done;
    }
    if pte.flags.contains(PteFlags::UFFD_WP) && userfault::catches_write(vma) {
        return Step::Asked(Reason::WriteProtected);
    }
    if vma.is_cow() && reusable(pte) {
        // Nobody else's, and no file hears of it.
        make_writable(entry, vma);
        return Step::Done;
    }
    // SAFETY: the entry holds a reference under the page-table lock, or the frame is the zero page, which is never freed.
    let frame = unsafe { Frame::share(pte.frame) };
    drop(table);
    if vma.is_cow() {
        copy_on_write(mm, vma, page, pte, frame)
    } else {
        write_shared(mm, vma, page, pte, &frame)
    }
}

#[inline(always)]
fn make_writable(entry: Entry<'_>, vma: &Vma) {
    entry
        .set_flags(vma.pte_flags() | PteFlags::ACCESSED | PteFlags::DIRTY)
        .leave_to_faults();
}

/// A page that is shared becomes writable, after its file has heard of it.
#[inline(never)]
fn write_shared(mm: &Mm, vma: &Vma, page: VirtAddr, seen: Pte, shared: &Frame) -> Step {
    if let Some(source) = &vma.source {
        match note_write(source, shared) {
            Noted::Yes => {}
            // Its translation is gone too, or about to go: the access finds out.
            Noted::Gone => return Step::Done,
            Noted::NoRoom => return Step::Failed(FaultError::Bus),
        }
    }
    let mut table = mm.page_table.lock();
    if let Some(entry) = protected_entry(&mut table, page, seen) {
        make_writable(entry, vma);
    }
    Step::Done
}

/// A page will be written through a shared mapping: its file notes that, and its times change.
fn note_write(source: &Source, page: &Frame) -> Noted {
    if source.mapping.tracks_writes() {
        let noted = source.mapping.note_write(page);
        if noted != Noted::Yes {
            return noted;
        }
    }
    source.written();
    Noted::Yes
}

/// Whether a private page may be written as it is: only its entry refers to it. A page of the page cache has the cache's reference.
#[inline(always)]
pub(in crate::mm) fn reusable(pte: Pte) -> bool {
    !pte.flags.contains(PteFlags::SPECIAL) && Frame::is_unique(pte.frame)
}

/// Private memory that was never touched is written.
#[inline(always)]
fn map_zeroed_page(mm: &Mm, vma: &Vma, page: VirtAddr) -> Step {
    match Frame::alloc_zeroed_as(FrameKind::Anonymous, Purpose::User) {
        Ok(frame) => install(
            mm,
            page,
            frame,
            vma.pte_flags() | PteFlags::ACCESSED | PteFlags::DIRTY,
        ),
        Err(oom) => oom.into(),
    }
}

/// Private memory that was never touched is read: it gets the shared zero page.
#[inline(always)]
fn map_zero_page(mut table: SpinLockGuard<'_, PageTable>, vma: &Vma, page: VirtAddr) -> Step {
    let flags = (vma.pte_flags() - PteFlags::WRITE) | PteFlags::ACCESSED | PteFlags::SPECIAL;
    match table.map_special(page, zero_page(), flags) {
        Ok(()) => Step::Done,
        Err(why) => why.into(),
    }
}

/// A page of a file or of shared memory.
#[inline(never)]
fn file_fault(mm: &Mm, vma: &Vma, source: &Source, page: VirtAddr, how: FaultFlags) -> Step {
    let Some(index) = vma.page_index_of(page) else {
        return Step::Failed(FaultError::Bus);
    };
    loop {
        let cached = match source.mapping.lookup(index) {
            Ok(Lookup::Ready(cached)) => cached,
            Ok(Lookup::Busy(wait)) => {
                if !how.contains(FaultFlags::TRIED) {
                    around::read_ahead(vma, source, page);
                }
                return Step::Blocked(wait);
            }
            Ok(Lookup::Failed | Lookup::PastEnd | Lookup::Hole) => {
                return Step::Failed(FaultError::Bus);
            }
            Err(oom) => return oom.into(),
        };
        if let Some(step) = map_cached(mm, vma, source, page, cached, how) {
            return step;
        }
    }
}

/// Maps a page of the page cache, or a private copy of it. `None`: it has left its file meanwhile.
fn map_cached(
    mm: &Mm,
    vma: &Vma,
    source: &Source,
    page: VirtAddr,
    cached: Frame,
    how: FaultFlags,
) -> Option<Step> {
    let write = how.contains(FaultFlags::WRITE);
    let flags = vma.pte_flags() | PteFlags::ACCESSED;
    if !write {
        around::map_neighbours(mm, vma, source, page);
    }
    if !write {
        let flags = if vma.writable_at_once() {
            flags
        } else {
            flags - PteFlags::WRITE
        };
        return install_cached(mm, page, cached, None, flags);
    }
    if vma.is_shared() {
        return match note_write(source, &cached) {
            Noted::Yes => install_cached(mm, page, cached, None, flags | PteFlags::DIRTY),
            Noted::Gone => None,
            Noted::NoRoom => Some(Step::Failed(FaultError::Bus)),
        };
    }
    match copy_of(&cached) {
        Ok(copy) => install_cached(mm, page, cached, Some(copy), flags | PteFlags::DIRTY),
        Err(oom) => Some(oom.into()),
    }
}

/// A private page that others still refer to: its owner gets a copy.
#[inline(never)]
fn copy_on_write(mm: &Mm, vma: &Vma, page: VirtAddr, seen: Pte, old: Frame) -> Step {
    let special = seen.flags.contains(PteFlags::SPECIAL);
    let copy = if special {
        Frame::alloc_zeroed_as(FrameKind::Anonymous, Purpose::User)
    } else {
        copy_of(&old)
    };
    let copy = match copy {
        Ok(copy) => copy,
        Err(oom) => return oom.into(),
    };
    let mut table = mm.page_table.lock();
    // The reference in `old` has kept the frame from being reused.
    if let Some(entry) = protected_entry(&mut table, page, seen) {
        let flags = vma.pte_flags() | PteFlags::ACCESSED | PteFlags::DIRTY;
        let (replaced, flush) = entry.replace(copy, flags);
        flush.flush();
        drop(table);
        match replaced {
            Some(replaced) => mm.resident.became_anonymous(Frame::kind(replaced.number())),
            None => mm.resident.add(FrameKind::Anonymous, 1),
        }
    }
    Step::Done
}

/// The entry of a page, if it is still that of the frame that was `seen` and refuses writes for the same reasons. The caller has a
/// reference of the frame, so the same number means the same page. Its table is still its own, as no fork comes between.
fn protected_entry(table: &mut PageTable, page: VirtAddr, seen: Pte) -> Option<Entry<'_>> {
    let protection = PteFlags::WRITE | PteFlags::UFFD_WP;
    table.entry(page).ok().flatten().filter(|entry| {
        let now = entry.pte();
        now.frame == seen.frame && now.flags & protection == seen.flags & protection
    })
}

#[inline]
fn copy_of(frame: &Frame) -> Result<Frame, OutOfMemory> {
    let copy = Frame::alloc_as(FrameKind::Anonymous, Purpose::User)?;
    arch::copy_frame(frame.number(), copy.number());
    Ok(copy)
}

/// Fills an empty entry; if somebody else filled it meanwhile, that is as good.
#[inline(always)]
fn install(mm: &Mm, page: VirtAddr, frame: Frame, flags: PteFlags) -> Step {
    install_locked(mm, mm.page_table.lock(), page, frame, flags)
}

/// The same for a page of a file, or a copy of it. `None` if the page is gone: whoever takes one away marks it and then comes for its
/// translations, under the lock that is held here.
fn install_cached(
    mm: &Mm,
    page: VirtAddr,
    cached: Frame,
    copy: Option<Frame>,
    flags: PteFlags,
) -> Option<Step> {
    let table = mm.page_table.lock();
    if page_cache::is_gone(&cached) {
        return None;
    }
    Some(install_locked(
        mm,
        table,
        page,
        copy.unwrap_or(cached),
        flags,
    ))
}

#[inline(always)]
fn install_locked(
    mm: &Mm,
    mut table: SpinLockGuard<'_, PageTable>,
    page: VirtAddr,
    frame: Frame,
    flags: PteFlags,
) -> Step {
    let kind = Frame::kind(frame.number());
    match table.map(page, frame, flags) {
        Ok(()) => {
            mm.resident.add(kind, 1);
            Step::Done
        }
        Err((why, _frame)) => why.into(),
    }
}

/// The page of zeros that all untouched memory shares.
fn zero_page() -> FrameNumber {
    crate::mm::frame::zero_page()
}
