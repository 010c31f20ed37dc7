//! A process's threads: which there are, and what they have used together.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::usage::Counts;
use super::{Process, Thread, table};

impl Process {
    /// Whether others use the process's memory too: more threads, or a process that vfork(2) made.
    pub fn shares_memory(&self) -> bool {
        let threads = self.signals.lock().threads.iter().take(2).count();
        threads > 1 || self.mm().is_some_and(|mm| Arc::strong_count(&mm) > 2)
    }

    /// The first thread, while it lives.
    pub fn first_thread(&self) -> Option<Arc<Thread>> {
        table::find_thread(self.pid)
    }

    /// Living threads.
    pub fn nr_threads(&self) -> u32 {
        self.nr_threads.load(Ordering::Relaxed)
    }

    pub(super) fn count_threads(&self, change: i32) {
        self.nr_threads.fetch_add(change as u32, Ordering::Relaxed);
    }

    /// That thread of `parent`, if it lives: the first to hear of what becomes of the process.
    pub fn making_thread(&self, parent: &Process) -> Option<Arc<Thread>> {
        let thread = table::find_thread(self.maker())?;
        core::ptr::eq(&*thread.process, parent).then_some(thread)
    }

    /// CPU time of all threads, ns.
    pub fn cpu_time_ns(&self) -> u64 {
        let living: u64 = self
            .signals
            .lock()
            .threads
            .iter()
            .map(|thread| thread.sched.cpu_time_ns())
            .sum();
        living + self.usage.cpu_ns.load(Ordering::Relaxed)
    }

    /// What all threads, living and ended, have used.
    pub fn counts(&self) -> Counts {
        let ended = self.usage.get();
        let signals = self.signals.lock();
        signals
            .threads
            .iter()
            .fold(ended, |sum, thread| sum + thread.counts())
    }

    /// Most pages that were ever resident, over all programs of the process.
    pub fn max_resident(&self) -> u64 {
        let before = self.usage.max_resident.load(Ordering::Relaxed);
        self.mm()
            .map_or(before, |mm| before.max(mm.peak_resident_pages()))
    }

    /// User and system time in clock ticks of 1/100 s, without children.
    pub fn cpu_times_in_ticks(&self) -> (i64, i64) {
        self.counts().ticks()
    }
}
