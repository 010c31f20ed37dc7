//! The root file system: ext4 on the first disk, read only, by the crate `ext4-view`.
//!
//! The crate's types share counted references that are not for several threads, so all of them live in one sleeping mutex ([`Disk`])
//! and never leave it. Around it stands what the kernel wants to keep: one inode object for every path that was looked up, with the
//! page cache of its contents. Inodes stay for good: they are at most as many as the disk has files, and the disk does not change.
//!
//! Inode numbers are made from paths, as the crate does not tell the real ones; two hard links are two files here.
//!
//! Locks: `disk` (sleeps, is held while the device works), an inode's `children` and `listing` (rank FILES).

mod disk;
#[cfg(all(test, target_os = "none"))]
mod tests;

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use ext4_view::Ext4Read;

use super::file::Opened;
use super::inode::{
    Access, DirEntry, EntrySink, FileSystem, FileType, Inode as InodeTrait, InodeRef, NAME_MAX,
    NewNode, Place, Stat,
};
use super::tmpfs::index::{Entry, Index, copy_name};
use crate::config;
use crate::errno::{Errno, Result};
use crate::mm::PAGE_SIZE;
use crate::mm::page_cache::{Backing, Mapping};
use crate::sched::{SleepMutex, SleepMutexGuard};
use crate::sync::{SpinLock, rank};
use disk::{Disk, Listed};

/// A mounted file system.
pub struct Ext4Fs {
    disk: SleepMutex<Disk>,
}

/// A file, directory or link on the disk.
pub struct Inode {
    fs: Arc<Ext4Fs>,
    /// The absolute path, without links.
    path: Box<[u8]>,
    /// `None`: the root.
    parent: Option<Arc<Inode>>,
    stat: Stat,
    /// Itself, for its children.
    this: spin::Once<Weak<Inode>>,
    /// Entries that were looked up.
    children: SpinLock<Index<InodeRef>>,
    /// All entries, once the directory was listed.
    listing: SpinLock<Option<Arc<Vec<Listed>>>>,
    /// A regular file's pages, once it was opened.
    mapping: SpinLock<Option<Arc<Mapping>>>,
}

/// Mounts the file system that `reader` reads; returns its root. `EIO`, `EINVAL` if it is none.
pub fn mount(reader: Box<dyn Ext4Read + Send>) -> Result<Arc<Inode>> {
    let mut disk = Disk::load(reader)?;
    let stat = disk.stat(b"/")?;
    let fs = Arc::try_new(Ext4Fs {
        disk: SleepMutex::new(disk),
    })?;
    Inode::new(&fs, copy_name(b"/")?, None, stat)
}

impl Ext4Fs {
    /// The disk, for one call. The crate takes memory as if there were no end of it, so there must be some. `ENOMEM`.
    fn disk(&self) -> Result<SleepMutexGuard<'_, Disk>> {
        super::check_memory()?;
        Ok(self.disk.lock())
    }
}

impl Inode {
    fn new(
        fs: &Arc<Ext4Fs>,
        path: Box<[u8]>,
        parent: Option<Arc<Inode>>,
        stat: Stat,
    ) -> Result<Arc<Inode>> {
        let inode = Arc::try_new(Inode {
            fs: fs.clone(),
            path,
            parent,
            stat,
            this: spin::Once::new(),
            children: SpinLock::new(rank::FILES, Index::new(0)),
            listing: SpinLock::new(rank::FILES, None),
            mapping: SpinLock::new(rank::FILES, None),
        })?;
        inode.this.call_once(|| Arc::downgrade(&inode));
        Ok(inode)
    }

    /// Puts another file system's directory in place of, or beside, the entries on the disk. At bring-up, before the entry is looked up.
    pub fn mount_on(&self, name: &str, inode: InodeRef) -> Result {
        self.children.lock().insert(name.as_bytes(), inode)
    }

    fn name(&self) -> &[u8] {
        let slash = self
            .path
            .iter()
            .rposition(|&byte| byte == b'/')
            .unwrap_or(0);
        &self.path[slash + 1..]
    }

    fn path_below(&self, name: &[u8]) -> Result<Box<[u8]>> {
        let dir = if self.path.len() == 1 {
            &[][..]
        } else {
            &self.path
        };
        let mut path = Vec::new();
        path.try_reserve_exact(dir.len() + 1 + name.len())?;
        path.extend_from_slice(dir);
        path.push(b'/');
        path.extend_from_slice(name);
        Ok(path.into_boxed_slice())
    }

    /// The pages; one set for all who open the file.
    fn pages(&self) -> Result<Arc<Mapping>> {
        if let Some(pages) = &*self.mapping.lock() {
            return Ok(pages.clone());
        }
        let delay_ns = config::get()
            .slow
            .as_ref()
            .filter(|slow| slow.covers(&self.path))
            .map_or(0, |slow| slow.delay_ns);
        let backing = Contents {
            fs: self.fs.clone(),
            path: copy_name(&self.path)?,
            ino: self.stat.ino,
            delay_ns,
        };
        let pages = Mapping::new(self.stat.size, Box::try_new(backing)?)?;
        Ok(self.mapping.lock().get_or_insert(pages).clone())
    }

    fn listed(&self) -> Result<Arc<Vec<Listed>>> {
        if let Some(listing) = &*self.listing.lock() {
            return Ok(listing.clone());
        }
        let listing = Arc::try_new(self.fs.disk()?.list(&self.path)?)?;
        Ok(self.listing.lock().get_or_insert(listing).clone())
    }

    fn cached(&self, name: &[u8]) -> Option<InodeRef> {
        self.children.lock().get(name)
    }
}

impl InodeTrait for Inode {
    fn stat(&self) -> Stat {
        self.stat
    }

    fn file_type(&self) -> FileType {
        self.stat.file_type
    }

    fn place(&self) -> Result<Place> {
        Ok(match &self.parent {
            Some(parent) => Place::In(parent.clone(), copy_name(self.name())?.into_vec()),
            None => Place::Root,
        })
    }

    fn open(&self, access: Access, _nonblock: bool) -> Result<Opened> {
        match self.stat.file_type {
            FileType::Regular if access.write => Err(Errno::EROFS),
            FileType::Regular => Ok(Opened::Regular(self.pages()?, None)),
            FileType::Directory => Ok(Opened::Directory),
            FileType::Symlink => Err(Errno::ELOOP),
            _ => Err(Errno::ENXIO),
        }
    }

    fn mapping(&self) -> Option<Arc<Mapping>> {
        self.pages()
            .ok()
            .filter(|_| self.stat.file_type == FileType::Regular)
    }

    fn lookup(&self, name: &[u8]) -> Result<InodeRef> {
        if self.stat.file_type != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if let Some(inode) = self.cached(name) {
            return Ok(inode);
        }
        let path = self.path_below(name)?;
        let stat = self.fs.disk()?.stat(&path)?;
        let parent = self.this.get().and_then(Weak::upgrade);
        let inode: InodeRef = Inode::new(&self.fs, path, parent, stat)?;
        let entry = Entry::new(name, inode.clone())?;
        let mut children = self.children.lock();
        // Another thread may have been faster; all must see one inode.
        if let Some(first) = children.get(name) {
            return Ok(first);
        }
        children.add(entry);
        Ok(inode)
    }

    fn read_dir(&self, pos: u64, sink: &mut EntrySink<'_>) -> Result {
        let listing = self.listed()?;
        let mut next = pos.max(2);
        while let Some(listed) = listing.get(next as usize - 2) {
            next += 1;
            // An entry that is hidden by a mounted directory comes with those.
            if self.mounted(&listed.name).is_some() {
                continue;
            }
            let entry = DirEntry {
                name: &listed.name,
                ino: listed.ino,
                file_type: listed.file_type,
                next,
            };
            if !sink(entry) {
                return Ok(());
            }
        }
        self.list_mounted(listing.len() as u64 + 2, next, sink)
    }

    fn read_link(&self) -> Result<Vec<u8>> {
        if self.stat.file_type != FileType::Symlink {
            return Err(Errno::EINVAL);
        }
        self.fs.disk()?.read_link(&self.path)
    }

    fn create(&self, name: &[u8], _new: NewNode<'_>, _mode: u32) -> Result<InodeRef> {
        match self.lookup(name) {
            Ok(_) => Err(Errno::EEXIST),
            Err(Errno::ENOENT) => Err(Errno::EROFS),
            Err(error) => Err(error),
        }
    }

    fn truncate(&self, _size: u64) -> Result {
        Err(Errno::EROFS)
    }
}

impl Inode {
    /// The directory of another file system that is mounted as `name`.
    fn mounted(&self, name: &[u8]) -> Option<InodeRef> {
        if self.parent.is_some() {
            return None;
        }
        self.cached(name)
            .filter(|inode| inode.stat().fs != FileSystem::Ext4)
    }

    /// Lists what is mounted in the root, from position `from` on; the first one has position `first`.
    fn list_mounted(&self, first: u64, from: u64, sink: &mut EntrySink<'_>) -> Result {
        if self.parent.is_some() {
            return Ok(());
        }
        let mut position = from - first;
        loop {
            let Some(entry) = self.children.lock().at_or_after(position) else {
                return Ok(());
            };
            position = entry.position + 1;
            let stat = entry.value.stat();
            if stat.fs == FileSystem::Ext4 {
                continue;
            }
            let entry = DirEntry {
                name: &entry.name,
                ino: stat.ino,
                file_type: stat.file_type,
                next: first + position,
            };
            if !sink(entry) {
                return Ok(());
            }
        }
    }
}

/// A file's contents on the disk.
struct Contents {
    fs: Arc<Ext4Fs>,
    path: Box<[u8]>,
    ino: u64,
    delay_ns: u64,
}

impl Backing for Contents {
    fn read_page(&self, index: u64, page: &mut [u8; PAGE_SIZE]) -> Result {
        self.fs.disk()?.read_page(&self.path, self.ino, index, page)
    }

    fn delay_ns(&self) -> u64 {
        self.delay_ns
    }
}
