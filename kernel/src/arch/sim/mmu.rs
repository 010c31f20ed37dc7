//! A software MMU: page tables as maps, and a TLB that forgets nothing by itself.

use core::ops::Range;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

use crate::errno::OutOfMemory;
use crate::mm::VirtAddr;
use crate::mm::frame::{Frame, FrameNumber, Frames, KindCounts};
use crate::mm::pte::{NotMapped, Pte, PteFlags};

type Entries = Arc<Mutex<BTreeMap<usize, Pte>>>;

/// A user address space's translations.
pub struct PageTable {
    entries: Entries,
    /// Pages that are not there, to be write-protected for userfaultfd when they come.
    marked: BTreeSet<usize>,
}

struct Mmu {
    active: Option<Entries>,
    tlb: HashMap<usize, Pte>,
}

static MMU: LazyLock<Mutex<Mmu>> = LazyLock::new(|| {
    Mutex::new(Mmu {
        active: None,
        tlb: HashMap::new(),
    })
});

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A stale translation.
#[must_use = "a stale translation survives until this is flushed"]
pub struct TlbFlush(usize);

impl TlbFlush {
    pub fn flush(self) {
        lock(&MMU).tlb.remove(&self.0);
    }

    pub fn leave_to_faults(self) {}
}

/// A present entry.
pub struct Entry<'table> {
    pte: Pte,
    address: VirtAddr,
    table: &'table mut PageTable,
}

impl Entry<'_> {
    pub fn pte(&self) -> Pte {
        self.pte
    }

    pub fn set_flags(self, flags: PteFlags) -> TlbFlush {
        let pte = Pte {
            flags: flags | (self.pte.flags & PteFlags::SPECIAL),
            ..self.pte
        };
        lock(&self.table.entries).insert(key(self.address), pte);
        TlbFlush(key(self.address))
    }

    pub fn replace(self, frame: Frame, flags: PteFlags) -> (Option<Frame>, TlbFlush) {
        let pte = Pte {
            frame: frame.into_raw(),
            flags: flags - PteFlags::SPECIAL,
        };
        lock(&self.table.entries).insert(key(self.address), pte);
        (owned(self.pte), TlbFlush(key(self.address)))
    }
}

fn key(address: VirtAddr) -> usize {
    address.page().get()
}

/// The frame that an entry owned.
fn owned(pte: Pte) -> Option<Frame> {
    // SAFETY: entries without SPECIAL own a reference, given to `map` or `replace`, and the entry has just been taken out.
    (!pte.flags.contains(PteFlags::SPECIAL)).then(|| unsafe { Frame::from_raw(pte.frame) })
}

impl PageTable {
    pub fn new() -> Result<PageTable, OutOfMemory> {
        Ok(PageTable {
            entries: Entries::default(),
            marked: BTreeSet::new(),
        })
    }

    /// Tables take no frames here.
    pub fn table_frames(&self) -> u64 {
        0
    }

    pub fn get(&self, address: VirtAddr) -> Option<Pte> {
        lock(&self.entries).get(&key(address)).copied()
    }

    pub fn map(
        &mut self,
        address: VirtAddr,
        frame: Frame,
        flags: PteFlags,
    ) -> Result<(), (NotMapped, Frame)> {
        if self.get(address).is_some() {
            return Err((NotMapped::Occupied, frame));
        }
        let flags = self.taking_the_mark(address, flags);
        let pte = Pte {
            frame: frame.into_raw(),
            flags: flags - PteFlags::SPECIAL,
        };
        lock(&self.entries).insert(key(address), pte);
        Ok(())
    }

    /// The flags of a page that comes to a place that may be marked.
    fn taking_the_mark(&mut self, address: VirtAddr, flags: PteFlags) -> PteFlags {
        if self.marked.remove(&key(address)) {
            flags.write_protected()
        } else {
            flags
        }
    }

    pub fn is_marked(&self, address: VirtAddr) -> bool {
        self.marked.contains(&key(address))
    }

    pub fn mark_missing(&mut self, start: VirtAddr, end: VirtAddr) -> Result<(), OutOfMemory> {
        let entries = lock(&self.entries);
        let pages = (start.get()..end.get()).step_by(crate::mm::PAGE_SIZE);
        self.marked
            .extend(pages.filter(|page| !entries.contains_key(page)));
        Ok(())
    }

    pub fn unmark(&mut self, start: VirtAddr, end: VirtAddr) {
        self.marked
            .retain(|page| !(start.get()..end.get()).contains(page));
    }

    pub fn fill_empty(
        &mut self,
        start: VirtAddr,
        pages: usize,
        flags: PteFlags,
        frame_for: &mut impl FnMut(usize) -> Option<Frame>,
    ) -> u64 {
        let mut filled = 0;
        for n in 0..pages {
            let at = VirtAddr::new(start.get() + n * crate::mm::PAGE_SIZE);
            let Some(at) = at.filter(|&at| self.get(at).is_none()) else {
                continue;
            };
            if let Some(frame) = frame_for(n) {
                filled += u64::from(self.map(at, frame, flags).is_ok());
            }
        }
        filled
    }

    pub fn map_special(
        &mut self,
        address: VirtAddr,
        frame: FrameNumber,
        flags: PteFlags,
    ) -> Result<(), NotMapped> {
        if self.get(address).is_some() {
            return Err(NotMapped::Occupied);
        }
        let flags = self.taking_the_mark(address, flags) | PteFlags::SPECIAL;
        lock(&self.entries).insert(key(address), Pte { frame, flags });
        Ok(())
    }

    pub fn entry(&mut self, address: VirtAddr) -> Result<Option<Entry<'_>>, OutOfMemory> {
        Ok(self.get(address).map(|pte| Entry {
            pte,
            address,
            table: self,
        }))
    }

    /// Tables are not shared here.
    pub fn sharers(&self, _address: VirtAddr) -> u32 {
        1
    }

    pub fn has_shared(&self) -> bool {
        false
    }

    pub fn own_range(&mut self, _start: VirtAddr, _end: VirtAddr) -> Result<(), OutOfMemory> {
        Ok(())
    }

    pub fn own_edges(&mut self, _start: VirtAddr, _end: VirtAddr) -> Result<(), OutOfMemory> {
        Ok(())
    }

    fn unmap_range(
        &mut self,
        start: VirtAddr,
        end: VirtAddr,
        f: &mut impl FnMut(VirtAddr, Pte, Option<Frame>),
    ) {
        self.unmark(start, end);
        self.remove_range(start, end, &mut |_| true, f);
    }

    pub fn zap_range(&mut self, start: VirtAddr, end: VirtAddr, gone: &mut KindCounts) {
        self.unmap_range(start, end, &mut |_, _, frame| {
            if let Some(frame) = frame {
                // SAFETY: the reference was the entry's, and is given up here.
                unsafe { Frames::all().give_up(frame.into_raw(), gone) };
            }
        });
    }

    pub fn unmap_range_if(
        &mut self,
        start: VirtAddr,
        end: VirtAddr,
        wanted: &mut impl FnMut(Pte) -> bool,
        f: &mut impl FnMut(VirtAddr, Pte, Option<Frame>),
    ) {
        let mut protected = Vec::new();
        self.remove_range(start, end, wanted, &mut |page, pte, frame| {
            if pte.flags.contains(PteFlags::UFFD_WP) {
                protected.push(page.get());
            }
            f(page, pte, frame);
        });
        self.marked.extend(protected);
    }

    fn remove_range(
        &mut self,
        start: VirtAddr,
        end: VirtAddr,
        wanted: &mut impl FnMut(Pte) -> bool,
        f: &mut impl FnMut(VirtAddr, Pte, Option<Frame>),
    ) {
        let removed: Vec<(usize, Pte)> = {
            let mut entries = lock(&self.entries);
            let pages: Vec<usize> = entries
                .range(start.get()..end.get())
                .filter(|(_, pte)| wanted(**pte))
                .map(|(&page, _)| page)
                .collect();
            pages
                .into_iter()
                .filter_map(|page| entries.remove(&page).map(|pte| (page, pte)))
                .collect()
        };
        for (page, pte) in removed {
            TlbFlush(page).flush();
            if let Some(address) = VirtAddr::new(page) {
                f(address, pte, owned(pte));
            }
        }
    }

    pub fn visit_some(
        &self,
        start: VirtAddr,
        end: VirtAddr,
        f: &mut impl FnMut(VirtAddr, Pte, u32),
    ) -> Option<VirtAddr> {
        if start >= end {
            return None;
        }
        for (&page, pte) in lock(&self.entries).range(start.get()..end.get()) {
            if let Some(address) = VirtAddr::new(page) {
                f(address, *pte, 1);
            }
        }
        Some(end)
    }

    pub fn protect_range(
        &mut self,
        start: VirtAddr,
        end: VirtAddr,
        f: impl FnMut(VirtAddr, Pte) -> PteFlags,
    ) {
        let mut f = f;
        for (&page, pte) in lock(&self.entries).range_mut(start.get()..end.get()) {
            if let Some(address) = VirtAddr::new(page) {
                pte.flags = f(address, *pte) | (pte.flags & PteFlags::SPECIAL);
            }
            TlbFlush(page).flush();
        }
    }

    pub fn move_range(
        &mut self,
        start: VirtAddr,
        end: VirtAddr,
        to: VirtAddr,
    ) -> Result<(), OutOfMemory> {
        self.unmark(start, end);
        let mut entries = lock(&self.entries);
        let pages: Vec<usize> = entries
            .range(start.get()..end.get())
            .map(|(&page, _)| page)
            .collect();
        for page in pages {
            if let Some(mut pte) = entries.remove(&page) {
                pte.flags.remove(PteFlags::UFFD_WP);
                let before = entries.insert(page - start.get() + to.get(), pte);
                assert!(before.is_none(), "moved onto a mapped page");
            }
            TlbFlush(page).flush();
        }
        Ok(())
    }

    pub fn copy_range(
        &mut self,
        child: &mut PageTable,
        start: VirtAddr,
        end: VirtAddr,
        _alone: &Range<usize>,
        copied: &mut KindCounts,
    ) -> Result<(), OutOfMemory> {
        for (&page, pte) in lock(&self.entries).range_mut(start.get()..end.get()) {
            pte.flags.remove(PteFlags::WRITE);
            TlbFlush(page).flush();
            if !pte.flags.contains(PteFlags::SPECIAL) {
                // SAFETY: the parent's entry holds a reference.
                unsafe { Frames::all().share(pte.frame, copied) };
            }
            let flags = pte.flags - PteFlags::UFFD_WP;
            lock(&child.entries).insert(page, Pte { flags, ..*pte });
        }
        Ok(())
    }

    pub fn activate(&self) {
        let mut mmu = lock(&MMU);
        if mmu
            .active
            .as_ref()
            .is_none_or(|active| !Arc::ptr_eq(active, &self.entries))
        {
            mmu.tlb.clear();
            mmu.active = Some(self.entries.clone());
        }
    }

    pub fn deactivate() {
        let mut mmu = lock(&MMU);
        mmu.tlb.clear();
        mmu.active = None;
    }
}

impl Drop for PageTable {
    fn drop(&mut self) {
        assert!(
            lock(&self.entries).is_empty(),
            "a page table was dropped with pages in it"
        );
    }
}

/// A fault at an address, which makes the hardware drop what it has cached for it.
pub(super) fn fault(address: usize) {
    lock(&MMU)
        .tlb
        .remove(&(address & !(crate::mm::PAGE_SIZE - 1)));
}

/// What the hardware does with an address: the entry, from the TLB if it is there, or filled into it.
pub(super) fn translate(address: usize) -> Option<Pte> {
    let page = address & !(crate::mm::PAGE_SIZE - 1);
    let mut mmu = lock(&MMU);
    if let Some(pte) = mmu.tlb.get(&page) {
        return Some(*pte);
    }
    let pte = lock(mmu.active.as_ref()?).get(&page).copied()?;
    if pte.flags.contains(PteFlags::NONE) {
        return None;
    }
    mmu.tlb.insert(page, pte);
    Some(pte)
}
