//! There is no simulated user code that could call anything.

use alloc::vec::Vec;

use crate::errno::OutOfMemory;
use crate::mm::frame::FrameNumber;

pub fn image() -> Result<Vec<u8>, OutOfMemory> {
    Ok(Vec::new())
}

pub fn set_data_frame(_frame: FrameNumber) {}
