//! System calls on processes and threads: their programs and ends, identity, limits and the scheduler.

use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::Ordering;

use linux_raw_sys::general as abi;

use super::args::{file, start_at};
use crate::arch::{PtRegs, USER_END};
use crate::errno::{Errno, Result};
use crate::fs;
use crate::fs::text::Text;
use crate::mm::PAGE_SIZE;
use crate::mm::uaccess::{self, UserPtr};
use crate::sched::current;
use crate::signal::info::SigInfo;
use crate::signal::{Detail, Signal, code};
use crate::task::exec::strings::Strings;
use crate::task::rlimit::Limit;
use crate::task::usage::{Counts, Usage};
use crate::task::wait::{Event, Options, Waited, Which, wait};
use crate::task::{ExitStatus, Process, exec, exit, rseq, table};

use super::pidfd;

type Args = [usize; 6];

/// execve(2).
pub fn sys_execve(regs: &mut PtRegs) -> Result<usize> {
    let [path, argv, envp, ..] = regs.syscall_args();
    let path = uaccess::read_string(path, abi::PATH_MAX as usize, Errno::ENAMETOOLONG)?;
    let argv = Strings::from_user(argv)?.with_a_first()?;
    let envp = Strings::from_user(envp)?;
    let file = fs::open_exec(&path)?;
    exec::exec(regs, file, &path, argv, &envp)?;
    Ok(0)
}

/// execveat(2). The program's path is that of a descriptor in /dev/fd where the call names one.
pub fn sys_execveat(regs: &mut PtRegs) -> Result<usize> {
    let [dirfd, path, argv, envp, flags, _] = regs.syscall_args();
    let flags = flags as u32;
    if flags & !(abi::AT_EMPTY_PATH | abi::AT_SYMLINK_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    let path = uaccess::read_string(path, abi::PATH_MAX as usize, Errno::ENAMETOOLONG)?;
    let argv = Strings::from_user(argv)?.with_a_first()?;
    let envp = Strings::from_user(envp)?;
    let at_cwd = dirfd as i32 == abi::AT_FDCWD;
    let (file, shown) = match path.first() {
        None if flags & abi::AT_EMPTY_PATH == 0 => return Err(Errno::ENOENT),
        None if at_cwd => return Err(Errno::EACCES),
        None => (
            fs::open::exec_inode(file(dirfd)?.inode.clone())?,
            fd_path(dirfd, b"")?,
        ),
        Some(first) => {
            let follow = flags & abi::AT_SYMLINK_NOFOLLOW == 0;
            let file = fs::open::open_exec_at(&start_at(dirfd, &path)?, &path, follow)?;
            let shown = match at_cwd || *first == b'/' {
                true => path,
                false => fd_path(dirfd, &path)?,
            };
            (file, shown)
        }
    };
    exec::exec(regs, file, &shown, argv, &envp)?;
    Ok(0)
}

/// `/dev/fd/N` or `/dev/fd/N/PATH`.
fn fd_path(fd: usize, path: &[u8]) -> Result<Vec<u8>> {
    let mut text = Text::new();
    write!(text, "/dev/fd/{}", fd as i32).map_err(|_| Errno::ENOMEM)?;
    if !path.is_empty() {
        text.push(b"/");
        text.push(path);
    }
    text.finish()
}

/// exit(2): ends the thread.
pub fn sys_exit(&[status, ..]: &Args) -> Result<usize> {
    exit::exit_thread(ExitStatus::Code(status as u8))
}

/// exit_group(2).
pub fn sys_exit_group(&[status, ..]: &Args) -> Result<usize> {
    exit::exit_group(ExitStatus::Code(status as u8))
}

/// wait4(2).
pub fn sys_wait4(&[pid, status, options, usage, ..]: &Args) -> Result<usize> {
    let flags = options as u32;
    if flags
        & !(abi::WNOHANG
            | abi::WUNTRACED
            | abi::WCONTINUED
            | abi::__WALL
            | abi::__WCLONE
            | abi::__WNOTHREAD)
        != 0
    {
        return Err(Errno::EINVAL);
    }
    let which = match pid as i32 {
        -1 => Which::Any,
        0 => Which::Group(current().process.group()),
        i32::MIN => return Err(Errno::ESRCH),
        pid if pid > 0 => Which::Pid(pid as u32),
        group => Which::Group(group.unsigned_abs()),
    };
    let options = Options {
        no_hang: flags & abi::WNOHANG != 0,
        own: flags & abi::__WNOTHREAD != 0,
        exited: true,
        stopped: flags & abi::WUNTRACED != 0,
        continued: flags & abi::WCONTINUED != 0,
        ordinary: flags & abi::__WCLONE == 0 || flags & abi::__WALL != 0,
        clones: flags & (abi::__WCLONE | abi::__WALL) != 0,
        keep: false,
    };
    let Some(Waited { child, event }) = wait(which, options)? else {
        return Ok(0);
    };
    if let Some(status) = UserPtr::<i32>::optional(status) {
        status.write(event.to_wait_status())?;
    }
    if let Some(usage) = UserPtr::optional(usage) {
        usage.write(rusage(
            child.usage.get() + child.child_usage.get(),
            peak_of(&child),
        ))?;
    }
    Ok(child.pid as usize)
}

/// waitid(2).
pub fn sys_waitid(&[id_type, id, info, options, usage, _]: &Args) -> Result<usize> {
    let flags = options as u32;
    let events = abi::WEXITED | abi::WSTOPPED | abi::WCONTINUED;
    if flags & events == 0
        || flags
            & !(events
                | abi::WNOHANG
                | abi::WNOWAIT
                | abi::__WALL
                | abi::__WCLONE
                | abi::__WNOTHREAD)
            != 0
    {
        return Err(Errno::EINVAL);
    }
    let mut asks_nonblocking = false;
    let which = match (id_type as u32, id as i32) {
        (abi::P_ALL, _) => Which::Any,
        (abi::P_PID, id) if id > 0 => Which::Pid(id as u32),
        (abi::P_PGID, 0) => Which::Group(current().process.group()),
        (abi::P_PGID, id) if id > 0 => Which::Group(id as u32),
        (abi::P_PIDFD, fd) if fd >= 0 => {
            let (file, process) = pidfd::process_of(fd as usize)?;
            asks_nonblocking = file.flags() & abi::O_NONBLOCK != 0 && flags & abi::WNOHANG == 0;
            Which::Process(process)
        }
        _ => return Err(Errno::EINVAL),
    };
    let options = Options {
        no_hang: flags & abi::WNOHANG != 0 || asks_nonblocking,
        own: flags & abi::__WNOTHREAD != 0,
        exited: flags & abi::WEXITED != 0,
        stopped: flags & abi::WSTOPPED != 0,
        continued: flags & abi::WCONTINUED != 0,
        ordinary: flags & abi::__WCLONE == 0 || flags & abi::__WALL != 0,
        clones: flags & (abi::__WCLONE | abi::__WALL) != 0,
        keep: flags & abi::WNOWAIT != 0,
    };
    let waited = wait(which, options)?;
    if waited.is_none() && asks_nonblocking {
        return Err(Errno::EAGAIN);
    }
    if let Some((usage, waited)) = UserPtr::optional(usage).zip(waited.as_ref()) {
        usage.write(rusage(
            waited.child.usage.get() + waited.child.child_usage.get(),
            peak_of(&waited.child),
        ))?;
    }
    if info != 0 {
        match &waited {
            Some(waited) => uaccess::write_bytes(info, &child_info(waited).abi_bytes())?,
            // As on Linux: signo and pid are zero, which tells that nothing was found.
            None => uaccess::write_bytes(info, &[0; 28])?,
        }
    }
    Ok(0)
}

fn child_info(waited: &Waited) -> SigInfo {
    let (code, status) = match waited.event {
        Event::Exited(ExitStatus::Code(status)) => (code::CLD_EXITED, status as i32),
        Event::Exited(ExitStatus::Signal(signal)) => (code::CLD_KILLED, signal.number() as i32),
        Event::Stopped(signal) => (code::CLD_STOPPED, signal.number() as i32),
        Event::Continued => (code::CLD_CONTINUED, Signal::SIGCONT.number() as i32),
    };
    let detail = Detail::Child {
        pid: waited.child.pid,
        uid: waited.child.credentials.get().user.real,
        status,
        utime: 0,
        stime: 0,
    };
    SigInfo {
        signal: Signal::SIGCHLD,
        code,
        detail,
    }
}

/// struct rusage: two times of seconds and microseconds, and fourteen numbers.
fn rusage(counts: Counts, max_resident: u64) -> [i64; 18] {
    let mut words = [0; 18];
    let user_ns = counts.cpu_ns.saturating_sub(counts.system_ns);
    for (at, ns) in [(0, user_ns), (2, counts.system_ns)] {
        words[at] = (ns / 1_000_000_000) as i64;
        words[at + 1] = (ns % 1_000_000_000 / 1000) as i64;
    }
    words[4] = max_resident as i64 * (PAGE_SIZE / 1024) as i64;
    words[8] = counts.minor as i64;
    words[9] = counts.major as i64;
    words[16] = counts.voluntary as i64;
    words[17] = counts.involuntary as i64;
    words
}

/// Most pages that a child which has ended, or one of its children, had.
fn peak_of(child: &Process) -> u64 {
    let of = |usage: &Usage| usage.max_resident.load(Ordering::Relaxed);
    of(&child.usage).max(of(&child.child_usage))
}

/// getrusage(2).
pub fn sys_getrusage(&[who, to, ..]: &Args) -> Result<usize> {
    let thread = current();
    let (counts, max_resident) = match who as i32 {
        0 => (thread.process.counts(), thread.process.max_resident()),
        1 => (thread.counts(), thread.process.max_resident()),
        -1 => {
            let usage = &thread.process.child_usage;
            (usage.get(), usage.max_resident.load(Ordering::Relaxed))
        }
        _ => return Err(Errno::EINVAL),
    };
    UserPtr::new(to)
        .write(rusage(counts, max_resident))
        .map(|()| 0)
}

/// getpid(2).
pub fn sys_getpid(_: &Args) -> Result<usize> {
    Ok(current().process.pid as usize)
}

/// gettid(2).
pub fn sys_gettid(_: &Args) -> Result<usize> {
    Ok(current().tid() as usize)
}

/// getppid(2).
pub fn sys_getppid(_: &Args) -> Result<usize> {
    Ok(current().process.parent_pid() as usize)
}

/// The process with this number, or the current one for 0. `ESRCH`.
pub(super) fn process_or_self(pid: usize) -> Result<alloc::sync::Arc<Process>> {
    match pid as i32 {
        0 => Ok(current().process.clone()),
        pid => u32::try_from(pid)
            .ok()
            .and_then(table::find)
            .ok_or(Errno::ESRCH),
    }
}

/// getpgid(2).
pub fn sys_getpgid(&[pid, ..]: &Args) -> Result<usize> {
    Ok(process_or_self(pid)?.group() as usize)
}

/// getpgrp(2).
pub fn sys_getpgrp(_: &Args) -> Result<usize> {
    Ok(current().process.group() as usize)
}

/// getsid(2).
pub fn sys_getsid(&[pid, ..]: &Args) -> Result<usize> {
    Ok(process_or_self(pid)?.session.load(Ordering::Relaxed) as usize)
}

/// setpgid(2).
pub fn sys_setpgid(&[pid, group, ..]: &Args) -> Result<usize> {
    let own = &current().process;
    let group = u32::try_from(group as i32).map_err(|_| Errno::EINVAL)?;
    let process = process_or_self(pid)?;
    if process.pid != own.pid && process.parent_pid() != own.pid {
        return Err(Errno::ESRCH);
    }
    if process.pid != own.pid && process.has_exec() {
        return Err(Errno::EACCES);
    }
    let session = own.session.load(Ordering::Relaxed);
    let is_leader = process.session.load(Ordering::Relaxed) == process.pid;
    if is_leader || process.session.load(Ordering::Relaxed) != session {
        return Err(Errno::EPERM);
    }
    let group = if group == 0 { process.pid } else { group };
    table::set_group(&process, group)?;
    Ok(0)
}

/// setsid(2).
pub fn sys_setsid(_: &Args) -> Result<usize> {
    let process = &current().process;
    table::new_session(process)?;
    process.set_terminal(None);
    Ok(process.pid as usize)
}

/// set_tid_address(2).
pub fn sys_set_tid_address(&[address, ..]: &Args) -> Result<usize> {
    let thread = current();
    thread
        .clear_child_tid
        .store(address as u64, Ordering::Relaxed);
    Ok(thread.tid() as usize)
}

/// arch_prctl(2).
pub fn sys_arch_prctl(&[operation, address, ..]: &Args) -> Result<usize> {
    let thread = current();
    let user = || {
        if address < USER_END {
            Ok(address)
        } else {
            Err(Errno::EPERM)
        }
    };
    match operation as u32 {
        ARCH_SET_FS => thread.arch.set_fs_base(user()?),
        ARCH_SET_GS => thread.arch.set_gs_base(user()?),
        ARCH_GET_FS => UserPtr::<usize>::new(address).write(thread.arch.fs_base())?,
        ARCH_GET_GS => UserPtr::<usize>::new(address).write(thread.arch.gs_base())?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

// `asm/prctl.h`, which linux-raw-sys leaves out.
const ARCH_SET_GS: u32 = 0x1001;
const ARCH_SET_FS: u32 = 0x1002;
const ARCH_GET_FS: u32 = 0x1003;
const ARCH_GET_GS: u32 = 0x1004;

/// prlimit64(2).
pub fn sys_prlimit64(&[pid, resource, new, old, ..]: &Args) -> Result<usize> {
    let process = process_or_self(pid)?;
    let before = process.rlimits.get(resource)?;
    if let Some(new) = UserPtr::<[u64; 2]>::optional(new) {
        let [soft, hard] = new.read()?;
        process.rlimits.set(resource, Limit { soft, hard })?;
        process.look_at_cpu_time_again();
    }
    if let Some(old) = UserPtr::<[u64; 2]>::optional(old) {
        old.write([before.soft, before.hard])?;
    }
    Ok(0)
}

/// getrlimit(2).
pub fn sys_getrlimit(&[resource, to, ..]: &Args) -> Result<usize> {
    let limit = current().process.rlimits.get(resource)?;
    UserPtr::<[u64; 2]>::new(to)
        .write([limit.soft, limit.hard])
        .map(|()| 0)
}

/// setrlimit(2).
pub fn sys_setrlimit(&[resource, from, ..]: &Args) -> Result<usize> {
    let [soft, hard] = UserPtr::<[u64; 2]>::new(from).read()?;
    let process = &current().process;
    process.rlimits.set(resource, Limit { soft, hard })?;
    process.look_at_cpu_time_again();
    Ok(0)
}

/// rseq(2).
pub fn sys_rseq(&[address, len, flags, signature, ..]: &Args) -> Result<usize> {
    rseq::register(address, len as u32 as usize, flags as u32, signature as u32).map(|()| 0)
}

/// membarrier(2). One CPU sees its own writes in order, code included, and other threads' restartable sequences ended when they were
/// switched away from; so all that is left is who has registered.
pub fn sys_membarrier(&[command, flags, ..]: &Args) -> Result<usize> {
    use abi::membarrier_cmd as cmd;
    const RSEQ: u32 = cmd::MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ as u32;
    const NEEDS_REGISTRATION: u32 = cmd::MEMBARRIER_CMD_PRIVATE_EXPEDITED as u32
        | cmd::MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE as u32
        | RSEQ;
    const REGISTER: u32 = cmd::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED as u32
        | cmd::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED as u32
        | cmd::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE as u32
        | cmd::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ as u32;
    const REGISTRATIONS: u32 = cmd::MEMBARRIER_CMD_GET_REGISTRATIONS as u32;
    const ALWAYS: u32 =
        cmd::MEMBARRIER_CMD_GLOBAL as u32 | cmd::MEMBARRIER_CMD_GLOBAL_EXPEDITED as u32;
    let registered = &current().process.barriers;
    let one_cpu = abi::membarrier_cmd_flag::MEMBARRIER_CMD_FLAG_CPU as u32;
    if flags as u32 != 0 && (command as u32 != RSEQ || flags as u32 != one_cpu) {
        return Err(Errno::EINVAL);
    }
    match command as u32 {
        0 => return Ok((NEEDS_REGISTRATION | REGISTER | ALWAYS | REGISTRATIONS) as usize),
        REGISTRATIONS => return Ok(registered.load(Ordering::Relaxed) as usize),
        bit if !bit.is_power_of_two() => return Err(Errno::EINVAL),
        bit if bit & ALWAYS != 0 => {}
        bit if bit & REGISTER != 0 => {
            registered.fetch_or(bit, Ordering::Relaxed);
        }
        bit if bit & NEEDS_REGISTRATION != 0 => {
            // A registration is the bit above the command that it allows.
            if registered.load(Ordering::Relaxed) & bit << 1 == 0 {
                return Err(Errno::EPERM);
            }
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}
