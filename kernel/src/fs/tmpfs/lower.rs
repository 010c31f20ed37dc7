//! The file system on a disk that lies below one in memory.
//!
//! Nodes of the disk's files come into being when they are looked up, and are nodes like all others from then on: there is nothing to be
//! copied up, and inode numbers, open files and mappings stay what they are. Contents are read page by page as they are needed. A directory
//! takes all its entries over before its first change or listing, and from then on the disk is not asked about names in it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use super::directory::{Child, Directory};
use super::index::{Entry, copy_name};
use super::seals::Seals;
use super::{Content, Node, NodePlace, State, TmpFs, copy};
use crate::errno::{Errno, Result};
use crate::fs::inode::{FileSystem, FileType, Stat};
use crate::mm::page_cache::{Backing, Mapping};

/// A file system that can only be read, by absolute paths without links. Each call may sleep for the disk.
pub trait Lower: Send + Sync {
    /// `ENOENT`, `EIO`, `ENOMEM`.
    fn stat(&self, path: &[u8]) -> Result<Stat>;

    /// All entries of a directory but `.` and `..`.
    fn list(&self, path: &[u8]) -> Result<Vec<Listed>>;

    fn read_link(&self, path: &[u8]) -> Result<Vec<u8>>;

    /// A regular file's contents.
    fn contents(&self, path: &[u8], ino: u64) -> Result<Box<dyn Backing>>;
}

/// One entry of a directory.
pub struct Listed {
    pub name: Box<[u8]>,
    pub ino: u64,
    pub file_type: FileType,
}

/// A directory that is on the disk, too.
pub(super) struct LowerDir {
    /// Where it is on the disk, whatever it is called now.
    path: Box<[u8]>,
    /// Whether all its entries were taken over; changed under the lock of the entries.
    complete: AtomicBool,
}

impl LowerDir {
    fn new(path: &[u8]) -> Result<LowerDir> {
        Ok(LowerDir {
            path: copy_name(path)?,
            complete: AtomicBool::new(false),
        })
    }

    fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    fn path_below(&self, name: &[u8]) -> Result<Vec<u8>> {
        let dir = self.path.strip_suffix(b"/").unwrap_or(&self.path);
        let mut path = Vec::new();
        path.try_reserve_exact(dir.len() + 1 + name.len())?;
        path.extend_from_slice(dir);
        path.push(b'/');
        path.extend_from_slice(name);
        Ok(path)
    }
}

impl TmpFs {
    /// The root of everything: what is on a disk, with changes that live in memory.
    pub fn over(kind: FileSystem, lower: Arc<dyn Lower>) -> Result<Arc<Node>> {
        let stat = lower.stat(b"/")?;
        let fs = TmpFs::new(kind, Some(lower))?;
        Node::from_disk(&fs, b"/", &stat, NodePlace::Root)
    }

    fn lower(&self) -> Result<&dyn Lower> {
        self.lower.as_deref().ok_or(Errno::EIO)
    }
}

impl Node {
    fn from_disk(fs: &Arc<TmpFs>, path: &[u8], stat: &Stat, place: NodePlace) -> Result<Arc<Node>> {
        let lower = fs.lower()?;
        let content = match stat.file_type {
            FileType::Regular => {
                Content::File(Mapping::new(stat.size, lower.contents(path, stat.ino)?)?)
            }
            FileType::Directory => Content::Directory(Directory::new(Some(LowerDir::new(path)?))),
            FileType::Symlink => Content::Symlink(lower.read_link(path)?),
            FileType::Fifo => Content::Fifo(crate::fs::pipe::Pipe::new()?),
            _ => Content::Special(stat.rdev),
        };
        let state = State {
            place,
            nlink: stat.nlink,
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            atime: stat.atime,
            mtime: stat.mtime,
            ctime: stat.ctime,
            btime: stat.btime,
        };
        Node::build(
            fs,
            stat.ino,
            stat.file_type,
            content,
            state,
            Seals::closed(),
        )
    }

    /// The entry `name` of a directory that is on the disk and has not taken it over yet: makes its node.
    pub(super) fn look_up_on_disk(&self, dir: &Directory, name: &[u8]) -> Result<Option<Child>> {
        let Some(lower) = &dir.lower else {
            return Ok(None);
        };
        let path = lower.path_below(name)?;
        let stat = match self.fs.lower()?.stat(&path) {
            Err(Errno::ENOENT) => return Ok(None),
            stat => stat?,
        };
        let place = NodePlace::In(self.this(), copy(name)?);
        let child = Child::Node(Node::from_disk(&self.fs, &path, &stat, place)?);
        let entry = Entry::new(name, child.clone())?;
        let mut entries = dir.entries.lock();
        match entries.get(name) {
            Some(Child::OnDisk { .. }) => drop(entries.replace(entry)),
            // Another thread was faster; all must see one node.
            Some(other) => return Ok(Some(other)),
            // It was removed meanwhile.
            None if lower.is_complete() => return Ok(None),
            None => entries.add(entry),
        }
        Ok(Some(child))
    }

    /// Takes all entries over that the directory has on the disk, so that it can be changed or listed. `EIO`, `ENOMEM`.
    pub(super) fn complete(&self, dir: &Directory) -> Result {
        let Some(lower) = dir.lower.as_ref().filter(|lower| !lower.is_complete()) else {
            return Ok(());
        };
        let listed = self.fs.lower()?.list(&lower.path)?;
        let mut made = Vec::new();
        made.try_reserve_exact(listed.len())?;
        let mut directories = 0;
        for listed in listed {
            directories += i32::from(listed.file_type == FileType::Directory);
            let child = Child::OnDisk {
                ino: listed.ino,
                file_type: listed.file_type,
            };
            made.push(Entry::new(&listed.name, child)?);
        }
        let mut entries = dir.entries.lock();
        if lower.is_complete() {
            return Ok(());
        }
        for entry in made {
            if entries.get(&entry.name).is_none() {
                entries.add(entry);
            }
        }
        lower.complete.store(true, Ordering::Release);
        drop(entries);
        self.add_links(directories);
        Ok(())
    }
}

impl Directory {
    /// Whether the entries in memory are all there are.
    pub(super) fn is_complete(&self) -> bool {
        self.lower.as_ref().is_none_or(LowerDir::is_complete)
    }
}
