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

    /// Some living threads in the order of their birth, which each comes with: those that were born after `birth`, which was that of the
    /// thread `last` (a step if it still lives, else a search).
    pub fn threads_after(&self, last: u32, birth: u64) -> heapless::Vec<(u32, u64), 64> {
        let last = table::find_thread(last)
            .filter(|last| core::ptr::eq(&*last.process, self) && last.birth() == birth);
        let signals = self.signals.lock();
        let mut cursor = signals.threads.front();
        if let Some(last) = last.filter(|last| last.group_link.is_linked()) {
            // SAFETY: a linked thread is in its own process's list, which is this one, under that process's lock.
            cursor = unsafe { signals.threads.cursor_from_ptr(Arc::as_ptr(&last)) };
        }
        while cursor.get().is_some_and(|thread| thread.birth() <= birth) {
            cursor.move_next();
        }
        let mut threads = heapless::Vec::new();
        while let Some(thread) = cursor.get()
            && threads.push((thread.tid(), thread.birth())).is_ok()
        {
            cursor.move_next();
        }
        threads
    }

    /// Notes that a thread is the youngest now. The list of threads is locked.
    pub(super) fn note_birth(&self, thread: &Thread) {
        let birth = self.births.fetch_add(1, Ordering::Relaxed) + 1;
        thread.birth.store(birth, Ordering::Relaxed);
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
