//! System calls on interval timers.

use linux_raw_sys::general as abi;

use super::args::{Args, max_files, usable_file};
use super::time::{NS_PER_S, TimePair, timespec, timeval, to_ns};
use crate::errno::{Errno, Result};
use crate::fs::timerfd;
use crate::mm::uaccess::UserPtr;
use crate::sched::current;
use crate::task::interval::Setting;

/// alarm(2).
pub fn sys_alarm(&[seconds, ..]: &Args) -> Result<usize> {
    let before = current().process.set_real_timer(Setting {
        value: u64::from(seconds as u32) * NS_PER_S,
        interval: 0,
    })?;
    let rounded = (before.value + NS_PER_S / 2) / NS_PER_S;
    Ok(if before.value > 0 {
        rounded.max(1) as usize
    } else {
        0
    })
}

/// struct itimerval and struct itimerspec: interval and value, each seconds and a fraction.
type Pairs = [TimePair; 2];

const US_PER_S: u64 = 1_000_000;

fn itimerval(setting: Setting) -> Pairs {
    [timeval(setting.interval), timeval(setting.value)]
}

fn itimerspec(setting: Setting) -> Pairs {
    [timespec(setting.interval), timespec(setting.value)]
}

/// `EINVAL` for negative values or a fraction of a second or more.
fn to_setting([interval, value]: Pairs, fractions_per_s: u64) -> Result<Setting> {
    Ok(Setting {
        value: to_ns(value, fractions_per_s)?,
        interval: to_ns(interval, fractions_per_s)?,
    })
}

/// setitimer(2); ITIMER_REAL only, the other two are `EINVAL`.
pub fn sys_setitimer(&[which, new, old, ..]: &Args) -> Result<usize> {
    // A NULL value stops the timer, as on Linux.
    let new = match UserPtr::<Pairs>::optional(new) {
        Some(pointer) => to_setting(pointer.read()?, US_PER_S)?,
        None => Setting::default(),
    };
    if which as u32 != abi::ITIMER_REAL {
        return Err(Errno::EINVAL);
    }
    let before = current().process.set_real_timer(new)?;
    if let Some(pointer) = UserPtr::<Pairs>::optional(old) {
        pointer.write(itimerval(before))?;
    }
    Ok(0)
}

/// getitimer(2).
pub fn sys_getitimer(&[which, to, ..]: &Args) -> Result<usize> {
    if which as u32 != abi::ITIMER_REAL {
        return Err(Errno::EINVAL);
    }
    let setting = current().process.real_timer.get();
    UserPtr::<Pairs>::new(to)
        .write(itimerval(setting))
        .map(|()| 0)
}

/// timerfd_create(2).
pub fn sys_timerfd_create(&[clock, flags, ..]: &Args) -> Result<usize> {
    let flags = flags as u32;
    if flags & !(abi::TFD_CLOEXEC | abi::TFD_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let wall = match clock as u32 {
        abi::CLOCK_REALTIME | abi::CLOCK_REALTIME_ALARM => true,
        abi::CLOCK_MONOTONIC | abi::CLOCK_BOOTTIME | abi::CLOCK_BOOTTIME_ALARM => false,
        _ => return Err(Errno::EINVAL),
    };
    let file = timerfd::new(wall, flags & abi::TFD_NONBLOCK)?;
    let close_on_exec = flags & abi::TFD_CLOEXEC != 0;
    let fd = current()
        .process
        .files
        .insert(file, 0, max_files(), close_on_exec)?;
    Ok(fd as usize)
}

/// timerfd_settime(2).
pub fn sys_timerfd_settime(&[fd, flags, new, old, ..]: &Args) -> Result<usize> {
    let flags = flags as u32;
    let pairs = UserPtr::<Pairs>::new(new).read()?;
    if flags & !(abi::TFD_TIMER_ABSTIME | abi::TFD_TIMER_CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL);
    }
    let new = to_setting(pairs, NS_PER_S)?;
    let file = usable_file(fd)?;
    let absolute = flags & abi::TFD_TIMER_ABSTIME != 0;
    let cancel = flags & abi::TFD_TIMER_CANCEL_ON_SET != 0;
    let before = timerfd::timer_of(&file)?.set(new, absolute, cancel)?;
    if let Some(pointer) = UserPtr::<Pairs>::optional(old) {
        pointer.write(itimerspec(before))?;
    }
    Ok(0)
}

/// timerfd_gettime(2).
pub fn sys_timerfd_gettime(&[fd, to, ..]: &Args) -> Result<usize> {
    let file = usable_file(fd)?;
    let setting = timerfd::timer_of(&file)?.get();
    UserPtr::<Pairs>::new(to)
        .write(itimerspec(setting))
        .map(|()| 0)
}
