//! unshare(2), and setns(2) in a kernel without namespaces.

use linux_raw_sys::general as abi;

use super::args::{Args, file};
use crate::errno::{Errno, Result};
use crate::ipc::semaphore::undo;
use crate::sched::current;
use crate::task::Process;

const NAMESPACES: u32 = abi::CLONE_NEWNS
    | abi::CLONE_NEWUTS
    | abi::CLONE_NEWIPC
    | abi::CLONE_NEWNET
    | abi::CLONE_NEWPID
    | abi::CLONE_NEWCGROUP
    | abi::CLONE_NEWTIME;
const WITH_MEMORY: u32 = abi::CLONE_VM;
const WITH_ACTIONS: u32 = abi::CLONE_SIGHAND | WITH_MEMORY;
const WITH_THREADS: u32 = abi::CLONE_THREAD | WITH_ACTIONS;
const KNOWN: u32 = abi::CLONE_FILES
    | abi::CLONE_FS
    | WITH_THREADS
    | abi::CLONE_SYSVSEM
    | NAMESPACES
    | abi::CLONE_NEWUSER;

/// unshare(2). What only the whole process can stop to share must not be shared already (`check_unshare_flags`).
pub fn sys_unshare(&[flags, ..]: &Args) -> Result<usize> {
    let flags = flags as u32;
    let thread = current();
    let process = &thread.process;
    if flags & !KNOWN != 0
        || flags & (WITH_THREADS | abi::CLONE_NEWUSER) != 0 && process.nr_threads() > 1
        || flags & WITH_ACTIONS != 0 && process.signals.lock().are_actions_shared()
        || flags & WITH_MEMORY != 0 && process.shares_memory()
    {
        return Err(Errno::EINVAL);
    }
    refuse_namespaces(process, flags)?;
    // Copies before anything changes: either both or none.
    let files = match flags & abi::CLONE_FILES {
        0 => None,
        _ => thread.copy_of_shared_files(0..0)?,
    };
    let with_fs = abi::CLONE_FS | abi::CLONE_NEWNS | abi::CLONE_NEWUSER;
    if flags & with_fs != 0 {
        thread.unshare_fs()?;
    }
    // As at the end of the process; threads keep what the others still share.
    if flags & abi::CLONE_SYSVSEM != 0 && process.nr_threads() == 1 {
        undo::process_ended(process);
    }
    if let Some(files) = files {
        drop(thread.set_files(files));
    }
    Ok(0)
}

/// As a Linux without namespaces answers: `EPERM` if the caller could not have one, else `EINVAL`.
pub(super) fn refuse_namespaces(process: &Process, flags: u32) -> Result {
    if flags & abi::CLONE_NEWUSER != 0 {
        return Err(Errno::EINVAL);
    }
    match flags & NAMESPACES {
        0 => Ok(()),
        _ if !process.credentials.get().is_privileged() => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

/// setns(2): no file is a namespace's. `EBADF`, `EINVAL`.
pub fn sys_setns(&[fd, ..]: &Args) -> Result<usize> {
    file(fd)?;
    Err(Errno::EINVAL)
}
