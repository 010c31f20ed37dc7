//! Pseudo terminals (`pty(7)`): pairs of a master, which plays the person at the keyboard, and a slave, which is a terminal.
//!
//! Opening /dev/ptmx makes a pair; its slave is found in /dev/pts by its number. When the last master goes the slave hangs up;
//! without a slave the master reads an error after what there was to read.
//!
//! Lock rank: FILES, for a pair and for the table of numbers, never together. Bytes are moved through a buffer on the kernel's stack, so
//! that no lock is held over user memory.

mod line;
mod master;
mod nodes;
mod numbers;
mod slave;

use alloc::boxed::Box;
use alloc::sync::Arc;

use super::check_memory;
use super::file::Opened;
use super::poll::PollQueue;
use super::stream::PollEvents;
use super::terminal::{Changed, Device, Terminal};
use crate::errno::{Errno, Result};
use crate::sched::{WaitQueue, current};
use crate::sync::{SpinLock, rank};
use line::Line;
use master::Master;
pub use nodes::{directory, multiplexer, own_terminal};
use numbers::Number;
use slave::Slave;

/// Bytes moved in one piece.
const PIECE: usize = 256;

struct Pair {
    number: Number,
    /// The user who made it.
    owner: u32,
    terminal: Arc<Terminal>,
    state: SpinLock<State>,
    /// Both sides' readers and writers.
    changed: WaitQueue,
    master_watchers: PollQueue,
    slave_watchers: PollQueue,
}

struct State {
    line: Line,
    /// The slave cannot be opened yet (TIOCSPTLCK).
    locked: bool,
    masters: usize,
    slaves: usize,
    /// A slave was open once.
    was_open: bool,
}

impl Pair {
    /// A new pair with the lowest free number. `ENOSPC`, `ENOMEM`.
    fn new() -> Result<Arc<Pair>> {
        check_memory()?;
        let line = Line::new()?;
        let number = Number::new()?;
        let device = Device::Pty(number.get());
        let pair = Arc::try_new(Pair {
            number,
            owner: current().process.credentials.get().user.effective,
            terminal: Arc::try_new(Terminal::new(device, 0, 0))?,
            state: SpinLock::new(
                rank::FILES,
                State {
                    line,
                    locked: true,
                    masters: 0,
                    slaves: 0,
                    was_open: false,
                },
            ),
            changed: WaitQueue::new(),
            master_watchers: PollQueue::new(),
            slave_watchers: PollQueue::new(),
        })?;
        pair.number.lead_to(&pair);
        Ok(pair)
    }

    /// Something is there for one side or the other.
    fn tell(&self) {
        self.changed.wake_all();
        self.master_watchers.tell(PollEvents::all());
        self.slave_watchers.tell(PollEvents::all());
    }

    fn apply(&self, changed: Changed) {
        if changed == Changed::default() {
            return;
        }
        let mut state = self.state.lock();
        if changed.mode {
            state.line.mode_changed();
        }
        if changed.flush_input {
            state.line.flush_input();
        }
        if changed.flush_output {
            state.line.flush_output();
        }
        drop(state);
        self.tell();
    }

    fn open_master(self: &Arc<Self>) -> Result<Opened> {
        let end = Box::try_new(Master(self.clone()))?;
        self.state.lock().masters += 1;
        Ok(Opened::Stream(end))
    }

    /// `EIO` while it is locked, and after its master has gone.
    fn open_slave(self: &Arc<Self>) -> Result<Opened> {
        let end = Box::try_new(Slave(self.clone()))?;
        let mut state = self.state.lock();
        if state.locked || state.masters == 0 {
            // `end` counts as open when it goes.
            state.slaves += 1;
            drop(state);
            return Err(Errno::EIO);
        }
        state.slaves += 1;
        state.was_open = true;
        Ok(Opened::Stream(end))
    }
}
