//! What the kernel tells through a socket (`netlink(7)`), as far as anybody asks for it: mq_notify(3).

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::message::{Message, Sender};
use super::{Kind, Socket};
use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::fs::io::Src;
use crate::fs::stream::{PollEvents, Stream};

/// A message that may be sent to a socket, and keeps it open until then.
pub struct Notice {
    file: Arc<File>,
    bytes: Vec<u8>,
}

impl Notice {
    /// `ENOTSOCK`; `EINVAL` for a socket to which the kernel sends nothing; `ENOMEM`.
    pub fn new(file: Arc<File>, bytes: &[u8]) -> Result<Notice> {
        let socket = file.stream().and_then(Stream::socket);
        if socket.ok_or(Errno::ENOTSOCK)?.kind() != Kind::Notices {
            return Err(Errno::EINVAL);
        }
        let mut copy = Vec::new();
        copy.try_reserve_exact(bytes.len())?;
        copy.extend_from_slice(bytes);
        Ok(Notice { file, bytes: copy })
    }

    /// Sends it with `last` as its last byte. Without memory it is lost.
    pub fn send(&self, last: u8) {
        if let Some(socket) = self.file.stream().and_then(Stream::socket) {
            let _ = socket.tell(&self.bytes, last);
        }
    }
}

impl Socket {
    fn tell(&self, bytes: &[u8], last: u8) -> Result {
        let mut whole = Vec::new();
        whole.try_reserve_exact(bytes.len())?;
        whole.extend_from_slice(bytes);
        if let Some(end) = whole.last_mut() {
            *end = last;
        }
        let sender = Sender {
            pid: 0,
            ..Sender::current()
        };
        let message = Message::new(&mut Src::Kernel(&whole), whole.len(), Vec::new(), sender)?;
        self.pair.sides.lock()[self.here].queue.push(message)?;
        self.pair.readers[self.here].wake_all();
        self.pair.watchers[self.here].tell(PollEvents::READABLE);
        Ok(())
    }
}
