//! Changing the tree: create, link, unlink, rename. Each holds `TmpFs::changes` from its first look to its last change.

use alloc::sync::Arc;
use core::fmt::Write;
use core::sync::atomic::Ordering;

use linux_raw_sys::general as abi;

use super::index::{Entry, Index};
use super::lower::LowerDir;
use super::seals::Seals;
use super::{Content, Node, NodePlace, State, copy};
use crate::errno::{Errno, Result};
use crate::fs::inode::{DirEntry, EntrySink, FileType, InodeRef, NAME_MAX, NewNode, Time};
use crate::fs::pipe::Pipe;
use crate::mm::reclaim::make_room_for_files;
use crate::sync::{SpinLock, rank};

/// A directory's contents.
pub(super) struct Directory {
    pub(super) entries: SpinLock<Index<Child>>,
    /// The directory on the disk that it comes from.
    pub(super) lower: Option<LowerDir>,
}

/// What an entry stands for.
#[derive(Clone)]
pub(super) enum Child {
    Node(Arc<Node>),
    /// Known by its name alone as yet.
    OnDisk {
        ino: u64,
        file_type: FileType,
    },
    /// The root of another file system.
    Mounted(InodeRef),
}

impl Directory {
    pub(super) fn new(lower: Option<LowerDir>) -> Directory {
        Directory {
            entries: SpinLock::new(rank::PAGE, Index::new(2)),
            lower,
        }
    }
}

impl Child {
    fn ino_and_type(&self) -> (u64, FileType) {
        match self {
            Child::Node(node) => (node.ino, node.file_type),
            Child::OnDisk { ino, file_type } => (*ino, *file_type),
            Child::Mounted(inode) => (inode.stat().ino, FileType::Directory),
        }
    }
}

impl Node {
    pub(super) fn list(&self, pos: u64, sink: &mut EntrySink<'_>) -> Result {
        let dir = self.directory()?;
        self.complete(dir)?;
        let mut pos = pos.max(2);
        loop {
            let Some(entry) = dir.entries.lock().at_or_after(pos) else {
                return Ok(());
            };
            let next = entry.position + 1;
            let (ino, file_type) = entry.value.ino_and_type();
            if !sink(DirEntry {
                name: &entry.name,
                ino,
                file_type,
                next,
            }) {
                return Ok(());
            }
            pos = next;
        }
    }

    /// Whether the directory still has a name: entries cannot be made in one that was removed.
    fn is_alive(&self) -> bool {
        !matches!(self.state.lock().place, NodePlace::Removed(_))
    }

    /// The entry `name`, which is not [`Child::OnDisk`]. `ENOTDIR`, `ENAMETOOLONG`, `EIO`, `ENOMEM`.
    pub(super) fn find(&self, name: &[u8]) -> Result<Option<Child>> {
        let dir = self.directory()?;
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let known = dir.entries.lock().get(name);
        match known {
            None if dir.is_complete() => Ok(None),
            None | Some(Child::OnDisk { .. }) => self.look_up_on_disk(dir, name),
            known => Ok(known),
        }
    }

    /// The same for changes: everything there is in the directory is known afterwards. `EBUSY` for the root of another file system.
    fn child(&self, name: &[u8]) -> Result<Option<Arc<Node>>> {
        self.complete(self.directory()?)?;
        match self.find(name)? {
            None => Ok(None),
            Some(Child::Node(node)) => Ok(Some(node)),
            Some(Child::Mounted(_)) => Err(Errno::EBUSY),
            Some(Child::OnDisk { .. }) => Err(Errno::EIO),
        }
    }

    /// Whether there is an entry `name`, before one is made.
    fn has(&self, name: &[u8]) -> Result<bool> {
        self.complete(self.directory()?)?;
        self.find(name).map(|child| child.is_some())
    }

    fn entries(&self) -> Result<&SpinLock<Index<Child>>> {
        self.directory().map(|dir| &dir.entries)
    }

    pub(super) fn add_links(&self, links: i32) {
        let mut state = self.state.lock();
        state.nlink = state.nlink.saturating_add_signed(links);
    }

    pub(super) fn create_child(
        &self,
        name: &[u8],
        new: NewNode<'_>,
        mode: u32,
    ) -> Result<Arc<Node>> {
        let _changes = self.fs.changes.lock();
        if self.has(name)? {
            return Err(Errno::EEXIST);
        }
        if !self.is_alive() {
            return Err(Errno::ENOENT);
        }
        if !make_room_for_files() {
            return Err(Errno::ENOSPC);
        }
        let (file_type, content) = match new {
            NewNode::File => (FileType::Regular, self.fs.new_file()?),
            NewNode::Directory => (
                FileType::Directory,
                Content::Directory(Directory::new(None)),
            ),
            NewNode::Fifo => (FileType::Fifo, Content::Fifo(Pipe::new()?)),
            NewNode::Special(file_type, device) => (file_type, Content::Special(device)),
            NewNode::Symlink(target) => (FileType::Symlink, Content::Symlink(copy(target)?)),
        };
        let place = NodePlace::In(self.this(), copy(name)?);
        let node = Node::new(&self.fs, file_type, content, mode, place)?;
        self.entries()?
            .lock()
            .insert(name, Child::Node(node.clone()))?;
        if file_type == FileType::Directory {
            self.add_links(1);
        }
        self.touch();
        Ok(node)
    }

    pub(super) fn link_child(&self, name: &[u8], inode: &InodeRef) -> Result {
        let node = inode
            .as_tmpfs()
            .filter(|node| Arc::ptr_eq(&node.fs, &self.fs))
            .ok_or(Errno::EXDEV)?;
        let _changes = self.fs.changes.lock();
        if self.has(name)? {
            return Err(Errno::EEXIST);
        }
        if node.file_type == FileType::Directory {
            return Err(Errno::EPERM);
        }
        let gets_name = node.linkable.load(Ordering::Relaxed);
        if !self.is_alive() || !node.is_alive() && !gets_name {
            return Err(Errno::ENOENT);
        }
        crate::fs::check_memory()?;
        let place = gets_name
            .then(|| copy(name))
            .transpose()?
            .map(|name| NodePlace::In(self.this(), name));
        self.entries()?
            .lock()
            .insert(name, Child::Node(node.clone()))?;
        node.add_links(1);
        if let Some(place) = place {
            node.linkable.store(false, Ordering::Relaxed);
            drop(core::mem::replace(&mut node.state.lock().place, place));
        }
        node.changed();
        self.touch();
        Ok(())
    }

    /// A file in the directory's file system without a name, which may get one if `linkable` says so (O_TMPFILE).
    pub fn create_nameless(&self, mode: u32, linkable: bool) -> Result<Arc<Node>> {
        self.directory()?;
        if !make_room_for_files() {
            return Err(Errno::ENOSPC);
        }
        let ino = self.fs.next_ino.fetch_add(1, Ordering::Relaxed);
        let mut name = crate::fs::text::Text::new();
        write!(name, "#{ino}").map_err(|_| Errno::ENOMEM)?;
        let state = State::new(
            NodePlace::Removed(name.finish()?),
            Some(self.mode_and_gid()),
            FileType::Regular,
            0,
            mode,
        );
        let content = self.fs.new_file()?;
        let node = Node::build(
            &self.fs,
            ino,
            FileType::Regular,
            content,
            state,
            Seals::closed(),
        )?;
        node.linkable.store(linkable, Ordering::Relaxed);
        Ok(node)
    }

    pub(super) fn unlink_child(&self, name: &[u8], directory: bool) -> Result {
        let _changes = self.fs.changes.lock();
        let node = self.child(name)?.ok_or(Errno::ENOENT)?;
        check_removable(&node, directory)?;
        self.remove_entry(name, &node)?;
        self.touch();
        Ok(())
    }

    /// Takes an entry out. The node goes with its last name, unless somebody uses it.
    fn remove_entry(&self, name: &[u8], node: &Arc<Node>) -> Result {
        let last_name = copy(name)?;
        let entry = self.entries()?.lock().remove(name);
        drop(entry);
        if node.file_type == FileType::Directory {
            self.add_links(-1);
        }
        let now = Time::now();
        let mut state = node.state.lock();
        state.ctime = now;
        state.nlink = if node.file_type == FileType::Directory {
            0
        } else {
            state.nlink.saturating_sub(1)
        };
        let old = (state.nlink == 0)
            .then(|| core::mem::replace(&mut state.place, NodePlace::Removed(last_name)));
        drop(state);
        drop(old);
        Ok(())
    }

    pub(super) fn rename_child(
        &self,
        name: &[u8],
        new_dir: &Arc<Node>,
        new_name: &[u8],
        flags: u32,
    ) -> Result {
        let _changes = self.fs.changes.lock();
        let node = self.child(name)?.ok_or(Errno::ENOENT)?;
        let target = new_dir.child(new_name)?;
        if flags & abi::RENAME_EXCHANGE != 0 {
            let target = target.ok_or(Errno::ENOENT)?;
            if Arc::ptr_eq(&target, &node) {
                return Ok(());
            }
            check_not_into_itself(&node, new_dir)?;
            check_not_into_itself(&target, &self.this().upgrade().ok_or(Errno::ENOENT)?)?;
            return self.exchange(name, &node, new_dir, new_name, &target);
        }
        if target.is_some() && flags & abi::RENAME_NOREPLACE != 0 {
            return Err(Errno::EEXIST);
        }
        if target
            .as_ref()
            .is_some_and(|target| Arc::ptr_eq(target, &node))
        {
            return Ok(());
        }
        check_not_into_itself(&node, new_dir)?;
        if !new_dir.is_alive() {
            return Err(Errno::ENOENT);
        }
        if let Some(target) = &target {
            check_replaceable(target, &node)?;
        }
        // From here on only memory can be missing, and only before anything has changed.
        let place = NodePlace::In(new_dir.this(), copy(new_name)?);
        let entry = Entry::new(new_name, Child::Node(node.clone()))?;
        if let Some(target) = &target {
            new_dir.remove_entry(new_name, target)?;
        }
        new_dir.entries()?.lock().add(entry);
        self.move_out(name, &node, new_dir, place)
    }

    /// The second half of a rename: the node has its new entry and loses the old one.
    fn move_out(&self, name: &[u8], node: &Arc<Node>, new_dir: &Node, place: NodePlace) -> Result {
        let entry = self.entries()?.lock().remove(name);
        drop(entry);
        if node.file_type == FileType::Directory {
            self.add_links(-1);
            new_dir.add_links(1);
        }
        let old = core::mem::replace(&mut node.state.lock().place, place);
        drop(old);
        node.changed();
        self.touch();
        new_dir.touch();
        Ok(())
    }

    fn exchange(
        &self,
        name: &[u8],
        node: &Arc<Node>,
        new_dir: &Node,
        new_name: &[u8],
        target: &Arc<Node>,
    ) -> Result {
        let node_place = NodePlace::In(new_dir.this(), copy(new_name)?);
        let target_place = NodePlace::In(self.this(), copy(name)?);
        let (entry, new_entry) = (
            Entry::new(name, Child::Node(target.clone()))?,
            Entry::new(new_name, Child::Node(node.clone()))?,
        );
        let (entries, new_entries) = (self.entries()?, new_dir.entries()?);
        // One statement each: the two may be one directory.
        let old = entries.lock().remove(name);
        let new_old = new_entries.lock().remove(new_name);
        entries.lock().add(entry);
        new_entries.lock().add(new_entry);
        drop((old, new_old));
        for (moved, from, to) in [(node, self, new_dir), (target, new_dir, self)] {
            if moved.file_type == FileType::Directory {
                from.add_links(-1);
                to.add_links(1);
            }
        }
        drop(core::mem::replace(&mut node.state.lock().place, node_place));
        drop(core::mem::replace(
            &mut target.state.lock().place,
            target_place,
        ));
        node.changed();
        target.changed();
        self.touch();
        new_dir.touch();
        Ok(())
    }
}

fn check_removable(node: &Node, directory: bool) -> Result {
    match (&node.content, directory) {
        (Content::Directory(dir), true) => {
            node.complete(dir)?;
            if dir.entries.lock().is_empty() {
                Ok(())
            } else {
                Err(Errno::ENOTEMPTY)
            }
        }
        (Content::Directory(_), false) => Err(Errno::EISDIR),
        (_, true) => Err(Errno::ENOTDIR),
        (_, false) => Ok(()),
    }
}

/// Whether `node` may take the place of `target`.
fn check_replaceable(target: &Node, node: &Node) -> Result {
    check_removable(target, node.file_type == FileType::Directory)
}

/// A directory cannot be moved below itself.
fn check_not_into_itself(node: &Arc<Node>, new_dir: &Arc<Node>) -> Result {
    if node.file_type != FileType::Directory {
        return Ok(());
    }
    let mut at = Some(new_dir.clone());
    while let Some(dir) = at {
        if Arc::ptr_eq(&dir, node) {
            return Err(Errno::EINVAL);
        }
        at = match &dir.state.lock().place {
            NodePlace::In(parent, _) => parent.upgrade(),
            _ => None,
        };
    }
    Ok(())
}
