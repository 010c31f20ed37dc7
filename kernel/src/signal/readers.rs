//! Those who wait for a process's signals through signalfd(2), which shows them also while they are blocked.
//!
//! Lock rank: WAIT_QUEUE.

use core::sync::atomic::{AtomicUsize, Ordering};

use crate::fs::poll;
use crate::sched::WaitQueue;

/// Open signal files, in the whole system: while there are none, sending looks no further.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// One open signal file.
pub struct Open(());

impl Open {
    pub fn new() -> Open {
        OPEN.fetch_add(1, Ordering::Relaxed);
        Open(())
    }
}

impl Default for Open {
    fn default() -> Self {
        Open::new()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Threads of one process that read a signal file.
#[derive(Default)]
pub struct Readers(pub WaitQueue);

impl Readers {
    /// A signal became pending. Under the process's signal lock, or none.
    #[inline]
    pub fn tell(&self) {
        if OPEN.load(Ordering::Relaxed) != 0 {
            self.0.wake_all();
            poll::notify();
        }
    }
}
