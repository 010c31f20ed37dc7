//! System calls on epoll instances (`epoll(7)`).

use alloc::sync::Arc;

use linux_raw_sys::general as abi;

use super::args::Args;
use super::poll::{read_mask, with_own_mask};
use super::time::read_timeout;
use crate::arch::{USER_END, time};
use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::fs::epoll::{self, Event, Instance};
use crate::mm::uaccess::{self, UserPtr};
use crate::sched::current;
use crate::task::rlimit::Resource;

/// Bytes of struct epoll_event, which is packed.
const EVENT_SIZE: usize = 12;
/// Most events that one call can ask for.
const MAX_EVENTS: usize = i32::MAX as usize / EVENT_SIZE;

fn create(close_on_exec: bool) -> Result<usize> {
    let thread = current();
    let limit = thread.process.rlimits.soft(Resource::Files);
    let fd = thread
        .files()
        .insert(epoll::new()?, 0, limit, close_on_exec)?;
    Ok(fd as usize)
}

/// epoll_create(2).
pub fn sys_epoll_create(&[size, ..]: &Args) -> Result<usize> {
    if size as i32 <= 0 {
        return Err(Errno::EINVAL);
    }
    create(false)
}

/// epoll_create1(2).
pub fn sys_epoll_create1(&[flags, ..]: &Args) -> Result<usize> {
    if flags as u32 & !abi::EPOLL_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    create(flags as u32 & abi::EPOLL_CLOEXEC != 0)
}

fn read_event(pointer: usize) -> Result<Event> {
    let bytes = UserPtr::<[u8; EVENT_SIZE]>::new(pointer).read()?;
    let (events, data) = bytes.split_at(4);
    Ok(Event {
        events: u32::from_ne_bytes(events.try_into().map_err(|_| Errno::EFAULT)?),
        data: u64::from_ne_bytes(data.try_into().map_err(|_| Errno::EFAULT)?),
    })
}

/// The file of a descriptor, and the instance that it has to be. `EBADF`; `EINVAL` if it is none.
fn instance(file: &Arc<File>) -> Result<&Arc<Instance>> {
    epoll::instance_of(file).ok_or(Errno::EINVAL)
}

/// epoll_ctl(2).
pub fn sys_epoll_ctl(&[epoll_fd, operation, fd, event, ..]: &Args) -> Result<usize> {
    let operation = operation as u32;
    let event = match operation {
        abi::EPOLL_CTL_DEL => None,
        _ => Some(read_event(event)?),
    };
    let thread = current();
    let files = thread.files();
    let (outer, file) = (files.get(epoll_fd as i32)?, files.get(fd as i32)?);
    if file.poll_queue().is_none() {
        return Err(Errno::EPERM);
    }
    instance(&outer)?
        .control(operation, &file, fd as i32, event)
        .map(|()| 0)
}

fn wait(fd: usize, events: usize, max: usize, deadline_ns: Option<u64>) -> Result<usize> {
    let max = usize::try_from(max as i32)
        .ok()
        .filter(|max| (1..=MAX_EVENTS).contains(max))
        .ok_or(Errno::EINVAL)?;
    if USER_END
        .checked_sub(max * EVENT_SIZE)
        .is_none_or(|most| events > most)
    {
        return Err(Errno::EFAULT);
    }
    let file = current().files().get(fd as i32)?;
    instance(&file)?.wait(max, deadline_ns, &mut |n, event| {
        let mut bytes = [0; EVENT_SIZE];
        bytes[..4].copy_from_slice(&event.events.to_ne_bytes());
        bytes[4..].copy_from_slice(&event.data.to_ne_bytes());
        uaccess::write_bytes(events + n * EVENT_SIZE, &bytes)
    })
}

fn deadline_of_ms(timeout_ms: usize) -> Option<u64> {
    let timeout = u64::try_from(timeout_ms as i32).ok();
    timeout.map(|ms| time::now_ns() + ms * 1_000_000)
}

/// epoll_wait(2).
pub fn sys_epoll_wait(&[fd, events, max, timeout_ms, ..]: &Args) -> Result<usize> {
    wait(fd, events, max, deadline_of_ms(timeout_ms))
}

/// epoll_pwait(2).
pub fn sys_epoll_pwait(&[fd, events, max, timeout_ms, mask, size]: &Args) -> Result<usize> {
    let mask = read_mask(mask, size)?;
    with_own_mask(mask, || wait(fd, events, max, deadline_of_ms(timeout_ms)))
}

/// epoll_pwait2(2): the time-out is a struct timespec.
pub fn sys_epoll_pwait2(&[fd, events, max, timeout, mask, size]: &Args) -> Result<usize> {
    let deadline = read_timeout(timeout)?;
    let mask = read_mask(mask, size)?;
    with_own_mask(mask, || wait(fd, events, max, deadline))
}
