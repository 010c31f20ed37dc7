//! What every file system offers: inodes, and the one interface through which the rest of the kernel sees them.
//!
//! An inode knows its place (parent and name), so that `..`, getcwd(2) and /proc find the way up also after a directory has been
//! renamed. Methods that do not suit an inode's type have defaults that answer with the error of the manual pages.

use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::general as abi;

use super::file::Opened;
use crate::errno::{Errno, Result};
use crate::mm::page_cache::Mapping;

pub type InodeRef = Arc<dyn Inode>;

/// Longest file name, bytes.
pub const NAME_MAX: usize = 255;

/// The type of a file, as in the high bits of `st_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FileType {
    Regular = abi::S_IFREG,
    Directory = abi::S_IFDIR,
    Symlink = abi::S_IFLNK,
    CharDevice = abi::S_IFCHR,
    BlockDevice = abi::S_IFBLK,
    Fifo = abi::S_IFIFO,
    Socket = abi::S_IFSOCK,
    /// Files without a type: eventfd.
    Anonymous = 0,
}

impl FileType {
    /// `d_type` of getdents64(2).
    pub fn dirent_type(self) -> u8 {
        (self as u32 >> 12) as u8
    }
}

/// A point in time since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    pub sec: i64,
    pub nsec: u32,
}

impl Time {
    pub fn now() -> Time {
        let ns = crate::arch::time::now_ns() + crate::arch::time::wall_clock_offset_ns();
        Time {
            sec: (ns / 1_000_000_000) as i64,
            nsec: (ns % 1_000_000_000) as u32,
        }
    }
}

/// What stat(2) tells.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    pub fs: FileSystem,
    pub ino: u64,
    pub file_type: FileType,
    /// Permission bits, 0..=0o7777.
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    /// Major and minor number of a device file.
    pub rdev: (u32, u32),
    /// Bytes.
    pub size: u64,
    /// Units of 512 bytes.
    pub blocks: u64,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    pub btime: Time,
}

impl Stat {
    /// A file of root's, empty, with the boot time in all places.
    pub fn new(fs: FileSystem, ino: u64, file_type: FileType, mode: u32) -> Stat {
        let boot = crate::arch::time::wall_clock_offset_ns();
        let time = Time {
            sec: (boot / 1_000_000_000) as i64,
            nsec: (boot % 1_000_000_000) as u32,
        };
        Stat {
            fs,
            ino,
            file_type,
            mode,
            nlink: if file_type == FileType::Directory {
                2
            } else {
                1
            },
            uid: 0,
            gid: 0,
            rdev: (0, 0),
            size: 0,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
        }
    }
}

/// The file systems there are, each once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Tmp,
    Shm,
    Dev,
    Proc,
    /// Pipes.
    Pipe,
    Socket,
    /// eventfd, memfd.
    Anonymous,
    MessageQueues,
}

impl FileSystem {
    /// `st_dev`'s minor number; the major one is 0, as for all file systems without a device, and that of virtio disks for ext4.
    pub fn device(self) -> (u32, u32) {
        match self {
            FileSystem::Ext4 => (254, 0),
            FileSystem::Tmp => (0, 20),
            FileSystem::Shm => (0, 21),
            FileSystem::Dev => (0, 5),
            FileSystem::Proc => (0, 22),
            FileSystem::Pipe => (0, 13),
            FileSystem::Socket => (0, 8),
            FileSystem::Anonymous => (0, 14),
            FileSystem::MessageQueues => (0, 19),
        }
    }
}

/// What is to be made by [`Inode::create`].
pub enum NewNode<'a> {
    File,
    Directory,
    Fifo,
    /// A socket, or a device with its numbers.
    Special(FileType, (u32, u32)),
    /// With the target.
    Symlink(&'a [u8]),
}

/// Attributes to change; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub atime: Option<Time>,
    pub mtime: Option<Time>,
}

/// One entry of a directory, for getdents64(2).
pub struct DirEntry<'a> {
    pub name: &'a [u8],
    pub ino: u64,
    pub file_type: FileType,
    /// The position after the entry.
    pub next: u64,
}

/// Takes directory entries; false: has no room for this one.
pub type EntrySink<'a> = dyn FnMut(DirEntry<'_>) -> bool + 'a;

/// Where an inode stands in the tree.
pub enum Place {
    /// The root of everything.
    Root,
    /// In a directory, by a name.
    In(InodeRef, Vec<u8>),
    /// Removed; the name it had last.
    Removed(Vec<u8>),
    /// In no directory: `pipe:[123]`, `anon_inode:[eventfd]`.
    Nowhere(Vec<u8>),
}

/// What kind of regular file operations an open asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    pub read: bool,
    pub write: bool,
}

/// A file, directory, link, device or pipe. Called without spin locks; may sleep for the disk.
pub trait Inode: Send + Sync {
    fn stat(&self) -> Stat;

    /// Cheaper than the whole of [`Inode::stat`].
    fn file_type(&self) -> FileType {
        self.stat().file_type
    }

    /// Parent and name. `ENOMEM`.
    fn place(&self) -> Result<Place>;

    /// Makes what an open file works with. Access rights and types were checked by the caller. `nonblock` matters for FIFOs.
    fn open(&self, access: Access, nonblock: bool) -> Result<Opened>;

    /// A regular file's contents.
    fn mapping(&self) -> Option<Arc<Mapping>> {
        None
    }

    /// The entry `name` of a directory. `ENOENT`, `ENOTDIR`, `ENAMETOOLONG`, `EIO`.
    fn lookup(&self, _name: &[u8]) -> Result<InodeRef> {
        Err(Errno::ENOTDIR)
    }

    /// Hands entries from position `pos` on to `sink` until it has no more room, `.` and `..` not among them. Positions 0 and 1 are taken
    /// by those, so the first own one is 2.
    fn read_dir(&self, _pos: u64, _sink: &mut EntrySink<'_>) -> Result {
        Err(Errno::ENOTDIR)
    }

    /// A symbolic link's target.
    fn read_link(&self) -> Result<Vec<u8>> {
        Err(Errno::EINVAL)
    }

    /// Where a link leads that is more than its text, as those in /proc/self/fd. `None`: follow the text.
    fn follow(&self) -> Option<Result<InodeRef>> {
        None
    }

    /// Makes a new entry. `EEXIST`, `ENOSPC`, ...
    fn create(&self, _name: &[u8], _new: NewNode<'_>, _mode: u32) -> Result<InodeRef> {
        Err(Errno::EACCES)
    }

    /// Makes `name` another name of `inode`.
    fn link(&self, _name: &[u8], _inode: &InodeRef) -> Result {
        Err(Errno::EPERM)
    }

    /// Removes the entry `name`, which is a directory or not as `directory` says: `EISDIR`, `ENOTDIR`, `ENOTEMPTY`, `ENOENT`.
    fn unlink(&self, _name: &[u8], _directory: bool) -> Result {
        Err(Errno::EPERM)
    }

    /// Moves the entry `name` to `new_dir`, which is of the same file system.
    fn rename(&self, _name: &[u8], _new_dir: &InodeRef, _new_name: &[u8], _flags: u32) -> Result {
        Err(Errno::EPERM)
    }

    fn set_attr(&self, _attr: SetAttr) -> Result {
        Err(Errno::EPERM)
    }

    /// Sets a regular file's size in bytes.
    fn truncate(&self, _size: u64) -> Result {
        Err(Errno::EINVAL)
    }

    /// Contents were looked at.
    fn accessed(&self) {}

    /// Contents were changed through a shared mapping.
    fn written(&self) {}

    /// The terminal that the file is, if opening it may make it a session's.
    fn terminal(&self) -> Option<&Arc<super::terminal::Terminal>> {
        None
    }

    /// The tmpfs node behind the inode, for operations on two of them.
    fn as_tmpfs(&self) -> Option<Arc<super::tmpfs::Node>> {
        None
    }
}

/// Whether two references are to the same inode.
pub fn same(a: &InodeRef, b: &InodeRef) -> bool {
    let (a, b) = (a.stat(), b.stat());
    a.fs == b.fs && a.ino == b.ino
}
