//! System calls that move bytes: read, write and their kin.

use alloc::vec::Vec;

use linux_raw_sys::general as abi;

use super::args::{Args, file, offset, read_iovecs, usable_file};
use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::fs::io::{Dst, MAX_RW_COUNT, Src};
use crate::fs::null;
use crate::mm::uaccess::UserPtr;

/// read(2).
pub fn sys_read(&[fd, addr, len, ..]: &Args) -> Result<usize> {
    usable_file(fd)?.read(&mut Dst::buffer(addr, len))
}

/// write(2).
pub fn sys_write(&[fd, addr, len, ..]: &Args) -> Result<usize> {
    usable_file(fd)?.write(&mut Src::buffer(addr, len))
}

/// readv(2).
pub fn sys_readv(&[fd, vector, count, ..]: &Args) -> Result<usize> {
    let file = usable_file(fd)?;
    file.read(&mut Dst::user(&read_iovecs(vector, count)?))
}

/// writev(2).
pub fn sys_writev(&[fd, vector, count, ..]: &Args) -> Result<usize> {
    let file = usable_file(fd)?;
    file.write(&mut Src::user(&read_iovecs(vector, count)?))
}

/// pread64(2).
pub fn sys_pread64(&[fd, addr, len, at, ..]: &Args) -> Result<usize> {
    let at = offset(at)?;
    usable_file(fd)?.read_at(at, &mut Dst::buffer(addr, len))
}

/// pwrite64(2).
pub fn sys_pwrite64(&[fd, addr, len, at, ..]: &Args) -> Result<usize> {
    let at = offset(at)?;
    usable_file(fd)?.write_at(at, &mut Src::buffer(addr, len))
}

/// preadv(2).
pub fn sys_preadv(&[fd, vector, count, at, ..]: &Args) -> Result<usize> {
    let at = offset(at)?;
    let file = usable_file(fd)?;
    file.read_at(at, &mut Dst::user(&read_iovecs(vector, count)?))
}

/// pwritev(2).
pub fn sys_pwritev(&[fd, vector, count, at, ..]: &Args) -> Result<usize> {
    let at = offset(at)?;
    let file = usable_file(fd)?;
    file.write_at(at, &mut Src::user(&read_iovecs(vector, count)?))
}

/// Flags of preadv2(2) that ask for nothing the kernel does not do anyway.
const HINTS: usize = (abi::RWF_HIPRI | abi::RWF_DSYNC | abi::RWF_SYNC) as usize;

/// preadv2(2): offset -1 means the file's position.
pub fn sys_preadv2(args: &Args) -> Result<usize> {
    if args[5] & !HINTS != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if args[3] == usize::MAX {
        sys_readv(args)
    } else {
        sys_preadv(args)
    }
}

/// pwritev2(2).
pub fn sys_pwritev2(args: &Args) -> Result<usize> {
    if args[5] & !HINTS != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if args[3] == usize::MAX {
        sys_writev(args)
    } else {
        sys_pwritev(args)
    }
}

/// lseek(2).
pub fn sys_lseek(&[fd, at, whence, ..]: &Args) -> Result<usize> {
    file(fd)?
        .seek(at as i64, whence as u32)
        .map(|position| position as usize)
}

/// Bytes that are copied between files in one piece.
const COPY: usize = 16 << 10;

/// Copies up to `count` bytes from one file to another, from and to given offsets or the files' positions, which move on. How many.
fn copy(
    from: &File,
    to: &File,
    mut at: Option<&mut u64>,
    mut to_at: Option<&mut u64>,
    count: usize,
) -> Result<usize> {
    let mut buf = Vec::new();
    buf.try_reserve_exact(COPY.min(count))?;
    buf.resize(COPY.min(count), 0);
    let mut done = 0;
    while done < count {
        let want = buf.len().min(count - done);
        let mut dst = Dst::Kernel(&mut buf[..want]);
        let read = match &at {
            Some(at) => from.read_at(**at, &mut dst),
            None => from.read(&mut dst),
        };
        let got = match read {
            Ok(0) => break,
            Ok(got) => got,
            Err(error) => return crate::fs::io::partial(done, error),
        };
        let mut src = Src::Kernel(&buf[..got]);
        let wrote = match &to_at {
            Some(at) => to.write_at(**at, &mut src),
            None => to.write(&mut src),
        };
        let put = *wrote.as_ref().unwrap_or(&0);
        if put < got && at.is_none() {
            // What could not be written has not been read. Files that cannot go back were refused by the callers.
            let _ = from.seek(put as i64 - got as i64, abi::SEEK_CUR);
        }
        for at in [at.as_deref_mut(), to_at.as_deref_mut()]
            .into_iter()
            .flatten()
        {
            *at += put as u64;
        }
        done += put;
        if let Err(error) = wrote {
            return crate::fs::io::partial(done, error);
        }
        if put < got || !null::go_on(count - done) {
            break;
        }
    }
    Ok(done)
}

/// sendfile(2).
pub fn sys_sendfile(&[to, from, at, count, ..]: &Args) -> Result<usize> {
    let (to, from) = (usable_file(to)?, usable_file(from)?);
    if !from.readable() || !to.writable() {
        return Err(Errno::EBADF);
    }
    if from.mapping().is_none() {
        return Err(Errno::EINVAL);
    }
    let count = count.min(MAX_RW_COUNT);
    let Some(pointer) = UserPtr::<i64>::optional(at) else {
        return copy(&from, &to, None, None, count);
    };
    let mut at = u64::try_from(pointer.read()?).map_err(|_| Errno::EINVAL)?;
    let done = copy(&from, &to, Some(&mut at), None, count)?;
    pointer.write(at as i64)?;
    Ok(done)
}

/// copy_file_range(2).
pub fn sys_copy_file_range(&[from, from_at, to, to_at, count, flags]: &Args) -> Result<usize> {
    let (from, to) = (usable_file(from)?, usable_file(to)?);
    if flags != 0 || from.mapping().is_none() || to.mapping().is_none() {
        return Err(if from.is_directory() || to.is_directory() {
            Errno::EISDIR
        } else {
            Errno::EINVAL
        });
    }
    if !from.readable() || !to.writable() || to.flags() & abi::O_APPEND != 0 {
        return Err(Errno::EBADF);
    }
    if from.inode.stat().fs != to.inode.stat().fs {
        return Err(Errno::EXDEV);
    }
    let (from_pointer, to_pointer) = (
        UserPtr::<u64>::optional(from_at),
        UserPtr::<u64>::optional(to_at),
    );
    let mut from_at = from_pointer.map(UserPtr::read).transpose()?;
    let mut to_at = to_pointer.map(UserPtr::read).transpose()?;
    let done = copy(
        &from,
        &to,
        from_at.as_mut(),
        to_at.as_mut(),
        count.min(MAX_RW_COUNT),
    )?;
    for (pointer, at) in [(from_pointer, from_at), (to_pointer, to_at)] {
        if let (Some(pointer), Some(at)) = (pointer, at) {
            pointer.write(at)?;
        }
    }
    Ok(done)
}

/// splice(2), tee(2), vmsplice(2): no file can be spliced; callers fall back to read and write.
pub fn sys_splice(_: &Args) -> Result<usize> {
    Err(Errno::EINVAL)
}

/// getrandom(2).
pub fn sys_getrandom(&[addr, len, flags, ..]: &Args) -> Result<usize> {
    let known = abi::GRND_NONBLOCK | abi::GRND_RANDOM | abi::GRND_INSECURE;
    let both = abi::GRND_RANDOM | abi::GRND_INSECURE;
    if flags as u32 & !known != 0 || flags as u32 & both == both {
        return Err(Errno::EINVAL);
    }
    null::random(&mut Dst::buffer(addr, len))
}
