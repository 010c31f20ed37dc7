//! What travels between two sockets: bytes, open files, and who sent them.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::fs::io::Src;
use crate::mm::{PAGE_SIZE, frame};
use crate::sched::current;

/// What a message costs besides its bytes, as Linux counts (`struct sk_buff` and what it drags along).
const OVERHEAD: usize = 768;

/// A process and whom it acts for, as SO_PEERCRED and SCM_CREDENTIALS tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
}

impl Sender {
    /// The current process, by its effective numbers.
    pub fn current() -> Sender {
        let process = &current().process;
        let identity = process.credentials.get();
        Sender {
            pid: process.pid,
            uid: identity.user.effective,
            gid: identity.group.effective,
        }
    }
}

/// Bytes in all messages, with what they cost besides: at most a quarter of the memory.
static ALL: AtomicUsize = AtomicUsize::new(0);

/// Sent at once, and never changed afterwards.
pub struct Message {
    pub bytes: Box<[u8]>,
    /// Open files that go with the first byte.
    pub files: Vec<Arc<File>>,
    pub sender: Sender,
}

impl Message {
    /// Takes `len` bytes from user memory. `EFAULT`, `ENOBUFS`.
    pub fn new(
        src: &mut Src<'_>,
        len: usize,
        files: Vec<Arc<File>>,
        sender: Sender,
    ) -> Result<Arc<Message>> {
        crate::fs::check_memory().map_err(|_| Errno::ENOBUFS)?;
        let most = frame::total_frames() / 4 * PAGE_SIZE;
        if ALL.load(Ordering::Relaxed) + len + OVERHEAD > most {
            return Err(Errno::ENOBUFS);
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|_| Errno::ENOBUFS)?;
        bytes.resize(len, 0);
        if src.take(&mut bytes) < len {
            return Err(Errno::EFAULT);
        }
        // Whatever becomes of the message, it is taken off again when it is dropped.
        ALL.fetch_add(len + OVERHEAD, Ordering::Relaxed);
        Ok(Arc::try_new(Message {
            bytes: bytes.into_boxed_slice(),
            files,
            sender,
        })?)
    }

    /// What it counts against the sender's buffer.
    pub fn charge(&self) -> usize {
        self.bytes.len() + OVERHEAD
    }

    /// The files once more. `ENOMEM`.
    pub fn copy_files(&self) -> Result<Vec<Arc<File>>> {
        let mut files = Vec::new();
        files.try_reserve_exact(self.files.len())?;
        files.extend(self.files.iter().cloned());
        Ok(files)
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        ALL.fetch_sub(self.charge(), Ordering::Relaxed);
    }
}

/// Messages that wait for one socket, oldest first.
#[derive(Default)]
pub struct Queue {
    messages: VecDeque<Arc<Message>>,
    /// Bytes of the first message that a stream has read already.
    read: usize,
    /// Bytes that are not read yet.
    bytes: usize,
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Bytes that are not read yet.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn push(&mut self, message: Arc<Message>) -> Result {
        self.messages.try_reserve(1)?;
        self.bytes += message.bytes.len();
        self.messages.push_back(message);
        Ok(())
    }

    pub fn first(&self) -> Option<&Arc<Message>> {
        self.messages.front()
    }

    /// The `n`th message and the part of it that is not read yet.
    pub fn unread(&self, n: usize) -> Option<(&Arc<Message>, &[u8])> {
        let message = self.messages.get(n)?;
        let read = if n == 0 { self.read } else { 0 };
        Some((message, &message.bytes[read..]))
    }

    /// Whether nothing of the first message was read yet, so that its files are still to be had.
    pub fn first_is_whole(&self) -> bool {
        self.read == 0
    }

    pub fn pop(&mut self) -> Option<Arc<Message>> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.bytes.len() - core::mem::take(&mut self.read);
        Some(message)
    }

    /// Marks `len` more bytes of the first message as read; the message, if that was all of it.
    pub fn consume(&mut self, len: usize) -> Option<Arc<Message>> {
        self.read += len;
        self.bytes -= len;
        if self.messages.front()?.bytes.len() > self.read {
            return None;
        }
        self.read = 0;
        self.messages.pop_front()
    }
}
