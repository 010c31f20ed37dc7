//! System calls that ask about files: stat and its kin, access, readlink, statfs.

use linux_raw_sys::general as abi;

use super::args::{Args, file, resolve, resolve_at, resolve_at_for};
use crate::errno::{Errno, Result};
use crate::fs::inode::{FileSystem, FileType, InodeRef, Stat, Time};
use crate::fs::permission::{Subject, Want};
use crate::mm::frame;
use crate::mm::reclaim::room_for_files;
use crate::mm::uaccess::{self, UserPtr};

/// `makedev(3)`.
fn device_number((major, minor): (u32, u32)) -> u64 {
    let (major, minor) = (u64::from(major), u64::from(minor));
    minor & 0xff | (major & 0xfff) << 8 | (minor & !0xff) << 12 | (major & !0xfff) << 32
}

/// Bytes of `struct stat` on x86-64, in words of 8.
const STAT_WORDS: usize = size_of::<abi::stat>() / 8;

/// The optimal size of a piece to read or write, bytes.
const BLOCK_SIZE: u64 = 4096;

fn mode_of(stat: &Stat) -> u32 {
    stat.file_type as u32 | stat.mode
}

/// `struct stat` as the user sees it; 32-bit members share words in the layout of x86-64.
fn to_abi(stat: &Stat) -> [u64; STAT_WORDS] {
    let time = |time: Time| [time.sec as u64, u64::from(time.nsec)];
    let (atime, mtime, ctime) = (time(stat.atime), time(stat.mtime), time(stat.ctime));
    let mut words = [0; STAT_WORDS];
    words[..17].copy_from_slice(&[
        device_number(stat.fs.device()),
        stat.ino,
        u64::from(stat.nlink),
        u64::from(mode_of(stat)) | u64::from(stat.uid) << 32,
        u64::from(stat.gid),
        device_number(stat.rdev),
        stat.size,
        BLOCK_SIZE,
        stat.blocks,
        atime[0],
        atime[1],
        mtime[0],
        mtime[1],
        ctime[0],
        ctime[1],
        0,
        0,
    ]);
    words
}

fn write_stat(inode: &InodeRef, to: usize) -> Result<usize> {
    UserPtr::new(to).write(to_abi(&inode.stat())).map(|()| 0)
}

/// stat(2).
pub fn sys_stat(&[path, to, ..]: &Args) -> Result<usize> {
    write_stat(&resolve(path, true)?, to)
}

/// lstat(2).
pub fn sys_lstat(&[path, to, ..]: &Args) -> Result<usize> {
    write_stat(&resolve(path, false)?, to)
}

/// fstat(2).
pub fn sys_fstat(&[fd, to, ..]: &Args) -> Result<usize> {
    write_stat(&file(fd)?.inode, to)
}

const STAT_FLAGS: u32 =
    abi::AT_SYMLINK_NOFOLLOW | abi::AT_NO_AUTOMOUNT | abi::AT_EMPTY_PATH | abi::AT_STATX_SYNC_TYPE;

/// newfstatat(2).
pub fn sys_newfstatat(&[dirfd, path, to, flags, ..]: &Args) -> Result<usize> {
    if flags as u32 & !STAT_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    write_stat(&resolve_at(dirfd, path, flags as u32)?, to)
}

/// Bytes of `struct statx`, in words of 4.
const STATX_WORDS: usize = size_of::<abi::statx>() / 4;

/// `struct statx`: words of 4 bytes, 8-byte members in two of them.
fn to_statx(stat: &Stat) -> [u32; STATX_WORDS] {
    let mut words = [0; STATX_WORDS];
    let mut put =
        |word: usize, values: &[u32]| words[word..word + values.len()].copy_from_slice(values);
    let wide = |value: u64| [value as u32, (value >> 32) as u32];
    put(
        0,
        &[abi::STATX_BASIC_STATS | abi::STATX_BTIME, BLOCK_SIZE as u32],
    );
    put(4, &[stat.nlink, stat.uid, stat.gid, mode_of(stat)]);
    put(8, &wide(stat.ino));
    put(10, &wide(stat.size));
    put(12, &wide(stat.blocks));
    for (word, time) in [
        (16, stat.atime),
        (20, stat.btime),
        (24, stat.ctime),
        (28, stat.mtime),
    ] {
        put(word, &wide(time.sec as u64));
        put(word + 2, &[time.nsec]);
    }
    let (major, minor) = stat.fs.device();
    put(32, &[stat.rdev.0, stat.rdev.1, major, minor]);
    words
}

/// statx(2).
pub fn sys_statx(&[dirfd, path, flags, mask, to, ..]: &Args) -> Result<usize> {
    let flags = flags as u32;
    let sync = abi::AT_STATX_SYNC_TYPE;
    if flags & !STAT_FLAGS != 0 || flags & sync == sync || mask as u32 & abi::STATX__RESERVED != 0 {
        return Err(Errno::EINVAL);
    }
    let inode = resolve_at(dirfd, path, flags)?;
    UserPtr::new(to).write(to_statx(&inode.stat())).map(|()| 0)
}

/// access(2) asks by the real numbers, with AT_EACCESS by those that count for files.
fn check_access(dirfd: usize, path: usize, mode: usize, flags: u32) -> Result<usize> {
    let mode = mode as u32;
    if mode & !(abi::R_OK | abi::W_OK | abi::X_OK) != 0
        || flags & !(abi::AT_EACCESS | abi::AT_SYMLINK_NOFOLLOW | abi::AT_EMPTY_PATH) != 0
    {
        return Err(Errno::EINVAL);
    }
    let subject = if flags & abi::AT_EACCESS == 0 {
        Subject::current_real()
    } else {
        Subject::current()
    };
    let inode = resolve_at_for(subject, dirfd, path, flags)?;
    subject
        .may(&inode, Want::from_bits_truncate(mode))
        .map(|()| 0)
}

/// access(2).
pub fn sys_access(&[path, mode, ..]: &Args) -> Result<usize> {
    check_access(abi::AT_FDCWD as usize, path, mode, 0)
}

/// faccessat(2), which has no flags.
pub fn sys_faccessat(&[dirfd, path, mode, ..]: &Args) -> Result<usize> {
    check_access(dirfd, path, mode, 0)
}

/// faccessat2(2).
pub fn sys_faccessat2(&[dirfd, path, mode, flags, ..]: &Args) -> Result<usize> {
    check_access(dirfd, path, mode, flags as u32)
}

fn write_link(inode: &InodeRef, to: usize, len: usize) -> Result<usize> {
    if len as i32 <= 0 {
        return Err(Errno::EINVAL);
    }
    let target = inode.read_link()?;
    let len = target.len().min(len);
    uaccess::write_bytes(to, &target[..len])?;
    Ok(len)
}

/// readlink(2).
pub fn sys_readlink(&[path, to, len, ..]: &Args) -> Result<usize> {
    write_link(&resolve(path, false)?, to, len)
}

/// readlinkat(2): an empty path means the link that `dirfd` was opened on, and is `ENOENT` for anything but a link. NULL is no path.
pub fn sys_readlinkat(&[dirfd, path, to, len, ..]: &Args) -> Result<usize> {
    let is_empty = UserPtr::<u8>::new(path).read()? == 0;
    let flags = abi::AT_SYMLINK_NOFOLLOW | abi::AT_EMPTY_PATH;
    let inode = resolve_at(dirfd, path, flags)?;
    if is_empty && inode.file_type() != FileType::Symlink {
        return Err(Errno::ENOENT);
    }
    write_link(&inode, to, len)
}

/// Magic numbers of `statfs(2)`.
fn magic(fs: FileSystem) -> u64 {
    match fs {
        FileSystem::Ext4 => 0xef53,
        FileSystem::Tmp | FileSystem::Shm | FileSystem::Dev => 0x0102_1994,
        FileSystem::Proc => 0x9fa0,
        FileSystem::Pipe => 0x5049_5045,
        FileSystem::Socket => 0x534f_434b,
        FileSystem::Anonymous => 0x0904_1934,
        FileSystem::MessageQueues => 0x1980_0202,
    }
}

/// Bytes of `struct statfs`, in words of 8.
const STATFS_WORDS: usize = size_of::<abi::statfs>() / 8;

fn write_statfs(inode: &InodeRef, to: usize) -> Result<usize> {
    let fs = inode.stat().fs;
    let memory = matches!(fs, FileSystem::Tmp | FileSystem::Shm | FileSystem::Ext4);
    let (total, free) = if memory {
        (frame::total_frames() as u64, room_for_files() as u64)
    } else {
        (0, 0)
    };
    let mut words = [0u64; STATFS_WORDS];
    words[..12].copy_from_slice(&[
        magic(fs),
        BLOCK_SIZE,
        total,
        free,
        free,
        total,
        free,
        device_number(fs.device()),
        crate::fs::inode::NAME_MAX as u64,
        BLOCK_SIZE,
        // ST_VALID: the flags are meant.
        0x20,
        0,
    ]);
    UserPtr::new(to).write(words).map(|()| 0)
}

/// statfs(2).
pub fn sys_statfs(&[path, to, ..]: &Args) -> Result<usize> {
    write_statfs(&resolve(path, true)?, to)
}

/// fstatfs(2).
pub fn sys_fstatfs(&[fd, to, ..]: &Args) -> Result<usize> {
    write_statfs(&file(fd)?.inode, to)
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    fn sample() -> Stat {
        let mut stat = Stat::new(FileSystem::Ext4, 0x1234_5678_9abc, FileType::Regular, 0o644);
        (stat.nlink, stat.uid, stat.gid, stat.size, stat.blocks) = (3, 1000, 1001, 1 << 33, 77);
        stat.mtime = Time {
            sec: -1,
            nsec: 999_999_999,
        };
        stat.rdev = (5, 0x101);
        stat
    }

    /// The words must lie where the C structures have their members.
    #[test]
    fn stat_layout() {
        let words = to_abi(&sample());
        // SAFETY: plain integers of the same total size.
        let stat: abi::stat = unsafe { core::mem::transmute(words) };
        assert_eq!(
            (stat.st_ino, stat.st_nlink, stat.st_mode),
            (0x1234_5678_9abc, 3, 0o100_644)
        );
        assert_eq!(
            (stat.st_uid, stat.st_gid, stat.st_size, stat.st_blocks),
            (1000, 1001, 1 << 33, 77)
        );
        assert_eq!(
            (stat.st_mtime as i64, stat.st_mtime_nsec),
            (-1, 999_999_999)
        );
        assert_eq!((stat.st_dev, stat.st_rdev), (254 << 8, 0x10_0501));
    }

    #[test]
    fn statx_layout() {
        let words = to_statx(&sample());
        // SAFETY: plain integers of the same total size.
        let stat: abi::statx = unsafe { core::mem::transmute(words) };
        assert_eq!(
            (stat.stx_ino, stat.stx_nlink, stat.stx_mode),
            (0x1234_5678_9abc, 3, 0o100_644)
        );
        assert_eq!(
            (stat.stx_uid, stat.stx_gid, stat.stx_size, stat.stx_blocks),
            (1000, 1001, 1 << 33, 77)
        );
        assert_eq!(
            (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            (-1, 999_999_999)
        );
        assert_eq!(
            (stat.stx_rdev_major, stat.stx_rdev_minor, stat.stx_dev_major),
            (5, 0x101, 254)
        );
    }
}
