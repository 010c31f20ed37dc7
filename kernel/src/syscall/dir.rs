//! System calls on directories and names.

use alloc::vec::Vec;

use linux_raw_sys::general as abi;

use super::args::{Args, file, masked, read_path, resolve_at, start_at, usable_file};
use crate::errno::{Errno, Result};
use crate::fs::inode::{FileType, InodeRef, NewNode, same};
use crate::fs::path::{self, Last, Parent};
use crate::fs::permission::{Subject, Want};
use crate::mm::uaccess;
use crate::sched::current;

const CWD: usize = abi::AT_FDCWD as usize;

/// getcwd(2): returns the length with its NUL.
pub fn sys_getcwd(&[to, len, ..]: &Args) -> Result<usize> {
    let mut path = path::path_of(&current().fs().cwd()?)?;
    if path.ends_with(b" (deleted)") && current().fs().cwd()?.stat().nlink == 0 {
        return Err(Errno::ENOENT);
    }
    path.try_reserve(1)?;
    path.push(0);
    if path.len() > len {
        return Err(Errno::ERANGE);
    }
    uaccess::write_bytes(to, &path)?;
    Ok(path.len())
}

/// chdir(2).
pub fn sys_chdir(&[path, ..]: &Args) -> Result<usize> {
    current()
        .fs()
        .change_directory(&read_path(path)?)
        .map(|()| 0)
}

/// fchdir(2).
pub fn sys_fchdir(&[fd, ..]: &Args) -> Result<usize> {
    current().fs().set_cwd(file(fd)?.inode.clone()).map(|()| 0)
}

/// Bytes of `struct linux_dirent64` before the name.
const DIRENT_HEADER: usize = 19;

/// getdents64(2).
pub fn sys_getdents64(&[fd, to, len, ..]: &Args) -> Result<usize> {
    let file = usable_file(fd)?;
    // Entries are made in the kernel's memory first: user memory is not touched while a file system is being read.
    let room = len.min(32 << 10);
    let mut entries = Vec::new();
    entries.try_reserve_exact(room)?;
    let mut refused = false;
    file.read_dir(&mut |entry| {
        let size = (DIRENT_HEADER + entry.name.len() + 1).next_multiple_of(8);
        if entries.len() + size > room {
            refused = true;
            return false;
        }
        let end = entries.len() + size;
        entries.extend_from_slice(&entry.ino.to_ne_bytes());
        entries.extend_from_slice(&entry.next.to_ne_bytes());
        entries.extend_from_slice(&(size as u16).to_ne_bytes());
        entries.push(entry.file_type.dirent_type());
        entries.extend_from_slice(entry.name);
        entries.resize(end, 0);
        true
    })?;
    if entries.is_empty() && refused {
        return Err(Errno::EINVAL);
    }
    uaccess::write_bytes(to, &entries)?;
    Ok(entries.len())
}

/// The directory and name for a new entry. `EEXIST` if the path names an existing directory by `.`, `..` or `/`.
fn new_name(dirfd: usize, path: usize) -> Result<(Parent, Vec<u8>)> {
    let path = read_path(path)?;
    let mut parent = path::resolve_parent(&start_at(dirfd, &path)?, &path)?;
    match core::mem::replace(&mut parent.last, Last::Itself) {
        Last::Name(name) => Ok((parent, name)),
        Last::Itself => Err(Errno::EEXIST),
    }
}

/// What must hold before anything but a directory gets a new name.
fn check_no_slash(parent: &Parent, name: &[u8]) -> Result {
    if !parent.slash {
        return Ok(());
    }
    match parent.dir.lookup(name) {
        Ok(_) => Err(Errno::EEXIST),
        Err(error) => Err(error),
    }
}

/// mkdirat(2).
pub fn sys_mkdirat(&[dirfd, path, mode, ..]: &Args) -> Result<usize> {
    let (parent, name) = new_name(dirfd, path)?;
    create(
        &parent.dir,
        &name,
        NewNode::Directory,
        masked(mode) & 0o1777,
    )
}

/// Makes an entry, if the current process may: that one is there already is the first thing that is said.
fn create(dir: &InodeRef, name: &[u8], new: NewNode<'_>, mode: u32) -> Result<usize> {
    check_new(dir, name)?;
    dir.create(name, new, mode).map(|_| 0)
}

/// Whether the entry `name` may be made. `EEXIST`, `EACCES`.
fn check_new(dir: &InodeRef, name: &[u8]) -> Result {
    match dir.lookup(name) {
        Ok(_) => Err(Errno::EEXIST),
        Err(Errno::ENOENT) => Subject::current().may_create_in(dir),
        Err(error) => Err(error),
    }
}

/// mkdir(2).
pub fn sys_mkdir(&[path, mode, ..]: &Args) -> Result<usize> {
    sys_mkdirat(&[CWD, path, mode, 0, 0, 0])
}

/// mknodat(2). Devices are root's to make.
pub fn sys_mknodat(&[dirfd, path, mode, device, ..]: &Args) -> Result<usize> {
    let file_type = match mode as u32 & abi::S_IFMT {
        abi::S_IFCHR => FileType::CharDevice,
        abi::S_IFBLK => FileType::BlockDevice,
        _ => FileType::Socket,
    };
    let new = match mode as u32 & abi::S_IFMT {
        0 | abi::S_IFREG => NewNode::File,
        abi::S_IFIFO => NewNode::Fifo,
        abi::S_IFSOCK => NewNode::Special(file_type, (0, 0)),
        abi::S_IFCHR | abi::S_IFBLK => NewNode::Special(file_type, device_of(device as u32)),
        abi::S_IFDIR => return Err(Errno::EPERM),
        _ => return Err(Errno::EINVAL),
    };
    let (parent, name) = new_name(dirfd, path)?;
    check_no_slash(&parent, &name)?;
    let is_device = matches!(file_type, FileType::CharDevice | FileType::BlockDevice);
    if is_device && !current().process.credentials.get().is_privileged() {
        return match parent.dir.lookup(&name) {
            Ok(_) => Err(Errno::EEXIST),
            Err(_) => Err(Errno::EPERM),
        };
    }
    create(&parent.dir, &name, new, masked(mode))
}

/// The numbers of a device in the 32 bits that mknod(2) takes.
fn device_of(device: u32) -> (u32, u32) {
    (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00)
}

/// mknod(2).
pub fn sys_mknod(&[path, mode, device, ..]: &Args) -> Result<usize> {
    sys_mknodat(&[CWD, path, mode, device, 0, 0])
}

/// symlinkat(2).
pub fn sys_symlinkat(&[target, dirfd, path, ..]: &Args) -> Result<usize> {
    let target = read_path(target)?;
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    let (parent, name) = new_name(dirfd, path)?;
    check_no_slash(&parent, &name)?;
    create(&parent.dir, &name, NewNode::Symlink(&target), 0o777)
}

/// symlink(2).
pub fn sys_symlink(&[target, path, ..]: &Args) -> Result<usize> {
    sys_symlinkat(&[target, CWD, path, 0, 0, 0])
}

/// linkat(2).
pub fn sys_linkat(&[old_dirfd, old, new_dirfd, new, flags, ..]: &Args) -> Result<usize> {
    let flags = flags as u32;
    if flags & !(abi::AT_SYMLINK_FOLLOW | abi::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let no_follow = if flags & abi::AT_SYMLINK_FOLLOW == 0 {
        abi::AT_SYMLINK_NOFOLLOW
    } else {
        0
    };
    let inode = resolve_at(old_dirfd, old, flags & abi::AT_EMPTY_PATH | no_follow)?;
    let (parent, name) = new_name(new_dirfd, new)?;
    check_no_slash(&parent, &name)?;
    if inode.stat().fs != parent.dir.stat().fs {
        return Err(Errno::EXDEV);
    }
    check_new(&parent.dir, &name)?;
    parent.dir.link(&name, &inode).map(|()| 0)
}

/// link(2).
pub fn sys_link(&[old, new, ..]: &Args) -> Result<usize> {
    sys_linkat(&[CWD, old, CWD, new, 0, 0])
}

/// Whether an entry is the root of a file system of its own.
fn is_mount_point(dir: &InodeRef, inode: &InodeRef) -> bool {
    dir.stat().fs != inode.stat().fs
}

fn do_unlink(dirfd: usize, path: usize) -> Result<usize> {
    let path = read_path(path)?;
    let Parent {
        dir, last, slash, ..
    } = path::resolve_parent(&start_at(dirfd, &path)?, &path)?;
    let Last::Name(name) = last else {
        return Err(Errno::EISDIR);
    };
    if slash {
        let file_type = dir.lookup(&name)?.file_type();
        return Err(if file_type == FileType::Directory {
            Errno::EISDIR
        } else {
            Errno::ENOTDIR
        });
    }
    Subject::current().may_remove_from(&dir, &dir.lookup(&name)?)?;
    dir.unlink(&name, false).map(|()| 0)
}

fn do_rmdir(dirfd: usize, path: usize) -> Result<usize> {
    let path = read_path(path)?;
    let Parent { dir, last, .. } = path::resolve_parent(&start_at(dirfd, &path)?, &path)?;
    let Last::Name(name) = last else {
        return Err(refusal_of_special(&path));
    };
    let inode = dir.lookup(&name)?;
    Subject::current().may_remove_from(&dir, &inode)?;
    if is_mount_point(&dir, &inode) {
        return Err(Errno::EBUSY);
    }
    dir.unlink(&name, true).map(|()| 0)
}

/// Why `.`, `..` and `/` cannot be removed (`rmdir(2)`).
fn refusal_of_special(path: &[u8]) -> Errno {
    let end = path
        .iter()
        .rposition(|&byte| byte != b'/')
        .map_or(0, |last| last + 1);
    let path = &path[..end];
    match path.rsplit(|&byte| byte == b'/').next() {
        Some(b".") => Errno::EINVAL,
        Some(b"..") => Errno::ENOTEMPTY,
        _ => Errno::EBUSY,
    }
}

/// unlinkat(2).
pub fn sys_unlinkat(&[dirfd, path, flags, ..]: &Args) -> Result<usize> {
    match flags as u32 {
        0 => do_unlink(dirfd, path),
        abi::AT_REMOVEDIR => do_rmdir(dirfd, path),
        _ => Err(Errno::EINVAL),
    }
}

/// unlink(2).
pub fn sys_unlink(&[path, ..]: &Args) -> Result<usize> {
    do_unlink(CWD, path)
}

/// rmdir(2).
pub fn sys_rmdir(&[path, ..]: &Args) -> Result<usize> {
    do_rmdir(CWD, path)
}

/// Whether the names suit the flags and the slashes after them, in the order in which Linux looks.
fn check_names(
    from: &Parent,
    to: &Parent,
    inode: &InodeRef,
    over: Option<&InodeRef>,
    flags: u32,
) -> Result {
    let is_dir = |inode: &InodeRef| inode.file_type() == FileType::Directory;
    let exchange = flags & abi::RENAME_EXCHANGE != 0;
    match over {
        Some(_) if flags & abi::RENAME_NOREPLACE != 0 => return Err(Errno::EEXIST),
        Some(over) if exchange && to.slash && !is_dir(over) => return Err(Errno::ENOTDIR),
        None if exchange => return Err(Errno::ENOENT),
        _ => {}
    }
    if !is_dir(inode) && (from.slash || to.slash && !exchange) {
        return Err(Errno::ENOTDIR);
    }
    Ok(())
}

/// Whether the current process may move `inode` from one directory to another, over `over`. `EACCES`, `EPERM`.
fn check_rename_rights(
    from: &InodeRef,
    inode: &InodeRef,
    to: &InodeRef,
    over: Option<&InodeRef>,
    flags: u32,
) -> Result {
    let subject = Subject::current();
    if over.is_some_and(|over| same(over, inode)) {
        return Ok(());
    }
    subject.may_remove_from(from, inode)?;
    match over {
        Some(over) => subject.may_remove_from(to, over)?,
        None => subject.may_create_in(to)?,
    }
    // A directory that gets another parent is written to: its `..` changes.
    let moves = |inode: &InodeRef| inode.file_type() == FileType::Directory && !same(from, to);
    if moves(inode) {
        subject.may(inode, Want::WRITE)?;
    }
    if let Some(over) = over.filter(|over| flags & abi::RENAME_EXCHANGE != 0 && moves(over)) {
        subject.may(over, Want::WRITE)?;
    }
    Ok(())
}

/// renameat2(2).
pub fn sys_renameat2(&[old_dirfd, old, new_dirfd, new, flags, ..]: &Args) -> Result<usize> {
    let flags = flags as u32;
    let both = abi::RENAME_NOREPLACE | abi::RENAME_EXCHANGE;
    if flags & !both != 0 || flags & both == both {
        return Err(Errno::EINVAL);
    }
    let (old, new) = (read_path(old)?, read_path(new)?);
    let from = path::resolve_parent(&start_at(old_dirfd, &old)?, &old)?;
    let to = path::resolve_parent(&start_at(new_dirfd, &new)?, &new)?;
    if from.dir.stat().fs != to.dir.stat().fs {
        return Err(Errno::EXDEV);
    }
    let Last::Name(from_name) = &from.last else {
        return Err(Errno::EBUSY);
    };
    let Last::Name(to_name) = &to.last else {
        return Err(if flags & abi::RENAME_NOREPLACE != 0 {
            Errno::EEXIST
        } else {
            Errno::EBUSY
        });
    };
    let inode = from.dir.lookup(from_name)?;
    let over = match to.dir.lookup(to_name) {
        Ok(over) => Some(over),
        Err(Errno::ENOENT) => None,
        Err(error) => return Err(error),
    };
    check_names(&from, &to, &inode, over.as_ref(), flags)?;
    if is_mount_point(&from.dir, &inode)
        || over
            .as_ref()
            .is_some_and(|inode| is_mount_point(&to.dir, inode))
    {
        return Err(Errno::EBUSY);
    }
    // A directory above the source is never empty.
    if flags & abi::RENAME_EXCHANGE == 0
        && over.as_ref().is_some_and(|over| {
            !same(over, &inode) && path::is_below(&from.dir, over).unwrap_or(false)
        })
    {
        return Err(Errno::ENOTEMPTY);
    }
    check_rename_rights(&from.dir, &inode, &to.dir, over.as_ref(), flags)?;
    from.dir
        .rename(from_name, &to.dir, to_name, flags)
        .map(|()| 0)
}

/// renameat(2).
pub fn sys_renameat(&[old_dirfd, old, new_dirfd, new, ..]: &Args) -> Result<usize> {
    sys_renameat2(&[old_dirfd, old, new_dirfd, new, 0, 0])
}

/// rename(2).
pub fn sys_rename(&[old, new, ..]: &Args) -> Result<usize> {
    sys_renameat2(&[CWD, old, CWD, new, 0, 0])
}
