//! Control data of sendmsg(2) and recvmsg(2) (`cmsg(3)`): open files and credentials.
//!
//! An item is a header of 16 bytes (its length with the header, level, type), then the data, padded to 8 bytes.

use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::net;

use super::args::{file, max_files};
use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::fs::socket::{Load, Sender};
use crate::mm::uaccess::{self, UserPtr};
use crate::sched::current;

const HEADER: usize = 16;
/// Most files of one message (`SCM_MAX_FD`).
const MAX_FILES: usize = 253;
/// Most bytes of control data (`/proc/sys/net/core/optmem_max`).
const MAX_DATA: usize = 131_072;

/// The bytes of `struct ucred`.
pub fn sender_bytes(sender: Sender) -> [u8; 12] {
    let mut bytes = [0; 12];
    for (to, from) in bytes
        .chunks_exact_mut(4)
        .zip([sender.pid, sender.uid, sender.gid])
    {
        to.copy_from_slice(&from.to_ne_bytes());
    }
    bytes
}

/// Reads what a message is to carry. `EINVAL`, `EBADF`, `EPERM`, `ENOBUFS`, `ETOOMANYREFS` for sockets, which cannot travel.
pub fn read(data: usize, len: usize) -> Result<Load> {
    let mut load = Load::default();
    if data == 0 || len == 0 {
        return Ok(load);
    }
    if len > MAX_DATA {
        return Err(Errno::ENOBUFS);
    }
    let mut at = 0;
    while len - at >= HEADER {
        let item = data.wrapping_add(at);
        let [item_len, kind] = UserPtr::<[usize; 2]>::new(item).read()?;
        if item_len < HEADER || item_len > len - at {
            return Err(Errno::EINVAL);
        }
        let (level, kind) = (kind as u32, (kind >> 32) as u32);
        if level == net::SOL_SOCKET {
            let (from, bytes) = (item.wrapping_add(HEADER), item_len - HEADER);
            match kind {
                net::SCM_RIGHTS => read_files(from, bytes / 4, &mut load.files)?,
                net::SCM_CREDENTIALS => load.sender = Some(read_sender(from, bytes)?),
                _ => return Err(Errno::EINVAL),
            }
        }
        at = (at + item_len.next_multiple_of(8)).min(len);
    }
    Ok(load)
}

fn read_files(from: usize, count: usize, files: &mut Vec<Arc<File>>) -> Result {
    if files.len() + count > MAX_FILES {
        return Err(Errno::EINVAL);
    }
    files.try_reserve(count)?;
    for n in 0..count {
        let file = file(UserPtr::<u32>::new(from).at(n).read()? as usize)?;
        if file
            .stream()
            .is_some_and(|stream| stream.socket().is_some())
        {
            return Err(Errno::ETOOMANYREFS);
        }
        files.push(file);
    }
    Ok(())
}

/// Whom the caller claims to be: only root may lie (`unix(7)`).
fn read_sender(from: usize, bytes: usize) -> Result<Sender> {
    if bytes != 12 {
        return Err(Errno::EINVAL);
    }
    let [pid, uid, gid] = UserPtr::<[u32; 3]>::new(from).read()?;
    let process = &current().process;
    let identity = process.credentials.get();
    let own =
        |ids: crate::task::credentials::Ids, id| [ids.real, ids.effective, ids.saved].contains(&id);
    let honest = pid == process.pid && own(identity.user, uid) && own(identity.group, gid);
    if honest || identity.is_privileged() {
        Ok(Sender { pid, uid, gid })
    } else {
        Err(Errno::EPERM)
    }
}

/// Where control data goes.
pub struct Space {
    to: usize,
    left: usize,
    used: usize,
    cut_off: bool,
}

impl Space {
    /// `len` bytes at `to`; none if that is 0.
    pub fn new(to: usize, len: usize) -> Space {
        Space {
            to,
            left: if to == 0 { 0 } else { len },
            used: 0,
            cut_off: false,
        }
    }

    /// Bytes that were filled.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Whether something did not fit.
    pub fn cut_off(&self) -> bool {
        self.cut_off
    }

    /// Writes an item of `bytes`, as far as there is room.
    fn put(&mut self, kind: u32, bytes: &[u8]) -> Result {
        if self.left < HEADER {
            self.cut_off = true;
            return Ok(());
        }
        let fits = bytes.len().min(self.left - HEADER);
        self.cut_off |= fits < bytes.len();
        let len = HEADER + fits;
        let at = self.to.wrapping_add(self.used);
        let header = [len, (kind as usize) << 32 | net::SOL_SOCKET as usize];
        UserPtr::<[usize; 2]>::new(at).write(header)?;
        uaccess::write_bytes(at.wrapping_add(HEADER), &bytes[..fits])?;
        let whole = len.next_multiple_of(8).min(self.left);
        self.used += whole;
        self.left -= whole;
        Ok(())
    }

    /// Writes SCM_CREDENTIALS.
    pub fn put_sender(&mut self, sender: Sender) -> Result {
        self.put(net::SCM_CREDENTIALS, &sender_bytes(sender))
    }

    /// Opens descriptors for as many files as there is room and limit for, and writes SCM_RIGHTS; the others are closed.
    pub fn put_files(&mut self, files: Vec<Arc<File>>, close_on_exec: bool) -> Result {
        let count = files.len();
        let room = self.left.saturating_sub(HEADER) / 4;
        let mut numbers = [0; MAX_FILES * 4];
        let mut opened = 0;
        for (file, number) in files
            .into_iter()
            .take(room)
            .zip(numbers.chunks_exact_mut(4))
        {
            let thread = current();
            let table = thread.files();
            let Ok(fd) = table.insert(file, 0, max_files(), close_on_exec) else {
                break;
            };
            number.copy_from_slice(&fd.to_ne_bytes());
            opened += 1;
        }
        self.cut_off |= opened < count;
        if opened > 0 {
            self.put(net::SCM_RIGHTS, &numbers[..opened * 4])?;
        }
        Ok(())
    }
}
