//! The slave's side of a pair: a terminal.

use alloc::sync::Arc;

use linux_raw_sys::{general as abi, ioctl};

use super::{PIECE, Pair, line};
use crate::arch::time;
use crate::errno::{Errno, Result};
use crate::fs::io::{Dst, Src, partial};
use crate::fs::poll::PollQueue;
use crate::fs::stream::{PollEvents, Stream};
use crate::mm::uaccess::UserPtr;
use crate::sched::Sleep;
use crate::sched::wait::NotYet;
use crate::signal::Signal;

/// The slave's side, open.
pub(super) struct Slave(pub(super) Arc<Pair>);

impl Drop for Slave {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.slaves -= 1;
        drop(state);
        self.0.tell();
    }
}

impl Slave {
    /// Reads what is there; `None`: wait.
    fn try_read(&self, buf: &mut [u8]) -> Option<usize> {
        let settings = self.0.terminal.settings();
        let mut state = self.0.state.lock();
        match state.line.read(&settings, buf) {
            None if state.masters == 0 => Some(0),
            found => found,
        }
    }

    /// Bytes to wait for, and how long, without ICANON (`termios(3)`). With both, the time is that from the first byte to the last one.
    fn patience(&self) -> (usize, u64) {
        let settings = self.0.terminal.settings();
        match settings.lflag(abi::ICANON) {
            true => (1, 0),
            false => (
                settings.control(abi::VMIN).into(),
                u64::from(settings.control(abi::VTIME)) * 100_000_000,
            ),
        }
    }

    /// Waits for the first bytes; `None`: there are none, and that is no error.
    fn first_bytes(&self, buf: &mut [u8], nonblock: bool) -> Result<Option<usize>> {
        if let Some(done) = self.try_read(buf) {
            return Ok(Some(done));
        }
        if nonblock {
            return Err(Errno::EAGAIN);
        }
        let (min, time_ns) = self.patience();
        let deadline = match (min, time_ns) {
            (0, 0) => return Ok(None),
            (0, time_ns) => Some(time::now_ns() + time_ns),
            _ => None,
        };
        let look = || match self.0.terminal.may_read() {
            true => self.try_read(buf).map(Ok),
            false => Some(Err(())),
        };
        match self
            .0
            .changed
            .wait_until_deadline(Sleep::Interruptible, deadline, look)
        {
            Ok(Ok(done)) => Ok(Some(done)),
            Ok(Err(())) => {
                self.0.terminal.check_foreground(Signal::SIGTTIN)?;
                Err(Errno::ERESTARTSYS)
            }
            Err(NotYet::TimedOut) => Ok(None),
            Err(NotYet::Interrupted) => Err(Errno::ERESTARTSYS),
        }
    }

    /// Without ICANON, waits until there are MIN bytes, or for TIME.
    fn more_bytes(&self, buf: &mut [u8], mut done: usize) -> usize {
        let (min, time_ns) = self.patience();
        let wanted = min.min(buf.len());
        let deadline = (time_ns > 0).then(|| time::now_ns() + time_ns);
        while done > 0 && done < wanted {
            let look = || self.try_read(&mut buf[done..]);
            match self
                .0
                .changed
                .wait_until_deadline(Sleep::Interruptible, deadline, look)
            {
                Ok(more) if more > 0 => done += more,
                _ => break,
            }
        }
        done
    }
}

impl Stream for Slave {
    fn read(&self, dst: &mut Dst<'_>, nonblock: bool) -> Result<usize> {
        let pair = &self.0;
        pair.terminal.check_foreground(Signal::SIGTTIN)?;
        let mut buf = [0; line::SIZE];
        let wanted = dst.left().min(line::SIZE);
        if wanted == 0 {
            return Ok(0);
        }
        let buf = &mut buf[..wanted];
        let Some(first) = self.first_bytes(buf, nonblock)? else {
            return Ok(0);
        };
        let done = match pair.terminal.settings().lflag(abi::ICANON) || nonblock {
            true => first,
            false => self.more_bytes(buf, first),
        };
        pair.tell();
        match dst.put(&buf[..done]) {
            0 if done > 0 => Err(Errno::EFAULT),
            done => Ok(done),
        }
    }

    fn write(&self, src: &mut Src<'_>, nonblock: bool) -> Result<usize> {
        let pair = &self.0;
        pair.terminal.check_write()?;
        let mut done = 0;
        let mut buf = [0; PIECE];
        while src.left() > 0 {
            let part = src.left().min(PIECE);
            let copied = src.take(&mut buf[..part]);
            let mut at = 0;
            while at < copied {
                let try_it = || {
                    let settings = pair.terminal.settings();
                    let mut state = pair.state.lock();
                    if state.masters == 0 {
                        return Some(Err(Errno::EIO));
                    }
                    match state.line.write(&settings, &buf[at..copied]) {
                        0 => None,
                        wrote => Some(Ok(wrote)),
                    }
                };
                let outcome = match try_it() {
                    Some(outcome) => outcome,
                    None if nonblock => Err(Errno::EAGAIN),
                    None => pair
                        .changed
                        .wait_until(Sleep::Interruptible, try_it)
                        .unwrap_or(Err(Errno::ERESTARTSYS)),
                };
                pair.tell();
                match outcome {
                    Ok(wrote) => at += wrote,
                    Err(error) => return partial(done + at, error),
                }
            }
            done += copied;
            if copied < part {
                return partial(done, Errno::EFAULT);
            }
        }
        Ok(done)
    }

    fn poll(&self) -> PollEvents {
        let state = self.0.state.lock();
        let mut events = PollEvents::empty();
        let hung_up = state.masters == 0;
        events.set(PollEvents::READABLE, state.line.is_readable() || hung_up);
        events.set(
            PollEvents::WRITABLE,
            state.line.has_output_room() || hung_up,
        );
        events.set(PollEvents::HUP | PollEvents::ERR, hung_up);
        events
    }

    fn poll_queue(&self) -> Option<&PollQueue> {
        Some(&self.0.slave_watchers)
    }

    fn ioctl(&self, command: u32, arg: usize) -> Result<usize> {
        let pair = &self.0;
        if pair.state.lock().masters == 0 {
            return Err(match command {
                ioctl::TIOCSPGRP => Errno::ENOTTY,
                _ => Errno::EIO,
            });
        }
        if command == ioctl::FIONREAD {
            let bytes = pair.state.lock().line.readable();
            return UserPtr::<i32>::new(arg).write(bytes as i32).map(|()| 0);
        }
        let (value, changed) = pair.terminal.ioctl(command, arg, false)?;
        pair.apply(changed);
        Ok(value)
    }
}
