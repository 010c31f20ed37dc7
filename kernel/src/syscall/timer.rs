//! System calls on interval timers.

use alloc::sync::Arc;

use linux_raw_sys::general as abi;

use super::args::{Args, max_files, usable_file};
use super::time::{NS_PER_S, TimePair, cpu_clock, timespec, timeval, to_ns};
use crate::errno::{Errno, Result};
use crate::fs::timerfd;
use crate::mm::uaccess::UserPtr;
use crate::sched::current;
use crate::signal::{Signal, send};
use crate::task::cpu_clock::Kind;
use crate::task::interval::Setting;
use crate::task::posix_timer::{Clock, Notify, PosixTimer};
use crate::task::table;

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

/// Which timer setitimer(2) means.
enum Which {
    Real,
    Cpu(Kind),
}

fn which(number: usize) -> Result<Which> {
    match number as u32 {
        abi::ITIMER_REAL => Ok(Which::Real),
        abi::ITIMER_VIRTUAL => Ok(Which::Cpu(Kind::User)),
        abi::ITIMER_PROF => Ok(Which::Cpu(Kind::Total)),
        _ => Err(Errno::EINVAL),
    }
}

/// setitimer(2).
pub fn sys_setitimer(&[number, new, old, ..]: &Args) -> Result<usize> {
    // A NULL value stops the timer, as on Linux.
    let new = match UserPtr::<Pairs>::optional(new) {
        Some(pointer) => to_setting(pointer.read()?, US_PER_S)?,
        None => Setting::default(),
    };
    let process = &current().process;
    let before = match which(number)? {
        Which::Real => process.set_real_timer(new)?,
        Which::Cpu(kind) => process.set_cpu_itimer(kind, new),
    };
    if let Some(pointer) = UserPtr::<Pairs>::optional(old) {
        pointer.write(itimerval(before))?;
    }
    Ok(0)
}

/// getitimer(2).
pub fn sys_getitimer(&[number, to, ..]: &Args) -> Result<usize> {
    let process = &current().process;
    let setting = match which(number)? {
        Which::Real => process.real_timer.get(),
        Which::Cpu(kind) => process.cpu_itimer(kind),
    };
    UserPtr::<Pairs>::new(to)
        .write(itimerval(setting))
        .map(|()| 0)
}

/// The clock of a POSIX timer. `EINVAL`; `EOPNOTSUPP` for a clock that has no timers.
fn clock_of_timer(clock: usize) -> Result<Clock> {
    match clock as u32 {
        abi::CLOCK_REALTIME | abi::CLOCK_TAI => Ok(Clock::Wall),
        abi::CLOCK_MONOTONIC | abi::CLOCK_BOOTTIME => Ok(Clock::Monotonic),
        // The alarm clocks need hardware that wakes the machine.
        abi::CLOCK_MONOTONIC_RAW
        | abi::CLOCK_REALTIME_COARSE
        | abi::CLOCK_MONOTONIC_COARSE
        | abi::CLOCK_REALTIME_ALARM
        | abi::CLOCK_BOOTTIME_ALARM => Err(Errno::EOPNOTSUPP),
        _ => cpu_clock(clock).map(Clock::Cpu),
    }
}

/// struct sigevent: value, signal, how, thread.
type SigEvent = [u64; 8];

/// Whom a timer tells, and how: by struct sigevent, or SIGALRM with the timer's number. `EFAULT`, `EINVAL`.
fn notification(event: usize, id: i32) -> Result<(Notify, Option<Signal>, u64)> {
    const TO_THREAD: u32 = abi::SIGEV_THREAD_ID | abi::SIGEV_SIGNAL;
    let process = &current().process;
    let to_process = || Notify::Process(Arc::downgrade(process));
    let Some(pointer) = UserPtr::<SigEvent>::optional(event) else {
        return Ok((to_process(), Some(Signal::SIGALRM), id as u64));
    };
    let [value, signal_and_how, thread, ..] = pointer.read()?;
    let signal = Signal::new(signal_and_how as u32 as usize);
    let notify = match (signal_and_how >> 32) as u32 {
        abi::SIGEV_NONE => return Ok((Notify::Nobody, None, value)),
        abi::SIGEV_SIGNAL | abi::SIGEV_THREAD => to_process(),
        TO_THREAD => table::find_thread(thread as u32)
            .filter(|thread| Arc::ptr_eq(&thread.process, process))
            .map(|thread| Notify::Thread(Arc::downgrade(&thread)))
            .ok_or(Errno::EINVAL)?,
        _ => return Err(Errno::EINVAL),
    };
    Ok((notify, Some(signal.ok_or(Errno::EINVAL)?), value))
}

/// timer_create(2).
pub fn sys_timer_create(&[clock, event, to, ..]: &Args) -> Result<usize> {
    let clock = clock_of_timer(clock)?;
    let process = &current().process;
    // It counts as a queued signal even if it tells nobody.
    let entry = send::entry_for_timer(process, Signal::SIGALRM)?;
    let id = process.posix_timers.new_id();
    let (notify, signal, value) = notification(event, id)?;
    let timer = PosixTimer::new(
        id,
        clock,
        (notify, signal.unwrap_or(Signal::SIGALRM), value),
        entry,
    )?;
    UserPtr::<i32>::new(to).write(id)?;
    process.posix_timers.insert(timer);
    Ok(0)
}

/// timer_settime(2).
pub fn sys_timer_settime(&[id, flags, new, old, ..]: &Args) -> Result<usize> {
    if new == 0 {
        return Err(Errno::EINVAL);
    }
    let mut new = to_setting(UserPtr::<Pairs>::new(new).read()?, NS_PER_S)?;
    if new.value == 0 {
        new.interval = 0;
    }
    let timer = current().process.posix_timers.find(id as i32)?;
    let before = timer.set(new, flags as u32 & abi::TIMER_ABSTIME != 0);
    if let Some(pointer) = UserPtr::<Pairs>::optional(old) {
        pointer.write(itimerspec(before))?;
    }
    Ok(0)
}

/// timer_gettime(2).
pub fn sys_timer_gettime(&[id, to, ..]: &Args) -> Result<usize> {
    let setting = current().process.posix_timers.find(id as i32)?.get();
    UserPtr::<Pairs>::new(to)
        .write(itimerspec(setting))
        .map(|()| 0)
}

/// timer_getoverrun(2).
pub fn sys_timer_getoverrun(&[id, ..]: &Args) -> Result<usize> {
    let timer = current().process.posix_timers.find(id as i32)?;
    Ok(timer.overrun() as usize)
}

/// timer_delete(2).
pub fn sys_timer_delete(&[id, ..]: &Args) -> Result<usize> {
    current().process.posix_timers.delete(id as i32).map(|()| 0)
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
        .files()
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
