//! The bytes of a message, on their way from one process to another.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Deref;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::errno::{Errno, Result};
use crate::mm::{PAGE_SIZE, frame, uaccess};

/// Bytes in all messages: at most a quarter of the memory.
static ALL: AtomicUsize = AtomicUsize::new(0);

/// What a message says.
pub struct Bytes(Box<[u8]>);

impl Bytes {
    /// Copies `len` bytes from user memory. `EFAULT`, `ENOMEM`.
    pub fn read(addr: usize, len: usize) -> Result<Bytes> {
        crate::fs::check_memory()?;
        let most = frame::total_frames() / 4 * PAGE_SIZE;
        if len > most || ALL.load(Ordering::Relaxed) + len > most {
            return Err(Errno::ENOMEM);
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len)?;
        bytes.resize(len, 0);
        uaccess::read_bytes(addr, &mut bytes)?;
        ALL.fetch_add(len, Ordering::Relaxed);
        Ok(Bytes(bytes.into_boxed_slice()))
    }
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        ALL.fetch_sub(self.0.len(), Ordering::Relaxed);
    }
}
