//! Memory that objects take which no process holds: at most a quarter of all there is, as nothing else would end them.

use core::sync::atomic::{AtomicUsize, Ordering};

use crate::errno::{Errno, Result};
use crate::mm::{PAGE_SIZE, frame};

/// Bytes in all charges.
static ALL: AtomicUsize = AtomicUsize::new(0);

/// So many bytes of an object's; given back when it goes.
#[must_use]
pub(super) struct Charge(usize);

impl Charge {
    /// `ENOMEM`.
    pub fn new(bytes: usize) -> Result<Charge> {
        crate::fs::check_memory()?;
        let most = frame::total_frames() / 4 * PAGE_SIZE;
        if bytes > most || ALL.load(Ordering::Relaxed) + bytes > most {
            return Err(Errno::ENOMEM);
        }
        ALL.fetch_add(bytes, Ordering::Relaxed);
        Ok(Charge(bytes))
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        ALL.fetch_sub(self.0, Ordering::Relaxed);
    }
}
