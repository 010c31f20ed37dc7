//! Event counters (`eventfd(2)`).
//!
//! Lock rank: FILES.

use alloc::boxed::Box;
use alloc::sync::Arc;

use super::file::{File, Opened};
use super::fixed;
use super::io::{Dst, Src};
use super::poll::PollQueue;
use super::stream::{PollEvents, Stream};
use crate::errno::{Errno, Result};
use crate::sched::{Sleep, WaitQueue};
use crate::sync::{SpinLock, rank};

/// The largest count: one below the maximum, so that overflow shows.
const MAX: u64 = u64::MAX - 1;

struct Counter {
    count: SpinLock<u64>,
    /// Reads take one at a time.
    semaphore: bool,
    changed: WaitQueue,
    watchers: PollQueue,
}

/// A new counter, open.
pub fn new(count: u32, semaphore: bool, flags: u32) -> Result<Arc<File>> {
    let inode = fixed::anonymous(b"anon_inode:[eventfd]")?;
    let count = SpinLock::new(rank::FILES, u64::from(count));
    let counter = Box::try_new(Counter {
        count,
        semaphore,
        changed: WaitQueue::new(),
        watchers: PollQueue::new(),
    })?;
    File::new(inode, Opened::Stream(counter), flags)
}

impl Counter {
    fn try_take(&self) -> Option<u64> {
        let mut count = self.count.lock();
        let taken = if self.semaphore {
            (*count).min(1)
        } else {
            *count
        };
        *count -= taken;
        (taken > 0).then_some(taken)
    }

    fn try_add(&self, more: u64) -> Option<()> {
        let mut count = self.count.lock();
        *count = count.checked_add(more).filter(|&sum| sum <= MAX)?;
        Some(())
    }

    fn tell(&self, events: PollEvents) {
        self.changed.wake_all();
        self.watchers.tell(events);
    }
}

impl Stream for Counter {
    fn read(&self, dst: &mut Dst<'_>, nonblock: bool) -> Result<usize> {
        if dst.left() < 8 {
            return Err(Errno::EINVAL);
        }
        let taken = match self.try_take() {
            Some(taken) => taken,
            None if nonblock => return Err(Errno::EAGAIN),
            None => self
                .changed
                .wait_until(Sleep::Interruptible, || self.try_take())?,
        };
        self.tell(PollEvents::WRITABLE);
        if dst.put(&taken.to_ne_bytes()) < 8 {
            Err(Errno::EFAULT)
        } else {
            Ok(8)
        }
    }

    fn write(&self, src: &mut Src<'_>, nonblock: bool) -> Result<usize> {
        if src.left() < 8 {
            return Err(Errno::EINVAL);
        }
        let mut bytes = [0; 8];
        if src.take(&mut bytes) < 8 {
            return Err(Errno::EFAULT);
        }
        let more = u64::from_ne_bytes(bytes);
        if more > MAX {
            return Err(Errno::EINVAL);
        }
        match self.try_add(more) {
            Some(()) => {}
            None if nonblock => return Err(Errno::EAGAIN),
            None => self
                .changed
                .wait_until(Sleep::Interruptible, || self.try_add(more))?,
        }
        self.tell(PollEvents::READABLE);
        Ok(8)
    }

    fn poll(&self) -> PollEvents {
        let count = *self.count.lock();
        let mut events = PollEvents::empty();
        events.set(PollEvents::READABLE, count > 0);
        events.set(PollEvents::WRITABLE, count < MAX);
        events
    }

    fn poll_queue(&self) -> Option<&PollQueue> {
        Some(&self.watchers)
    }

    fn seekable(&self) -> bool {
        true
    }
}
