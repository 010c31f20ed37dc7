//! System calls that lock files: flock(2), and record locks through fcntl(2).

use alloc::sync::Arc;

use linux_raw_sys::general as abi;

use super::args::{Args, usable_file};
use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::fs::lock::{self, LAST, Request};
use crate::mm::uaccess::UserPtr;
use crate::sched::current;

/// flock(2). Changing a lock's kind gives the old one up first, also when the new one cannot be had.
pub fn sys_flock(&[fd, operation, ..]: &Args) -> Result<usize> {
    let operation = operation as u32;
    // Mandatory locks have been given up: asking for one does nothing.
    if operation & abi::LOCK_MAND != 0 {
        return Ok(0);
    }
    let write = match operation & !abi::LOCK_NB {
        abi::LOCK_SH => Some(false),
        abi::LOCK_EX => Some(true),
        abi::LOCK_UN => None,
        _ => return Err(Errno::EINVAL),
    };
    let file = usable_file(fd)?;
    let key = lock::key_of(&file.inode);
    let request = Request {
        owner: file.as_lock_owner(true),
        start: 0,
        last: LAST,
        write: write == Some(true),
        pid: current().process.pid as i32,
    };
    if write.is_none() {
        lock::unlock_all(key, request.owner);
        return Ok(0);
    }
    if lock::holds_other_kind(key, &request) {
        lock::unlock_all(key, request.owner);
    }
    if operation & abi::LOCK_NB != 0 {
        lock::try_lock(key, &request).map(|()| 0)
    } else {
        lock::lock(key, &request).map(|()| 0)
    }
}

/// `struct flock` as words: type and whence, start, length, process.
type Flock = [u64; 4];

const _: () = assert!(size_of::<Flock>() == size_of::<abi::flock>());

/// A lock as fcntl(2) describes it.
struct Described {
    /// One of F_RDLCK, F_WRLCK, F_UNLCK.
    kind: u32,
    request: Request,
}

/// Reads what is asked for. `EFAULT`, `EINVAL`, `EOVERFLOW`.
fn describe(file: &File, command: u32, words: Flock) -> Result<Described> {
    let (kind, whence) = (words[0] as u16 as i16, (words[0] >> 16) as u16 as i16);
    let (start, len) = (words[1] as i64, words[2] as i64);
    let base = match u32::try_from(whence) {
        Ok(abi::SEEK_SET) => 0,
        Ok(abi::SEEK_CUR) => file.position(),
        Ok(abi::SEEK_END) => file.inode.stat().size,
        _ => return Err(Errno::EINVAL),
    };
    let start = (base as i64).checked_add(start).ok_or(Errno::EOVERFLOW)?;
    if start < 0 {
        return Err(Errno::EINVAL);
    }
    let (first, last) = match len {
        0 => (start, LAST as i64),
        1.. => (start, start.checked_add(len - 1).ok_or(Errno::EOVERFLOW)?),
        // The bytes before the start.
        _ => (start.checked_add(len).ok_or(Errno::EINVAL)?, start - 1),
    };
    if first < 0 {
        return Err(Errno::EINVAL);
    }
    let kind = u32::try_from(kind)
        .ok()
        .filter(|kind| [abi::F_RDLCK, abi::F_WRLCK, abi::F_UNLCK].contains(kind))
        .ok_or(Errno::EINVAL)?;
    let of_file = is_of_file(command);
    if of_file && words[3] as u32 != 0 {
        return Err(Errno::EINVAL);
    }
    let thread = current();
    Ok(Described {
        kind,
        request: Request {
            owner: if of_file {
                file.as_lock_owner(false)
            } else {
                thread.files().as_lock_owner()
            },
            start: first as u64,
            last: last as u64,
            write: kind == abi::F_WRLCK,
            pid: if of_file {
                -1
            } else {
                thread.process.pid as i32
            },
        },
    })
}

/// Whether the lock is an open file's, not a process's.
fn is_of_file(command: u32) -> bool {
    [abi::F_OFD_GETLK, abi::F_OFD_SETLK, abi::F_OFD_SETLKW].contains(&command)
}

/// F_GETLK and F_OFD_GETLK: tells what is in the way.
pub fn get(file: &Arc<File>, command: u32, arg: usize) -> Result<usize> {
    let pointer = UserPtr::<Flock>::new(arg);
    let mut words = pointer.read()?;
    let Described { kind, request } = describe(file, command, words)?;
    if kind == abi::F_UNLCK {
        return Err(Errno::EINVAL);
    }
    let upper = words[0] & !0xffff_ffff;
    match lock::blocking(lock::key_of(&file.inode), &request) {
        None => words[0] = words[0] & !0xffff | u64::from(abi::F_UNLCK),
        Some(held) => {
            let kind = if held.write {
                abi::F_WRLCK
            } else {
                abi::F_RDLCK
            };
            let len = if held.last == LAST {
                0
            } else {
                held.last - held.start + 1
            };
            let upper_pid = words[3] & !0xffff_ffff;
            words = [
                upper | u64::from(kind) | u64::from(abi::SEEK_SET) << 16,
                held.start,
                len,
                upper_pid | u64::from(held.pid as u32),
            ];
        }
    }
    pointer.write(words).map(|()| 0)
}

/// F_SETLK, F_SETLKW and those of open files.
pub fn set(fd: usize, file: &Arc<File>, command: u32, arg: usize) -> Result<usize> {
    let Described { kind, request } = describe(file, command, UserPtr::<Flock>::new(arg).read()?)?;
    let key = lock::key_of(&file.inode);
    match kind {
        abi::F_UNLCK => return lock::unlock(key, &request).map(|()| 0),
        abi::F_RDLCK if !file.readable() => return Err(Errno::EBADF),
        abi::F_WRLCK if !file.writable() => return Err(Errno::EBADF),
        _ => {}
    }
    if [abi::F_SETLKW, abi::F_OFD_SETLKW].contains(&command) {
        lock::lock(key, &request)?;
    } else {
        lock::try_lock(key, &request)?;
    }
    // Another thread may have closed the descriptor meanwhile, and would have given up the lock if it had been there.
    let thread = current();
    let files = thread.files();
    let still_open = files
        .get(fd as i32)
        .is_ok_and(|now| Arc::ptr_eq(&now, file));
    if !is_of_file(command) && !still_open {
        lock::unlock(key, &request)?;
        return Err(Errno::EBADF);
    }
    Ok(0)
}
