//! Arguments that system calls on files have in common.

use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::general as abi;

use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::fs::inode::InodeRef;
use crate::fs::io::{IOV_MAX, IoVec};
use crate::fs::path::{self, PATH_MAX, Start};
use crate::fs::permission::Subject;
use crate::mm::uaccess::{self, UserPtr};
use crate::sched::current;
use crate::task::rlimit::Resource;

pub type Args = [usize; 6];

/// The file of a descriptor. `EBADF`.
pub fn file(fd: usize) -> Result<Arc<File>> {
    current().files().get(fd as i32)
}

/// The file of a descriptor that was not opened with O_PATH. `EBADF`.
pub fn usable_file(fd: usize) -> Result<Arc<File>> {
    file(fd).and_then(|file| {
        if file.is_path_only() {
            Err(Errno::EBADF)
        } else {
            Ok(file)
        }
    })
}

/// RLIMIT_NOFILE.
pub fn max_files() -> u64 {
    current().process.rlimits.soft(Resource::Files)
}

/// A path from user memory. `EFAULT`, `ENAMETOOLONG`, `ENOMEM`.
pub fn read_path(addr: usize) -> Result<Vec<u8>> {
    uaccess::read_string(addr, PATH_MAX, Errno::ENAMETOOLONG)
}

/// Where a path given with a directory descriptor starts. `EBADF`, `ENOTDIR`.
pub fn start_at(dirfd: usize, path: &[u8]) -> Result<Start> {
    let start = current().fs().start()?;
    if dirfd as i32 == abi::AT_FDCWD || path.first() == Some(&b'/') {
        return Ok(start);
    }
    let dir = file(dirfd)?;
    if !dir.is_directory() {
        return Err(Errno::ENOTDIR);
    }
    Ok(Start {
        at: dir.inode.clone(),
        ..start
    })
}

/// The inode that a directory descriptor, a path and `AT_*` flags mean.
pub fn resolve_at(dirfd: usize, path_addr: usize, flags: u32) -> Result<InodeRef> {
    resolve_at_for(Subject::current(), dirfd, path_addr, flags)
}

/// The same on behalf of `subject`.
pub fn resolve_at_for(
    subject: Subject,
    dirfd: usize,
    path_addr: usize,
    flags: u32,
) -> Result<InodeRef> {
    let path = read_path(path_addr)?;
    if path.is_empty() && flags & abi::AT_EMPTY_PATH != 0 {
        if dirfd as i32 == abi::AT_FDCWD {
            return current().fs().cwd();
        }
        return Ok(file(dirfd)?.inode.clone());
    }
    let start = Start {
        subject,
        ..start_at(dirfd, &path)?
    };
    path::resolve(&start, &path, flags & abi::AT_SYMLINK_NOFOLLOW == 0)
}

/// The inode at a path, relative to the working directory.
pub fn resolve(path_addr: usize, follow: bool) -> Result<InodeRef> {
    let flags = if follow { 0 } else { abi::AT_SYMLINK_NOFOLLOW };
    resolve_at(abi::AT_FDCWD as usize, path_addr, flags)
}

/// The umask taken off a mode.
pub fn masked(mode: usize) -> u32 {
    mode as u32 & 0o7777 & !current().fs().umask()
}

/// A vector of pieces of user memory. `EINVAL` if there are too many or a length is negative, `EFAULT`.
pub fn read_iovecs(addr: usize, count: usize) -> Result<Vec<IoVec>> {
    if count > IOV_MAX {
        return Err(Errno::EINVAL);
    }
    let mut pieces = Vec::new();
    pieces.try_reserve_exact(count)?;
    let array = UserPtr::<[usize; 2]>::new(addr);
    for n in 0..count {
        let [base, len] = array.at(n).read()?;
        if len > isize::MAX as usize {
            return Err(Errno::EINVAL);
        }
        pieces.push(IoVec { base, len });
    }
    Ok(pieces)
}

/// A file offset that must not be negative. `EINVAL`.
pub fn offset(raw: usize) -> Result<u64> {
    if raw > i64::MAX as usize {
        Err(Errno::EINVAL)
    } else {
        Ok(raw as u64)
    }
}
