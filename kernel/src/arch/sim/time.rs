//! Simulated time: moves a little with every look at the clock.

use core::sync::atomic::{AtomicU64, Ordering};

pub const TICK_NS: u64 = 1_000_000;

static NOW: AtomicU64 = AtomicU64::new(0);

pub fn now_ns() -> u64 {
    NOW.fetch_add(10, Ordering::Relaxed)
}

pub fn wall_clock_offset_ns() -> u64 {
    1_700_000_000_000_000_000
}

/// Time jumps forward.
pub fn advance_to(ns: u64) {
    NOW.fetch_max(ns, Ordering::Relaxed);
}
