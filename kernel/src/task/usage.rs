//! What processes and threads have used: times and counts as in getrusage(2).

use core::sync::atomic::{AtomicU64, Ordering};

/// What was used: times and counts as in getrusage(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub cpu_ns: u64,
    /// The part of it spent in the kernel.
    pub system_ns: u64,
    /// Page faults.
    pub minor: u64,
    pub major: u64,
    /// Context switches: to wait, and for others.
    pub voluntary: u64,
    pub involuntary: u64,
}

impl Counts {
    /// User and system time in clock ticks of 1/100 s.
    pub fn ticks(self) -> (i64, i64) {
        const TICK_NS: u64 = 10_000_000;
        (
            (self.cpu_ns.saturating_sub(self.system_ns) / TICK_NS) as i64,
            (self.system_ns / TICK_NS) as i64,
        )
    }
}

impl core::ops::Add for Counts {
    type Output = Counts;
    fn add(self, other: Counts) -> Counts {
        Counts {
            cpu_ns: self.cpu_ns + other.cpu_ns,
            system_ns: self.system_ns + other.system_ns,
            minor: self.minor + other.minor,
            major: self.major + other.major,
            voluntary: self.voluntary + other.voluntary,
            involuntary: self.involuntary + other.involuntary,
        }
    }
}

/// [`Counts`] of children that were waited for, or of threads that ended.
#[derive(Default)]
pub struct Usage {
    pub cpu_ns: AtomicU64,
    pub system_ns: AtomicU64,
    pub minor: AtomicU64,
    pub major: AtomicU64,
    pub voluntary: AtomicU64,
    pub involuntary: AtomicU64,
    /// Most resident pages, of an address space that is gone or of a child.
    pub max_resident: AtomicU64,
}

impl Usage {
    pub fn add(&self, counts: Counts) {
        for (to, value) in [
            (&self.cpu_ns, counts.cpu_ns),
            (&self.system_ns, counts.system_ns),
            (&self.minor, counts.minor),
            (&self.major, counts.major),
            (&self.voluntary, counts.voluntary),
            (&self.involuntary, counts.involuntary),
        ] {
            to.fetch_add(value, Ordering::Relaxed);
        }
    }

    pub fn get(&self) -> Counts {
        let get = |from: &AtomicU64| from.load(Ordering::Relaxed);
        Counts {
            cpu_ns: get(&self.cpu_ns),
            system_ns: get(&self.system_ns),
            minor: get(&self.minor),
            major: get(&self.major),
            voluntary: get(&self.voluntary),
            involuntary: get(&self.involuntary),
        }
    }

    /// Notes how many pages were resident at most.
    pub fn note_resident(&self, pages: u64) {
        self.max_resident.fetch_max(pages, Ordering::Relaxed);
    }
}
