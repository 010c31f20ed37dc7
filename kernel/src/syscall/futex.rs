//! System calls on futexes: futex(2), and the lists of robust ones.

use core::sync::atomic::Ordering;

use linux_raw_sys::general as abi;

use super::time::{NS_PER_S, TimePair, to_ns};
use crate::arch::time;
use crate::errno::{Errno, Result};
use crate::mm::uaccess::UserPtr;
use crate::sched::current;
use crate::sched::timer::Deadline;
use crate::task::{futex, robust, table};

type Args = [usize; 6];

/// futex(2), without the operations on futexes that inherit priorities, which are `ENOSYS`.
pub fn sys_futex(&[address, operation, value, timeout, second, last]: &Args) -> Result<usize> {
    let operation = operation as u32;
    let shared = operation & abi::FUTEX_PRIVATE_FLAG == 0;
    let command = operation & abi::FUTEX_CMD_MASK as u32;
    let real_time = operation & abi::FUTEX_CLOCK_REALTIME != 0;
    if real_time && command != abi::FUTEX_WAIT_BITSET {
        return Err(Errno::ENOSYS);
    }
    let (value, last) = (value as u32, last as u32);
    // The time-out's place holds a number where none is taken.
    let count = timeout as i32;
    match command {
        abi::FUTEX_WAIT => {
            let deadline = deadline(timeout, Clock::Relative)?;
            futex::wait(address, shared, value, futex::ANY, deadline)
        }
        abi::FUTEX_WAIT_BITSET => {
            let clock = if real_time {
                Clock::RealTime
            } else {
                Clock::Monotonic
            };
            futex::wait(address, shared, value, last, deadline(timeout, clock)?)
        }
        abi::FUTEX_WAKE => futex::wake(address, shared, at_least_one(value as i32), futex::ANY),
        abi::FUTEX_WAKE_BITSET => futex::wake(address, shared, at_least_one(value as i32), last),
        abi::FUTEX_REQUEUE | abi::FUTEX_CMP_REQUEUE => {
            let expected = (command == abi::FUTEX_CMP_REQUEUE).then_some(last);
            let wake = usize::try_from(value as i32).map_err(|_| Errno::EINVAL)?;
            let requeue = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
            futex::requeue(address, second, shared, wake, requeue, expected)
        }
        abi::FUTEX_WAKE_OP => {
            let (first_count, second_count) = (at_least_one(value as i32), at_least_one(count));
            futex::wake_op(address, second, shared, first_count, second_count, last)
        }
        _ => Err(Errno::ENOSYS),
    }
}

/// As on Linux, whoever wakes nobody wakes one.
fn at_least_one(count: i32) -> usize {
    count.max(1) as usize
}

/// What a time-out counts from.
enum Clock {
    Relative,
    Monotonic,
    RealTime,
}

/// When the time-out is over; NULL: never. `EFAULT`, `EINVAL`.
fn deadline(pointer: usize, clock: Clock) -> Result<Option<Deadline>> {
    let Some(pointer) = UserPtr::<TimePair>::optional(pointer) else {
        return Ok(None);
    };
    let ns = to_ns(pointer.read()?, NS_PER_S)?;
    Ok(Some(match clock {
        Clock::Relative => Deadline::Monotonic(time::now_ns().saturating_add(ns)),
        Clock::Monotonic => Deadline::Monotonic(ns),
        Clock::RealTime => Deadline::Wall(ns),
    }))
}

/// set_robust_list(2).
pub fn sys_set_robust_list(&[head, len, ..]: &Args) -> Result<usize> {
    if len != robust::HEAD_SIZE {
        return Err(Errno::EINVAL);
    }
    current().robust_list.store(head as u64, Ordering::Relaxed);
    Ok(0)
}

/// get_robust_list(2).
pub fn sys_get_robust_list(&[tid, head, len, ..]: &Args) -> Result<usize> {
    let list = match tid as u32 {
        0 => current().robust_list.load(Ordering::Relaxed),
        tid => table::find_thread(tid)
            .filter(|thread| thread.process.pid != 0)
            .ok_or(Errno::ESRCH)?
            .robust_list
            .load(Ordering::Relaxed),
    };
    UserPtr::new(len).write(robust::HEAD_SIZE)?;
    UserPtr::new(head).write(list).map(|()| 0)
}
