//! Pseudo terminals (`pty(7)`): pairs of a master, which plays the person at the keyboard, and a slave, which is a terminal.
//!
//! Opening /dev/ptmx makes a pair; its slave is found in /dev/pts by its number. When the last master goes the slave hangs up;
//! without a slave the master reads an error after what there was to read.
//!
//! Lock rank: FILES, for a pair and for the table of pairs, never together. Bytes are moved through a buffer on the kernel's stack, so
//! that no lock is held over user memory.

mod line;
mod master;
mod nodes;
mod slave;

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

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
use slave::Slave;

/// Most pairs, `/proc/sys/kernel/pty/max`.
const MAX: usize = 4096;
/// Bytes moved in one piece.
const PIECE: usize = 256;

struct Pair {
    number: u32,
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

/// Pairs by number.
static PAIRS: SpinLock<Vec<Weak<Pair>>> = SpinLock::new(rank::FILES, Vec::new());

/// The pair with this number, while its master is open.
fn find(number: u32) -> Option<Arc<Pair>> {
    let pair = PAIRS.lock().get(number as usize)?.upgrade()?;
    let lives = pair.state.lock().masters > 0;
    lives.then_some(pair)
}

impl Pair {
    /// A new pair with the lowest free number. `ENOSPC`, `ENOMEM`.
    fn new() -> Result<Arc<Pair>> {
        check_memory()?;
        let line = Line::new()?;
        let mut pairs = PAIRS.lock();
        let free = pairs.iter().position(|pair| pair.strong_count() == 0);
        let number = free.unwrap_or(pairs.len());
        if number >= MAX {
            return Err(Errno::ENOSPC);
        }
        let device = Device::Pty(number as u32);
        let pair = Arc::try_new(Pair {
            number: number as u32,
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
        match free {
            Some(number) => pairs[number] = Arc::downgrade(&pair),
            None => {
                pairs.try_reserve(1)?;
                pairs.push(Arc::downgrade(&pair));
            }
        }
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
