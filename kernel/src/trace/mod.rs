//! Counters over all processes, told in the `stats` record at the end of a run.

use core::sync::atomic::{AtomicU64, Ordering};

/// Faults that were resolved without waiting for a device.
pub static FAULTS_MINOR: AtomicU64 = AtomicU64::new(0);
/// Faults that waited for a device.
pub static FAULTS_MAJOR: AtomicU64 = AtomicU64::new(0);
/// Fault attempts that ended in RETRY.
pub static RETRIES: AtomicU64 = AtomicU64::new(0);
/// Signal handlers that were started.
pub static SIGNALS: AtomicU64 = AtomicU64::new(0);

/// Writes the control record.
pub fn write_stats() {
    let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    crate::arch::machine::control(format_args!(
        "stats minor={} major={} retries={} signals={}",
        value(&FAULTS_MINOR),
        value(&FAULTS_MAJOR),
        value(&RETRIES),
        value(&SIGNALS)
    ));
}
