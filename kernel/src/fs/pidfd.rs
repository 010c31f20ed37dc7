//! Process descriptors (`pidfd_open(2)`): files that stand for a process, whatever becomes of its number.
//!
//! Readable once the process has ended, hung up once it has been waited for.

use alloc::boxed::Box;
use alloc::sync::Arc;

use linux_raw_sys::general as abi;

use super::file::{File, Opened};
use super::fixed;
use super::poll::PollQueue;
use super::stream::{PollEvents, Stream};
use crate::errno::{Errno, Result};
use crate::task::Process;
use crate::task::process::Life;

struct PidFd(Arc<Process>);

/// A new descriptor of `process`, open. `flags`: PIDFD_NONBLOCK or 0. `ENFILE`, `ENOMEM`.
pub fn new(process: Arc<Process>, flags: u32) -> Result<Arc<File>> {
    let inode = fixed::anonymous(b"anon_inode:[pidfd]")?;
    let stream = Box::try_new(PidFd(process))?;
    File::new(inode, Opened::Stream(stream), abi::O_RDWR | flags)
}

/// The process that a file stands for. `EBADF` if it is no process descriptor.
pub fn process_of(file: &File) -> Result<&Arc<Process>> {
    file.stream().and_then(Stream::process).ok_or(Errno::EBADF)
}

impl Stream for PidFd {
    fn poll(&self) -> PollEvents {
        match self.0.life() {
            Life::Lives => PollEvents::empty(),
            Life::Zombie => PollEvents::READABLE,
            Life::Gone => PollEvents::READABLE | PollEvents::HUP,
        }
    }

    fn poll_queue(&self) -> Option<&PollQueue> {
        Some(&self.0.watchers)
    }

    fn process(&self) -> Option<&Arc<Process>> {
        Some(&self.0)
    }
}
