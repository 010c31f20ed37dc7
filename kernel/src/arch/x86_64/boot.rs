//! Bring-up of the CPU and of memory, from what the bootloader leaves.

use core::ops::Range;

use bootloader_api::BootInfo;
use bootloader_api::config::{BootloaderConfig, Mapping};
use bootloader_api::info::{MemoryRegion, MemoryRegionKind};

use super::{
    entry, features, fpu, gdt, idt, kernel_pages, objects, panic, percpu, pic, serial, time,
};
use crate::arch::frame_ptr;
use crate::errno::OutOfMemory;
use crate::mm::PAGE_SIZE;
use crate::mm::frame::{self, FrameMeta, FrameNumber};

/// The stack that the kernel starts on, which stays the idle thread's.
const BOOT_STACK_SIZE: u64 = 128 << 10;

/// What the bootloader is asked for: everything in the higher half, the lower half is the user's.
pub const CONFIG: BootloaderConfig = {
    let mut config = BootloaderConfig::new_default();
    config.mappings.dynamic_range_start = Some(0xffff_8000_0000_0000);
    config.mappings.dynamic_range_end = Some(0xffff_ffff_ffff_f000);
    config.mappings.physical_memory = Some(Mapping::Dynamic);
    config.kernel_stack_size = BOOT_STACK_SIZE;
    config
};

/// The earliest part: from here on the log works, and exceptions are reported.
pub fn early(info: &BootInfo) {
    x86_64::instructions::interrupts::disable();
    time::begin();
    serial::init();
    panic::set_image_base(info.kernel_image_offset);
    features::init();
    objects::init();
    gdt::init();
    percpu::init();
    idt::init();
    entry::init();
}

/// Hands memory to the frame allocator, and takes over the page tables.
pub fn memory(info: &'static mut BootInfo) -> Result<(), OutOfMemory> {
    let offset = info
        .physical_memory_offset
        .into_option()
        .expect("the bootloader made a direct map");
    kernel_pages::set_direct_map(offset as usize);
    let end = info
        .memory_regions
        .iter()
        .filter(|region| is_usable(region))
        .map(|region| region.end)
        .max();
    let frames = (end.unwrap_or(0) / PAGE_SIZE as u64) as usize;
    let meta_bytes = (frames * size_of::<FrameMeta>()) as u64;
    let home = info
        .memory_regions
        .iter()
        .filter(|region| is_usable(region))
        .map(frames_of)
        .max_by_key(|frames| frames.len())
        .ok_or(OutOfMemory)?;
    let meta_frames = meta_bytes.div_ceil(PAGE_SIZE as u64) as u32;
    if meta_frames as usize > home.len() {
        return Err(OutOfMemory);
    }
    let meta_at = frame_ptr(FrameNumber(home.start));
    // SAFETY: the frames are usable memory that nobody has, the direct map covers them, and zero bytes are a valid FrameMeta.
    let meta = unsafe {
        meta_at.write_bytes(0, meta_bytes as usize);
        core::slice::from_raw_parts_mut(meta_at.cast::<FrameMeta>(), frames)
    };
    let regions = info
        .memory_regions
        .iter()
        .filter(|region| is_usable(region))
        .map(|region| {
            let frames = frames_of(region);
            if frames.start == home.start {
                frames.start + meta_frames..frames.end
            } else {
                frames
            }
        });
    // SAFETY: usable memory but for what the metadata takes, and the direct map covers it.
    unsafe { frame::init(regions, meta) };
    kernel_pages::harden()
}

fn is_usable(region: &MemoryRegion) -> bool {
    region.kind == MemoryRegionKind::Usable
}

/// The whole frames of a region. Frame 0 is left out: firmware keeps things there, and it looks like nothing.
fn frames_of(region: &MemoryRegion) -> Range<u32> {
    let page = PAGE_SIZE as u64;
    let start = region.start.div_ceil(page).max(1) as u32;
    start..((region.end / page) as u32).max(start)
}

/// The rest of the CPU: FPU, interrupts, clocks. After the heap.
pub fn cpu() -> Result<(), OutOfMemory> {
    fpu::init()?;
    pic::init();
    time::init()
}

/// Writes to the log line: for the log's backend.
pub fn log_write(bytes: &[u8]) {
    serial::log_write(bytes);
}

pub use panic::rust_panic;
