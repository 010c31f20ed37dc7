//! Files without a position: pipes, terminals, devices, event counters.

use alloc::sync::Arc;

use bitflags::bitflags;
use linux_raw_sys::general as abi;

use super::epoll::Instance;
use super::io::{Dst, Src};
use super::pipe::Pipe;
use super::poll::{self, PollQueue};
use super::socket::Socket;
use super::timerfd::TimerFd;
use crate::errno::{Errno, Result};
use crate::signal::SigSet;
use crate::task::Process;

bitflags! {
    /// Readiness, with the values of poll(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct PollEvents: u16 {
        const IN = abi::POLLIN as u16;
        const PRI = abi::POLLPRI as u16;
        const OUT = abi::POLLOUT as u16;
        const ERR = abi::POLLERR as u16;
        const HUP = abi::POLLHUP as u16;
        const NVAL = abi::POLLNVAL as u16;
        const RDNORM = abi::POLLRDNORM as u16;
        /// The other side sends no more.
        const RDHUP = abi::POLLRDHUP as u16;
        const WRNORM = abi::POLLWRNORM as u16;
        const READABLE = Self::IN.bits() | Self::RDNORM.bits();
        const WRITABLE = Self::OUT.bits() | Self::WRNORM.bits();
    }
}

/// One side of an open stream. Calls may sleep; `nonblock` turns sleeping into `EAGAIN`.
///
/// Whoever makes a stream ready tells its [`PollQueue`] after it has woken its own readers or writers; one without a queue of its own
/// calls [`super::poll::notify`].
pub trait Stream: Send + Sync {
    /// Reads what is there, at least one byte; 0 at the end. `EAGAIN`, `ERESTARTSYS` when a signal ended the wait, `EFAULT`.
    fn read(&self, _dst: &mut Dst<'_>, _nonblock: bool) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    /// Writes all there is unless interrupted. `EAGAIN`, `EPIPE`, `ERESTARTSYS`, `EFAULT`.
    fn write(&self, _src: &mut Src<'_>, _nonblock: bool) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    /// What would not block now. Never sleeps.
    fn poll(&self) -> PollEvents {
        PollEvents::READABLE | PollEvents::WRITABLE
    }

    /// Those who want to be told when the stream becomes ready. `None`: it always is, and cannot be watched with epoll(7).
    fn poll_queue(&self) -> Option<&PollQueue> {
        Some(&poll::SHARED)
    }

    /// [`Stream::poll`] for a descriptor with or without O_NONBLOCK, where that matters.
    fn poll_as(&self, _nonblock: bool) -> PollEvents {
        self.poll()
    }

    fn ioctl(&self, _command: u32, _arg: usize) -> Result<usize> {
        Err(Errno::ENOTTY)
    }

    /// Whether lseek(2) is allowed, although it has no effect; and if the file has a name, pread(2) and pwrite(2).
    fn seekable(&self) -> bool {
        false
    }

    /// Replaces the set of a signal file. `EINVAL` for other files.
    fn set_signals(&self, _set: SigSet) -> Result {
        Err(Errno::EINVAL)
    }

    /// The pipe, for fcntl(2).
    fn pipe(&self) -> Option<&Pipe> {
        None
    }

    /// The socket, if it is one.
    fn socket(&self) -> Option<&Socket> {
        None
    }

    /// The process, for a process descriptor.
    fn process(&self) -> Option<&Arc<Process>> {
        None
    }

    /// The epoll instance, if it is one.
    fn epoll(&self) -> Option<&Arc<Instance>> {
        None
    }

    /// The timer, if it is one.
    fn timer(&self) -> Option<&Arc<TimerFd>> {
        None
    }
}
