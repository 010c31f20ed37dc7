//! Simulated time: moves a little with every look at the clock.

use core::sync::atomic::{AtomicU64, Ordering};

static NOW: AtomicU64 = AtomicU64::new(0);
static WALL_OFFSET: AtomicU64 = AtomicU64::new(1_700_000_000_000_000_000);

pub fn now_ns() -> u64 {
    NOW.fetch_add(10, Ordering::Relaxed)
}

/// Nothing is counted here.
pub fn work_counts() -> u64 {
    0
}

pub fn wall_clock_offset_ns() -> u64 {
    WALL_OFFSET.load(Ordering::Relaxed)
}

pub fn set_wall_clock_offset_ns(offset: u64) {
    WALL_OFFSET.store(offset, Ordering::Relaxed);
}

/// Nothing to do: whoever waits for interrupts asks the queue itself.
pub fn set_timer(_deadline_ns: u64) {}

/// Time jumps forward.
pub fn advance_to(ns: u64) {
    NOW.fetch_max(ns, Ordering::Relaxed);
}
