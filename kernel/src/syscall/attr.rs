//! System calls that change a file's attributes and size, and those that ask for it to be stored.

use linux_raw_sys::general as abi;

use super::args::{Args, file, offset, resolve, resolve_at, usable_file};
use crate::errno::{Errno, Result};
use crate::fs::inode::{FileSystem, FileType, InodeRef, SetAttr, Time};
use crate::fs::permission::{Subject, Want};
use crate::fs::tmpfs::MAX_FILE_SIZE;
use crate::fs::tmpfs::usage::Usage;
use crate::mm::uaccess::UserPtr;
use crate::sched::current;
use crate::task::credentials::optional_id;

/// umask(2).
pub fn sys_umask(&[mask, ..]: &Args) -> Result<usize> {
    Ok(current().fs().set_umask(mask as u32) as usize)
}

fn change_mode(inode: &InodeRef, mode: usize) -> Result<usize> {
    let stat = inode.stat();
    inode
        .set_attr(Subject::current().new_mode(&stat, mode as u32)?)
        .map(|()| 0)
}

/// chmod(2).
pub fn sys_chmod(&[path, mode, ..]: &Args) -> Result<usize> {
    change_mode(&resolve(path, true)?, mode)
}

/// fchmod(2).
pub fn sys_fchmod(&[fd, mode, ..]: &Args) -> Result<usize> {
    change_mode(&usable_file(fd)?.inode, mode)
}

/// fchmodat(2), which has no flags.
pub fn sys_fchmodat(&[dirfd, path, mode, ..]: &Args) -> Result<usize> {
    change_mode(&resolve_at(dirfd, path, 0)?, mode)
}

/// An id of -1 is left as it is.
fn change_owner(inode: &InodeRef, uid: usize, gid: usize) -> Result<usize> {
    let stat = inode.stat();
    let change = Subject::current().new_owner(&stat, optional_id(uid), optional_id(gid))?;
    inode.set_attr(change).map(|()| 0)
}

/// chown(2).
pub fn sys_chown(&[path, uid, gid, ..]: &Args) -> Result<usize> {
    change_owner(&resolve(path, true)?, uid, gid)
}

/// lchown(2).
pub fn sys_lchown(&[path, uid, gid, ..]: &Args) -> Result<usize> {
    change_owner(&resolve(path, false)?, uid, gid)
}

/// fchown(2).
pub fn sys_fchown(&[fd, uid, gid, ..]: &Args) -> Result<usize> {
    change_owner(&usable_file(fd)?.inode, uid, gid)
}

/// fchownat(2).
pub fn sys_fchownat(&[dirfd, path, uid, gid, flags, ..]: &Args) -> Result<usize> {
    let flags = flags as u32;
    if flags & !(abi::AT_SYMLINK_NOFOLLOW | abi::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    change_owner(&resolve_at(dirfd, path, flags)?, uid, gid)
}

/// One of the two times of utimensat(2).
fn new_time([sec, nsec]: [i64; 2]) -> Result<Option<Time>> {
    match nsec {
        _ if nsec == i64::from(abi::UTIME_NOW) => Ok(Some(Time::now())),
        _ if nsec == i64::from(abi::UTIME_OMIT) => Ok(None),
        0..1_000_000_000 => Ok(Some(Time {
            sec,
            nsec: nsec as u32,
        })),
        _ => Err(Errno::EINVAL),
    }
}

/// utimensat(2). Without a path it means the file `dirfd` itself.
pub fn sys_utimensat(&[dirfd, path, times, flags, ..]: &Args) -> Result<usize> {
    let flags = flags as u32;
    if flags & !(abi::AT_SYMLINK_NOFOLLOW | abi::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let mut to_now = true;
    let (atime, mtime) = match UserPtr::<[i64; 2]>::optional(times) {
        Some(times) => {
            let (atime, mtime) = (times.read()?, times.at(1).read()?);
            to_now = [atime, mtime]
                .iter()
                .all(|time| time[1] == i64::from(abi::UTIME_NOW));
            (new_time(atime)?, new_time(mtime)?)
        }
        None => (Some(Time::now()), Some(Time::now())),
    };
    if atime.is_none() && mtime.is_none() {
        return Ok(0);
    }
    let inode = if path == 0 && dirfd as i32 != abi::AT_FDCWD {
        file(dirfd)?.inode.clone()
    } else {
        resolve_at(dirfd, path, flags)?
    };
    change_times(&inode, atime, mtime, to_now)
}

fn change_times(
    inode: &InodeRef,
    atime: Option<Time>,
    mtime: Option<Time>,
    to_now: bool,
) -> Result<usize> {
    let stat = inode.stat();
    Subject::current().may_set_times(&stat, to_now)?;
    inode
        .set_attr(SetAttr {
            atime,
            mtime,
            ..SetAttr::default()
        })
        .map(|()| 0)
}

/// utimes(2) and futimesat(2): microseconds.
fn set_times(inode: &InodeRef, times: usize) -> Result<usize> {
    let time = |[sec, usec]: [i64; 2]| match usec {
        0..1_000_000 => Ok(Time {
            sec,
            nsec: usec as u32 * 1000,
        }),
        _ => Err(Errno::EINVAL),
    };
    let given = UserPtr::<[i64; 2]>::optional(times);
    let (atime, mtime) = match &given {
        Some(times) => (time(times.read()?)?, time(times.at(1).read()?)?),
        None => (Time::now(), Time::now()),
    };
    change_times(inode, Some(atime), Some(mtime), given.is_none())
}

/// utimes(2).
pub fn sys_utimes(&[path, times, ..]: &Args) -> Result<usize> {
    set_times(&resolve(path, true)?, times)
}

/// truncate(2).
pub fn sys_truncate(&[path, size, ..]: &Args) -> Result<usize> {
    let size = offset(size)?;
    let inode = resolve(path, true)?;
    match inode.file_type() {
        FileType::Directory => Err(Errno::EISDIR),
        FileType::Regular => {
            Subject::current().may(&inode, Want::WRITE)?;
            let node = inode.as_tmpfs();
            let _usage = node.as_ref().map(Usage::writing).transpose()?;
            inode.truncate(size).map(|()| 0)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// ftruncate(2).
pub fn sys_ftruncate(&[fd, size, ..]: &Args) -> Result<usize> {
    let size = offset(size)?;
    usable_file(fd)?.truncate(size).map(|()| 0)
}

/// fallocate(2). The checks and their order are those of `vfs_fallocate` in Linux.
pub fn sys_fallocate(&[fd, mode, at, len, ..]: &Args) -> Result<usize> {
    let file = usable_file(fd)?;
    let (at, len) = (offset(at)?, offset(len)?);
    if len == 0 {
        return Err(Errno::EINVAL);
    }
    let mode = mode as u32;
    let keep_size = mode & abi::FALLOC_FL_KEEP_SIZE != 0;
    match mode & !abi::FALLOC_FL_KEEP_SIZE {
        0 | abi::FALLOC_FL_ZERO_RANGE | abi::FALLOC_FL_UNSHARE_RANGE => {}
        abi::FALLOC_FL_PUNCH_HOLE if keep_size => {}
        abi::FALLOC_FL_COLLAPSE_RANGE | abi::FALLOC_FL_INSERT_RANGE if !keep_size => {}
        _ => return Err(Errno::EOPNOTSUPP),
    }
    if !file.writable() {
        return Err(Errno::EBADF);
    }
    match file.inode.file_type() {
        FileType::Regular => {}
        FileType::Fifo => return Err(Errno::ESPIPE),
        FileType::Directory => return Err(Errno::EISDIR),
        _ => return Err(Errno::ENODEV),
    }
    let end = at
        .checked_add(len)
        .filter(|&end| end <= MAX_FILE_SIZE)
        .ok_or(Errno::EFBIG)?;
    file.node()
        .ok_or(Errno::EOPNOTSUPP)?
        .fallocate(mode, at, end)
        .map(|()| 0)
}

/// sync(2): nothing is ever kept back.
pub fn sys_sync(_: &Args) -> Result<usize> {
    Ok(0)
}

/// fsync(2) and fdatasync(2): `EINVAL` for what could not be on a disk.
pub fn sys_fsync(&[fd, ..]: &Args) -> Result<usize> {
    let file = usable_file(fd)?;
    let directory = file.is_directory() && file.inode.stat().fs != FileSystem::Proc;
    if directory || file.mapping().is_some() {
        Ok(0)
    } else {
        Err(Errno::EINVAL)
    }
}

/// syncfs(2).
pub fn sys_syncfs(&[fd, ..]: &Args) -> Result<usize> {
    usable_file(fd).map(|_| 0)
}

/// fadvise64(2): advice on a file that can have none is refused, other advice is taken note of.
pub fn sys_fadvise64(&[fd, _, len, advice, ..]: &Args) -> Result<usize> {
    let file = usable_file(fd)?;
    if file.inode.file_type() == FileType::Fifo {
        return Err(Errno::ESPIPE);
    }
    if len as i64 >= 0 && advice as u32 <= abi::POSIX_FADV_NOREUSE {
        Ok(0)
    } else {
        Err(Errno::EINVAL)
    }
}

/// readahead(2): the page cache reads ahead by itself.
pub fn sys_readahead(&[fd, ..]: &Args) -> Result<usize> {
    let file = usable_file(fd)?;
    if !file.readable() {
        return Err(Errno::EBADF);
    }
    if file.mapping().is_some() {
        Ok(0)
    } else {
        Err(Errno::EINVAL)
    }
}
