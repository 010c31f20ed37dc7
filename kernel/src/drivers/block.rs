//! The first disk, as bytes, with a small cache of what was read last.
//!
//! Reads go through windows of 64 KiB, aligned, of which the eight used last are kept in memory that the device writes to
//! directly. So what is read in small pieces costs one request for every 64 KiB.
//!
//! The device takes one request at a time; who wants it meanwhile sleeps.

use alloc::boxed::Box;
use core::fmt;

use ext4_view::Ext4Read;

#[cfg(target_os = "none")]
use super::virtio as device;
use crate::errno::{Errno, Result};

/// Bytes in a window, the largest request to the device.
pub const WINDOW: usize = 64 << 10;
/// Windows that are kept.
pub const WINDOWS: usize = 8;

/// Which windows are in memory, the one used last first.
pub struct Windows {
    /// Byte of the disk at which each slot starts, and the slot. `u64::MAX`: empty.
    order: [(u64, usize); WINDOWS],
}

impl Windows {
    pub const fn new() -> Windows {
        let mut order = [(u64::MAX, 0); WINDOWS];
        let mut slot = 0;
        while slot < WINDOWS {
            order[slot].1 = slot;
            slot += 1;
        }
        Windows { order }
    }

    /// The slot for the window at `start`, and whether it must be filled first. It becomes the one used last.
    pub fn find(&mut self, start: u64) -> (usize, bool) {
        let found = self.order.iter().position(|&(at, _)| at == start);
        let place = found.unwrap_or(WINDOWS - 1);
        self.order[..=place].rotate_right(1);
        self.order[0].0 = start;
        (self.order[0].1, found.is_none())
    }

    /// The window used last could not be filled.
    pub fn forget(&mut self) {
        self.order[0].0 = u64::MAX;
        self.order.rotate_left(1);
    }
}

impl Default for Windows {
    fn default() -> Self {
        Windows::new()
    }
}

/// Finds the disk. Once, at bring-up. `ENODEV`.
pub fn init() -> Result {
    #[cfg(target_os = "none")]
    return device::init();
    #[cfg(not(target_os = "none"))]
    Err(Errno::ENODEV)
}

/// Fills `buf` from byte `start` of the disk; sleeps for the device. `EIO`, `ENODEV`.
pub fn read(start: u64, buf: &mut [u8]) -> Result {
    #[cfg(target_os = "none")]
    return device::read(start, buf);
    #[cfg(not(target_os = "none"))]
    {
        let _ = (start, buf);
        Err(Errno::ENODEV)
    }
}

/// The disk for the file system crate.
pub struct Reader;

impl Ext4Read for Reader {
    fn read(
        &mut self,
        start_byte: u64,
        dst: &mut [u8],
    ) -> core::result::Result<(), Box<dyn core::error::Error + Send + Sync + 'static>> {
        read(start_byte, dst).map_err(|errno| Box::new(DiskError(errno)) as _)
    }
}

/// An error of the disk, in the form that the crate wants.
#[derive(Debug)]
struct DiskError(Errno);

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "disk: {:?}", self.0)
    }
}

impl core::error::Error for DiskError {}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    #[test]
    fn the_windows_used_last_are_kept() {
        let mut windows = Windows::new();
        let start = |n: usize| (n * WINDOW) as u64;
        let slots: Vec<usize> = (0..WINDOWS)
            .map(|n| windows.find(start(n)))
            .map(|(slot, new)| {
                assert!(new);
                slot
            })
            .collect();
        assert_eq!(windows.find(start(0)), (slots[0], false));
        // The oldest one is now window 1.
        assert_eq!(windows.find(start(100)), (slots[1], true));
        assert_eq!(windows.find(start(0)), (slots[0], false));
        assert_eq!(windows.find(start(1)), (slots[2], true));
    }

    #[test]
    fn a_window_that_failed_is_not_found_again() {
        let mut windows = Windows::new();
        let (slot, _) = windows.find(0);
        windows.forget();
        assert_eq!(windows.find(0), (slot, true));
    }
}
