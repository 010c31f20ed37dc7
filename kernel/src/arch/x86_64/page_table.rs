//! User page tables: four levels, edited through the direct map (SDM volume 3, chapter 4).
//!
//! A present entry owns one reference of its frame, unless it is SPECIAL. Table frames are owned by the entry above them. Entries that
//! nobody may access (PROT_NONE) stay in the table without the hardware's present bit.

use core::ptr;

use x86_64::VirtAddr as HardwareAddr;
use x86_64::instructions::tlb;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::PhysFrame;

use super::kernel_pages::{self, ENTRIES, KERNEL_HALF, entry, frame_in, index};
use super::percpu;
use crate::errno::OutOfMemory;
use crate::mm::frame::{Frame, FrameNumber, Purpose};
use crate::mm::pte::{Pte, PteFlags};
use crate::mm::{PAGE_SIZE, VirtAddr};

/// Bits of an entry. 9 to 11 and 58 are free for software.
pub(super) mod bits {
    pub const PRESENT: u64 = 1 << 0;
    pub const WRITE: u64 = 1 << 1;
    pub const USER: u64 = 1 << 2;
    /// Uncached, together with the next bit (SDM volume 3, 12.5).
    pub const WRITE_THROUGH: u64 = 1 << 3;
    pub const CACHE_DISABLE: u64 = 1 << 4;
    pub const ACCESSED: u64 = 1 << 5;
    pub const DIRTY: u64 = 1 << 6;
    pub const HUGE: u64 = 1 << 7;
    pub const SPECIAL: u64 = 1 << 9;
    pub const NONE: u64 = 1 << 10;
    pub const UFFD_WP: u64 = 1 << 11;
    pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    pub const NO_EXECUTE: u64 = 1 << 63;
    /// What entries of upper levels have; the lowest decides.
    pub const TABLE: u64 = PRESENT | WRITE | USER;
}

/// More pages than these are flushed by reloading CR3.
const FLUSH_ONE_BY_ONE: usize = 32;

const LEVELS: u32 = 4;

/// A user address space's translations.
pub struct PageTable {
    root: FrameNumber,
}

/// A stale translation.
#[must_use = "a stale translation survives until this is flushed"]
pub struct TlbFlush(usize);

impl TlbFlush {
    #[inline]
    pub fn flush(self) {
        tlb::flush(HardwareAddr::new_truncate(self.0 as u64));
    }

    #[inline]
    pub fn ignore(self) {}
}

/// Translations that a range operation made stale.
#[derive(Default)]
struct Stale {
    pages: [usize; FLUSH_ONE_BY_ONE],
    count: usize,
}

impl Stale {
    fn add(&mut self, page: usize) {
        if let Some(slot) = self.pages.get_mut(self.count) {
            *slot = page;
        }
        self.count += 1;
    }

    fn flush(&mut self) {
        match self.pages.get(..self.count) {
            Some(pages) => pages.iter().for_each(|&page| TlbFlush(page).flush()),
            None => tlb::flush_all(),
        }
        self.count = 0;
    }
}

fn to_hardware(flags: PteFlags) -> u64 {
    let mut value = bits::USER;
    let mut set = |flag, bit| {
        if flags.contains(flag) {
            value |= bit;
        }
    };
    set(PteFlags::WRITE, bits::WRITE);
    set(PteFlags::ACCESSED, bits::ACCESSED);
    set(PteFlags::DIRTY, bits::DIRTY);
    set(PteFlags::SPECIAL, bits::SPECIAL);
    set(PteFlags::UFFD_WP, bits::UFFD_WP);
    if !flags.contains(PteFlags::EXEC) {
        value |= bits::NO_EXECUTE;
    }
    value
        | if flags.contains(PteFlags::NONE) {
            bits::NONE
        } else {
            bits::PRESENT
        }
}

fn from_hardware(value: u64) -> Pte {
    let mut flags = PteFlags::empty();
    flags.set(PteFlags::READ, value & bits::PRESENT != 0);
    flags.set(PteFlags::WRITE, value & bits::WRITE != 0);
    flags.set(PteFlags::EXEC, value & bits::NO_EXECUTE == 0);
    flags.set(PteFlags::ACCESSED, value & bits::ACCESSED != 0);
    flags.set(PteFlags::DIRTY, value & bits::DIRTY != 0);
    flags.set(PteFlags::SPECIAL, value & bits::SPECIAL != 0);
    flags.set(PteFlags::NONE, value & bits::NONE != 0);
    flags.set(PteFlags::UFFD_WP, value & bits::UFFD_WP != 0);
    Pte {
        frame: frame_in(value),
        flags,
    }
}

/// Takes the reference that a cleared entry owned.
fn owned(value: u64) -> Option<Frame> {
    // SAFETY: an entry without SPECIAL owns a reference, and the caller has just taken the entry out.
    (value & bits::SPECIAL == 0).then(|| unsafe { Frame::from_raw(frame_in(value)) })
}

impl PageTable {
    pub fn new() -> Result<PageTable, OutOfMemory> {
        let root = Frame::alloc_zeroed(Purpose::User)?.into_raw();
        let half = ENTRIES - KERNEL_HALF;
        // SAFETY: both tables are frames of 512 entries; the new one is ours alone, and the kernel's half never changes.
        unsafe {
            ptr::copy_nonoverlapping(
                entry(kernel_pages::root_frame(), KERNEL_HALF),
                entry(root, KERNEL_HALF),
                half,
            );
        }
        Ok(PageTable { root })
    }

    /// The lowest-level entry for an address, if the tables to it are there.
    #[inline]
    fn find(&self, address: usize) -> Option<*mut u64> {
        let mut table = self.root;
        for level in (1..LEVELS).rev() {
            // SAFETY: an entry of a table of this address space.
            let value = unsafe { *entry(table, index(address, level)) };
            if value & bits::PRESENT == 0 {
                return None;
            }
            table = frame_in(value);
        }
        Some(entry(table, index(address, 0)))
    }

    /// As `find`, but makes the tables that are missing.
    #[inline]
    fn make(&mut self, address: usize) -> Result<*mut u64, OutOfMemory> {
        let mut table = self.root;
        for level in (1..LEVELS).rev() {
            let at = entry(table, index(address, level));
            // SAFETY: an entry of a table of this address space, which is borrowed mutably.
            let value = unsafe { *at };
            table = if value & bits::PRESENT != 0 {
                frame_in(value)
            } else {
                let new = Frame::alloc_zeroed(Purpose::User)?.into_raw();
                // SAFETY: as above.
                unsafe { *at = new.phys() | bits::TABLE };
                new
            };
        }
        Ok(entry(table, index(address, 0)))
    }

    #[inline]
    pub fn get(&self, address: VirtAddr) -> Option<Pte> {
        // SAFETY: an entry of this address space.
        let value = unsafe { *self.find(address.get())? };
        (value != 0).then(|| from_hardware(value))
    }

    #[inline]
    pub fn map(
        &mut self,
        address: VirtAddr,
        frame: Frame,
        flags: PteFlags,
    ) -> Result<(), (OutOfMemory, Frame)> {
        match self.make(address.get()) {
            Ok(at) => {
                // SAFETY: an entry of this address space, which is borrowed mutably.
                unsafe {
                    debug_assert_eq!(*at, 0, "{address:?} is mapped");
                    *at = frame.into_raw().phys() | to_hardware(flags - PteFlags::SPECIAL);
                }
                Ok(())
            }
            Err(oom) => Err((oom, frame)),
        }
    }

    #[inline]
    pub fn map_special(
        &mut self,
        address: VirtAddr,
        frame: FrameNumber,
        flags: PteFlags,
    ) -> Result<(), OutOfMemory> {
        let at = self.make(address.get())?;
        // SAFETY: an entry of this address space, which is borrowed mutably.
        unsafe {
            debug_assert_eq!(*at, 0, "{address:?} is mapped");
            *at = frame.phys() | to_hardware(flags | PteFlags::SPECIAL);
        }
        Ok(())
    }

    pub fn replace(
        &mut self,
        address: VirtAddr,
        frame: Frame,
        flags: PteFlags,
    ) -> (Option<Frame>, TlbFlush) {
        let at = self.find(address.get()).expect("a present entry");
        // SAFETY: an entry of this address space, which is borrowed mutably.
        let before = unsafe {
            ptr::replace(
                at,
                frame.into_raw().phys() | to_hardware(flags - PteFlags::SPECIAL),
            )
        };
        (owned(before), TlbFlush(address.get()))
    }

    pub fn set_flags(&mut self, address: VirtAddr, flags: PteFlags) -> TlbFlush {
        let at = self.find(address.get()).expect("a present entry");
        // SAFETY: an entry of this address space, which is borrowed mutably.
        unsafe { *at = with_flags(*at, flags) };
        TlbFlush(address.get())
    }

    pub fn unmap_range(
        &mut self,
        start: VirtAddr,
        end: VirtAddr,
        f: &mut impl FnMut(VirtAddr, Pte, Option<Frame>),
    ) {
        let mut batch = Batch::new();
        self.walk(start.get(), end.get(), &mut |page, at| {
            // SAFETY: an entry of this address space, which is borrowed mutably.
            let value = unsafe { ptr::replace(at, 0) };
            batch.add(page, value);
            if batch.is_full() {
                batch.flush(f);
            }
        });
        batch.flush(f);
    }

    pub fn protect_range(
        &mut self,
        start: VirtAddr,
        end: VirtAddr,
        mut f: impl FnMut(VirtAddr, Pte) -> PteFlags,
    ) {
        let mut stale = Stale::default();
        self.walk(start.get(), end.get(), &mut |page, at| {
            if let Some(address) = VirtAddr::new(page) {
                // SAFETY: an entry of this address space, which is borrowed mutably.
                unsafe { *at = with_flags(*at, f(address, from_hardware(*at))) };
                stale.add(page);
            }
        });
        stale.flush();
    }

    pub fn copy_range(
        &mut self,
        child: &mut PageTable,
        start: VirtAddr,
        end: VirtAddr,
        share_writable: bool,
    ) -> (u64, Result<(), OutOfMemory>) {
        let mut stale = Stale::default();
        let mut copied = 0;
        let mut outcome = Ok(());
        self.walk(start.get(), end.get(), &mut |page, at| {
            if outcome.is_err() {
                return;
            }
            let to = match child.make(page) {
                Ok(to) => to,
                Err(oom) => {
                    outcome = Err(oom);
                    return;
                }
            };
            // SAFETY: entries of the two address spaces, both borrowed mutably; the parent's owns the reference that is shared.
            unsafe {
                if !share_writable && *at & bits::WRITE != 0 {
                    *at &= !bits::WRITE;
                    stale.add(page);
                }
                if *at & bits::SPECIAL == 0 {
                    let _ = Frame::share(frame_in(*at)).into_raw();
                    copied += 1;
                }
                *to = *at;
            }
        });
        stale.flush();
        (copied, outcome)
    }

    /// Calls `f` for every entry in use from `start` to `end`. Costs what is mapped, and the tables.
    fn walk(&mut self, start: usize, end: usize, f: &mut dyn FnMut(usize, *mut u64)) {
        if start < end {
            walk_table(self.root, LEVELS - 1, start, end, f);
        }
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
        // SAFETY: this CPU's own field, written by `load_root` alone, which interrupt handlers do not call.
        let in_use = unsafe { *percpu::this().root.get() };
        debug_assert_ne!(
            in_use,
            self.root.phys(),
            "an address space in use was dropped"
        );
        for slot in 0..KERNEL_HALF {
            // SAFETY: an entry of this address space, which goes.
            free_tables(unsafe { *entry(self.root, slot) }, LEVELS - 1);
        }
        // SAFETY: the root was allocated by `new` and is not in use any more.
        drop(unsafe { Frame::from_raw(self.root) });
    }
}

/// Frees the table that an entry of `level` points to, and those below. Pages were unmapped before.
fn free_tables(value: u64, level: u32) {
    if value & bits::PRESENT == 0 || level == 0 {
        debug_assert!(
            level > 0 || value == 0,
            "an address space was dropped with pages in it"
        );
        return;
    }
    let table = frame_in(value);
    if level > 1 {
        for slot in 0..ENTRIES {
            // SAFETY: an entry of a table that goes.
            free_tables(unsafe { *entry(table, slot) }, level - 1);
        }
    }
    // SAFETY: the table was allocated by `make`, and its only entry goes.
    drop(unsafe { Frame::from_raw(table) });
}

fn with_flags(value: u64, flags: PteFlags) -> u64 {
    value & (bits::ADDRESS | bits::SPECIAL) | to_hardware(flags - PteFlags::SPECIAL)
}

fn walk_table(
    table: FrameNumber,
    level: u32,
    start: usize,
    end: usize,
    f: &mut dyn FnMut(usize, *mut u64),
) {
    let span = PAGE_SIZE << (9 * level);
    let mut at = start;
    while at < end {
        let next = ((at & !(span - 1)) + span).min(end);
        let slot = entry(table, index(at, level));
        // SAFETY: an entry of a table of the address space being walked.
        let value = unsafe { *slot };
        match level {
            0 if value != 0 => f(at, slot),
            0 => {}
            _ if value & bits::PRESENT != 0 => walk_table(frame_in(value), level - 1, at, next, f),
            _ => {}
        }
        at = next;
    }
}

fn load_root(root: u64) {
    let flags = crate::arch::irq::save();
    // SAFETY: this CPU's own field, interrupts off.
    let current = unsafe { &mut *percpu::this().root.get() };
    if *current != root {
        *current = root;
        // SAFETY: the table holds the kernel's half, so the kernel goes on where it is.
        unsafe {
            Cr3::write(
                PhysFrame::containing_address(x86_64::PhysAddr::new(root)),
                Cr3Flags::empty(),
            )
        };
    }
    crate::arch::irq::restore(flags);
}

/// Entries that were taken out, until their translations are flushed and their frames may go.
struct Batch {
    entries: [(usize, u64); Batch::SIZE],
    count: usize,
}

impl Batch {
    const SIZE: usize = 64;

    fn new() -> Batch {
        Batch {
            entries: [(0, 0); Batch::SIZE],
            count: 0,
        }
    }

    fn add(&mut self, page: usize, value: u64) {
        self.entries[self.count] = (page, value);
        self.count += 1;
    }

    fn is_full(&self) -> bool {
        self.count == Batch::SIZE
    }

    fn flush(&mut self, f: &mut impl FnMut(VirtAddr, Pte, Option<Frame>)) {
        let entries = &self.entries[..self.count];
        if self.count > FLUSH_ONE_BY_ONE {
            tlb::flush_all();
        } else {
            entries.iter().for_each(|&(page, _)| TlbFlush(page).flush());
        }
        for &(page, value) in entries {
            if let Some(address) = VirtAddr::new(page) {
                f(address, from_hardware(value), owned(value));
            }
        }
        self.count = 0;
    }
}
