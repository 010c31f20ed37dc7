//! System calls that make processes and threads: fork(2), vfork(2), clone(2), clone3(2).
//!
//! Flags are checked as Linux's `copy_process` does. Not there are namespaces (`EINVAL`, or `EPERM` for who may not have one), control
//! groups (`EBADF`) and descriptors of threads (`EINVAL`).

use linux_raw_sys::general as abi;

use super::unshare::refuse_namespaces;
use crate::arch::{PtRegs, USER_END};
use crate::errno::{Errno, Result};
use crate::mm::PAGE_SIZE;
use crate::mm::uaccess::{self, UserPtr};
use crate::sched::current;
use crate::signal::Signal;
use crate::task::fork::{CloneOptions, clone};

const VM: u64 = abi::CLONE_VM as u64;
const FS: u64 = abi::CLONE_FS as u64;
const FILES: u64 = abi::CLONE_FILES as u64;
const SIGHAND: u64 = abi::CLONE_SIGHAND as u64;
const THREAD: u64 = abi::CLONE_THREAD as u64;
const VFORK: u64 = abi::CLONE_VFORK as u64;
const SETTLS: u64 = abi::CLONE_SETTLS as u64;
const PARENT_SETTID: u64 = abi::CLONE_PARENT_SETTID as u64;
const CHILD_SETTID: u64 = abi::CLONE_CHILD_SETTID as u64;
const CHILD_CLEARTID: u64 = abi::CLONE_CHILD_CLEARTID as u64;
const PIDFD: u64 = abi::CLONE_PIDFD as u64;
const PARENT: u64 = abi::CLONE_PARENT as u64;
const CLEAR_SIGHAND: u64 = abi::CLONE_CLEAR_SIGHAND;

const INTO_CGROUP: u64 = abi::CLONE_INTO_CGROUP;

/// All flags of clone3(2). Those of clone(2) are all known to it, but some are about things that are not there, or that every call does
/// anyway (CLONE_SYSVSEM, CLONE_IO, CLONE_UNTRACED, CLONE_PTRACE).
const KNOWN: u64 = u32::MAX as u64 | CLEAR_SIGHAND | INTO_CGROUP;

/// What a call asks for.
struct Request {
    flags: u64,
    exit_signal: Option<Signal>,
    stack: usize,
    tls: usize,
    parent_tid: usize,
    child_tid: usize,
    /// Where the descriptor goes.
    pidfd: usize,
    /// The number that the child shall have.
    number: Option<u32>,
}

impl Request {
    fn check(&self) -> Result {
        let has = |flag| self.flags & flag != 0;
        let inconsistent = has(THREAD) && !has(SIGHAND)
            || has(SIGHAND) && !has(VM)
            || has(SIGHAND) && has(CLEAR_SIGHAND)
            || has(FS) && has((abi::CLONE_NEWNS | abi::CLONE_NEWUSER) as u64)
            || has(THREAD) && has((abi::CLONE_NEWUSER | abi::CLONE_NEWPID) as u64)
            || has(PIDFD) && has(abi::CLONE_DETACHED as u64)
            || has(THREAD) && has(PIDFD);
        if inconsistent || self.flags & !KNOWN != 0 {
            return Err(Errno::EINVAL);
        }
        refuse_namespaces(&current().process, self.flags as u32)?;
        // No descriptor is a control group's.
        if has(INTO_CGROUP) {
            return Err(Errno::EBADF);
        }
        // As arch_prctl(2) has it for a base that no user address is.
        if has(SETTLS) && self.tls >= USER_END {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    fn run(&self, regs: &PtRegs) -> Result<usize> {
        self.check()?;
        let has = |flag| self.flags & flag != 0;
        let wants = |flag, value| has(flag).then_some(value);
        let options = CloneOptions {
            thread: has(THREAD),
            share_memory: has(VM),
            share_files: has(FILES),
            share_fs: has(FS),
            share_actions: has(SIGHAND),
            vfork: has(VFORK),
            clear_handlers: has(CLEAR_SIGHAND),
            sibling: has(PARENT),
            number: self.number,
            pidfd: wants(PIDFD, self.pidfd),
            exit_signal: self.exit_signal,
            stack: self.stack,
            tls: wants(SETTLS, self.tls),
            parent_tid: wants(PARENT_SETTID, self.parent_tid),
            set_child_tid: wants(CHILD_SETTID, self.child_tid),
            clear_child_tid: wants(CHILD_CLEARTID, self.child_tid),
        };
        clone(regs, &options).map(|tid| tid as usize)
    }
}

fn process(flags: u64) -> Request {
    Request {
        flags,
        exit_signal: Some(Signal::SIGCHLD),
        stack: 0,
        tls: 0,
        parent_tid: 0,
        child_tid: 0,
        pidfd: 0,
        number: None,
    }
}

/// fork(2).
pub fn sys_fork(regs: &mut PtRegs) -> Result<usize> {
    process(0).run(regs)
}

/// vfork(2).
pub fn sys_vfork(regs: &mut PtRegs) -> Result<usize> {
    process(VM | VFORK).run(regs)
}

/// clone(2).
pub fn sys_clone(regs: &mut PtRegs) -> Result<usize> {
    let [flags, stack, parent_tid, child_tid, tls, _] = regs.syscall_args();
    let flags = u64::from(flags as u32);
    let request = Request {
        flags: flags & !u64::from(abi::CSIGNAL),
        exit_signal: Signal::new(flags as usize & abi::CSIGNAL as usize),
        stack,
        tls,
        parent_tid,
        child_tid,
        // As in clone(2), one place for both.
        pidfd: parent_tid,
        number: None,
    };
    if request.flags & (PIDFD | PARENT_SETTID) == PIDFD | PARENT_SETTID {
        return Err(Errno::EINVAL);
    }
    request.run(regs)
}

/// struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup.
const CLONE3_WORDS: usize = abi::CLONE_ARGS_SIZE_VER2 as usize / 8;

/// clone3(2).
pub fn sys_clone3(regs: &mut PtRegs) -> Result<usize> {
    let [pointer, size, ..] = regs.syscall_args();
    let [
        flags,
        pidfd,
        child_tid,
        parent_tid,
        exit_signal,
        stack,
        stack_size,
        tls,
        set_tid,
        set_tid_size,
        cgroup,
    ] = read_clone_args(pointer, size)?;
    // CLONE_NEWTIME has taken one of the bits that clone(2) has for the signal.
    let not_here = u64::from(abi::CSIGNAL & !abi::CLONE_NEWTIME | abi::CLONE_DETACHED);
    let bad_signal =
        exit_signal > u64::from(Signal::MAX) || flags & (THREAD | PARENT) != 0 && exit_signal != 0;
    // Without namespaces there is one number to choose.
    let bad_number = (set_tid == 0) != (set_tid_size == 0) || set_tid_size > 1;
    let share_place =
        flags & (PIDFD | PARENT_SETTID) == PIDFD | PARENT_SETTID && pidfd == parent_tid;
    let bad_cgroup = flags & INTO_CGROUP != 0
        && (cgroup > i32::MAX as u64 || size < abi::CLONE_ARGS_SIZE_VER2 as usize);
    if flags & not_here != 0 || bad_signal || bad_number || share_place || bad_cgroup {
        return Err(Errno::EINVAL);
    }
    let number = match set_tid_size {
        0 => None,
        _ => Some(UserPtr::<u32>::new(set_tid as usize).read()?),
    };
    let request = Request {
        flags,
        exit_signal: Signal::new(exit_signal as usize),
        stack: stack_top(stack, stack_size)?,
        tls: tls as usize,
        parent_tid: parent_tid as usize,
        child_tid: child_tid as usize,
        pidfd: pidfd as usize,
        number,
    };
    request.run(regs)
}

/// The arguments; a shorter structure ends in zeros, and a longer one has to. `EINVAL`, `E2BIG`, `EFAULT`.
fn read_clone_args(pointer: usize, size: usize) -> Result<[u64; CLONE3_WORDS]> {
    let known = CLONE3_WORDS * 8;
    if size > PAGE_SIZE {
        return Err(Errno::E2BIG);
    }
    if size < abi::CLONE_ARGS_SIZE_VER0 as usize {
        return Err(Errno::EINVAL);
    }
    for at in known..size {
        if UserPtr::<u8>::new(pointer.wrapping_add(at)).read()? != 0 {
            return Err(Errno::E2BIG);
        }
    }
    let mut bytes = [0; CLONE3_WORDS * 8];
    uaccess::read_bytes(pointer, &mut bytes[..size.min(known)])?;
    let (words, _) = bytes.as_chunks::<8>();
    let mut args = [0; CLONE3_WORDS];
    for (arg, word) in args.iter_mut().zip(words) {
        *arg = u64::from_ne_bytes(*word);
    }
    Ok(args)
}

/// clone3(2) names a stack by its lowest address and its size; both or none are given.
fn stack_top(base: u64, size: u64) -> Result<usize> {
    let top = base.checked_add(size).ok_or(Errno::EINVAL)?;
    if (base == 0) != (size == 0) || top > USER_END as u64 {
        return Err(Errno::EINVAL);
    }
    Ok(top as usize)
}
