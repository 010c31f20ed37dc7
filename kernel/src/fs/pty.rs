//! Pseudo terminals (`pty(7)`): pairs of a master, which plays the person at the keyboard, and a slave, which is a terminal.
//!
//! Opening /dev/ptmx makes a pair; its slave is found in /dev/pts by its number. When the last master goes the slave hangs up;
//! without a slave the master reads an error after what there was to read.
//!
//! Lock rank: FILES, for a pair and for the table of pairs, never together. Bytes are moved through a buffer on the kernel's stack, so
//! that no lock is held over user memory.

mod line;

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt::Write;

use linux_raw_sys::{general as abi, ioctl};

use super::file::Opened;
use super::fixed::Node;
use super::inode::{
    Access, DirEntry, EntrySink, FileSystem, FileType, Inode, InodeRef, Place, Stat,
};
use super::io::{Dst, Src, partial};
use super::poll::PollQueue;
use super::stream::{PollEvents, Stream};
use super::terminal::{Changed, Device, Terminal};
use super::text::Text;
use crate::arch::time;
use crate::errno::{Errno, Result};
use crate::mm::uaccess::UserPtr;
use crate::sched::wait::NotYet;
use crate::sched::{Sleep, WaitQueue, current};
use crate::signal::Signal;
use crate::sync::{SpinLock, rank};
use line::{Line, Received};

/// Most pairs, `/proc/sys/kernel/pty/max`.
const MAX: usize = 4096;
/// Bytes moved in one piece.
const PIECE: usize = 256;
/// First inode number in /dev/pts, far from those of /dev.
const INODES: u64 = 1 << 32;
/// Inodes of /dev/pts itself.
const DIRECTORY_INODE: u64 = INODES - 1;

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
        super::check_memory()?;
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

/// The master's side, open.
struct Master(Arc<Pair>);

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
            ioctl::TIOCGPTN => UserPtr::<u32>::new(arg).write(pair.number)?,
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
    let inode = slave_inode(pair.clone())?;
    let file = super::open::open_inode(inode, flags)?;
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

/// The slave's side, open.
struct Slave(Arc<Pair>);

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

/// /dev/tty: whatever terminal controls the process that opens it.
struct OwnTerminal(Node);

impl Inode for OwnTerminal {
    fn stat(&self) -> Stat {
        self.0.stat
    }

    fn place(&self) -> Result<Place> {
        self.0.place()
    }

    /// `ENXIO` without a controlling terminal.
    fn open(&self, _access: Access, _nonblock: bool) -> Result<Opened> {
        let terminal = current().process.terminal().ok_or(Errno::ENXIO)?;
        match terminal.device {
            Device::Console => super::console::open_terminal(),
            Device::Pty(number) => find(number).ok_or(Errno::ENXIO)?.open_slave(),
        }
    }
}

/// /dev/tty, 5:0.
pub fn own_terminal(ino: u64, parent: InodeRef) -> Result<InodeRef> {
    let stat = Stat {
        rdev: (5, 0),
        ..Stat::new(FileSystem::Dev, ino, FileType::CharDevice, 0o666)
    };
    Ok(Arc::try_new(OwnTerminal(Node::new(stat, parent, b"tty")?))?)
}

/// /dev/ptmx: opening it makes a pair.
struct Multiplexer(Node);

impl Inode for Multiplexer {
    fn stat(&self) -> Stat {
        self.0.stat
    }

    fn place(&self) -> Result<Place> {
        self.0.place()
    }

    fn open(&self, _access: Access, _nonblock: bool) -> Result<Opened> {
        Pair::new()?.open_master()
    }
}

/// /dev/ptmx, 5:2.
pub fn multiplexer(ino: u64, parent: InodeRef) -> Result<InodeRef> {
    let stat = Stat {
        rdev: (5, 2),
        ..Stat::new(FileSystem::Dev, ino, FileType::CharDevice, 0o666)
    };
    Ok(Arc::try_new(Multiplexer(Node::new(
        stat, parent, b"ptmx",
    )?))?)
}

/// A slave in /dev/pts, 136:N.
struct SlaveInode {
    pair: Arc<Pair>,
    directory: InodeRef,
}

static DIRECTORY: spin::Once<InodeRef> = spin::Once::new();

fn slave_inode(pair: Arc<Pair>) -> Result<InodeRef> {
    let directory = DIRECTORY.get().ok_or(Errno::ENOENT)?.clone();
    Ok(Arc::try_new(SlaveInode { pair, directory })?)
}

fn name_of(number: u32) -> Result<Vec<u8>> {
    let mut text = Text::new();
    write!(text, "{number}").map_err(|_| Errno::ENOMEM)?;
    text.finish()
}

impl Inode for SlaveInode {
    fn stat(&self) -> Stat {
        let number = self.pair.number;
        Stat {
            rdev: (136 + number / 256, number % 256),
            uid: self.pair.owner,
            gid: 5,
            ..Stat::new(
                FileSystem::Dev,
                INODES + u64::from(number),
                FileType::CharDevice,
                0o620,
            )
        }
    }

    fn place(&self) -> Result<Place> {
        Ok(Place::In(
            self.directory.clone(),
            name_of(self.pair.number)?,
        ))
    }

    fn open(&self, _access: Access, _nonblock: bool) -> Result<Opened> {
        self.pair.open_slave()
    }

    fn terminal(&self) -> Option<&Arc<Terminal>> {
        Some(&self.pair.terminal)
    }
}

/// /dev/pts.
struct Slaves(Node);

impl Inode for Slaves {
    fn stat(&self) -> Stat {
        self.0.stat
    }

    fn place(&self) -> Result<Place> {
        self.0.place()
    }

    fn open(&self, _access: Access, _nonblock: bool) -> Result<Opened> {
        Ok(Opened::Directory)
    }

    fn lookup(&self, name: &[u8]) -> Result<InodeRef> {
        let number = core::str::from_utf8(name)
            .ok()
            .filter(|name| !name.starts_with('0') || *name == "0")
            .and_then(|name| name.parse().ok())
            .ok_or(Errno::ENOENT)?;
        slave_inode(find(number).ok_or(Errno::ENOENT)?)
    }

    fn read_dir(&self, pos: u64, sink: &mut EntrySink<'_>) -> Result {
        let end = PAIRS.lock().len() as u64;
        for n in pos.saturating_sub(2)..end {
            if find(n as u32).is_none() {
                continue;
            }
            let name = name_of(n as u32)?;
            let entry = DirEntry {
                name: &name,
                ino: INODES + n,
                file_type: FileType::CharDevice,
                next: n + 3,
            };
            if !sink(entry) {
                break;
            }
        }
        Ok(())
    }
}

/// /dev/pts, once.
pub fn directory(parent: InodeRef) -> Result<InodeRef> {
    let stat = Stat::new(FileSystem::Dev, DIRECTORY_INODE, FileType::Directory, 0o755);
    let directory: InodeRef = Arc::try_new(Slaves(Node::new(stat, parent, b"pts")?))?;
    DIRECTORY.call_once(|| directory.clone());
    Ok(directory)
}
