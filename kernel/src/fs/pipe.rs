//! Pipes and FIFOs (`pipe(7)`).
//!
//! A queue of bytes in pages. User memory is copied under the spin lock with faults turned off; a copy that
//! stopped at a missing page lets go of the lock, faults the page in, and goes on. A write of at most `PIPE_BUF` bytes becomes
//! visible at once or not at all.
//!
//! Lock rank: FILES. Readers and writers wait in queues of their own.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt::Write;
use core::sync::atomic::{AtomicU64, Ordering};

use super::file::Opened;
use super::inode::{Access, FileSystem, FileType, Inode, Place, Stat, Time};
use super::io::{Dst, Src, partial};
use super::permission;
use super::poll::PollQueue;
use super::ring::Ring;
use super::stream::{PollEvents, Stream};
use super::text::Text;
use crate::errno::{Errno, Result};
use crate::mm::uaccess::{NoFault, UserPtr};
use crate::sched::{Sleep, WaitQueue, current};
use crate::signal::info::Detail;
use crate::signal::{SigInfo, Signal, code, send};
use crate::sync::{SpinLock, rank};

/// Writes up to this size are atomic.
pub const PIPE_BUF: usize = 4096;
/// Capacity of a new pipe in bytes.
const DEFAULT_CAPACITY: usize = 65536;
/// Largest capacity, `/proc/sys/fs/pipe-max-size`.
pub const MAX_CAPACITY: usize = 1 << 20;

pub struct Pipe {
    ino: u64,
    state: SpinLock<State>,
    readers: WaitQueue,
    writers: WaitQueue,
    /// Opening a FIFO waits here for the other side.
    openers: WaitQueue,
    watchers: PollQueue,
}

struct State {
    ring: Ring,
    /// Counts what may have made room: a writer waits for the next such event, as room alone is not enough when memory is short.
    drained: u64,
    /// Open ends of each kind.
    readers: usize,
    writers: usize,
    /// How many ends were ever opened, for FIFO opens that must not miss a short visit.
    readers_seen: u64,
    writers_seen: u64,
}

impl State {
    /// Whether a write would move something: there is room for an atomic one.
    fn is_writable(&self) -> bool {
        self.ring.room() >= PIPE_BUF.min(self.ring.capacity())
    }

    /// Moves what is there and fits, as far as user memory is present; how many bytes.
    #[inline(always)]
    fn move_out(&mut self, dst: &mut Dst<'_>) -> usize {
        let _no_fault = NoFault::new();
        let wanted = dst.left().min(self.ring.len());
        // Mostly they lie together.
        let Some(bytes) = self.ring.readable().get(..wanted) else {
            return self.move_pages_out(dst, wanted);
        };
        let done = dst.put(bytes);
        self.ring.consume(done);
        done
    }

    #[inline(never)]
    fn move_pages_out(&mut self, dst: &mut Dst<'_>, wanted: usize) -> usize {
        let mut done = 0;
        while done < wanted {
            let bytes = self.ring.readable();
            let asked = bytes.len().min(wanted - done);
            let copied = dst.put(&bytes[..asked]);
            self.ring.consume(copied);
            done += copied;
            if copied < asked {
                break;
            }
        }
        done
    }

    /// Moves `wanted` bytes, for which there is memory, as far as user memory is present. Fewer than `at_least` become no contents and
    /// are still to be moved. How many.
    #[inline(always)]
    fn move_in(&mut self, src: &mut Src<'_>, wanted: usize, at_least: usize) -> usize {
        let _no_fault = NoFault::new();
        let space = self.ring.writable(0, wanted);
        if space.len() < wanted {
            return self.move_pages_in(src, wanted, at_least);
        }
        let filled = src.take_if(space, |copied| copied >= at_least);
        if filled >= at_least {
            self.ring.commit(filled);
        }
        filled
    }

    #[inline(never)]
    fn move_pages_in(&mut self, src: &mut Src<'_>, wanted: usize, at_least: usize) -> usize {
        let mut attempt = src.clone();
        let mut filled = 0;
        while filled < wanted {
            let space = self.ring.writable(filled, wanted - filled);
            let asked = space.len();
            let copied = attempt.take(space);
            filled += copied;
            if copied < asked {
                break;
            }
        }
        if filled >= at_least {
            self.ring.commit(filled);
            *src = attempt;
        }
        filled
    }
}

/// What one attempt to move bytes came to.
enum Step {
    /// So many bytes, at least one.
    Moved(usize),
    /// The pipe is empty or full; how often it was drained until then.
    Blocked(u64),
    /// Nobody has the other side open.
    NoOtherSide,
    /// The user page so many bytes ahead is not present.
    Missing(usize),
}

/// One open end (or both, of a FIFO opened for reading and writing).
struct End {
    pipe: Arc<Pipe>,
    access: Access,
}

/// The first few numbers are the console's.
static NEXT_INO: AtomicU64 = AtomicU64::new(16);

impl Pipe {
    /// An empty pipe without ends. `ENOMEM`.
    pub fn new() -> Result<Arc<Pipe>> {
        super::check_memory()?;
        Ok(Arc::try_new(Pipe {
            ino: NEXT_INO.fetch_add(1, Ordering::Relaxed),
            state: SpinLock::new(
                rank::FILES,
                State {
                    ring: Ring::new(DEFAULT_CAPACITY),
                    drained: 0,
                    readers: 0,
                    writers: 0,
                    readers_seen: 0,
                    writers_seen: 0,
                },
            ),
            readers: WaitQueue::new(),
            writers: WaitQueue::new(),
            openers: WaitQueue::new(),
            watchers: PollQueue::new(),
        })?)
    }

    /// Opens an end of a FIFO (`fifo(7)`): waits for the other side, unless `nonblock`. `ENXIO`, `ERESTARTSYS`.
    pub fn open(self: &Arc<Self>, access: Access, nonblock: bool) -> Result<Opened> {
        let other_side = |state: &State| {
            (access.read && access.write)
                || if access.read {
                    state.writers > 0
                } else {
                    state.readers > 0
                }
        };
        if nonblock && !access.read && !other_side(&self.state.lock()) {
            return Err(Errno::ENXIO);
        }
        let end = self.end(access)?;
        if nonblock {
            return Ok(Opened::Stream(end));
        }
        let seen = |state: &State| {
            if access.read {
                state.writers_seen
            } else {
                state.readers_seen
            }
        };
        let before = seen(&self.state.lock());
        self.openers.wait_until(Sleep::Interruptible, || {
            let state = self.state.lock();
            (other_side(&state) || seen(&state) != before).then_some(())
        })?;
        Ok(Opened::Stream(end))
    }

    /// An end without waiting for another.
    pub fn end(self: &Arc<Self>, access: Access) -> Result<Box<dyn Stream>> {
        let end = Box::try_new(End {
            pipe: self.clone(),
            access,
        })?;
        let mut state = self.state.lock();
        state.readers += usize::from(access.read);
        state.readers_seen += u64::from(access.read);
        state.writers += usize::from(access.write);
        state.writers_seen += u64::from(access.write);
        drop(state);
        self.openers.wake_all();
        Ok(end)
    }

    /// Bytes that can be read now.
    pub fn len(&self) -> usize {
        self.state.lock().ring.len()
    }

    pub fn capacity(&self) -> usize {
        self.state.lock().ring.capacity()
    }

    /// F_SETPIPE_SZ: rounds up to a power of two of pages. `EBUSY` if more than that is in the pipe, `EPERM` above the maximum.
    pub fn set_capacity(&self, bytes: usize) -> Result<usize> {
        if bytes > MAX_CAPACITY {
            return Err(Errno::EPERM);
        }
        let capacity = bytes.max(PIPE_BUF).next_power_of_two();
        let mut state = self.state.lock();
        state.ring.set_capacity(capacity)?;
        state.drained += 1;
        drop(state);
        self.writers.wake_all();
        Ok(capacity)
    }

    #[inline]
    fn read(&self, dst: &mut Dst<'_>, nonblock: bool) -> Result<usize> {
        if dst.left() == 0 {
            return Ok(0);
        }
        loop {
            let (step, was_full) = self.try_read(dst);
            if let Step::Moved(done) = step {
                self.writers.wake_all_of_lock();
                if was_full {
                    self.watchers.tell_of_lock(PollEvents::WRITABLE);
                }
                return Ok(done);
            }
            if !self.may_read_again(dst, step, nonblock)? {
                return Ok(0);
            }
        }
    }

    /// Nothing was read: does what has to be done before that is possible. False at the end.
    #[inline(never)]
    fn may_read_again(&self, dst: &mut Dst<'_>, step: Step, nonblock: bool) -> Result<bool> {
        match step {
            Step::Moved(_) => {}
            Step::Missing(_) => dst.fault_in()?,
            Step::NoOtherSide => return Ok(false),
            Step::Blocked(_) if nonblock => return Err(Errno::EAGAIN),
            Step::Blocked(_) => self.readers.wait_until(Sleep::Interruptible, || {
                let state = self.state.lock();
                (!state.ring.is_empty() || state.writers == 0).then_some(())
            })?,
        }
        Ok(true)
    }

    /// Moves what is there, as far as user memory is present; and whether there was no room to write before.
    #[inline(always)]
    fn try_read(&self, dst: &mut Dst<'_>) -> (Step, bool) {
        let mut state = self.state.lock();
        let was_full = !state.is_writable();
        if state.ring.is_empty() {
            let step = match state.writers {
                0 => Step::NoOtherSide,
                _ => Step::Blocked(state.drained),
            };
            return (step, was_full);
        }
        let done = state.move_out(dst);
        state.drained += 1;
        let step = match done {
            0 => Step::Missing(0),
            done => Step::Moved(done),
        };
        (step, was_full)
    }

    #[inline]
    fn write(&self, src: &mut Src<'_>, nonblock: bool) -> Result<usize> {
        let total = src.left();
        if total == 0 {
            return Ok(0);
        }
        // The room that a step needs: all for an atomic write, any for a long one.
        let room = if total <= PIPE_BUF { total } else { 1 };
        let mut done = 0;
        while src.left() > 0 {
            match self.step_of_write(src, room.min(src.left()), nonblock) {
                Ok(moved) => done += moved,
                Err(error) => return partial(done, error),
            }
        }
        Ok(done)
    }

    /// Moves some bytes, or does what has to be done before that is possible.
    #[inline(always)]
    fn step_of_write(&self, src: &mut Src<'_>, room: usize, nonblock: bool) -> Result<usize> {
        match self.try_write(src, room) {
            Ok(Step::Moved(moved)) => {
                self.readers.wake_all_of_lock();
                self.watchers.tell_of_lock(PollEvents::READABLE);
                Ok(moved)
            }
            step => self.before_next_write(src, step?, room, nonblock),
        }
    }

    /// Nothing was written: does what has to be done before that is possible.
    #[inline(never)]
    fn before_next_write(
        &self,
        src: &mut Src<'_>,
        step: Step,
        room: usize,
        nonblock: bool,
    ) -> Result<usize> {
        match step {
            Step::Moved(_) => {}
            Step::Missing(ahead) => {
                let mut missing = src.clone();
                missing.skip(ahead);
                missing.fault_in()?;
            }
            Step::NoOtherSide => {
                send_sigpipe();
                return Err(Errno::EPIPE);
            }
            Step::Blocked(_) if nonblock => return Err(Errno::EAGAIN),
            Step::Blocked(drained) => self.writers.wait_until(Sleep::Interruptible, || {
                let state = self.state.lock();
                let more_room = state.drained != drained && state.ring.room() >= room;
                (more_room || state.readers == 0).then_some(())
            })?,
        }
        Ok(0)
    }

    /// Moves what has room, as far as user memory is present; at least `at_least` bytes or nothing. `ENOMEM`.
    #[inline(always)]
    fn try_write(&self, src: &mut Src<'_>, at_least: usize) -> Result<Step> {
        let mut state = self.state.lock();
        if state.readers == 0 {
            return Ok(Step::NoOtherSide);
        }
        let wanted = state.ring.room().min(src.left());
        if wanted < at_least {
            return Ok(Step::Blocked(state.drained));
        }
        let wanted = state.ring.reserve(wanted)?;
        if wanted < at_least {
            return Ok(Step::Blocked(state.drained));
        }
        let filled = state.move_in(src, wanted, at_least);
        Ok(match filled < at_least {
            true => Step::Missing(filled),
            false => Step::Moved(filled),
        })
    }

    fn poll(&self, access: Access) -> PollEvents {
        let state = self.state.lock();
        let mut events = PollEvents::empty();
        if access.read {
            events.set(PollEvents::READABLE, !state.ring.is_empty());
            events.set(
                PollEvents::HUP,
                state.writers == 0 && state.writers_seen > 0,
            );
        }
        if access.write {
            events.set(PollEvents::WRITABLE, state.is_writable());
            events.set(PollEvents::ERR, state.readers == 0);
        }
        events
    }
}

/// Tells the current thread that nobody will read what it writes.
pub(super) fn send_sigpipe() {
    let process = &current().process;
    let sigpipe = SigInfo {
        signal: Signal::SIGPIPE,
        code: code::SI_USER,
        detail: Detail::Sender {
            pid: process.pid,
            uid: process.credentials.user().real,
        },
    };
    send::send_to_thread(&current().arc(), sigpipe);
}

impl Stream for End {
    fn read(&self, dst: &mut Dst<'_>, nonblock: bool) -> Result<usize> {
        self.pipe.read(dst, nonblock)
    }

    fn write(&self, src: &mut Src<'_>, nonblock: bool) -> Result<usize> {
        self.pipe.write(src, nonblock)
    }

    fn poll(&self) -> PollEvents {
        self.pipe.poll(self.access)
    }

    fn ioctl(&self, command: u32, arg: usize) -> Result<usize> {
        if command != linux_raw_sys::ioctl::FIONREAD {
            return Err(Errno::ENOTTY);
        }
        UserPtr::<i32>::new(arg).write(self.pipe.len() as i32)?;
        Ok(0)
    }

    fn poll_queue(&self) -> Option<&PollQueue> {
        Some(&self.pipe.watchers)
    }

    fn pipe(&self) -> Option<&Pipe> {
        Some(&self.pipe)
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut state = self.pipe.state.lock();
        state.readers -= usize::from(self.access.read);
        state.writers -= usize::from(self.access.write);
        if state.readers == 0 && state.writers == 0 {
            state.ring.clear();
        }
        drop(state);
        self.pipe.readers.wake_all();
        self.pipe.writers.wake_all();
        self.pipe.watchers.tell(PollEvents::all());
    }
}

/// The inode of a pipe that has no name in the file system.
pub struct PipeInode {
    pipe: Arc<Pipe>,
    stat: Stat,
}

impl PipeInode {
    pub fn new(pipe: Arc<Pipe>) -> Result<Arc<PipeInode>> {
        let now = Time::now();
        let stat = Stat::new(FileSystem::Pipe, pipe.ino, FileType::Fifo, 0o600);
        let (uid, gid, _) = permission::of_new_file(None, FileType::Fifo, 0);
        Ok(Arc::try_new(PipeInode {
            pipe,
            stat: Stat {
                uid,
                gid,
                atime: now,
                mtime: now,
                ctime: now,
                btime: now,
                ..stat
            },
        })?)
    }
}

impl Inode for PipeInode {
    fn stat(&self) -> Stat {
        self.stat
    }

    fn place(&self) -> Result<Place> {
        let mut name = Text::new();
        write!(name, "pipe:[{}]", self.pipe.ino).map_err(|_| Errno::ENOMEM)?;
        Ok(Place::Nowhere(name.into_bytes()))
    }

    /// Through /proc/PID/fd, where nobody is waited for: the other side was made with the pipe, and may be gone again.
    fn open(&self, access: Access, _nonblock: bool) -> Result<Opened> {
        self.pipe.end(access).map(Opened::Stream)
    }
}
