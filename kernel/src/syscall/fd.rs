//! System calls that make, copy and close file descriptors.

use alloc::sync::Arc;

use linux_raw_sys::general as abi;

use super::args::{Args, file, masked, max_files, read_path, start_at, usable_file};
use super::lock;
use crate::errno::{Errno, Result};
use crate::fs::file::{File, Opened};
use crate::fs::inode::{Access, FileType, Inode};
use crate::fs::pipe::{Pipe, PipeInode};
use crate::fs::tmpfs::TmpFs;
use crate::fs::{eventfd, open, signalfd};
use crate::mm::uaccess::{self, UserPtr};
use crate::sched::current;
use crate::signal::SigSet;

/// Gives a file the lowest free descriptor.
pub(super) fn install(file: Arc<File>, flags: u32) -> Result<usize> {
    let close_on_exec = flags & abi::O_CLOEXEC != 0;
    current()
        .files()
        .insert(file, 0, max_files(), close_on_exec)
        .map(|fd| fd as usize)
}

fn do_open(dirfd: usize, path: usize, flags: u32, mode: usize) -> Result<usize> {
    let path = read_path(path)?;
    let start = start_at(dirfd, &path)?;
    install(open::open(&start, &path, flags, masked(mode))?, flags)
}

/// open(2).
pub fn sys_open(&[path, flags, mode, ..]: &Args) -> Result<usize> {
    do_open(abi::AT_FDCWD as usize, path, flags as u32, mode)
}

/// openat(2).
pub fn sys_openat(&[dirfd, path, flags, mode, ..]: &Args) -> Result<usize> {
    do_open(dirfd, path, flags as u32, mode)
}

/// creat(2).
pub fn sys_creat(&[path, mode, ..]: &Args) -> Result<usize> {
    do_open(
        abi::AT_FDCWD as usize,
        path,
        abi::O_CREAT | abi::O_WRONLY | abi::O_TRUNC,
        mode,
    )
}

/// close(2).
pub fn sys_close(&[fd, ..]: &Args) -> Result<usize> {
    let file = current().files().remove(fd as i32)?;
    drop(file);
    Ok(0)
}

// Flags of close_range(2), from `include/uapi/linux/close_range.h`.
const CLOSE_RANGE_UNSHARE: u32 = 1 << 1;
const CLOSE_RANGE_CLOEXEC: u32 = 1 << 2;

/// close_range(2).
pub fn sys_close_range(&[first, last, flags, ..]: &Args) -> Result<usize> {
    let (first, last, flags) = (first as u32, last as u32, flags as u32);
    if first > last || flags & !(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    let thread = current();
    if flags & CLOSE_RANGE_UNSHARE != 0 {
        // What is to be closed is not copied.
        let closing = match flags & CLOSE_RANGE_CLOEXEC {
            0 => first as usize..last as usize + 1,
            _ => 0..0,
        };
        thread.unshare_files(closing)?;
    }
    let files = thread.files();
    if flags & CLOSE_RANGE_CLOEXEC != 0 {
        files.set_range_close_on_exec(first, last);
    } else {
        files.remove_range(first, last);
    }
    Ok(0)
}

/// dup(2).
pub fn sys_dup(&[fd, ..]: &Args) -> Result<usize> {
    install(file(fd)?, 0)
}

/// dup2(2).
pub fn sys_dup2(&[old, new, ..]: &Args) -> Result<usize> {
    let file = file(old)?;
    if old as i32 != new as i32 {
        current()
            .files()
            .replace(file, new as u32, max_files(), false)?;
    }
    Ok(new as u32 as usize)
}

/// dup3(2).
pub fn sys_dup3(&[old, new, flags, ..]: &Args) -> Result<usize> {
    let flags = flags as u32;
    if flags & !abi::O_CLOEXEC != 0 || old as i32 == new as i32 {
        return Err(Errno::EINVAL);
    }
    current().files().replace(
        file(old)?,
        new as u32,
        max_files(),
        flags & abi::O_CLOEXEC != 0,
    )?;
    Ok(new as u32 as usize)
}

/// fcntl(2).
pub fn sys_fcntl(&[fd, command, arg, ..]: &Args) -> Result<usize> {
    let thread = current();
    let files = thread.files();
    let command = command as u32;
    match command {
        abi::F_DUPFD | abi::F_DUPFD_CLOEXEC => {
            let from = u32::try_from(arg as i32).map_err(|_| Errno::EINVAL)?;
            if u64::from(from) >= max_files() {
                return Err(Errno::EINVAL);
            }
            files
                .insert(
                    file(fd)?,
                    from,
                    max_files(),
                    command == abi::F_DUPFD_CLOEXEC,
                )
                .map(|fd| fd as usize)
        }
        abi::F_GETFD => Ok(if files.close_on_exec_flag(fd as u32)? {
            abi::FD_CLOEXEC as usize
        } else {
            0
        }),
        abi::F_SETFD => files
            .set_close_on_exec_flag(fd as u32, arg as u32 & abi::FD_CLOEXEC != 0)
            .map(|()| 0),
        abi::F_GETLK | abi::F_OFD_GETLK => lock::get(&usable_file(fd)?, command, arg),
        abi::F_SETLK | abi::F_SETLKW | abi::F_OFD_SETLK | abi::F_OFD_SETLKW => {
            lock::set(fd, &usable_file(fd)?, command, arg)
        }
        abi::F_GETFL => file(fd).map(|file| file.flags() as usize),
        _ => fcntl_on_file(&*usable_file(fd)?, command, arg),
    }
}

fn fcntl_on_file(file: &File, command: u32, arg: usize) -> Result<usize> {
    let pipe = || file.stream().and_then(|stream| stream.pipe());
    match command {
        abi::F_SETFL => {
            file.set_flags(arg as u32);
            Ok(0)
        }
        abi::F_GETPIPE_SZ => pipe().map(Pipe::capacity).ok_or(Errno::EBADF),
        abi::F_SETPIPE_SZ => pipe()
            .ok_or(Errno::EBADF)?
            .set_capacity(arg as u32 as usize),
        abi::F_ADD_SEALS if !file.writable() => Err(Errno::EPERM),
        abi::F_ADD_SEALS => {
            let seals = u32::try_from(arg).map_err(|_| Errno::EINVAL)?;
            file.node()
                .ok_or(Errno::EINVAL)?
                .add_seals(seals)
                .map(|()| 0)
        }
        abi::F_GET_SEALS => Ok(file.node().ok_or(Errno::EINVAL)?.seals()? as usize),
        abi::F_GETOWN => Ok(0),
        abi::F_SETOWN => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

/// pipe2(2).
pub fn sys_pipe2(&[fds, flags, ..]: &Args) -> Result<usize> {
    let flags = flags as u32;
    if flags & !(abi::O_CLOEXEC | abi::O_NONBLOCK | abi::O_DIRECT) != 0 {
        return Err(Errno::EINVAL);
    }
    let pipe = Pipe::new()?;
    let inode = PipeInode::new(pipe.clone())?;
    let end = |access, mode| {
        File::new(
            inode.clone(),
            Opened::Stream(pipe.end(access)?),
            mode | flags,
        )
    };
    let reader = end(
        Access {
            read: true,
            write: false,
        },
        abi::O_RDONLY,
    )?;
    let writer = end(
        Access {
            read: false,
            write: true,
        },
        abi::O_WRONLY,
    )?;
    install_pair([reader, writer], flags, fds)
}

/// Gives two files the lowest free descriptors and tells the user both; or neither.
pub(super) fn install_pair(
    [first, second]: [Arc<File>; 2],
    flags: u32,
    to: usize,
) -> Result<usize> {
    let thread = current();
    let files = thread.files();
    let first = install(first, flags)? as u32;
    let told = install(second, flags).and_then(|second| {
        let told = UserPtr::<[u32; 2]>::new(to).write([first, second as u32]);
        if told.is_err() {
            drop(files.remove(second as i32));
        }
        told
    });
    if told.is_err() {
        drop(files.remove(first as i32));
    }
    told.map(|()| 0)
}

/// pipe(2).
pub fn sys_pipe(&[fds, ..]: &Args) -> Result<usize> {
    sys_pipe2(&[fds, 0, 0, 0, 0, 0])
}

/// eventfd2(2).
pub fn sys_eventfd2(&[count, flags, ..]: &Args) -> Result<usize> {
    let flags = flags as u32;
    if flags & !(abi::EFD_SEMAPHORE | abi::EFD_CLOEXEC | abi::EFD_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let semaphore = flags & abi::EFD_SEMAPHORE != 0;
    let counter = eventfd::new(
        count as u32,
        semaphore,
        abi::O_RDWR | flags & abi::EFD_NONBLOCK,
    )?;
    install(counter, flags & abi::EFD_CLOEXEC)
}

/// eventfd(2).
pub fn sys_eventfd(&[count, ..]: &Args) -> Result<usize> {
    sys_eventfd2(&[count, 0, 0, 0, 0, 0])
}

/// signalfd4(2): a new signal file, or another set for the one that `fd` is. Its flags are those of open(2).
pub fn sys_signalfd4(&[fd, set, set_size, flags, ..]: &Args) -> Result<usize> {
    if set_size != size_of::<SigSet>() {
        return Err(Errno::EINVAL);
    }
    let set = SigSet(UserPtr::<u64>::new(set).read()?);
    let flags = flags as u32;
    if flags & !(abi::O_CLOEXEC | abi::O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    if fd as i32 != -1 {
        let file = current().files().get(fd as i32)?;
        file.stream().ok_or(Errno::EINVAL)?.set_signals(set)?;
        return Ok(fd);
    }
    let file = signalfd::new(set, abi::O_RDWR | flags & abi::O_NONBLOCK)?;
    install(file, flags & abi::O_CLOEXEC)
}

/// signalfd(2).
pub fn sys_signalfd(&[fd, set, set_size, ..]: &Args) -> Result<usize> {
    sys_signalfd4(&[fd, set, set_size, 0, 0, 0])
}

/// Longest name of a memfd, without NUL.
const MEMFD_NAME_MAX: usize = 249;

/// memfd_create(2), without huge pages.
pub fn sys_memfd_create(&[name, flags, ..]: &Args) -> Result<usize> {
    let flags = flags as u32;
    let exec = abi::MFD_EXEC | abi::MFD_NOEXEC_SEAL;
    if flags & !(abi::MFD_CLOEXEC | abi::MFD_ALLOW_SEALING | exec) != 0 || flags & exec == exec {
        return Err(Errno::EINVAL);
    }
    let (mode, seals) = match flags {
        f if f & abi::MFD_NOEXEC_SEAL != 0 => (0o666, abi::F_SEAL_EXEC),
        f if f & abi::MFD_ALLOW_SEALING != 0 => (0o777, 0),
        _ => (0o777, abi::F_SEAL_SEAL),
    };
    let name = uaccess::read_string(name, MEMFD_NAME_MAX + 1, Errno::EINVAL)?;
    let mut shown = crate::fs::text::Text::new();
    shown.push(b"/memfd:");
    shown.push(&name);
    shown.push(b" (deleted)");
    let node = TmpFs::anonymous_file(shown.finish()?, mode, seals)?;
    debug_assert_eq!(node.file_type(), FileType::Regular);
    let opened = node.open(
        Access {
            read: true,
            write: true,
        },
        false,
    )?;
    let close_on_exec = if flags & abi::MFD_CLOEXEC != 0 {
        abi::O_CLOEXEC
    } else {
        0
    };
    install(
        File::new(node, opened, abi::O_RDWR | abi::O_LARGEFILE)?,
        close_on_exec,
    )
}
