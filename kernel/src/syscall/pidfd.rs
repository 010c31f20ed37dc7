//! System calls on process descriptors (`pidfd_open(2)`).

use alloc::sync::Arc;

use linux_raw_sys::general as abi;

use super::args::{Args, file, max_files};
use super::signal::{Number, UserInfo, check_permission, send_to_group, sent_by_user};
use crate::errno::{Errno, Result};
use crate::fs::{File, pidfd};
use crate::sched::current;
use crate::signal::{code, send};
use crate::task::process::Life;
use crate::task::{Process, table};

/// PIDFD_NONBLOCK (`include/uapi/linux/pidfd.h`).
const NONBLOCK: u32 = abi::O_NONBLOCK;

/// Gives the current process a descriptor of `process`, which exec closes.
pub(crate) fn install(process: Arc<Process>, flags: u32) -> Result<u32> {
    let file = pidfd::new(process, flags)?;
    current().files().insert(file, 0, max_files(), true)
}

/// pidfd_open(2), for processes.
pub fn sys_pidfd_open(&[pid, flags, ..]: &Args) -> Result<usize> {
    let (pid, flags) = (pid as i32, flags as u32);
    if flags & !NONBLOCK != 0 || pid <= 0 {
        return Err(Errno::EINVAL);
    }
    let process = match table::find(pid as u32) {
        Some(process) => process,
        // A thread that is not its process's first has no descriptor.
        None if table::find_thread(pid as u32).is_some() => return Err(Errno::ENOENT),
        None => return Err(Errno::ESRCH),
    };
    install(process, flags).map(|fd| fd as usize)
}

/// The process of a descriptor; `EBADF`.
pub(super) fn process_of(fd: usize) -> Result<(Arc<File>, Arc<Process>)> {
    let file = file(fd)?;
    let process = pidfd::process_of(&file)?.clone();
    Ok((file, process))
}

/// Whom pidfd_send_signal(2) reaches (`include/uapi/linux/pidfd.h`).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Thread,
    Process,
    Group,
}

impl Scope {
    /// One of PIDFD_SIGNAL_THREAD, PIDFD_SIGNAL_THREAD_GROUP and PIDFD_SIGNAL_PROCESS_GROUP, or by default the process. `EINVAL`.
    fn of(flags: u32) -> Result<Scope> {
        match flags {
            1 => Ok(Scope::Thread),
            0 | 2 => Ok(Scope::Process),
            4 => Ok(Scope::Group),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// pidfd_send_signal(2). `EINVAL` if the info is of another signal.
pub fn sys_pidfd_send_signal(&[fd, signal, info, flags, ..]: &Args) -> Result<usize> {
    let scope = Scope::of(flags as u32)?;
    let (_file, process) = process_of(fd)?;
    let own = process.pid == current().tid() && scope != Scope::Group;
    let given = match info {
        0 => None,
        pointer => Some(UserInfo::read(pointer, signal)?),
    };
    if given
        .as_ref()
        .is_some_and(|given| given.number() != signal as i32)
    {
        return Err(Errno::EINVAL);
    }
    if given.as_ref().is_some_and(UserInfo::is_forged) && !own {
        return Err(Errno::EPERM);
    }
    let signal = Number(signal as i32).signal()?;
    let info = signal.map(|signal| match &given {
        Some(given) => given.for_signal(signal),
        None if scope == Scope::Thread => sent_by_user(signal, code::SI_TKILL),
        None => sent_by_user(signal, code::SI_USER),
    });
    let to_process = |process: &Process| {
        check_permission(process, info.map(|info| info.signal))?;
        info.map_or(Ok(()), |info| send::send_preferring(process, None, info))
    };
    if scope == Scope::Group {
        return send_to_group(process.pid, to_process);
    }
    if process.life() == Life::Gone {
        return Err(Errno::ESRCH);
    }
    if scope == Scope::Process {
        return to_process(&process).map(|()| 0);
    }
    check_permission(&process, info.map(|info| info.signal))?;
    // The first thread may have ended before the others, and then nobody takes it.
    if let Some((info, thread)) = info.zip(table::find_thread(process.pid)) {
        send::queue_to_thread(&thread, info)?;
    }
    Ok(0)
}

/// pidfd_getfd(2): a descriptor of the same open file as another process's. `EPERM` for a process that the caller may not look into.
pub fn sys_pidfd_getfd(&[fd, target, flags, ..]: &Args) -> Result<usize> {
    if flags as u32 != 0 {
        return Err(Errno::EINVAL);
    }
    let (_file, process) = process_of(fd)?;
    if process.life() != Life::Lives {
        return Err(Errno::ESRCH);
    }
    let (own, other) = (
        current().process.credentials.get(),
        process.credentials.get(),
    );
    let same_user = own.user.effective == other.user.real && other.user.real == other.user.saved;
    if !own.is_privileged() && !same_user {
        return Err(Errno::EPERM);
    }
    let thread = process.first_thread().ok_or(Errno::ESRCH)?;
    let file = thread.files_of_other().get(target as i32)?;
    current()
        .files()
        .insert(file, 0, max_files(), true)
        .map(|fd| fd as usize)
}
