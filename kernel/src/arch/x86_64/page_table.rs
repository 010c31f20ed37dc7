//! User page tables: four levels of 512 entries, edited through the direct map (SDM volume 3, chapter 4).
//!
//! A present entry owns one reference of its frame, unless it is SPECIAL. Entries that nobody may access (PROT_NONE) stay in the table
//! without the hardware's present bit. An entry without a page may be a [`MARKER`]; those are in use, but not shown as entries.
//!
//! The entry of a table in the table above it owns the table's frame, and counts the table's own entries in bits that the hardware
//! ignores. So a table that becomes empty goes at once, up to the root, and nothing has to be searched when an address space ends.
//! A lowest table may be the entry of several address spaces, see [`fork`].
//! What is empty is all zeros: tables and roots are kept apart when they are free, and need not be cleared to be used again.

mod flush;
mod fork;
mod form;
mod path;
mod range;
mod slots;

use core::cell::Cell;
use core::marker::PhantomData;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use self::flush::{TlbFlush, load_root, root_in_use};
use self::form::{MARKER, UFFD_WP, from_hardware, owned, seen_through, to_hardware, with_flags};
use self::path::{NOWHERE, Path};
use self::slots::{count_up, entries, free_empty, is_empty, lowest_table, next_at};
use super::kernel_pages::{self, ENTRIES, KERNEL_HALF, entry, frame_in, index};
use crate::errno::OutOfMemory;
use crate::mm::frame::{Frame, FrameKind, FrameNumber, Purpose, Shelf};
use crate::mm::pte::{NotMapped, Pte, PteFlags};
use crate::mm::{PAGE_SIZE, VirtAddr};

pub(super) use self::form::bits;

/// A present entry, found once and then changed.
pub struct Entry<'table> {
    at: &'static AtomicU64,
    address: VirtAddr,
    table: PhantomData<&'table mut PageTable>,
}

impl Entry<'_> {
    #[inline(always)]
    pub fn pte(&self) -> Pte {
        from_hardware(self.at.load(Ordering::Relaxed))
    }

    #[inline(always)]
    pub fn set_flags(self, flags: PteFlags) -> TlbFlush {
        let value = self.at.load(Ordering::Relaxed);
        self.at.store(with_flags(value, flags), Ordering::Relaxed);
        TlbFlush(self.address.get())
    }

    #[inline]
    pub fn replace(self, frame: Frame, flags: PteFlags) -> (Option<Frame>, TlbFlush) {
        let value = to_hardware(frame.into_raw(), flags - PteFlags::SPECIAL);
        let before = self.at.swap(value, Ordering::Relaxed);
        (owned(before), TlbFlush(self.address.get()))
    }
}

/// A user address space's translations.
pub struct PageTable {
    root: FrameNumber,
    /// Entries in the user's half of the root.
    used: u32,
    /// Frames of all tables, the root among them.
    frames: u64,
    /// The way that was gone last, to the lowest table of these addresses (divided by what such a table maps), as long as it is there:
    /// faults mostly come where others were, and look several times.
    recent: Cell<usize>,
    recent_path: Cell<Path>,
    /// Whether a lowest table was ever shared with another address space.
    has_shared: bool,
}

/// Fills those of `slots` that are empty and have a frame, by their numbers from `number` on; how many they are, and how many of them were
/// no marks. A function of its own, as its loop wants all registers.
#[inline(never)]
fn fill_slots(
    slots: &[AtomicU64],
    bits_of_all: u64,
    number: usize,
    frame_for: &mut impl FnMut(usize) -> Option<Frame>,
) -> (u64, u64) {
    let (mut filled, mut added) = (0, 0);
    for (index, slot) in slots.iter().enumerate() {
        let before = slot.load(Ordering::Relaxed);
        if before & !MARKER == 0
            && let Some(frame) = frame_for(number + index)
        {
            let value = bits_of_all | frame.into_raw().phys();
            let value = match before {
                MARKER => value & !bits::WRITE | UFFD_WP,
                _ => value,
            };
            slot.store(value, Ordering::Relaxed);
            added += u64::from(before != MARKER);
            filled += 1;
        }
    }
    (filled, added)
}

/// The place of an address's entry in the table that `low` points to.
#[inline]
fn slot_in(low: &AtomicU64, address: VirtAddr) -> &'static AtomicU64 {
    &entries(frame_in(low.load(Ordering::Relaxed)))[index(address.get(), 0)]
}

impl PageTable {
    pub fn new() -> Result<PageTable, OutOfMemory> {
        let (root, is_known) =
            Frame::alloc_known(Shelf::Root, FrameKind::PageTable, Purpose::User)?;
        let root = root.into_raw();
        if !is_known {
            // SAFETY: both tables are frames of 512 entries; the new one is ours alone, and the kernel's half never changes.
            unsafe {
                entry(root, 0).write_bytes(0, KERNEL_HALF);
                ptr::copy_nonoverlapping(
                    entry(kernel_pages::root_frame(), KERNEL_HALF),
                    entry(root, KERNEL_HALF),
                    ENTRIES - KERNEL_HALF,
                );
            }
        }
        Ok(PageTable {
            root,
            used: 0,
            frames: 1,
            recent: Cell::new(NOWHERE),
            recent_path: Cell::new([&entries(root)[0]; 3]),
            has_shared: false,
        })
    }

    /// Frames that the tables take.
    pub fn table_frames(&self) -> u64 {
        self.frames
    }

    /// The value of the entry of the lowest table of an address, and the place of the address's entry in that table.
    #[inline]
    fn slot(&self, address: VirtAddr) -> Option<(u64, &'static AtomicU64)> {
        let low = self.low(address.get())?.load(Ordering::Relaxed);
        Some((low, &entries(frame_in(low))[index(address.get(), 0)]))
    }

    #[inline]
    pub fn get(&self, address: VirtAddr) -> Option<Pte> {
        let (low, at) = self.slot(address)?;
        let value = at.load(Ordering::Relaxed);
        (value & !MARKER != 0).then(|| seen_through(low, value))
    }

    /// The address spaces that have the entry of an address.
    pub fn sharers(&self, address: VirtAddr) -> u32 {
        self.low(address.get()).map_or(1, fork::sharers)
    }

    #[inline(always)]
    pub fn map(
        &mut self,
        address: VirtAddr,
        frame: Frame,
        flags: PteFlags,
    ) -> Result<(), (NotMapped, Frame)> {
        let value = to_hardware(frame.number(), flags - PteFlags::SPECIAL);
        match self.fill(address, value) {
            Ok(()) => {
                let _ = frame.into_raw();
                Ok(())
            }
            Err(why) => Err((why, frame)),
        }
    }

    #[inline(always)]
    pub fn map_special(
        &mut self,
        address: VirtAddr,
        frame: FrameNumber,
        flags: PteFlags,
    ) -> Result<(), NotMapped> {
        self.fill(address, to_hardware(frame, flags | PteFlags::SPECIAL))
    }

    #[inline(always)]
    fn fill(&mut self, address: VirtAddr, value: u64) -> Result<(), NotMapped> {
        let low = self.low_to_fill(address.get())?;
        let at = slot_in(low, address);
        match at.load(Ordering::Relaxed) {
            0 => {
                at.store(value, Ordering::Relaxed);
                count_up(low, 1);
            }
            MARKER => at.store(value & !bits::WRITE | UFFD_WP, Ordering::Relaxed),
            _ => return Err(NotMapped::Occupied),
        }
        Ok(())
    }

    pub fn fill_empty(
        &mut self,
        start: VirtAddr,
        pages: usize,
        flags: PteFlags,
        frame_for: &mut impl FnMut(usize) -> Option<Frame>,
    ) -> u64 {
        let bits_of_all = to_hardware(FrameNumber(0), flags - PteFlags::SPECIAL);
        let (mut at, end) = (start.get(), start.get() + pages * PAGE_SIZE);
        let (mut filled, mut number) = (0, 0);
        while at < end {
            let stop = next_at(at, 1).min(end);
            let Ok(low) = self.low_to_fill(at) else {
                break;
            };
            let (slots, _) = lowest_table(low, at, stop);
            let (done, added) = fill_slots(slots, bits_of_all, number, frame_for);
            filled += done;
            number += slots.len();
            count_up(low, added);
            self.drop_if_empty(at, low);
            at = stop;
        }
        filled
    }

    /// Frees the lowest table of an address if nothing is in it, and nothing was since the last flush.
    #[inline]
    fn drop_if_empty(&mut self, address: usize, low: &AtomicU64) {
        if low.load(Ordering::Relaxed) & bits::COUNT == 0
            && let Some(path) = self.path(address)
        {
            free_empty(self.detach_empty(&path));
        }
    }

    /// Whether a page that is not there is marked to be write-protected when it comes.
    pub fn is_marked(&self, address: VirtAddr) -> bool {
        let slot = self.slot(address);
        slot.is_some_and(|(_, at)| at.load(Ordering::Relaxed) == MARKER)
    }

    pub fn mark_missing(&mut self, start: VirtAddr, end: VirtAddr) -> Result<(), OutOfMemory> {
        for page in (start.get()..end.get()).step_by(PAGE_SIZE) {
            let low = self.low_to_fill(page)?;
            let at = &entries(frame_in(low.load(Ordering::Relaxed)))[index(page, 0)];
            if at.load(Ordering::Relaxed) == 0 {
                at.store(MARKER, Ordering::Relaxed);
                count_up(low, 1);
            }
        }
        Ok(())
    }

    pub fn unmark(&mut self, start: VirtAddr, end: VirtAddr) {
        let mut unmarked = |value| if value == MARKER { 0 } else { value };
        self.remove_range(start.get(), end.get(), &mut unmarked, &mut |_, _| {});
    }

    #[inline]
    pub fn entry(&mut self, address: VirtAddr) -> Result<Option<Entry<'_>>, OutOfMemory> {
        let Some((low, at)) = self.slot(address) else {
            return Ok(None);
        };
        if at.load(Ordering::Relaxed) & !MARKER == 0 {
            return Ok(None);
        }
        let at = match low & bits::WRITE {
            0 => self.own_slot(address)?,
            _ => at,
        };
        Ok(Some(Entry {
            at,
            address,
            table: PhantomData,
        }))
    }

    /// The place of an entry in a table that others had, too, and that is this address space's own then.
    #[cold]
    #[inline(never)]
    fn own_slot(&mut self, address: VirtAddr) -> Result<&'static AtomicU64, OutOfMemory> {
        let low = self.low_to_fill(address.get())?;
        Ok(slot_in(low, address))
    }

    /// This CPU uses the address space from now on.
    pub fn activate(&self) {
        load_root(self.root.phys());
    }

    /// This CPU goes on with the kernel's own tables.
    pub fn deactivate() {
        load_root(kernel_pages::root());
    }
}

impl Drop for PageTable {
    fn drop(&mut self) {
        assert_eq!(self.used, 0, "a page table was dropped with pages in it");
        if root_in_use() == self.root.phys() {
            PageTable::deactivate();
        }
        debug_assert!(is_empty(&entries(self.root)[..KERNEL_HALF]));
        // SAFETY: the root was allocated by `new` and is not in use any more.
        unsafe { Frame::from_raw(self.root) }.shelve(Shelf::Root);
    }
}

#[cfg(test)]
mod tests;
