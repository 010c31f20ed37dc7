//! Directories, links and texts whose entries are known when the kernel is built: the frame of /dev and /proc.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::general as abi;

use super::file::Opened;
use super::generated::{self, Generator};
use super::inode::{
    Access, DirEntry, EntrySink, FileSystem, FileType, Inode, InodeRef, Place, Stat,
};
use super::text::{Maker, Text};
use super::tmpfs::index::copy_name;
use crate::errno::{Errno, Result};
use crate::sync::{SpinLock, rank};

/// Inode number of the `n`th entry below the directory with number `dir`.
pub const fn ino_below(dir: u64, n: u64) -> u64 {
    dir * 64 + n + 1
}

/// Name, parent and numbers, as every fixed inode has them.
pub struct Node {
    pub stat: Stat,
    parent: Option<InodeRef>,
    name: Box<[u8]>,
}

impl Node {
    pub fn new(stat: Stat, parent: InodeRef, name: &[u8]) -> Result<Node> {
        Ok(Node {
            stat,
            parent: Some(parent),
            name: copy_name(name)?,
        })
    }

    /// An inode that is in no directory.
    pub fn nowhere(stat: Stat, name: &[u8]) -> Result<Node> {
        Ok(Node {
            stat,
            parent: None,
            name: copy_name(name)?,
        })
    }

    pub fn place(&self) -> Result<Place> {
        let name = copy_name(&self.name)?.into_vec();
        Ok(match &self.parent {
            Some(parent) => Place::In(parent.clone(), name),
            None => Place::Nowhere(name),
        })
    }
}

/// The inode of a file that is in no directory and has no contents of its own.
struct Anonymous(Node);

impl Inode for Anonymous {
    fn stat(&self) -> Stat {
        self.0.stat
    }

    fn place(&self) -> Result<Place> {
        self.0.place()
    }

    fn open(&self, _access: Access, _nonblock: bool) -> Result<Opened> {
        Err(Errno::ENXIO)
    }
}

/// An anonymous inode; `name` as /proc/self/fd shows it. `ENOMEM`.
pub fn anonymous(name: &[u8]) -> Result<InodeRef> {
    let stat = Stat::new(FileSystem::Anonymous, 1, FileType::Anonymous, 0o600);
    Ok(Arc::try_new(Anonymous(Node::nowhere(stat, name)?))?)
}

/// A directory that is filled once, when it is made.
pub struct Directory {
    node: Node,
    entries: SpinLock<Vec<(&'static [u8], InodeRef)>>,
}

impl Directory {
    pub fn new(
        fs: FileSystem,
        ino: u64,
        mode: u32,
        parent: InodeRef,
        name: &[u8],
    ) -> Result<Arc<Directory>> {
        let node = Node::new(Stat::new(fs, ino, FileType::Directory, mode), parent, name)?;
        Ok(Arc::try_new(Directory {
            node,
            entries: SpinLock::new(rank::FILES, Vec::new()),
        })?)
    }

    /// The first entry that is what is looked for.
    pub fn find(&self, is_it: impl Fn(&InodeRef) -> bool) -> Option<InodeRef> {
        let entries = self.entries.lock();
        let found = entries.iter().find(|(_, inode)| is_it(inode));
        found.map(|(_, inode)| inode.clone())
    }

    /// Adds an entry, at bring-up.
    pub fn add(&self, name: &'static str, inode: InodeRef) -> Result {
        let mut entries = self.entries.lock();
        entries.try_reserve(1)?;
        entries.push((name.as_bytes(), inode));
        Ok(())
    }
}

impl Inode for Directory {
    fn stat(&self) -> Stat {
        self.node.stat
    }

    fn place(&self) -> Result<Place> {
        self.node.place()
    }

    fn open(&self, _access: Access, _nonblock: bool) -> Result<Opened> {
        Ok(Opened::Directory)
    }

    fn lookup(&self, name: &[u8]) -> Result<InodeRef> {
        let entries = self.entries.lock();
        let found = entries.iter().find(|(entry, _)| *entry == name);
        found.map(|(_, inode)| inode.clone()).ok_or(Errno::ENOENT)
    }

    fn read_dir(&self, pos: u64, sink: &mut EntrySink<'_>) -> Result {
        for n in pos.saturating_sub(2).. {
            let entry = self.entries.lock().get(n as usize).cloned();
            let Some((name, inode)) = entry else { break };
            let stat = inode.stat();
            if !sink(DirEntry {
                name,
                ino: stat.ino,
                file_type: stat.file_type,
                next: n + 3,
            }) {
                break;
            }
        }
        Ok(())
    }
}

/// A symbolic link with a target that is made when it is read.
pub struct Link {
    node: Node,
    target: Maker,
}

impl Link {
    pub fn new(
        fs: FileSystem,
        ino: u64,
        parent: InodeRef,
        name: &[u8],
        target: Maker,
    ) -> Result<Arc<Link>> {
        let node = Node::new(Stat::new(fs, ino, FileType::Symlink, 0o777), parent, name)?;
        Ok(Arc::try_new(Link { node, target })?)
    }
}

impl Inode for Link {
    fn stat(&self) -> Stat {
        self.node.stat
    }

    fn place(&self) -> Result<Place> {
        self.node.place()
    }

    fn open(&self, _access: Access, _nonblock: bool) -> Result<Opened> {
        Err(Errno::ELOOP)
    }

    fn read_link(&self) -> Result<Vec<u8>> {
        let mut text = Text::new();
        (self.target)(&mut text).map_err(|_| Errno::ENOENT)?;
        text.finish()
    }
}

/// A file whose text is made when it is read.
pub struct TextFile<G = Maker> {
    node: Node,
    text: G,
}

impl<G: Generator + Copy> TextFile<G> {
    /// One that everybody can read and nobody write.
    pub fn new(
        fs: FileSystem,
        ino: u64,
        parent: InodeRef,
        name: &[u8],
        text: G,
    ) -> Result<Arc<TextFile<G>>> {
        TextFile::with_mode(fs, ino, 0o444, parent, name, text)
    }

    pub fn with_mode(
        fs: FileSystem,
        ino: u64,
        mode: u32,
        parent: InodeRef,
        name: &[u8],
        text: G,
    ) -> Result<Arc<TextFile<G>>> {
        let node = Node::new(Stat::new(fs, ino, FileType::Regular, mode), parent, name)?;
        Ok(Arc::try_new(TextFile { node, text })?)
    }
}

impl<G: Generator + Copy + 'static> Inode for TextFile<G> {
    fn stat(&self) -> Stat {
        self.node.stat
    }

    fn place(&self) -> Result<Place> {
        self.node.place()
    }

    fn open(&self, access: Access, _nonblock: bool) -> Result<Opened> {
        if access.write && self.node.stat.mode & abi::S_IWUSR == 0 {
            return Err(Errno::EACCES);
        }
        generated::open(self.text)
    }
}

impl Generator for Maker {
    fn generate(&self, _cursor: u64, text: &mut Text) -> Result<Option<u64>> {
        self(text).map_err(|_| Errno::ENOMEM)?;
        Ok(None)
    }
}
