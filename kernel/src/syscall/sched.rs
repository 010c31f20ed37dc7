//! System calls on scheduling policy (`sched(7)`).
//!
//! Everybody runs under the one time-sharing policy, with equal weight; the real-time policies are refused as they are to a process
//! that may not use them.

use linux_raw_sys::general as abi;

use crate::errno::{Errno, Result};
use crate::mm::uaccess::UserPtr;
use crate::sched::SLICE_NS;
use crate::syscall::process::thread_or_self;

type Args = [usize; 6];

const TIME_SHARING: [u32; 3] = [abi::SCHED_NORMAL, abi::SCHED_BATCH, abi::SCHED_IDLE];
const REAL_TIME: [u32; 2] = [abi::SCHED_FIFO, abi::SCHED_RR];
/// Priorities of the real-time policies.
const REAL_TIME_PRIORITIES: (usize, usize) = (1, 99);

/// The priorities that a policy has. `EINVAL` for an unknown one.
fn priorities(policy: usize) -> Result<(usize, usize)> {
    match policy as u32 {
        policy if TIME_SHARING.contains(&policy) || policy == abi::SCHED_DEADLINE => Ok((0, 0)),
        policy if REAL_TIME.contains(&policy) => Ok(REAL_TIME_PRIORITIES),
        _ => Err(Errno::EINVAL),
    }
}

/// sched_get_priority_min(2).
pub fn sys_sched_get_priority_min(&[policy, ..]: &Args) -> Result<usize> {
    Ok(priorities(policy)?.0)
}

/// sched_get_priority_max(2).
pub fn sys_sched_get_priority_max(&[policy, ..]: &Args) -> Result<usize> {
    Ok(priorities(policy)?.1)
}

/// sched_rr_get_interval(2): the time slice.
pub fn sys_sched_rr_get_interval(&[pid, to, ..]: &Args) -> Result<usize> {
    if (pid as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    thread_or_self(pid)?;
    UserPtr::<[i64; 2]>::new(to).write([0, SLICE_NS])?;
    Ok(0)
}

/// sched_getscheduler(2): everybody is SCHED_OTHER.
pub fn sys_sched_getscheduler(&[pid, ..]: &Args) -> Result<usize> {
    if (pid as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    thread_or_self(pid).map(|_| abi::SCHED_NORMAL as usize)
}

/// sched_setscheduler(2): SCHED_OTHER stays what it is; real-time policies are `EPERM`.
pub fn sys_sched_setscheduler(&[pid, policy, parameters, ..]: &Args) -> Result<usize> {
    if (pid as i32) < 0 || parameters == 0 {
        return Err(Errno::EINVAL);
    }
    let priority = UserPtr::<i32>::new(parameters).read()?;
    thread_or_self(pid)?;
    // SCHED_RESET_ON_FORK changes nothing where there is one policy.
    let policy = policy & !(abi::SCHED_RESET_ON_FORK as usize);
    let (lowest, highest) = priorities(policy)?;
    if !usize::try_from(priority).is_ok_and(|priority| (lowest..=highest).contains(&priority)) {
        return Err(Errno::EINVAL);
    }
    match policy as u32 {
        abi::SCHED_NORMAL => Ok(0),
        abi::SCHED_DEADLINE => Err(Errno::EINVAL),
        _ => Err(Errno::EPERM),
    }
}

/// sched_getparam(2).
pub fn sys_sched_getparam(&[pid, to, ..]: &Args) -> Result<usize> {
    if (pid as i32) < 0 || to == 0 {
        return Err(Errno::EINVAL);
    }
    thread_or_self(pid)?;
    UserPtr::<i32>::new(to).write(0).map(|()| 0)
}

/// sched_setparam(2): the one priority of SCHED_OTHER.
pub fn sys_sched_setparam(&[pid, parameters, ..]: &Args) -> Result<usize> {
    sys_sched_setscheduler(&[pid, abi::SCHED_NORMAL as usize, parameters, 0, 0, 0])
}
