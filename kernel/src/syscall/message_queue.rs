//! POSIX message queues: mq_open(2), mq_unlink(2), mq_timedsend(2), mq_timedreceive(2), mq_notify(2), mq_getsetattr(2).

use linux_raw_sys::general as abi;

use super::args::{Args, file, masked, read_path};
use super::fd::install;
use super::time::{NS_PER_S, TimePair, to_ns};
use crate::errno::{Errno, Result};
use crate::fs::socket::Notice;
use crate::ipc::posix_queue::directory::{self, name_given};
use crate::ipc::posix_queue::{COOKIE_LEN, Notification, PRIORITIES, Size, is_nonblock, queue_of};
use crate::mm::uaccess::{self, UserPtr};
use crate::sched::timer::Deadline;
use crate::signal::Signal;

/// `struct mq_attr`: flags, most messages, most bytes, messages now.
type Attr = [i64; 8];

/// mq_open(2).
pub fn sys_mq_open(&[name, flags, mode, attr, ..]: &Args) -> Result<usize> {
    let attr = UserPtr::<Attr>::optional(attr)
        .map(UserPtr::read)
        .transpose()?;
    let name = name_given(read_path(name)?)?;
    let flags = flags as u32;
    // What is negative is more than there can be.
    let size = attr.map(|[_, messages, bytes, ..]| Size {
        messages: messages as u64,
        bytes: bytes as u64,
    });
    let file = directory::open(&name, flags, masked(mode), size)?;
    install(file, flags | abi::O_CLOEXEC)
}

/// mq_unlink(2).
pub fn sys_mq_unlink(&[name, ..]: &Args) -> Result<usize> {
    directory::unlink(&name_given(read_path(name)?)?).map(|()| 0)
}

/// A point on the wall clock. `EFAULT`, `EINVAL`.
fn deadline(pointer: usize) -> Result<Option<Deadline>> {
    let Some(pointer) = UserPtr::<TimePair>::optional(pointer) else {
        return Ok(None);
    };
    Ok(Some(Deadline::Wall(to_ns(pointer.read()?, NS_PER_S)?)))
}

/// mq_timedsend(2).
pub fn sys_mq_timedsend(&[fd, addr, len, priority, timeout, _]: &Args) -> Result<usize> {
    let deadline = deadline(timeout)?;
    let priority = priority as u32;
    if priority >= PRIORITIES {
        return Err(Errno::EINVAL);
    }
    let file = file(fd)?;
    let queue = queue_of(&file)?;
    if !file.writable() {
        return Err(Errno::EBADF);
    }
    let nonblock = is_nonblock(&file);
    queue
        .send(addr, len, priority, nonblock, deadline)
        .map(|()| 0)
}

/// mq_timedreceive(2).
pub fn sys_mq_timedreceive(&[fd, addr, len, priority, timeout, _]: &Args) -> Result<usize> {
    let deadline = deadline(timeout)?;
    let file = file(fd)?;
    let queue = queue_of(&file)?;
    if !file.readable() {
        return Err(Errno::EBADF);
    }
    queue.receive(len, is_nonblock(&file), deadline, |bytes, its_priority| {
        if let Some(priority) = UserPtr::<u32>::optional(priority) {
            priority.write(its_priority)?;
        }
        uaccess::write_bytes(addr, bytes)?;
        Ok(bytes.len())
    })
}

/// mq_notify(2).
pub fn sys_mq_notify(&[fd, event, ..]: &Args) -> Result<usize> {
    let how = match UserPtr::<[u64; 8]>::optional(event) {
        None => None,
        Some(event) => Some(notification(event.read()?)?),
    };
    let file = file(fd)?;
    queue_of(&file)?.notify(how).map(|()| 0)
}

/// What a `struct sigevent` asks for. With SIGEV_THREAD the C library names a socket instead of a signal, and what is to be sent to it.
/// `EINVAL`, `EFAULT`, `EBADF`, `ENOTSOCK`.
fn notification([value, signal_and_kind, ..]: [u64; 8]) -> Result<Notification> {
    let signal = signal_and_kind as u32;
    match (signal_and_kind >> 32) as u32 {
        abi::SIGEV_NONE => Ok(Notification::None),
        abi::SIGEV_SIGNAL if signal == 0 => Ok(Notification::Signal(None, value)),
        abi::SIGEV_SIGNAL => {
            let signal = Signal::new(signal as usize).ok_or(Errno::EINVAL)?;
            Ok(Notification::Signal(Some(signal), value))
        }
        abi::SIGEV_THREAD => {
            let cookie = UserPtr::<[u8; COOKIE_LEN]>::new(value as usize).read()?;
            Ok(Notification::Socket(Notice::new(
                file(signal as usize)?,
                &cookie,
            )?))
        }
        _ => Err(Errno::EINVAL),
    }
}

/// mq_getsetattr(2).
pub fn sys_mq_getsetattr(&[fd, new, old, ..]: &Args) -> Result<usize> {
    let new = UserPtr::<Attr>::optional(new)
        .map(UserPtr::read)
        .transpose()?;
    let nonblock = i64::from(abi::O_NONBLOCK);
    if new.is_some_and(|[flags, ..]| flags & !nonblock != 0) {
        return Err(Errno::EINVAL);
    }
    let file = file(fd)?;
    let queue = queue_of(&file)?;
    let size = queue.size();
    let flags = i64::from(file.flags()) & nonblock;
    let now = [
        flags,
        size.messages as i64,
        size.bytes as i64,
        queue.count() as i64,
        0,
        0,
        0,
        0,
    ];
    if let Some([flags, ..]) = new {
        file.set_nonblock(flags != 0);
    }
    if let Some(old) = UserPtr::<Attr>::optional(old) {
        old.write(now)?;
    }
    Ok(0)
}
