//! System calls on scheduling: policies and priorities (`sched(7)`), nice values, CPUs.
//!
//! What a thread without privileges may ask for is bounded by its process's RLIMIT_NICE and RLIMIT_RTPRIO, as Linux's
//! `kernel/sched/syscalls.c` has it.

use alloc::sync::Arc;

use linux_raw_sys::general as abi;

use super::args::Args;
use crate::errno::{Errno, Result};
use crate::mm::uaccess::{self, UserPtr};
use crate::sched::policy::{NICE, Parameters, Policy, REAL_TIME_PRIORITIES};
use crate::sched::{self, RR_SLICE_NS, SLICE_NS, current};
use crate::task::rlimit::Resource;
use crate::task::{Process, Thread, table};

/// The thread with this number, or the current one for 0. `EINVAL` for a negative number, `ESRCH`, `EPERM`.
pub(super) fn thread_or_self(tid: usize) -> Result<Arc<Thread>> {
    match tid as i32 {
        0 => Ok(current().arc()),
        tid if tid < 0 => Err(Errno::EINVAL),
        tid => table::find_thread(tid as u32)
            .filter(|thread| thread.process.pid != 0)
            .ok_or_else(|| refusal(tid as u32)),
    }
}

/// Why there is no thread: nobody has the number, or the process has no thread to be changed, as init, and is somebody else's.
fn refusal(tid: u32) -> Errno {
    let own = current().process.credentials.user();
    match table::find(tid) {
        Some(process) if !own.may_signal(&process.credentials.user()) => Errno::EPERM,
        _ => Errno::ESRCH,
    }
}

/// The priorities that a policy has. `EINVAL` for an unknown one.
fn priorities(policy: usize) -> Result<(u8, u8)> {
    match Policy::from_abi(policy as u32) {
        Some(policy) if policy.is_real_time() => Ok(REAL_TIME_PRIORITIES),
        Some(_) => Ok((0, 0)),
        None if policy as u32 == abi::SCHED_DEADLINE => Ok((0, 0)),
        None => Err(Errno::EINVAL),
    }
}

/// sched_get_priority_min(2).
pub fn sys_sched_get_priority_min(&[policy, ..]: &Args) -> Result<usize> {
    Ok(priorities(policy)?.0.into())
}

/// sched_get_priority_max(2).
pub fn sys_sched_get_priority_max(&[policy, ..]: &Args) -> Result<usize> {
    Ok(priorities(policy)?.1.into())
}

/// sched_rr_get_interval(2): the time slice; 0 for SCHED_FIFO, which has none.
pub fn sys_sched_rr_get_interval(&[tid, to, ..]: &Args) -> Result<usize> {
    let slice = match thread_or_self(tid)?.sched.parameters().policy {
        Policy::Fifo => 0,
        Policy::RoundRobin => RR_SLICE_NS,
        _ => SLICE_NS,
    };
    UserPtr::<[i64; 2]>::new(to).write([0, slice]).map(|()| 0)
}

/// sched_getscheduler(2).
pub fn sys_sched_getscheduler(&[tid, ..]: &Args) -> Result<usize> {
    let parameters = thread_or_self(tid)?.sched.parameters();
    let reset = match parameters.reset_on_fork {
        true => abi::SCHED_RESET_ON_FORK,
        false => 0,
    };
    Ok((u32::from(parameters.policy as u8) | reset) as usize)
}

/// sched_getparam(2).
pub fn sys_sched_getparam(&[tid, to, ..]: &Args) -> Result<usize> {
    if (tid as i32) < 0 || to == 0 {
        return Err(Errno::EINVAL);
    }
    let priority = thread_or_self(tid)?.sched.parameters().priority;
    UserPtr::<i32>::new(to).write(priority.into()).map(|()| 0)
}

/// What a call wants to change; `None` leaves it.
struct Wish {
    policy: Option<Policy>,
    priority: u64,
    nice: Option<i64>,
    reset_on_fork: Option<bool>,
}

/// A policy's number, with SCHED_RESET_ON_FORK taken off. `EINVAL`; SCHED_DEADLINE is not there.
fn decode_policy(policy: usize) -> Result<(Policy, bool)> {
    let reset = policy as u32 & abi::SCHED_RESET_ON_FORK != 0;
    let policy = policy as i32 as u32 & !abi::SCHED_RESET_ON_FORK;
    Ok((Policy::from_abi(policy).ok_or(Errno::EINVAL)?, reset))
}

/// Whether the current process may set things of `thread` at all: root, or the same user.
fn is_own(thread: &Thread) -> bool {
    let (own, other) = (
        current().process.credentials.get(),
        thread.process.credentials.get(),
    );
    let effective = own.user.effective;
    own.is_privileged() || effective == other.user.effective || effective == other.user.real
}

/// Whether a nice value is within RLIMIT_NICE, which counts from 1 for 19 to 40 for -20.
fn may_be_nice(thread: &Thread, nice: i8) -> bool {
    (20 - i64::from(nice)) as u64 <= thread.process.rlimits.soft(Resource::Nice)
        || current().process.credentials.get().is_privileged()
}

fn apply(thread: &Arc<Thread>, wish: &Wish) -> Result<usize> {
    let privileged = current().process.credentials.get().is_privileged();
    let may_change = is_own(thread);
    let most = thread.process.rlimits.soft(Resource::RealtimePriority);
    let lowest_nice = (NICE.0..=NICE.1)
        .find(|&nice| may_be_nice(thread, nice))
        .unwrap_or(NICE.1 + 1);
    sched::change_parameters(thread, |before| {
        let policy = wish.policy.unwrap_or(before.policy);
        let (lowest, highest) = match policy.is_real_time() {
            true => REAL_TIME_PRIORITIES,
            false => (0, 0),
        };
        if !(u64::from(lowest)..=u64::from(highest)).contains(&wish.priority) {
            return Err(Errno::EINVAL);
        }
        let nice = match wish.nice {
            Some(nice) if !policy.is_real_time() => nice.clamp(NICE.0.into(), NICE.1.into()) as i8,
            _ => before.nice,
        };
        let after = Parameters {
            policy,
            nice,
            priority: wish.priority as u8,
            reset_on_fork: wish.reset_on_fork.unwrap_or(before.reset_on_fork),
        };
        let raises_nice = !policy.is_real_time() && nice < before.nice && nice < lowest_nice;
        let raises_priority = policy.is_real_time()
            && (policy != before.policy && most == 0
                || after.priority > before.priority && u64::from(after.priority) > most);
        let leaves_idle =
            before.policy == Policy::Idle && policy != Policy::Idle && before.nice < lowest_nice;
        let clears_reset = before.reset_on_fork && !after.reset_on_fork;
        let refused = raises_nice || raises_priority || leaves_idle || clears_reset || !may_change;
        if refused && !privileged {
            return Err(Errno::EPERM);
        }
        Ok(after)
    })?;
    Ok(0)
}

/// sched_setscheduler(2).
pub fn sys_sched_setscheduler(&[tid, policy, parameters, ..]: &Args) -> Result<usize> {
    if (tid as i32) < 0 || parameters == 0 || (policy as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    let priority = UserPtr::<i32>::new(parameters).read()?;
    let thread = thread_or_self(tid)?;
    let (policy, reset) = decode_policy(policy)?;
    let wish = Wish {
        policy: Some(policy),
        priority: priority as i64 as u64,
        nice: None,
        reset_on_fork: Some(reset),
    };
    apply(&thread, &wish)
}

/// sched_setparam(2).
pub fn sys_sched_setparam(&[tid, parameters, ..]: &Args) -> Result<usize> {
    if (tid as i32) < 0 || parameters == 0 {
        return Err(Errno::EINVAL);
    }
    let priority = UserPtr::<i32>::new(parameters).read()?;
    let wish = Wish {
        policy: None,
        priority: priority as i64 as u64,
        nice: None,
        reset_on_fork: None,
    };
    apply(&thread_or_self(tid)?, &wish)
}

/// Bytes of struct sched_attr, of which linux-raw-sys has no picture, in its first version and in the one with utilization clamps: size,
/// policy, flags (64 bits), nice, priority, runtime, deadline, period (64 bits each), and two clamps.
const ATTR_SIZE_0: usize = 48;
const ATTR_SIZE: usize = 56;

/// sched_setattr(2).
pub fn sys_sched_setattr(&[tid, pointer, flags, ..]: &Args) -> Result<usize> {
    if pointer == 0 || (tid as i32) < 0 || flags as u32 != 0 {
        return Err(Errno::EINVAL);
    }
    let attr = read_attr(pointer)?;
    let word = |at: usize| u32::from_ne_bytes([attr[at], attr[at + 1], attr[at + 2], attr[at + 3]]);
    let (policy, flags) = (word(4), u64::from(word(8)) | u64::from(word(12)) << 32);
    let (nice, priority) = (word(16) as i32, word(20));
    let known = u64::from(
        abi::SCHED_FLAG_RESET_ON_FORK
            | abi::SCHED_FLAG_RECLAIM
            | abi::SCHED_FLAG_DL_OVERRUN
            | abi::SCHED_FLAG_KEEP_POLICY
            | abi::SCHED_FLAG_KEEP_PARAMS,
    );
    if (policy as i32) < 0 || flags & !known != 0 {
        return Err(Errno::EINVAL);
    }
    let thread = thread_or_self(tid)?;
    let keeps = |flag: u32| flags & u64::from(flag) != 0;
    let now = thread.sched.parameters();
    let policy = match keeps(abi::SCHED_FLAG_KEEP_POLICY) {
        true => now.policy,
        false => Policy::from_abi(policy).ok_or(Errno::EINVAL)?,
    };
    let (nice, priority) = match keeps(abi::SCHED_FLAG_KEEP_PARAMS) {
        true => (now.nice.into(), now.priority.into()),
        false => (nice.into(), priority.into()),
    };
    let wish = Wish {
        policy: Some(policy),
        priority,
        nice: Some(nice),
        reset_on_fork: Some(keeps(abi::SCHED_FLAG_RESET_ON_FORK)),
    };
    apply(&thread, &wish)
}

/// The attributes; a shorter structure ends in zeros. `E2BIG`, after telling the size that is known, for a longer one that does not;
/// `EFAULT`.
fn read_attr(pointer: usize) -> Result<[u8; ATTR_SIZE]> {
    let too_big = || {
        UserPtr::<u32>::new(pointer).write(ATTR_SIZE as u32)?;
        Err(Errno::E2BIG)
    };
    let size = match UserPtr::<u32>::new(pointer).read()? as usize {
        0 => ATTR_SIZE_0,
        size => size,
    };
    if !(ATTR_SIZE_0..=crate::mm::PAGE_SIZE).contains(&size) {
        return too_big();
    }
    for at in ATTR_SIZE..size {
        if UserPtr::<u8>::new(pointer.wrapping_add(at)).read()? != 0 {
            return too_big();
        }
    }
    let mut attr = [0; ATTR_SIZE];
    uaccess::read_bytes(pointer, &mut attr[..size.min(ATTR_SIZE)])?;
    Ok(attr)
}

/// sched_getattr(2).
pub fn sys_sched_getattr(&[tid, pointer, size, flags, ..]: &Args) -> Result<usize> {
    let size = size as u32 as usize;
    let sizes = ATTR_SIZE_0..=crate::mm::PAGE_SIZE;
    if pointer == 0 || (tid as i32) < 0 || !sizes.contains(&size) || flags as u32 != 0 {
        return Err(Errno::EINVAL);
    }
    let parameters = thread_or_self(tid)?.sched.parameters();
    let fair = !parameters.policy.is_real_time();
    let size = size.min(ATTR_SIZE);
    let mut attr = [0; ATTR_SIZE];
    let mut put = |at: usize, value: u32| attr[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    put(0, size as u32);
    put(4, u32::from(parameters.policy as u8));
    put(8, u32::from(parameters.reset_on_fork));
    if fair {
        put(16, i32::from(parameters.nice) as u32);
        put(24, SLICE_NS as u32);
    }
    put(20, parameters.priority.into());
    // The highest clamp: the whole CPU.
    put(52, if size == ATTR_SIZE { 1024 } else { 0 });
    uaccess::write_bytes(pointer, &attr[..size])?;
    Ok(0)
}

/// Calls `f` for every thread that getpriority(2) and setpriority(2) mean. `EINVAL`, `ESRCH`.
fn for_each_meant(which: usize, who: usize, mut f: impl FnMut(&Arc<Thread>)) -> Result {
    let mut found = false;
    let mut visit = |thread: &Arc<Thread>| {
        found = true;
        f(thread);
    };
    let own = &current().process;
    match which as u32 {
        abi::PRIO_PROCESS => match who as i32 {
            0 => visit(&current().arc()),
            tid => visit(&thread_or_self(tid as usize).map_err(|_| Errno::ESRCH)?),
        },
        abi::PRIO_PGRP => {
            let group = match who as u32 {
                0 => own.group(),
                group => group,
            };
            for_each_thread(|process| process.group() == group, &mut visit);
        }
        abi::PRIO_USER => {
            let user = match who as u32 {
                0 => own.credentials.get().user.real,
                user => user,
            };
            let is_his = |process: &Process| process.credentials.get().user.real == user;
            for_each_thread(is_his, &mut visit);
        }
        _ => return Err(Errno::EINVAL),
    }
    match found {
        true => Ok(()),
        false => Err(Errno::ESRCH),
    }
}

fn for_each_thread(wanted: impl Fn(&Process) -> bool, f: &mut impl FnMut(&Arc<Thread>)) {
    let mut tid = 0;
    while let Some(thread) = table::next_thread_above(tid) {
        tid = thread.tid();
        if thread.process.pid != 0 && wanted(&thread.process) {
            f(&thread);
        }
    }
}

/// getpriority(2): 20 minus the lowest nice value, so that no answer is negative.
pub fn sys_getpriority(&[which, who, ..]: &Args) -> Result<usize> {
    let mut lowest = NICE.1;
    for_each_meant(which, who, |thread| {
        lowest = lowest.min(thread.sched.parameters().nice);
    })?;
    Ok((20 - i32::from(lowest)) as usize)
}

/// setpriority(2). `EPERM` for another user's thread, `EACCES` for a nice value below what is allowed.
pub fn sys_setpriority(&[which, who, nice, ..]: &Args) -> Result<usize> {
    let nice = (nice as i32).clamp(NICE.0.into(), NICE.1.into()) as i8;
    let mut outcome = Ok(0);
    for_each_meant(which, who, |thread| {
        if let Err(error) = set_nice(thread, nice) {
            outcome = Err(error);
        }
    })?;
    outcome
}

fn set_nice(thread: &Arc<Thread>, nice: i8) -> Result {
    if !is_own(thread) {
        return Err(Errno::EPERM);
    }
    let allowed = may_be_nice(thread, nice);
    sched::change_parameters(thread, |before| match nice < before.nice && !allowed {
        true => Err(Errno::EACCES),
        false => Ok(Parameters { nice, ..before }),
    })
}

/// sched_yield(2).
pub fn sys_sched_yield(_: &Args) -> Result<usize> {
    sched::yield_now();
    Ok(0)
}

/// sched_getaffinity(2): one CPU. Returns the bytes written, as the call itself does.
pub fn sys_sched_getaffinity(&[tid, size, mask, ..]: &Args) -> Result<usize> {
    thread_or_self(tid).map_err(|_| Errno::ESRCH)?;
    if size < 8 || size % 8 != 0 {
        return Err(Errno::EINVAL);
    }
    UserPtr::<u64>::new(mask).write(1)?;
    Ok(8)
}

/// sched_setaffinity(2): any set with the one CPU in it.
pub fn sys_sched_setaffinity(&[tid, size, mask, ..]: &Args) -> Result<usize> {
    let mut first = [0; 1];
    uaccess::read_bytes(mask, &mut first[..size.min(1)])?;
    let thread = thread_or_self(tid).map_err(|_| Errno::ESRCH)?;
    match () {
        () if !is_own(&thread) => Err(Errno::EPERM),
        () if first[0] & 1 == 1 => Ok(0),
        () => Err(Errno::EINVAL),
    }
}

/// getcpu(2).
pub fn sys_getcpu(&[cpu, node, ..]: &Args) -> Result<usize> {
    for pointer in [cpu, node] {
        if let Some(pointer) = UserPtr::<u32>::optional(pointer) {
            pointer.write(0)?;
        }
    }
    Ok(0)
}
