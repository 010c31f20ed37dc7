//! Pairs of connected sockets (`socketpair(2)`, `unix(7)`): streams, datagrams and sequenced packets within the machine.
//!
//! Both sockets of a pair share one lock. What one sends waits with the other as messages, which never change: a datagram is taken out and
//! copied without the lock, a stream's bytes are copied under it with faults turned off, as a pipe's.
//!
//! A socket for what the kernel tells ([`Notice`]) is one of a pair whose other side nobody has.
//!
//! Open files may travel, but no sockets: so there are no cycles of sockets that keep each other, and no depth of sockets in sockets.
//!
//! Lock rank: FILES. Messages that hold files are dropped after the lock is released.

mod message;
mod notice;
mod transfer;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt::Write;
use core::sync::atomic::{AtomicU64, Ordering};

use bitflags::bitflags;

use self::message::Queue;
pub use self::message::Sender;
pub use self::notice::Notice;
pub use self::transfer::{Control, Load};
use super::file::{File, Opened};
use super::inode::{Access, FileSystem, FileType, Inode, Place, Stat, Time};
use super::io::{Dst, Src};
use super::permission;
use super::poll::PollQueue;
use super::stream::{PollEvents, Stream};
use super::text::Text;
use crate::errno::{Errno, Result};
use crate::mm::uaccess::UserPtr;
use crate::sched::WaitQueue;
use crate::sync::{SpinLock, rank};

/// SO_SNDBUF and SO_RCVBUF of a new socket, bytes (`/proc/sys/net/core/wmem_default`).
const DEFAULT_BUFFER: usize = 212_992;
/// The largest that a program can ask for; it gets twice that, and at least `MIN_BUFFER`.
const MAX_BUFFER: usize = 212_992;
const MIN_SEND_BUFFER: usize = 4608;
const MIN_RECEIVE_BUFFER: usize = 2304;

/// How messages and their bounds behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes without bounds.
    Stream,
    /// Messages, which nobody may be there to get.
    Datagram,
    /// Messages over a connection.
    Packets,
    /// Messages from the kernel, which takes none (`netlink(7)`).
    Notices,
}

impl Kind {
    /// Whether one side learns of the other's end.
    fn connected(self) -> bool {
        matches!(self, Kind::Stream | Kind::Packets)
    }
}

bitflags! {
    /// Directions that are shut.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Shut: u8 {
        const READ = 1;
        const WRITE = 2;
    }
}

/// One socket of a pair.
struct Side {
    queue: Queue,
    /// What it has sent and the other has not read, as [`message::Message::charge`] counts.
    charged: usize,
    shut: Shut,
    /// The other was closed, with messages unread: told once.
    error: Option<Errno>,
    open: bool,
    /// A datagram socket that has learned that the other is gone has no other any more.
    lost: bool,
    send_buffer: usize,
    receive_buffer: usize,
    pass_credentials: bool,
}

impl Side {
    fn new() -> Side {
        Side {
            queue: Queue::default(),
            charged: 0,
            shut: Shut::empty(),
            error: None,
            open: true,
            lost: false,
            send_buffer: DEFAULT_BUFFER,
            receive_buffer: DEFAULT_BUFFER,
            pass_credentials: false,
        }
    }

    /// Whether poll(2) calls it writable: a quarter of the buffer is in use at most.
    fn is_writable(&self) -> bool {
        self.charged * 4 <= self.send_buffer
    }
}

struct Pair {
    kind: Kind,
    sides: SpinLock<[Side; 2]>,
    readers: [WaitQueue; 2],
    writers: [WaitQueue; 2],
    watchers: [PollQueue; 2],
    maker: Sender,
    ino: u64,
}

/// One socket of a pair, open.
pub struct Socket {
    pair: Arc<Pair>,
    /// 0 or 1.
    here: usize,
}

static NEXT_INO: AtomicU64 = AtomicU64::new(1);

/// Two sockets that are connected to each other; `flags` are those of open(2). `ENOMEM`.
pub fn pair(kind: Kind, flags: u32) -> Result<[Arc<File>; 2]> {
    let pair = Pair::new(kind)?;
    Ok([pair.open(0, flags)?, pair.open(1, flags)?])
}

/// A socket for what the kernel tells. `ENOMEM`.
pub fn for_notices(flags: u32) -> Result<Arc<File>> {
    Pair::new(Kind::Notices)?.open(0, flags)
}

impl Pair {
    fn new(kind: Kind) -> Result<Arc<Pair>> {
        super::check_memory()?;
        Ok(Arc::try_new(Pair {
            kind,
            sides: SpinLock::new(rank::FILES, [Side::new(), Side::new()]),
            readers: [WaitQueue::new(), WaitQueue::new()],
            writers: [WaitQueue::new(), WaitQueue::new()],
            watchers: [PollQueue::new(), PollQueue::new()],
            maker: Sender::current(),
            ino: NEXT_INO.fetch_add(2, Ordering::Relaxed),
        })?)
    }

    /// Opens a side.
    fn open(self: &Arc<Self>, here: usize, flags: u32) -> Result<Arc<File>> {
        let inode = SocketInode::new(self.ino + here as u64)?;
        let socket = Box::try_new(Socket {
            pair: self.clone(),
            here,
        })?;
        File::new(inode, Opened::Stream(socket), flags)
    }
}

impl Socket {
    fn there(&self) -> usize {
        1 - self.here
    }

    pub fn kind(&self) -> Kind {
        self.pair.kind
    }

    /// Who made the pair, which both sockets call their peer (SO_PEERCRED).
    pub fn peer(&self) -> Sender {
        self.pair.maker
    }

    /// SO_ERROR: what went wrong, told once.
    pub fn take_error(&self) -> Option<Errno> {
        self.pair.sides.lock()[self.here].error.take()
    }

    /// SO_SNDBUF and SO_RCVBUF, bytes.
    pub fn buffers(&self) -> (usize, usize) {
        let side = &self.pair.sides.lock()[self.here];
        (side.send_buffer, side.receive_buffer)
    }

    /// Sets SO_SNDBUF: doubled, within limits.
    pub fn set_send_buffer(&self, bytes: usize) {
        self.pair.sides.lock()[self.here].send_buffer =
            (bytes.min(MAX_BUFFER) * 2).max(MIN_SEND_BUFFER);
        self.pair.writers[self.here].wake_all();
    }

    /// Sets SO_RCVBUF, which has no effect, as the sender's buffer counts.
    pub fn set_receive_buffer(&self, bytes: usize) {
        self.pair.sides.lock()[self.here].receive_buffer =
            (bytes.min(MAX_BUFFER) * 2).max(MIN_RECEIVE_BUFFER);
    }

    /// SO_PASSCRED.
    pub fn pass_credentials(&self) -> bool {
        self.pair.sides.lock()[self.here].pass_credentials
    }

    pub fn set_pass_credentials(&self, on: bool) {
        self.pair.sides.lock()[self.here].pass_credentials = on;
    }

    /// Whether there is a peer that getpeername(2) could name.
    pub fn has_peer(&self) -> bool {
        !self.pair.sides.lock()[self.here].lost
    }

    /// shutdown(2).
    pub fn shutdown(&self, shut: Shut) {
        let mut sides = self.pair.sides.lock();
        sides[self.here].shut |= shut;
        if self.pair.kind.connected() {
            let mut mirrored = Shut::empty();
            mirrored.set(Shut::READ, shut.contains(Shut::WRITE));
            mirrored.set(Shut::WRITE, shut.contains(Shut::READ));
            sides[self.there()].shut |= mirrored;
        }
        drop(sides);
        self.pair.tell_all();
    }
}

impl Pair {
    /// Anything may have happened to both sides.
    fn tell_all(&self) {
        for n in 0..2 {
            self.readers[n].wake_all();
            self.writers[n].wake_all();
            self.watchers[n].tell(PollEvents::all());
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut sides = self.pair.sides.lock();
        let (here, there) = (self.here, self.there());
        let unread = core::mem::take(&mut sides[here].queue);
        sides[here].open = false;
        if self.pair.kind.connected() {
            sides[there].shut = Shut::all();
            if !unread.is_empty() && sides[there].open {
                sides[there].error = Some(Errno::ECONNRESET);
            }
        }
        sides[there].charged = 0;
        drop(sides);
        drop(unread);
        self.pair.tell_all();
    }
}

impl Stream for Socket {
    fn read(&self, dst: &mut Dst<'_>, nonblock: bool) -> Result<usize> {
        if dst.left() == 0 {
            return Ok(0);
        }
        self.receive(
            dst,
            Control {
                nonblock,
                ..Control::default()
            },
        )
        .map(|received| received.len)
    }

    fn write(&self, src: &mut Src<'_>, nonblock: bool) -> Result<usize> {
        self.send(
            src,
            Load::default(),
            Control {
                nonblock,
                ..Control::default()
            },
        )
    }

    fn poll(&self) -> PollEvents {
        let sides = self.pair.sides.lock();
        let side = &sides[self.here];
        let mut events = PollEvents::empty();
        events.set(PollEvents::ERR, side.error.is_some());
        events.set(PollEvents::HUP, side.shut.is_all());
        let shut = side.shut.contains(Shut::READ);
        events.set(PollEvents::RDHUP, shut);
        events.set(PollEvents::READABLE, shut || !side.queue.is_empty());
        events.set(PollEvents::WRITABLE, side.is_writable());
        events
    }

    fn poll_queue(&self) -> Option<&PollQueue> {
        Some(&self.pair.watchers[self.here])
    }

    fn ioctl(&self, command: u32, arg: usize) -> Result<usize> {
        let sides = self.pair.sides.lock();
        let bytes = match command {
            linux_raw_sys::ioctl::FIONREAD => match self.pair.kind {
                Kind::Stream | Kind::Packets => sides[self.here].queue.bytes(),
                Kind::Datagram | Kind::Notices => sides[self.here]
                    .queue
                    .first()
                    .map_or(0, |first| first.bytes.len()),
            },
            linux_raw_sys::ioctl::TIOCOUTQ => sides[self.here].charged,
            _ => return Err(Errno::ENOTTY),
        };
        drop(sides);
        UserPtr::<i32>::new(arg).write(bytes as i32).map(|()| 0)
    }

    fn socket(&self) -> Option<&Socket> {
        Some(self)
    }
}

/// The inode of a socket.
struct SocketInode(Stat);

impl SocketInode {
    fn new(ino: u64) -> Result<Arc<SocketInode>> {
        let now = Time::now();
        let (uid, gid, _) = permission::of_new_file(None, FileType::Socket, 0);
        Ok(Arc::try_new(SocketInode(Stat {
            uid,
            gid,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            ..Stat::new(FileSystem::Socket, ino, FileType::Socket, 0o777)
        }))?)
    }
}

impl Inode for SocketInode {
    fn stat(&self) -> Stat {
        self.0
    }

    fn place(&self) -> Result<Place> {
        let mut name = Text::new();
        write!(name, "socket:[{}]", self.0.ino).map_err(|_| Errno::ENOMEM)?;
        Ok(Place::Nowhere(name.into_bytes()))
    }

    fn open(&self, _access: Access, _nonblock: bool) -> Result<Opened> {
        Err(Errno::ENXIO)
    }
}
