//! Path resolution (`path_resolution(7)`).
//!
//! A [`Walk`] holds the directory reached and the text that is left. Symbolic links put their target in front of that text, at
//! most 40 in one resolution. Nothing recurses, and no lock is held between two steps.

use alloc::vec::Vec;

use super::inode::{FileType, InodeRef, Place};
use super::permission::{Subject, Want};
use crate::errno::{Errno, Result};

/// Most symbolic links in one resolution.
const MAX_LINKS: u32 = 40;
/// Longest path including its NUL.
pub const PATH_MAX: usize = 4096;

/// The last component of a path.
#[derive(Debug, PartialEq, Eq)]
pub enum Last {
    /// A name in the directory.
    Name(Vec<u8>),
    /// The directory itself: the path was `/`, or ended in `.` or `..`.
    Itself,
}

/// The directory that holds (or would hold) the last component.
pub struct Parent {
    pub dir: InodeRef,
    pub last: Last,
    /// The path ended in a slash, so the last component must be a directory.
    pub slash: bool,
    walk: Walk,
}

/// The namespace: where absolute paths start.
#[derive(Clone)]
pub struct Start {
    pub root: InodeRef,
    /// Where relative ones start.
    pub at: InodeRef,
    /// Who asks.
    pub subject: Subject,
}

struct Walk {
    subject: Subject,
    root: InodeRef,
    at: InodeRef,
    rest: Vec<u8>,
    links: u32,
}

/// Resolves `path` to an inode; the last component is followed if it is a symbolic link and `follow` says so, or if a slash comes
/// after it. `ENOENT`, `ENOTDIR`, `ELOOP`, `ENAMETOOLONG`, `EACCES`, `ENOMEM`, `EIO`.
pub fn resolve(start: &Start, path: &[u8], follow: bool) -> Result<InodeRef> {
    let mut parent = resolve_parent(start, path)?;
    loop {
        let Last::Name(name) = &parent.last else {
            return Ok(parent.dir);
        };
        let inode = parent.dir.lookup(name)?;
        let file_type = inode.file_type();
        if file_type == FileType::Symlink && (follow || parent.slash) {
            match parent.follow(&inode)? {
                Followed::Inode(inode) => return Ok(inode),
                Followed::Path(next) => parent = next,
            }
            continue;
        }
        if parent.slash && file_type != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        return Ok(inode);
    }
}

/// Resolves all but the last component.
pub fn resolve_parent(start: &Start, path: &[u8]) -> Result<Parent> {
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    if path.len() >= PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    let mut rest = Vec::new();
    rest.try_reserve_exact(path.len())?;
    rest.extend_from_slice(path);
    Walk {
        subject: start.subject,
        root: start.root.clone(),
        at: start.at.clone(),
        rest,
        links: 0,
    }
    .into_parent()
}

/// Where a followed link led.
#[expect(
    clippy::large_enum_variant,
    reason = "it lives on the stack for a moment, once for each link"
)]
pub enum Followed {
    /// Straight to an inode.
    Inode(InodeRef),
    /// To a path, resolved but for its last component.
    Path(Parent),
}

impl Parent {
    /// Goes on through the last component, which is the symbolic link `link`.
    pub fn follow(self, link: &InodeRef) -> Result<Followed> {
        let mut walk = self.walk;
        if let Some(inode) = walk.enter_link(link)? {
            if self.slash && inode.file_type() != FileType::Directory {
                return Err(Errno::ENOTDIR);
            }
            return Ok(Followed::Inode(inode));
        }
        if self.slash {
            walk.rest.try_reserve(1)?;
            walk.rest.push(b'/');
        }
        walk.into_parent().map(Followed::Path)
    }
}

impl Walk {
    fn into_parent(mut self) -> Result<Parent> {
        if self.rest.first() == Some(&b'/') {
            self.at = self.root.clone();
        }
        loop {
            let name = match self.take_component()? {
                Some(name) => name,
                None => {
                    return Ok(Parent {
                        dir: self.at.clone(),
                        last: Last::Itself,
                        slash: false,
                        walk: self,
                    });
                }
            };
            let slash = self.rest.first() == Some(&b'/');
            let is_last = self.rest.iter().all(|&byte| byte == b'/');
            if self.at.file_type() != FileType::Directory {
                return Err(Errno::ENOTDIR);
            }
            self.subject.may(&self.at, Want::EXEC)?;
            match name.as_slice() {
                b"." => continue,
                b".." => self.at = parent_of(&self.at)?,
                _ if is_last => {
                    return Ok(Parent {
                        dir: self.at.clone(),
                        last: Last::Name(name),
                        slash,
                        walk: self,
                    });
                }
                _ => self.enter(&name)?,
            }
        }
    }

    /// Takes the next component off the text; `None` at its end.
    fn take_component(&mut self) -> Result<Option<Vec<u8>>> {
        let start = self
            .rest
            .iter()
            .position(|&byte| byte != b'/')
            .unwrap_or(self.rest.len());
        let text = &self.rest[start..];
        let len = text
            .iter()
            .position(|&byte| byte == b'/')
            .unwrap_or(text.len());
        if len == 0 {
            self.rest.clear();
            return Ok(None);
        }
        let mut name = Vec::new();
        name.try_reserve_exact(len)?;
        name.extend_from_slice(&text[..len]);
        self.rest.drain(..start + len);
        Ok(Some(name))
    }

    /// Goes into the entry `name`, through it if it is a symbolic link.
    fn enter(&mut self, name: &[u8]) -> Result {
        let inode = self.at.lookup(name)?;
        if inode.file_type() != FileType::Symlink {
            self.at = inode;
            return Ok(());
        }
        match self.enter_link(&inode)? {
            Some(inode) => self.at = inode,
            None if self.rest.first() == Some(&b'/') => self.at = self.root.clone(),
            None => {}
        }
        Ok(())
    }

    /// Puts a link's target in front of the text, or gives the inode it leads to straight.
    fn enter_link(&mut self, link: &InodeRef) -> Result<Option<InodeRef>> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::ELOOP);
        }
        if let Some(inode) = link.follow() {
            return inode.map(Some);
        }
        let mut target = link.read_link()?;
        if target.is_empty() {
            return Err(Errno::ENOENT);
        }
        if target.len() + self.rest.len() >= 2 * PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        target.try_reserve(self.rest.len())?;
        target.extend_from_slice(&self.rest);
        self.rest = target;
        Ok(None)
    }
}

/// The directory above `dir`; the root is above itself.
pub fn parent_of(dir: &InodeRef) -> Result<InodeRef> {
    match dir.place()? {
        Place::In(parent, _) => Ok(parent),
        Place::Root => Ok(dir.clone()),
        Place::Removed(_) | Place::Nowhere(_) => Err(Errno::ENOENT),
    }
}

/// The absolute path of an inode, as getcwd(2) and /proc show it. A removed file has ` (deleted)` after its last name.
pub fn path_of(inode: &InodeRef) -> Result<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut at = inode.clone();
    let mut removed = false;
    loop {
        match at.place()? {
            Place::Root => break,
            Place::Nowhere(name) => return Ok(name),
            Place::In(parent, name) => {
                names.try_reserve(1)?;
                names.push(name);
                at = parent;
            }
            Place::Removed(name) => {
                names.try_reserve(1)?;
                names.push(name);
                removed = true;
                break;
            }
        }
    }
    let suffix: &[u8] = if removed { b" (deleted)" } else { b"" };
    let mut path = Vec::new();
    path.try_reserve_exact(
        names.iter().map(|name| name.len() + 1).sum::<usize>() + suffix.len() + 1,
    )?;
    for name in names.iter().rev() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    if names.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(suffix);
    Ok(path)
}

/// Whether `inode` is `ancestor` or lies below it.
pub fn is_below(inode: &InodeRef, ancestor: &InodeRef) -> Result<bool> {
    let mut at = inode.clone();
    loop {
        if super::inode::same(&at, ancestor) {
            return Ok(true);
        }
        match at.place()? {
            Place::In(parent, _) => at = parent,
            _ => return Ok(false),
        }
    }
}
