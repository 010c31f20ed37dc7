//! The threads that fill pages of the page cache.
//!
//! Faults only queue what they need: the queue has a fixed size, so that no memory is allocated, and a fault that finds it full
//! waits for a place like for a page. Files with an artificial delay have a thread of their own and do not hold up the others.
//!
//! Lock rank: PAGE, for the queue.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use super::Mapping;
use crate::errno::Result;
use crate::mm::frame::Frame;
use crate::sched::{Interrupted, Sleep, WaitQueue};
use crate::sync::{SpinLock, rank};

const CAPACITY: usize = 128;

struct Request {
    mapping: Arc<Mapping>,
    index: u64,
    page: Frame,
}

/// A ring of requests.
struct Ring {
    slots: [Option<Request>; CAPACITY],
    first: usize,
    len: usize,
}

struct Worker {
    ring: SpinLock<Ring>,
    work: WaitQueue,
    space: WaitQueue,
    /// Whether a request that left the ring is being worked on.
    busy: AtomicBool,
}

impl Worker {
    const fn new() -> Worker {
        Worker {
            // Taken while no tree is locked, so that the rank may be the same.
            ring: SpinLock::new(
                rank::PAGE,
                Ring {
                    slots: [const { None }; CAPACITY],
                    first: 0,
                    len: 0,
                },
            ),
            work: WaitQueue::new(),
            space: WaitQueue::new(),
            busy: AtomicBool::new(false),
        }
    }

    fn push(&self, request: Request) -> bool {
        let mut ring = self.ring.lock();
        if ring.len == CAPACITY {
            return false;
        }
        let slot = (ring.first + ring.len) % CAPACITY;
        ring.slots[slot] = Some(request);
        ring.len += 1;
        drop(ring);
        self.work.wake_one();
        true
    }

    fn pop(&self) -> Option<Request> {
        let mut ring = self.ring.lock();
        let first = ring.first;
        let request = ring.slots[first].take()?;
        self.busy.store(true, Ordering::Relaxed);
        ring.first = (first + 1) % CAPACITY;
        ring.len -= 1;
        drop(ring);
        self.space.wake_all();
        Some(request)
    }

    fn run(&self) -> ! {
        loop {
            if let Ok(request) = self.work.wait_until(Sleep::Uninterruptible, || self.pop()) {
                request.mapping.fill(request.index, &request.page);
                drop(request);
                self.busy.store(false, Ordering::Relaxed);
            }
        }
    }
}

static PROMPT: Worker = Worker::new();
static DELAYED: Worker = Worker::new();

/// Pages that wait to be read or are being read.
pub fn being_read() -> usize {
    [&PROMPT, &DELAYED]
        .map(|worker| worker.ring.lock().len + usize::from(worker.busy.load(Ordering::Relaxed)))
        .iter()
        .sum()
}

/// A worker whose queue was full.
pub struct Place(&'static Worker);

impl Place {
    pub(super) fn wait(&self, sleep: Sleep) -> core::result::Result<(), Interrupted> {
        self.0
            .space
            .wait_until(sleep, || (self.0.ring.lock().len < CAPACITY).then_some(()))
    }
}

/// Queues the read of a locked page, or says what to wait for if there is no place.
pub(super) fn submit(
    mapping: &Arc<Mapping>,
    index: u64,
    page: &Frame,
) -> core::result::Result<(), Place> {
    let delayed = mapping
        .backing
        .as_ref()
        .is_some_and(|backing| backing.delay_ns() > 0);
    let worker = if delayed { &DELAYED } else { &PROMPT };
    let queued = worker.push(Request {
        mapping: mapping.clone(),
        index,
        page: page.clone(),
    });
    queued.then_some(()).ok_or(Place(worker))
}

/// Starts the threads; once, at bring-up.
pub fn start() -> Result {
    crate::task::kernel_thread("read", || PROMPT.run())?;
    crate::task::kernel_thread("slow-read", || DELAYED.run())
}
