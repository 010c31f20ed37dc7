//! The master's side of a pair: who has it open plays the person at the keyboard.

use alloc::sync::Arc;

use linux_raw_sys::{general as abi, ioctl};

use super::line::Received;
use super::{PIECE, Pair, State, nodes};
use crate::errno::{Errno, Result};
use crate::fs::io::{Dst, Src, partial};
use crate::fs::open;
use crate::fs::poll::PollQueue;
use crate::fs::stream::{PollEvents, Stream};
use crate::mm::uaccess::UserPtr;
use crate::sched::{Sleep, current};

/// The master's side, open.
pub(super) struct Master(pub(super) Arc<Pair>);

impl Drop for Master {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.masters -= 1;
        let last = state.masters == 0;
        drop(state);
        if last {
            self.0.terminal.hang_up();
            self.0.tell();
        }
    }
}

impl Master {
    /// Whether the slave's side has been closed by all.
    fn is_deserted(state: &State) -> bool {
        state.was_open && state.slaves == 0
    }
}

impl Stream for Master {
    fn read(&self, dst: &mut Dst<'_>, nonblock: bool) -> Result<usize> {
        let pair = &self.0;
        let mut buf = [0; PIECE];
        let wanted = dst.left().min(PIECE);
        if wanted == 0 {
            return Ok(0);
        }
        let mut look = || {
            let mut state = pair.state.lock();
            match state.line.take_output(&mut buf[..wanted]) {
                0 if Master::is_deserted(&state) => Some(Err(Errno::EIO)),
                0 => None,
                done => Some(Ok(done)),
            }
        };
        let done = match look() {
            Some(found) => found?,
            None if nonblock => return Err(Errno::EAGAIN),
            None => pair.changed.wait_until(Sleep::Interruptible, look)??,
        };
        pair.tell();
        match dst.put(&buf[..done]) {
            0 => Err(Errno::EFAULT),
            done => Ok(done),
        }
    }

    fn write(&self, src: &mut Src<'_>, nonblock: bool) -> Result<usize> {
        let pair = &self.0;
        let mut done = 0;
        let mut buf = [0; PIECE];
        while src.left() > 0 {
            let part = src.left().min(PIECE);
            let copied = src.take(&mut buf[..part]);
            for &byte in &buf[..copied] {
                if let Err(error) = self.type_in(byte, nonblock) {
                    pair.tell();
                    return partial(done, error);
                }
                done += 1;
            }
            if copied < part {
                pair.tell();
                return partial(done, Errno::EFAULT);
            }
        }
        pair.tell();
        Ok(done)
    }

    fn poll(&self) -> PollEvents {
        let settings = self.0.terminal.settings();
        let state = self.0.state.lock();
        let mut events = PollEvents::empty();
        events.set(PollEvents::READABLE, state.line.has_output());
        events.set(PollEvents::WRITABLE, state.line.has_room(&settings));
        events.set(PollEvents::HUP, Master::is_deserted(&state));
        events
    }

    fn poll_queue(&self) -> Option<&PollQueue> {
        Some(&self.0.master_watchers)
    }

    fn ioctl(&self, command: u32, arg: usize) -> Result<usize> {
        let pair = &self.0;
        match command {
            ioctl::TIOCGPTN => UserPtr::<u32>::new(arg).write(pair.number.get())?,
            ioctl::TIOCSPTLCK => {
                let locked = UserPtr::<i32>::new(arg).read()? != 0;
                pair.state.lock().locked = locked;
            }
            ioctl::TIOCGPTLCK => {
                let locked = pair.state.lock().locked;
                UserPtr::<i32>::new(arg).write(locked.into())?;
            }
            ioctl::TIOCGPTPEER => return open_peer(pair, arg as u32),
            ioctl::FIONREAD => {
                let bytes = pair.state.lock().line.output_len();
                UserPtr::<i32>::new(arg).write(bytes as i32)?;
            }
            command => {
                let (value, changed) = pair.terminal.ioctl(command, arg, true)?;
                pair.apply(changed);
                return Ok(value);
            }
        }
        Ok(0)
    }
}

impl Master {
    /// One byte from the keyboard. Waits while the line is full.
    fn type_in(&self, byte: u8, nonblock: bool) -> Result {
        let pair = &self.0;
        let try_it = || {
            let settings = pair.terminal.settings();
            let mut state = pair.state.lock();
            match () {
                () if Master::is_deserted(&state) => Some(Err(Errno::EIO)),
                () if state.line.has_room(&settings) => {
                    Some(Ok(state.line.receive(&settings, byte)))
                }
                () => None,
            }
        };
        let received = match try_it() {
            Some(outcome) => outcome?,
            None if nonblock => return Err(Errno::EAGAIN),
            None => {
                pair.tell();
                pair.changed.wait_until(Sleep::Interruptible, try_it)??
            }
        };
        if let Received::Signal(signal) = received {
            pair.terminal.signal_foreground(signal);
        }
        Ok(())
    }
}

/// TIOCGPTPEER: the slave, opened without a path.
fn open_peer(pair: &Arc<Pair>, flags: u32) -> Result<usize> {
    let inode = nodes::slave_inode(pair.clone())?;
    let file = open::open_inode(inode, flags)?;
    current()
        .files()
        .insert(
            file,
            0,
            current()
                .process
                .rlimits
                .soft(crate::task::rlimit::Resource::Files),
            flags & abi::O_CLOEXEC != 0,
        )
        .map(|fd| fd as usize)
}
