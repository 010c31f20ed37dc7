//! open(2): from a path to an open file.

use alloc::sync::Arc;

use linux_raw_sys::general as abi;

use super::file::{File, Opened};
use super::inode::{Access, FileType, InodeRef, NewNode};
use super::path::{self, Followed, Last, Parent, Start};
use super::permission::{Subject, Want};
use super::terminal;
use super::tmpfs::usage::Usage;
use crate::errno::{Errno, Result};
use crate::sched::current;

/// Opens `path` with the flags of open(2); a new file gets `mode`, from which the umask was already taken.
pub fn open(start: &Start, path: &[u8], flags: u32, mode: u32) -> Result<Arc<File>> {
    if flags & abi::O_TMPFILE == abi::O_TMPFILE {
        return create_nameless(start, path, flags, mode);
    }
    if flags & abi::O_CREAT != 0 && flags & abi::O_PATH == 0 {
        return create(start, path, flags, mode);
    }
    let inode = path::resolve(start, path, flags & abi::O_NOFOLLOW == 0)?;
    open_inode(inode, flags)
}

/// With O_TMPFILE: makes a file in the file system of the directory `path`. `EINVAL`, `ENOTDIR`, `EOPNOTSUPP`.
fn create_nameless(start: &Start, path: &[u8], flags: u32, mode: u32) -> Result<Arc<File>> {
    if flags & abi::O_CREAT != 0 || flags & abi::O_ACCMODE == abi::O_RDONLY {
        return Err(Errno::EINVAL);
    }
    let dir = path::resolve(start, path, flags & abi::O_NOFOLLOW == 0)?;
    if dir.file_type() != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    start.subject.may_create_in(&dir)?;
    let dir = dir.as_tmpfs().ok_or(Errno::EOPNOTSUPP)?;
    let node = dir.create_nameless(mode, flags & abi::O_EXCL == 0)?;
    open_new(node, flags & !abi::O_TMPFILE)
}

/// With O_CREAT: opens the file, or makes it.
fn create(start: &Start, path: &[u8], flags: u32, mode: u32) -> Result<Arc<File>> {
    if flags & abi::O_DIRECTORY != 0 {
        return Err(Errno::EINVAL);
    }
    let mut parent = path::resolve_parent(start, path)?;
    loop {
        let Parent {
            dir, last, slash, ..
        } = &parent;
        let Last::Name(name) = last else {
            return Err(if flags & abi::O_EXCL != 0 {
                Errno::EEXIST
            } else {
                Errno::EISDIR
            });
        };
        if *slash {
            return Err(Errno::EISDIR);
        }
        let inode = match dir.lookup(name) {
            Ok(inode) => inode,
            Err(Errno::ENOENT) => match start
                .subject
                .may_create_in(dir)
                .and_then(|()| dir.create(name, NewNode::File, mode))
            {
                Ok(inode) => return open_new(inode, flags),
                // Somebody else made it just now: it is there to be opened.
                Err(Errno::EEXIST) => continue,
                Err(error) => return Err(error),
            },
            Err(error) => return Err(error),
        };
        if flags & abi::O_EXCL != 0 {
            return Err(Errno::EEXIST);
        }
        if inode.file_type() != FileType::Symlink || flags & abi::O_NOFOLLOW != 0 {
            if inode.file_type() == FileType::Directory {
                return Err(Errno::EISDIR);
            }
            return open_inode(inode, flags);
        }
        match parent.follow(&inode)? {
            Followed::Inode(inode) => return open_inode(inode, flags),
            Followed::Path(next) => parent = next,
        }
    }
}

/// A file that was just made may be opened whatever its mode says, and has nothing to be truncated.
fn open_new(inode: InodeRef, flags: u32) -> Result<Arc<File>> {
    open_permitted(inode, flags & !abi::O_TRUNC, false)
}

/// What `flags` want to do with the file.
fn wanted(flags: u32) -> Want {
    let mut want = match flags & abi::O_ACCMODE {
        abi::O_RDONLY => Want::READ,
        abi::O_WRONLY => Want::WRITE,
        _ => Want::READ | Want::WRITE,
    };
    want.set(
        Want::WRITE,
        want.contains(Want::WRITE) || flags & abi::O_TRUNC != 0,
    );
    want
}

/// Opens an inode, if the current process may. `EACCES`, `EPERM`, ...
pub fn open_inode(inode: InodeRef, flags: u32) -> Result<Arc<File>> {
    if flags & abi::O_PATH == 0 && inode.file_type() != FileType::Symlink {
        let (subject, stat) = (Subject::current(), inode.stat());
        if stat.file_type == FileType::Directory && wanted(flags).contains(Want::WRITE) {
            return Err(Errno::EISDIR);
        }
        if flags & abi::O_DIRECTORY != 0 && stat.file_type != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        subject.may_with(&stat, wanted(flags))?;
        if flags & abi::O_NOATIME != 0 {
            subject.may_hide_reading(&stat)?;
        }
    }
    open_permitted(inode, flags, false)
}

/// Opens an inode whose permissions were checked, to be executed or not. `ETXTBSY`.
fn open_permitted(inode: InodeRef, flags: u32, execute: bool) -> Result<Arc<File>> {
    let file_type = inode.file_type();
    if flags & abi::O_DIRECTORY != 0 && file_type != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    if flags & abi::O_PATH != 0 {
        return File::new(inode, Opened::Path, flags);
    }
    let mode = flags & abi::O_ACCMODE;
    // Mode 3 wants both rights and gives neither (`open(2)`, "The access mode 3").
    let access = Access {
        read: mode != abi::O_WRONLY,
        write: mode != abi::O_RDONLY,
    };
    if file_type == FileType::Directory && (access.write || flags & abi::O_TRUNC != 0) {
        return Err(Errno::EISDIR);
    }
    let opened = inode.open(access, flags & abi::O_NONBLOCK != 0)?;
    terminal::opened(&inode, flags);
    let usage = match &opened {
        Opened::Regular(_, Some(node)) if execute => Some(Usage::executing(node)?),
        Opened::Regular(_, Some(node)) if access.write => Some(Usage::writing(node)?),
        _ => None,
    };
    if flags & abi::O_TRUNC != 0 && file_type == FileType::Regular && inode.as_tmpfs().is_some() {
        inode.truncate(0)?;
    }
    // What open(2) opens may be large on a 64-bit machine, asked for or not.
    File::with_usage(inode, opened, flags | abi::O_LARGEFILE, usage)
}

/// Opens a program for exec: `EACCES` unless it is a regular file that may be run.
pub fn open_exec(path: &[u8]) -> Result<Arc<File>> {
    open_exec_at(&current().fs().start()?, path, true)
}

/// The same for a path from another place. `ELOOP` for a symbolic link that is not to be followed.
pub fn open_exec_at(start: &Start, path: &[u8], follow: bool) -> Result<Arc<File>> {
    exec_inode(path::resolve(start, path, follow)?)
}

/// The same for a file that has been found.
pub fn exec_inode(inode: InodeRef) -> Result<Arc<File>> {
    match inode.file_type() {
        FileType::Symlink => Err(Errno::ELOOP),
        FileType::Regular => {
            Subject::current().may(&inode, Want::EXEC)?;
            open_permitted(inode, abi::O_RDONLY, true)
        }
        _ => Err(Errno::EACCES),
    }
}
