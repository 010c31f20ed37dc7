//! The kernel's half of every address space: the direct map, and pages mapped one by one (heap, stacks).
//!
//! All top-level entries of the kernel's half are filled at bring-up, so that every address space shares them for ever.
//!
//! Lock rank: KERNEL_MAP.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use x86_64::instructions::tlb;
use x86_64::registers::control::Cr3;

use super::page_table::bits;
use crate::errno::OutOfMemory;
use crate::mm::PAGE_SIZE;
use crate::mm::frame::{Frame, FrameNumber, Purpose};
use crate::sync::{IrqLock, rank};

/// Entries of a table.
pub(super) const ENTRIES: usize = 512;
/// The first top-level entry of the kernel's half.
pub(super) const KERNEL_HALF: usize = 256;

static DIRECT_MAP: AtomicUsize = AtomicUsize::new(0);
static ROOT: AtomicU64 = AtomicU64::new(0);

/// Held while kernel pages are mapped or unmapped.
static EDIT: IrqLock<()> = IrqLock::new(rank::KERNEL_MAP, ());

/// The memory of a frame, in the direct map.
#[inline]
pub fn frame_ptr(frame: FrameNumber) -> *mut u8 {
    (DIRECT_MAP.load(Ordering::Relaxed) + frame.phys() as usize) as *mut u8
}

/// Fills a frame with zeros. The caller owns it.
#[inline]
pub fn zero_frame(frame: FrameNumber) {
    // SAFETY: the frame is 512 words, owned by the caller.
    unsafe {
        core::arch::asm!("rep stosq", inout("rcx") ENTRIES => _, inout("rdi") frame_ptr(frame) => _, in("rax") 0,
            options(nostack, preserves_flags));
    }
}

/// Copies a frame. The caller owns `dst` and keeps `src`.
#[inline]
pub fn copy_frame(src: FrameNumber, dst: FrameNumber) {
    // SAFETY: two frames of 512 words that do not overlap.
    unsafe {
        core::arch::asm!("rep movsq", inout("rcx") ENTRIES => _, inout("rsi") frame_ptr(src) => _,
            inout("rdi") frame_ptr(dst) => _, options(nostack, preserves_flags));
    }
}

/// An entry of a page table.
pub(super) fn entry(table: FrameNumber, index: usize) -> *mut u64 {
    debug_assert!(index < ENTRIES);
    // SAFETY: the index lies in the table's frame.
    unsafe { frame_ptr(table).cast::<u64>().add(index) }
}

/// The index into a table of `level` (0: the lowest).
pub(super) fn index(address: usize, level: u32) -> usize {
    address >> (12 + 9 * level) & (ENTRIES - 1)
}

pub(super) fn frame_in(entry: u64) -> FrameNumber {
    FrameNumber(((entry & bits::ADDRESS) >> 12) as u32)
}

/// Learns where the bootloader put the direct map.
pub(super) fn set_direct_map(offset: usize) {
    DIRECT_MAP.store(offset, Ordering::Relaxed);
    ROOT.store(Cr3::read().0.start_address().as_u64(), Ordering::Relaxed);
}

/// Physical address of the kernel's own top-level table.
pub(super) fn root() -> u64 {
    ROOT.load(Ordering::Relaxed)
}

pub(super) fn root_frame() -> FrameNumber {
    FrameNumber((root() >> 12) as u32)
}

/// Fills the kernel's half, empties the user's, and makes everything that can be written not executable. After the frame allocator, once;
/// the kernel's own GDT is in place.
pub(super) fn harden() -> Result<(), OutOfMemory> {
    for slot in 0..ENTRIES {
        let top = entry(root_frame(), slot);
        // SAFETY: the table is the active one; its lower half holds only what the bootloader needed, and new tables are empty.
        unsafe {
            if slot < KERNEL_HALF {
                *top = 0;
            } else if *top & bits::PRESENT == 0 {
                *top = Frame::alloc_zeroed(Purpose::Critical)?.into_raw().phys()
                    | bits::PRESENT
                    | bits::WRITE;
            } else {
                forbid_writable_code(frame_in(*top), 2);
            }
        }
    }
    tlb::flush_all();
    Ok(())
}

/// W^X for everything below a table.
fn forbid_writable_code(table: FrameNumber, level: u32) {
    for index in 0..ENTRIES {
        let at = entry(table, index);
        // SAFETY: an entry of a kernel table, changed by the only CPU that runs.
        let value = unsafe { *at };
        if value & bits::PRESENT == 0 {
            continue;
        }
        let leaf = level == 0 || value & bits::HUGE != 0;
        if !leaf {
            forbid_writable_code(frame_in(value), level - 1);
        } else if value & bits::WRITE != 0 {
            // SAFETY: as above; what can be written is data.
            unsafe { *at = value | bits::NO_EXECUTE };
        }
    }
}

/// The lowest-level entry for a kernel address, with the tables to it; `None` if a table is missing.
fn find_entry(address: usize) -> Option<*mut u64> {
    let mut table = root_frame();
    for level in (1..4).rev() {
        // SAFETY: an entry of a kernel table.
        let value = unsafe { *entry(table, index(address, level)) };
        if value & bits::PRESENT == 0 || value & bits::HUGE != 0 {
            return None;
        }
        table = frame_in(value);
    }
    Some(entry(table, index(address, 0)))
}

fn make_tables(address: usize) -> Result<(), OutOfMemory> {
    let mut table = root_frame();
    for level in (1..4).rev() {
        let at = entry(table, index(address, level));
        // SAFETY: an entry of a kernel table, under the lock.
        unsafe {
            if *at & bits::PRESENT == 0 {
                *at = Frame::alloc_zeroed(Purpose::Critical)?.into_raw().phys()
                    | bits::PRESENT
                    | bits::WRITE;
            }
            table = frame_in(*at);
        }
    }
    Ok(())
}

/// Maps a frame at a kernel address where nothing is: data, not executable.
pub fn map_kernel_page(address: usize, frame: Frame) -> Result<(), OutOfMemory> {
    let _edit = EDIT.lock();
    make_tables(address)?;
    let at = find_entry(address).expect("the tables were just made");
    // SAFETY: the entry is empty (its owner maps it once), so no translation can be stale.
    unsafe {
        debug_assert_eq!(*at, 0);
        *at = frame.into_raw().phys() | bits::PRESENT | bits::WRITE | bits::NO_EXECUTE;
    }
    Ok(())
}

/// Where device registers are mapped, one after the other, and how far that has come.
const DEVICES: usize = 0xffff_f000_0000_0000;
static DEVICES_END: AtomicUsize = AtomicUsize::new(DEVICES);

/// Maps a device's registers, uncached, for good.
pub fn map_device(phys: u64, size: usize) -> Result<NonNull<u8>, OutOfMemory> {
    let offset = phys as usize % PAGE_SIZE;
    let pages = (offset + size).div_ceil(PAGE_SIZE);
    let start = DEVICES_END.fetch_add(pages * PAGE_SIZE, Ordering::Relaxed);
    let _edit = EDIT.lock();
    for page in 0..pages {
        let address = start + page * PAGE_SIZE;
        make_tables(address)?;
        let at = find_entry(address).expect("the tables were just made");
        let registers = (phys & bits::ADDRESS) + (page * PAGE_SIZE) as u64;
        let uncached = bits::CACHE_DISABLE | bits::WRITE_THROUGH;
        // SAFETY: the addresses were just taken and are nobody else's, so the entry is empty.
        unsafe { *at = registers | bits::PRESENT | bits::WRITE | bits::NO_EXECUTE | uncached };
    }
    Ok(NonNull::new((start + offset) as *mut u8).expect("a kernel address"))
}

/// Unmaps a page of [`map_kernel_page`]; its frame comes back.
pub fn unmap_kernel_page(address: usize) -> Option<Frame> {
    let _edit = EDIT.lock();
    let at = find_entry(address)?;
    // SAFETY: the entry was made by `map_kernel_page`, which put a reference in; the translation is flushed before the frame is anybody's.
    unsafe {
        let value = core::mem::take(&mut *at);
        tlb::flush(x86_64::VirtAddr::new_truncate(address as u64));
        (value & bits::PRESENT != 0).then(|| Frame::from_raw(frame_in(value)))
    }
}

/// Physical address of kernel memory; `None` if it is not mapped.
pub fn phys_of(address: usize) -> Option<u64> {
    let mut table = root_frame();
    for level in (0..4).rev() {
        // SAFETY: an entry of a kernel table.
        let value = unsafe { *entry(table, index(address, level)) };
        if value & bits::PRESENT == 0 {
            return None;
        }
        if level == 0 || value & bits::HUGE != 0 {
            let offset = address & ((PAGE_SIZE << (9 * level)) - 1);
            let base = (value & bits::ADDRESS) as usize & !((PAGE_SIZE << (9 * level)) - 1);
            return Some((base + offset) as u64);
        }
        table = frame_in(value);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls `f` with address and combined bits of every mapped page of the kernel's half: what every level allows.
    fn for_each_mapping(f: &mut impl FnMut(usize, u64)) {
        let top = KERNEL_HALF..ENTRIES;
        top.for_each(|slot| visit(root_frame(), slot, 3, !0 << 47, bits::WRITE | bits::USER, f));
    }

    fn visit(
        table: FrameNumber,
        slot: usize,
        level: u32,
        base: usize,
        above: u64,
        f: &mut impl FnMut(usize, u64),
    ) {
        // SAFETY: an entry of a kernel table.
        let value = unsafe { *entry(table, slot) };
        if value & bits::PRESENT == 0 {
            return;
        }
        // The top-level index has the address's sign bit in it, which `base` sets already.
        let address = base | slot << (12 + 9 * level);
        let allowed =
            above & value & (bits::WRITE | bits::USER) | (above | value) & bits::NO_EXECUTE;
        if level == 0 || value & bits::HUGE != 0 {
            f(address, allowed);
        } else {
            let below = frame_in(value);
            (0..ENTRIES).for_each(|slot| visit(below, slot, level - 1, address, allowed, f));
        }
    }

    #[test_case]
    fn no_kernel_page_is_writable_and_executable_or_the_users() {
        let (mut pages, mut code) = (0, 0);
        for_each_mapping(&mut |address, allowed| {
            let executable = allowed & bits::NO_EXECUTE == 0;
            assert!(
                !executable || allowed & bits::WRITE == 0,
                "{address:#x} can be written and executed"
            );
            assert_eq!(allowed & bits::USER, 0, "{address:#x} is open to the user");
            pages += 1;
            code += usize::from(executable);
        });
        assert!(code > 0 && code < pages, "{code} of {pages} are code");
    }

    #[test_case]
    fn code_is_executable_and_data_is_not() {
        static DATA: AtomicUsize = AtomicUsize::new(0);
        let find = |wanted: usize| {
            let mut found = None;
            for_each_mapping(&mut |address, allowed| {
                if address == wanted & !(PAGE_SIZE - 1) {
                    found = Some(allowed & (bits::WRITE | bits::NO_EXECUTE));
                }
            });
            found
        };
        assert_eq!(find(harden as *const () as usize), Some(0));
        assert_eq!(
            find(&raw const DATA as usize),
            Some(bits::WRITE | bits::NO_EXECUTE)
        );
    }

    #[test_case]
    fn a_kernel_page_comes_and_goes_with_its_frame() {
        const AT: usize = 0xffff_f800_0000_0000;
        let map = || map_kernel_page(AT, Frame::alloc_zeroed(Purpose::Kernel).unwrap()).unwrap();
        // The first time makes tables, which stay.
        map();
        drop(unmap_kernel_page(AT));
        let free = crate::mm::frame::free_frames();
        map();
        assert!(phys_of(AT).is_some());
        // SAFETY: the page was just mapped, and nobody else knows it.
        unsafe { (AT as *mut u64).write_volatile(7) };
        let frame = unmap_kernel_page(AT).expect("it was mapped");
        assert_eq!(phys_of(AT), None);
        // SAFETY: the frame is this function's own.
        assert_eq!(unsafe { frame_ptr(frame.number()).cast::<u64>().read() }, 7);
        drop(frame);
        assert_eq!(crate::mm::frame::free_frames(), free);
    }
}
