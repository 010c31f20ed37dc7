//! What operations cost when there is much of something: areas, processes, touched pages, pending signals, waiters.

mod areas;
mod pages;
mod processes;
mod signals;
mod waiters;

/// An operation, and how much of the thing there is to be.
pub struct Subject {
    pub name: &'static str,
    /// Measures it with so much of the thing.
    pub run: fn(usize),
    pub sizes: [usize; 5],
}

const AREAS: [usize; 5] = [10, 100, 1_000, 10_000, 60_000];
const PROCESSES: [usize; 5] = [1, 10, 100, 500, 2_000];
const PAGES: [usize; 5] = [1, 100, 10_000, 100_000, 500_000];
const SIGNALS: [usize; 5] = [1, 10, 100, 400, 1_000];
const WAITERS: [usize; 5] = [1, 4, 16, 64, 256];

const fn subject(name: &'static str, sizes: [usize; 5], run: fn(usize)) -> Subject {
    Subject { name, run, sizes }
}

pub static ALL: [Subject; 8] = [
    subject("areas-fault", AREAS, areas::fault),
    subject("areas-mmap", AREAS, areas::map_and_unmap),
    subject("processes-fork", PROCESSES, processes::fork),
    subject("processes-switch", PROCESSES, processes::switch),
    subject("pages-fault", PAGES, pages::fault),
    subject("pages-fork", PAGES, pages::fork),
    subject("signals-queue", SIGNALS, signals::queue_and_take),
    subject("waiters-wake", WAITERS, waiters::wake),
];
