//! tmpfs: files and directories in memory, readable and writable. The root is one, too, over what is on the disk ([`lower`]).
//!
//! A [`Node`] is one file, directory, link or FIFO. Changes of the tree are made under the file system's one sleeping lock, so that a
//! rename sees both directories unchanged; lookups take only the directory's spin lock for a moment. A node knows its parent
//! weakly and holds its children strongly, so a removed tree goes with its last user.
//!
//! Locks, outermost first: `TmpFs::changes` (sleeps), a node's `state` (rank FILES; never two at once).

mod directory;
mod file;
pub mod index;
pub mod lower;
mod seals;
pub mod usage;

pub use file::MAX_FILE_SIZE;

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use spin::Once;

use super::file::Opened;
use super::inode::{
    Access, EntrySink, FileSystem, FileType, Inode, InodeRef, NewNode, Place, SetAttr, Stat, Time,
};
use super::permission;
use super::pipe::Pipe;
use crate::errno::{Errno, Result};
use crate::mm::page_cache::Mapping;
use crate::sched::SleepMutex;
use crate::sync::{SpinLock, rank};
use directory::{Child, Directory};
use lower::Lower;
use seals::Seals;
use usage::Users;

/// One tmpfs.
pub struct TmpFs {
    kind: FileSystem,
    /// What lies below it, on a disk.
    lower: Option<Arc<dyn Lower>>,
    next_ino: AtomicU64,
    /// Held while the tree changes.
    changes: SleepMutex<()>,
}

/// A file, directory, link or FIFO in memory.
pub struct Node {
    fs: Arc<TmpFs>,
    ino: u64,
    file_type: FileType,
    /// Itself, for children that point back. Set before anybody else sees the node.
    this: Once<Weak<Node>>,
    content: Content,
    seals: Seals,
    users: Users,
    /// Made without a name (O_TMPFILE), and may get one.
    linkable: AtomicBool,
    state: SpinLock<State>,
}

enum Content {
    /// Pages; the mapping's size is the file's.
    File(Arc<Mapping>),
    Directory(Directory),
    Symlink(Vec<u8>),
    Fifo(Arc<Pipe>),
    /// A socket, or a device with its numbers: opened as that one in /dev, if there is one.
    Special((u32, u32)),
}

/// What changes about a node.
struct State {
    place: NodePlace,
    nlink: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    atime: Time,
    mtime: Time,
    ctime: Time,
    btime: Time,
}

enum NodePlace {
    /// The top of everything.
    Root,
    /// The top, mounted on an entry of another file system.
    Mounted(InodeRef, &'static [u8]),
    In(Weak<Node>, Vec<u8>),
    Removed(Vec<u8>),
    /// Never had a name: memfd.
    Anonymous(Vec<u8>),
}

impl TmpFs {
    /// An empty file system whose root directory is the entry `name` of `parent`.
    pub fn mount(
        kind: FileSystem,
        parent: InodeRef,
        name: &'static [u8],
        mode: u32,
    ) -> Result<Arc<Node>> {
        let fs = Self::new(kind, None)?;
        let content = Content::Directory(Directory::new(None));
        Node::new(
            &fs,
            FileType::Directory,
            content,
            mode,
            NodePlace::Mounted(parent, name),
        )
    }

    fn new(kind: FileSystem, lower: Option<Arc<dyn Lower>>) -> Result<Arc<TmpFs>> {
        Ok(Arc::try_new(TmpFs {
            kind,
            // The disk has number 2, and large ones.
            next_ino: AtomicU64::new(if lower.is_some() { 11 } else { 1 }),
            lower,
            changes: SleepMutex::new(()),
        })?)
    }

    /// A file without a name in any directory, with `seals`: memfd_create(2).
    pub fn anonymous_file(name: Vec<u8>, mode: u32, seals: u32) -> Result<Arc<Node>> {
        let fs = Self::new(FileSystem::Anonymous, None)?;
        let content = Content::File(Mapping::anonymous(0)?);
        let place = NodePlace::Anonymous(name);
        let state = State::new(place, None, FileType::Regular, 0, mode);
        Node::build(&fs, 1, FileType::Regular, content, state, Seals::new(seals))
    }

    /// The contents of a new file.
    fn new_file(&self) -> Result<Content> {
        Ok(Content::File(match self.lower {
            None => Mapping::anonymous(0)?,
            Some(_) => Mapping::unwritten()?,
        }))
    }
}

impl State {
    /// The current process's, of now. `parent`: mode and group of the directory.
    fn new(
        place: NodePlace,
        parent: Option<(u32, u32)>,
        file_type: FileType,
        nlink: u32,
        mode: u32,
    ) -> State {
        let (uid, gid, mode) = permission::of_new_file(parent, file_type, mode);
        let now = Time::now();
        State {
            place,
            nlink,
            mode: mode & 0o7777,
            uid,
            gid,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
        }
    }
}

impl Node {
    fn new(
        fs: &Arc<TmpFs>,
        file_type: FileType,
        content: Content,
        mode: u32,
        place: NodePlace,
    ) -> Result<Arc<Node>> {
        let parent = match &place {
            NodePlace::In(parent, _) => parent.upgrade().map(|parent| parent.mode_and_gid()),
            _ => None,
        };
        let nlink = if file_type == FileType::Directory {
            2
        } else {
            1
        };
        let state = State::new(place, parent, file_type, nlink, mode);
        let ino = fs.next_ino.fetch_add(1, Ordering::Relaxed);
        Node::build(fs, ino, file_type, content, state, Seals::closed())
    }

    fn build(
        fs: &Arc<TmpFs>,
        ino: u64,
        file_type: FileType,
        content: Content,
        state: State,
        seals: Seals,
    ) -> Result<Arc<Node>> {
        super::check_memory()?;
        let node = Arc::try_new(Node {
            fs: fs.clone(),
            ino,
            file_type,
            this: Once::new(),
            content,
            seals,
            users: Users::new(),
            linkable: AtomicBool::new(false),
            state: SpinLock::new(rank::FILES, state),
        })?;
        node.this.call_once(|| Arc::downgrade(&node));
        Ok(node)
    }

    fn mode_and_gid(&self) -> (u32, u32) {
        let state = self.state.lock();
        (state.mode, state.gid)
    }

    fn this(&self) -> Weak<Node> {
        self.this.get().cloned().unwrap_or_default()
    }

    fn directory(&self) -> Result<&Directory> {
        match &self.content {
            Content::Directory(dir) => Ok(dir),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// Puts another file system's directory in the place of, or beside, the entries that there are. At bring-up, before the entry is looked
    /// up.
    pub fn mount_on(&self, name: &str, inode: InodeRef) -> Result {
        let mut entries = self.directory()?.entries.lock();
        entries.insert(name.as_bytes(), Child::Mounted(inode))
    }

    /// Notes that contents were looked at, if the time of the last look is not after that of the last change, or a day ago (the mount
    /// option `relatime`).
    pub fn accessed(&self) {
        let now = Time::now();
        let mut state = self.state.lock();
        if state.atime <= state.mtime.max(state.ctime) || now.sec - state.atime.sec >= 24 * 60 * 60
        {
            state.atime = now;
        }
    }

    /// Notes that attributes changed.
    fn changed(&self) {
        let now = Time::now();
        self.state.lock().ctime = now;
    }

    /// Notes that contents changed.
    fn touch(&self) {
        let now = Time::now();
        let mut state = self.state.lock();
        state.mtime = now;
        state.ctime = now;
    }
}

fn copy(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len())?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

impl Inode for Node {
    fn stat(&self) -> Stat {
        let size = match &self.content {
            Content::File(pages) => pages.size(),
            Content::Symlink(target) => target.len() as u64,
            Content::Directory(dir) => {
                // Its links are those of the directories in it. A disk that cannot be read is found out by others.
                let _ = self.complete(dir);
                self.fs.lower.as_ref().map_or(0, |_| 4096)
            }
            Content::Fifo(_) | Content::Special(_) => 0,
        };
        let rdev = match &self.content {
            Content::Special(device) => *device,
            _ => (0, 0),
        };
        let blocks = match &self.content {
            Content::File(pages) => pages.pages_allocated() * 8,
            _ => size.div_ceil(4096) * 8,
        };
        let state = self.state.lock();
        Stat {
            mode: state.mode,
            nlink: state.nlink,
            uid: state.uid,
            gid: state.gid,
            rdev,
            size,
            blocks,
            atime: state.atime,
            mtime: state.mtime,
            ctime: state.ctime,
            btime: state.btime,
            ..Stat::new(self.fs.kind, self.ino, self.file_type, 0)
        }
    }

    fn file_type(&self) -> FileType {
        self.file_type
    }

    fn place(&self) -> Result<Place> {
        let state = self.state.lock();
        Ok(match &state.place {
            NodePlace::Root => Place::Root,
            NodePlace::Mounted(parent, name) => Place::In(parent.clone(), copy(name)?),
            NodePlace::Removed(name) => Place::Removed(copy(name)?),
            NodePlace::Anonymous(name) => Place::Nowhere(copy(name)?),
            NodePlace::In(parent, name) => match parent.upgrade() {
                Some(parent) => Place::In(parent, copy(name)?),
                None => Place::Removed(copy(name)?),
            },
        })
    }

    fn open(&self, access: Access, nonblock: bool) -> Result<Opened> {
        match &self.content {
            Content::File(pages) => Ok(Opened::Regular(pages.clone(), self.as_tmpfs())),
            Content::Directory(_) => Ok(Opened::Directory),
            Content::Symlink(_) => Err(Errno::ELOOP),
            Content::Fifo(pipe) => Pipe::open(pipe, access, nonblock),
            Content::Special(device) => {
                crate::fs::dev::find(self.file_type, *device)?.open(access, nonblock)
            }
        }
    }

    fn mapping(&self) -> Option<Arc<Mapping>> {
        match &self.content {
            Content::File(pages) => Some(pages.clone()),
            _ => None,
        }
    }

    fn lookup(&self, name: &[u8]) -> Result<InodeRef> {
        match self.find(name)?.ok_or(Errno::ENOENT)? {
            Child::Node(node) => Ok(node),
            Child::Mounted(inode) => Ok(inode),
            Child::OnDisk { .. } => Err(Errno::EIO),
        }
    }

    fn read_dir(&self, pos: u64, sink: &mut EntrySink<'_>) -> Result {
        self.accessed();
        self.list(pos, sink)
    }

    fn read_link(&self) -> Result<Vec<u8>> {
        match &self.content {
            Content::Symlink(target) => {
                self.accessed();
                copy(target)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn create(&self, name: &[u8], new: NewNode<'_>, mode: u32) -> Result<InodeRef> {
        Ok(self.create_child(name, new, mode)?)
    }

    fn link(&self, name: &[u8], inode: &InodeRef) -> Result {
        self.link_child(name, inode)
    }

    fn unlink(&self, name: &[u8], directory: bool) -> Result {
        self.unlink_child(name, directory)
    }

    fn rename(&self, name: &[u8], new_dir: &InodeRef, new_name: &[u8], flags: u32) -> Result {
        let new_dir = new_dir
            .as_tmpfs()
            .filter(|dir| Arc::ptr_eq(&dir.fs, &self.fs))
            .ok_or(Errno::EXDEV)?;
        self.rename_child(name, &new_dir, new_name, flags)
    }

    fn set_attr(&self, attr: SetAttr) -> Result {
        let mut state = self.state.lock();
        if let Some(mode) = attr.mode {
            self.seals.check_mode(state.mode, mode)?;
        }
        state.mode = attr.mode.map_or(state.mode, |mode| mode & 0o7777);
        state.uid = attr.uid.unwrap_or(state.uid);
        state.gid = attr.gid.unwrap_or(state.gid);
        state.atime = attr.atime.unwrap_or(state.atime);
        state.mtime = attr.mtime.unwrap_or(state.mtime);
        state.ctime = Time::now();
        Ok(())
    }

    fn truncate(&self, size: u64) -> Result {
        self.set_size(size)
    }

    fn accessed(&self) {
        Node::accessed(self);
    }

    fn written(&self) {
        self.touch();
    }

    fn as_tmpfs(&self) -> Option<Arc<Node>> {
        self.this().upgrade()
    }
}
