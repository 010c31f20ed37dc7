//! Sending and receiving.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::message::{Message, Queue, Sender};
use super::{Kind, Shut, Side, Socket};
use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::fs::io::{Dst, Src, partial};
use crate::fs::pipe::send_sigpipe;
use crate::fs::stream::PollEvents;
use crate::mm::uaccess::NoFault;
use crate::sched::{Sleep, WaitQueue};

/// A stream sends its bytes in messages of at most this size, so that the reader can begin and no large memory is needed.
const STREAM_PIECE: usize = 32 << 10;

/// What a datagram may not take of the buffer.
const RESERVED: usize = 32;

/// How a call wants it: the flags of send(2) and recv(2).
#[derive(Clone, Copy, Default)]
pub struct Control {
    pub nonblock: bool,
    /// EPIPE without SIGPIPE.
    pub no_signal: bool,
    /// Leaves in place what it reads.
    pub peek: bool,
    /// A stream waits until all there is room for has come.
    pub wait_all: bool,
    /// The length of a message that was cut off is that of the whole.
    pub whole_length: bool,
}

/// What goes with the bytes.
#[derive(Default)]
pub struct Load {
    pub files: Vec<Arc<File>>,
    /// Whom the sender claims to be; the current process if it claims nothing.
    pub sender: Option<Sender>,
}

/// What came.
#[derive(Default)]
pub struct Received {
    pub len: usize,
    /// The message was longer.
    pub cut_off: bool,
    pub files: Vec<Arc<File>>,
    pub sender: Option<Sender>,
}

/// What a look at the queue came to.
enum Look {
    /// There may be more for this call.
    Done,
    /// No more belongs to this call: files came, or the next bytes are somebody else's.
    Ended,
    /// The next user page is not present.
    Missing,
    Empty,
}

impl Socket {
    /// Sends all of `src`, and the load's files with its first byte. `EAGAIN`, `ERESTARTSYS`, `EPIPE` (with SIGPIPE if the kind is a stream),
    /// `ECONNREFUSED`, `ENOTCONN`, `EMSGSIZE`, `EFAULT`, `ENOBUFS`.
    pub fn send(&self, src: &mut Src<'_>, load: Load, control: Control) -> Result<usize> {
        match self.pair.kind {
            Kind::Stream => self.send_stream(src, load, control),
            Kind::Datagram | Kind::Packets | Kind::Notices => self.send_message(src, load, control),
        }
    }

    fn send_stream(&self, src: &mut Src<'_>, mut load: Load, control: Control) -> Result<usize> {
        let sender = load.sender.unwrap_or_else(Sender::current);
        let mut done = 0;
        while src.left() > 0 {
            let len = src.left().min(STREAM_PIECE);
            let piece = self
                .wait_for_room(control)
                .and_then(|()| Message::new(src, len, core::mem::take(&mut load.files), sender))
                .and_then(|message| self.deliver(message));
            match piece {
                Ok(()) => done += len,
                Err(Errno::EPIPE) if done == 0 && !control.no_signal => {
                    send_sigpipe();
                    return Err(Errno::EPIPE);
                }
                Err(error) => return partial(done, error),
            }
        }
        Ok(done)
    }

    fn send_message(&self, src: &mut Src<'_>, load: Load, control: Control) -> Result<usize> {
        let sender = load.sender.unwrap_or_else(Sender::current);
        let len = src.left();
        if len > self.buffers().0 - RESERVED {
            return Err(Errno::EMSGSIZE);
        }
        self.wait_for_room(control)?;
        let message = Message::new(src, len, load.files, sender)?;
        self.deliver(message)?;
        Ok(len)
    }

    /// Why this side cannot send. `unread` takes messages that are to be dropped after the lock.
    fn broken(&self, sides: &mut [Side; 2], unread: &mut Queue) -> Option<Errno> {
        let there = sides[self.there()].open;
        let kind = self.pair.kind;
        if kind == Kind::Notices {
            return Some(Errno::ECONNREFUSED);
        }
        let side = &mut sides[self.here];
        if kind == Kind::Packets
            && let Some(error) = side.error.take()
        {
            return Some(error);
        }
        if side.shut.contains(Shut::WRITE) {
            return Some(Errno::EPIPE);
        }
        if side.lost {
            return Some(Errno::ENOTCONN);
        }
        if !there {
            // What the other has sent goes with it.
            side.lost = true;
            *unread = core::mem::take(&mut side.queue);
            return Some(Errno::ECONNREFUSED);
        }
        sides[self.there()]
            .shut
            .contains(Shut::READ)
            .then_some(Errno::EPIPE)
    }

    fn wait_for_room(&self, control: Control) -> Result {
        let look = || {
            let mut unread = Queue::default();
            let mut sides = self.pair.sides.lock();
            if let Some(error) = self.broken(&mut sides, &mut unread) {
                return Some(Err(error));
            }
            let side = &sides[self.here];
            (side.charged < side.send_buffer).then_some(Ok(()))
        };
        wait(&self.pair.writers[self.here], control, look)
    }

    /// Hands a message to the other side.
    fn deliver(&self, message: Arc<Message>) -> Result {
        let mut unread = Queue::default();
        let mut sides = self.pair.sides.lock();
        if let Some(error) = self.broken(&mut sides, &mut unread) {
            // The message, and the files with it, is dropped after the lock.
            drop(sides);
            return Err(error);
        }
        let charge = message.charge();
        let queued = sides[self.there()].queue.push(message.clone());
        if queued.is_ok() {
            sides[self.here].charged += charge;
        }
        drop(sides);
        queued?;
        self.pair.readers[self.there()].wake_all();
        self.pair.watchers[self.there()].tell(PollEvents::READABLE);
        Ok(())
    }

    /// Receives what is there, at least something; nothing at the end. `EAGAIN`, `ERESTARTSYS`, `ECONNRESET`, `EFAULT`.
    pub fn receive(&self, dst: &mut Dst<'_>, control: Control) -> Result<Received> {
        match self.pair.kind {
            Kind::Stream => self.receive_stream(dst, control),
            Kind::Datagram | Kind::Packets | Kind::Notices => self.receive_message(dst, control),
        }
    }

    fn receive_stream(&self, dst: &mut Dst<'_>, control: Control) -> Result<Received> {
        let mut received = Received::default();
        loop {
            match self.look_at_stream(dst, control, &mut received)? {
                Look::Ended => return Ok(received),
                Look::Done if !control.wait_all || control.peek || dst.left() == 0 => {
                    return Ok(received);
                }
                Look::Done => {}
                Look::Missing => match dst.fault_in() {
                    Err(_) if received.len > 0 => return Ok(received),
                    outcome => outcome?,
                },
                Look::Empty => match self.wait_for_message(control) {
                    Ok(true) => {}
                    Err(error) if received.len == 0 => return Err(error),
                    _ => return Ok(received),
                },
            }
        }
    }

    /// Copies what is there, as far as user memory is present, up to the end of a message with files.
    fn look_at_stream(
        &self,
        dst: &mut Dst<'_>,
        control: Control,
        received: &mut Received,
    ) -> Result<Look> {
        let mut sides = self.pair.sides.lock();
        let side = &mut sides[self.here];
        let by_sender = side.pass_credentials;
        if side.queue.is_empty() {
            return Ok(Look::Empty);
        }
        // Messages that held files, to be dropped after the lock: one that was begun by an earlier call, and one whose files come now.
        let mut spent = [None, None];
        let mut look = Look::Done;
        let (mut n, mut done, mut freed) = (0, 0, 0);
        let no_fault = matches!(dst, Dst::User(_)).then(NoFault::new);
        while dst.left() > 0 {
            let Some((message, bytes)) = side.queue.unread(n) else {
                break;
            };
            if by_sender
                && received
                    .sender
                    .is_some_and(|sender| sender != message.sender)
            {
                look = Look::Ended;
                break;
            }
            let with_files = !message.files.is_empty() && (n > 0 || side.queue.first_is_whole());
            let files = if with_files {
                message.copy_files()?
            } else {
                Vec::new()
            };
            let asked = bytes.len().min(dst.left());
            let all = asked == bytes.len();
            let copied = dst.put(&bytes[..asked]);
            done += copied;
            if copied < asked {
                look = if done == 0 { Look::Missing } else { Look::Done };
            }
            if copied == 0 {
                break;
            }
            received.sender = Some(message.sender);
            let charge = message.charge();
            if with_files {
                received.files = files;
                look = Look::Ended;
            }
            if control.peek {
                n += 1;
            } else if let Some(message) = side.queue.consume(copied) {
                freed += charge;
                if !message.files.is_empty() {
                    spent[usize::from(with_files)] = Some(message);
                }
            }
            if !all || copied < asked || with_files {
                break;
            }
        }
        drop(no_fault);
        let room = self.uncharge(&mut sides, freed);
        drop(sides);
        drop(spent);
        self.tell_of_room(room);
        received.len += done;
        Ok(look)
    }

    fn receive_message(&self, dst: &mut Dst<'_>, control: Control) -> Result<Received> {
        let message = loop {
            let mut sides = self.pair.sides.lock();
            let queue = &mut sides[self.here].queue;
            let message = match control.peek {
                true => queue.first().cloned(),
                false => queue.pop(),
            };
            if let Some(message) = message {
                let freed = if control.peek { 0 } else { message.charge() };
                let room = self.uncharge(&mut sides, freed);
                drop(sides);
                self.tell_of_room(room);
                break message;
            }
            drop(sides);
            if !self.wait_for_message(control)? {
                return Ok(Received::default());
            }
        };
        let len = message.bytes.len().min(dst.left());
        if dst.put(&message.bytes[..len]) < len {
            return Err(Errno::EFAULT);
        }
        Ok(Received {
            len: if control.whole_length {
                message.bytes.len()
            } else {
                len
            },
            cut_off: len < message.bytes.len(),
            files: message.copy_files()?,
            sender: Some(message.sender),
        })
    }

    /// Waits until there is a message; false: there will be none. `EAGAIN`, `ERESTARTSYS`, `ECONNRESET`.
    fn wait_for_message(&self, control: Control) -> Result<bool> {
        let look = || {
            let side = &mut self.pair.sides.lock()[self.here];
            if !side.queue.is_empty() {
                return Some(Ok(true));
            }
            if let Some(error) = side.error.take() {
                return Some(Err(error));
            }
            let ends = self.pair.kind.connected() || !control.nonblock;
            (side.shut.contains(Shut::READ) && ends).then_some(Ok(false))
        };
        wait(&self.pair.readers[self.here], control, look)
    }

    /// The other side's messages with a charge of `freed` in all were read; whether it may write now.
    fn uncharge(&self, sides: &mut [Side; 2], freed: usize) -> bool {
        let there = &mut sides[self.there()];
        there.charged = there.charged.saturating_sub(freed);
        freed > 0 && there.is_writable()
    }

    fn tell_of_room(&self, room: bool) {
        if room {
            self.pair.writers[self.there()].wake_all();
            self.pair.watchers[self.there()].tell(PollEvents::WRITABLE);
        }
    }
}

/// Waits until `look` has an answer. `EAGAIN`, `ERESTARTSYS`.
fn wait<R>(
    queue: &WaitQueue,
    control: Control,
    mut look: impl FnMut() -> Option<Result<R>>,
) -> Result<R> {
    if control.nonblock {
        return look().unwrap_or(Err(Errno::EAGAIN));
    }
    queue.wait_until(Sleep::Interruptible, look)?
}
