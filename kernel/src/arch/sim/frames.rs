//! Simulated physical memory.

use std::sync::OnceLock;

use crate::mm::PAGE_SIZE;
use crate::mm::frame::{self, FrameMeta, FrameNumber};

/// Frames of the simulated machine. Number 0 is not used.
const FRAMES: u32 = 4096;

static BASE: OnceLock<usize> = OnceLock::new();

/// Gives the frame allocator its memory. Once.
pub(super) fn init() {
    let memory = vec![0xa5u8; (FRAMES as usize + 1) * PAGE_SIZE].leak();
    let base = (memory.as_ptr() as usize).next_multiple_of(PAGE_SIZE);
    BASE.set(base).expect("initialised once");
    let meta: Vec<FrameMeta> = (0..FRAMES).map(|_| FrameMeta::new()).collect();
    // SAFETY: the memory was just allocated and is leaked, and nobody has a frame of it yet.
    unsafe { frame::init(core::iter::once(1..FRAMES), meta.leak()) };
}

/// The memory of a frame.
pub fn frame_ptr(frame: FrameNumber) -> *mut u8 {
    let base = *BASE.get().expect("the machine has memory");
    (base + frame.0 as usize * PAGE_SIZE) as *mut u8
}

/// Fills a frame with zeros.
pub fn zero_frame(frame: FrameNumber) {
    // SAFETY: the frame's memory is PAGE_SIZE bytes long, and the caller owns it.
    unsafe { frame_ptr(frame).write_bytes(0, PAGE_SIZE) };
}

/// Copies a frame.
pub fn copy_frame(src: FrameNumber, dst: FrameNumber) {
    // SAFETY: both frames are PAGE_SIZE bytes long and differ, and the caller owns `dst`.
    unsafe { core::ptr::copy_nonoverlapping(frame_ptr(src), frame_ptr(dst), PAGE_SIZE) };
}
