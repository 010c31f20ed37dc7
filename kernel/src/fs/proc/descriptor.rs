//! The links of /proc/PID/fd, which lead to a process's open files.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::process::{ProcessDir, number};
use crate::errno::{Errno, Result};
use crate::fs::file::{File, Opened};
use crate::fs::inode::{Access, FileSystem, FileType, Inode, InodeRef, Place, Stat};

/// A link in /proc/PID/fd.
pub(super) struct FdLink {
    pub(super) dir: Arc<ProcessDir>,
    pub(super) fd: u32,
    pub(super) file: Arc<File>,
}

pub(super) fn fd_ino(dir: &ProcessDir, fd: u32) -> u64 {
    dir.stat().ino + 0x10000 + u64::from(fd)
}

impl Inode for FdLink {
    fn stat(&self) -> Stat {
        let mode = 0o100
            + if self.file.readable() { 0o400 } else { 0 }
            + if self.file.writable() { 0o200 } else { 0 };
        let ino = fd_ino(&self.dir, self.fd);
        // The size that Linux shows for such links.
        self.dir.owned(Stat {
            size: 64,
            ..Stat::new(FileSystem::Proc, ino, FileType::Symlink, mode)
        })
    }

    fn place(&self) -> Result<Place> {
        Ok(Place::In(self.dir.lookup(b"fd")?, number(self.fd)?))
    }

    fn open(&self, _access: Access, _nonblock: bool) -> Result<Opened> {
        Err(Errno::ELOOP)
    }

    fn read_link(&self) -> Result<Vec<u8>> {
        self.file.path()
    }

    fn follow(&self) -> Option<Result<InodeRef>> {
        Some(Ok(self.file.inode.clone()))
    }
}
