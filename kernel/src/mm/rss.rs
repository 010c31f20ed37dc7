//! How many pages of a process are resident, by what they hold, and how many there were at most.
//!
//! Counted as Linux does: every entry of the page table that has a frame of its own, but for the shared zero page. The highest number is
//! looked at before pages go, and when somebody asks.

use core::sync::atomic::{AtomicU64, Ordering};

use super::frame::{FrameKind, KindCounts};

/// Numbers of pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageCounts {
    pub anonymous: u64,
    pub file: u64,
    pub shared_memory: u64,
}

impl PageCounts {
    /// Adds a page.
    #[inline]
    pub fn add(&mut self, kind: FrameKind) {
        match kind {
            FrameKind::File => self.file += 1,
            FrameKind::SharedMemory => self.shared_memory += 1,
            _ => self.anonymous += 1,
        }
    }

    /// Adds pages.
    pub fn add_kinds(&mut self, counts: &KindCounts) {
        let (file, shared_memory) = (
            counts.of(FrameKind::File),
            counts.of(FrameKind::SharedMemory),
        );
        self.file += file;
        self.shared_memory += shared_memory;
        self.anonymous += counts.total() - file - shared_memory;
    }

    pub fn total(self) -> u64 {
        self.anonymous + self.file + self.shared_memory
    }
}

/// The resident pages of an address space.
#[derive(Default)]
pub struct Resident {
    anonymous: AtomicU64,
    file: AtomicU64,
    shared_memory: AtomicU64,
    peak: AtomicU64,
}

impl Resident {
    fn counter(&self, kind: FrameKind) -> &AtomicU64 {
        match kind {
            FrameKind::File => &self.file,
            FrameKind::SharedMemory => &self.shared_memory,
            _ => &self.anonymous,
        }
    }

    /// Counts `pages` more of one kind.
    #[inline]
    pub fn add(&self, kind: FrameKind, pages: u64) {
        self.counter(kind).fetch_add(pages, Ordering::Relaxed);
    }

    /// Counts more pages.
    pub fn add_all(&self, pages: PageCounts) {
        self.anonymous.fetch_add(pages.anonymous, Ordering::Relaxed);
        self.file.fetch_add(pages.file, Ordering::Relaxed);
        self.shared_memory
            .fetch_add(pages.shared_memory, Ordering::Relaxed);
    }

    /// Pages are about to go.
    pub fn note_peak(&self) {
        self.peak.fetch_max(self.get().total(), Ordering::Relaxed);
    }

    /// Pages are gone. [`Resident::note_peak`] came before.
    pub fn remove_all(&self, pages: PageCounts) {
        self.anonymous.fetch_sub(pages.anonymous, Ordering::Relaxed);
        self.file.fetch_sub(pages.file, Ordering::Relaxed);
        self.shared_memory
            .fetch_sub(pages.shared_memory, Ordering::Relaxed);
    }

    /// A page was replaced by a private one.
    #[inline]
    pub fn became_anonymous(&self, from: FrameKind) {
        if from != FrameKind::Anonymous {
            self.counter(from).fetch_sub(1, Ordering::Relaxed);
            self.anonymous.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn get(&self) -> PageCounts {
        PageCounts {
            anonymous: self.anonymous.load(Ordering::Relaxed),
            file: self.file.load(Ordering::Relaxed),
            shared_memory: self.shared_memory.load(Ordering::Relaxed),
        }
    }

    /// Most pages that were ever resident.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed).max(self.get().total())
    }
}
