//! Memory that the device reads and writes: frames of the direct map, whose addresses translate by subtraction.

use core::ptr::NonNull;

use virtio_drivers::{BufferDirection, Hal, PhysAddr};

use crate::arch;
use crate::mm::PAGE_SIZE;
use crate::mm::frame::{self, FrameNumber};

/// The kernel as the driver crate sees it.
pub struct KernelHal;

/// Where physical address 0 is mapped.
fn direct_map() -> usize {
    arch::frame_ptr(FrameNumber(0)) as usize
}

// SAFETY: `dma_alloc` gives out zeroed frames that nobody else has, `mmio_phys_to_virt` a mapping of
// exactly the registers asked for; `share` translates exactly.
unsafe impl Hal for KernelHal {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let Ok(first) = frame::alloc_contiguous(pages as u32) else {
            return (0, NonNull::dangling());
        };
        for page in 0..pages as u32 {
            arch::zero_frame(FrameNumber(first.0 + page));
        }
        let pointer = NonNull::new(arch::frame_ptr(first)).expect("the direct map is not at 0");
        (first.phys(), pointer)
    }

    unsafe fn dma_dealloc(_paddr: PhysAddr, _vaddr: NonNull<u8>, _pages: usize) -> i32 {
        // Contiguous frames are never given back; the one device stays for good.
        0
    }

    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, size: usize) -> NonNull<u8> {
        arch::map_device(paddr, size).expect("memory for the device's page tables at bring-up")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        let offset = (buffer.cast::<u8>().as_ptr() as usize).wrapping_sub(direct_map());
        let end = offset.saturating_add(buffer.len());
        assert!(
            end.div_ceil(PAGE_SIZE) as u64 <= u64::from(u32::MAX),
            "a buffer outside of the direct map"
        );
        offset as PhysAddr
    }

    unsafe fn unshare(_paddr: PhysAddr, _buffer: NonNull<[u8]>, _direction: BufferDirection) {}
}
