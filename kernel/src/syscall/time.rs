//! System calls on time.

use alloc::sync::Arc;

use linux_raw_sys::general as abi;

use crate::arch::time;
use crate::errno::{Errno, Result};
use crate::mm::uaccess::UserPtr;
use crate::sched::timer::{Deadline, wall_ns};
use crate::sched::wait::{sleep_until, sleep_until_time};
use crate::sched::{Sleep, current};
use crate::task::exec::stack::CLOCK_TICKS;
use crate::task::itimer::Setting;
use crate::task::thread::RestartBlock;
use crate::task::{Process, Thread, table};

type Args = [usize; 6];

pub const NS_PER_S: u64 = 1_000_000_000;
const NS_PER_US: u64 = 1_000;
/// What the coarse clocks count in: Linux's usual tick of 250 Hz.
const COARSE_NS: u64 = 4_000_000;

/// struct timespec and, with microseconds, struct timeval: seconds and a fraction.
pub type TimePair = [i64; 2];

fn timespec(ns: u64) -> TimePair {
    [(ns / NS_PER_S) as i64, (ns % NS_PER_S) as i64]
}

fn timeval(ns: u64) -> TimePair {
    [(ns / NS_PER_S) as i64, (ns % NS_PER_S / NS_PER_US) as i64]
}

/// Nanoseconds of a seconds-and-fraction pair; what does not fit is for ever. `EINVAL` for negative values or a fraction of a second
/// or more.
pub fn to_ns([seconds, fraction]: TimePair, fractions_per_s: u64) -> Result<u64> {
    let seconds = u64::try_from(seconds).map_err(|_| Errno::EINVAL)?;
    let fraction = u64::try_from(fraction)
        .ok()
        .filter(|&f| f < fractions_per_s)
        .ok_or(Errno::EINVAL)?;
    Ok(seconds
        .saturating_mul(NS_PER_S)
        .saturating_add(fraction * (NS_PER_S / fractions_per_s)))
}

/// A deadline from a user's relative struct timespec; NULL: none. `EFAULT`, `EINVAL`.
pub fn read_timeout(pointer: usize) -> Result<Option<u64>> {
    match UserPtr::<TimePair>::optional(pointer) {
        None => Ok(None),
        Some(pointer) => Ok(Some(
            time::now_ns().saturating_add(to_ns(pointer.read()?, NS_PER_S)?),
        )),
    }
}

/// The monotonic clock as of the last whole unit of the coarse ones.
fn coarse_ns() -> u64 {
    let now = time::now_ns();
    now - now % COARSE_NS
}

/// The clock's reading, ns. `EINVAL` for an unknown clock.
fn read_clock(clock: usize) -> Result<u64> {
    match clock as u32 {
        abi::CLOCK_REALTIME | abi::CLOCK_TAI => Ok(wall_ns()),
        abi::CLOCK_MONOTONIC | abi::CLOCK_MONOTONIC_RAW | abi::CLOCK_BOOTTIME => Ok(time::now_ns()),
        abi::CLOCK_MONOTONIC_COARSE => Ok(coarse_ns()),
        abi::CLOCK_REALTIME_COARSE => Ok(coarse_ns() + time::wall_clock_offset_ns()),
        abi::CLOCK_PROCESS_CPUTIME_ID => Ok(cpu_time_of_process(&current().process)),
        abi::CLOCK_THREAD_CPUTIME_ID => Ok(cpu_time_of_thread(&current())),
        clock => read_cpu_clock(clock as i32),
    }
}

/// The current turn counts too, where it is the current thread's.
fn cpu_time_of_thread(thread: &Thread) -> u64 {
    let runs = core::ptr::eq(thread, &*current());
    let turn = if runs {
        thread.sched.current_turn_ns()
    } else {
        0
    };
    thread.sched.cpu_time_ns() + turn
}

fn cpu_time_of_process(process: &Process) -> u64 {
    let runs = core::ptr::eq(process, &*current().process);
    let turn = if runs {
        current().sched.current_turn_ns()
    } else {
        0
    };
    process.cpu_time_ns() + turn
}

/// The CPU clock of a process or a thread, whose number is in a negative clock id (`clock_getcpuclockid(3)`; the layout is that of
/// Linux's `include/linux/posix-timers_types.h`). User and system time are not told apart, so the three kinds read alike.
fn read_cpu_clock(clock: i32) -> Result<u64> {
    const PER_THREAD: i32 = 4;
    const KINDS: i32 = 3;
    if clock >= 0 || clock & KINDS == KINDS {
        return Err(Errno::EINVAL);
    }
    let id = !(clock >> 3) as u32;
    if clock & PER_THREAD == 0 {
        let process = if id == 0 {
            Some(current().process.clone())
        } else {
            table::find(id)
        };
        return process
            .map(|process| cpu_time_of_process(&process))
            .ok_or(Errno::EINVAL);
    }
    let thread = if id == 0 {
        Some(current().arc())
    } else {
        table::find_thread(id)
    };
    let own = |thread: &Arc<Thread>| Arc::ptr_eq(&thread.process, &current().process);
    thread
        .filter(own)
        .map(|thread| cpu_time_of_thread(&thread))
        .ok_or(Errno::EINVAL)
}

/// clock_gettime(2).
pub fn sys_clock_gettime(&[clock, to, ..]: &Args) -> Result<usize> {
    UserPtr::new(to)
        .write(timespec(read_clock(clock)?))
        .map(|()| 0)
}

/// clock_getres(2).
pub fn sys_clock_getres(&[clock, to, ..]: &Args) -> Result<usize> {
    read_clock(clock)?;
    let coarse = matches!(
        clock as u32,
        abi::CLOCK_REALTIME_COARSE | abi::CLOCK_MONOTONIC_COARSE
    );
    if let Some(to) = UserPtr::optional(to) {
        to.write(timespec(if coarse { COARSE_NS } else { 1 }))?;
    }
    Ok(0)
}

/// gettimeofday(2).
pub fn sys_gettimeofday(&[to, zone, ..]: &Args) -> Result<usize> {
    if let Some(to) = UserPtr::optional(to) {
        to.write(timeval(read_clock(abi::CLOCK_REALTIME as usize)?))?;
    }
    if let Some(zone) = UserPtr::<[i32; 2]>::optional(zone) {
        zone.write([0, 0])?;
    }
    Ok(0)
}

/// time(2).
pub fn sys_time(&[to, ..]: &Args) -> Result<usize> {
    let seconds = read_clock(abi::CLOCK_REALTIME as usize)? / NS_PER_S;
    if let Some(to) = UserPtr::<u64>::optional(to) {
        to.write(seconds)?;
    }
    Ok(seconds as usize)
}

/// times(2).
pub fn sys_times(&[to, ..]: &Args) -> Result<usize> {
    let ticks = |ns: u64| (ns / (NS_PER_S / CLOCK_TICKS as u64)) as i64;
    let process = &current().process;
    let children = process
        .child_usage
        .cpu_ns
        .load(core::sync::atomic::Ordering::Relaxed);
    if let Some(to) = UserPtr::<[i64; 4]>::optional(to) {
        to.write([ticks(process.cpu_time_ns()), 0, ticks(children), 0])?;
    }
    Ok(ticks(time::now_ns()) as usize)
}

/// Sleeps until `deadline_ns`; if a signal ends it, writes the rest and leaves a restart block.
fn sleep(deadline_ns: u64, remaining: usize) -> Result<usize> {
    if sleep_until(Sleep::Interruptible, deadline_ns).is_ok() {
        return Ok(0);
    }
    if let Some(pointer) = UserPtr::optional(remaining) {
        pointer.write(timespec(deadline_ns.saturating_sub(time::now_ns())))?;
    }
    *current().restart.lock() = RestartBlock::Nanosleep {
        deadline_ns,
        remaining,
    };
    Err(Errno::ERESTART_RESTARTBLOCK)
}

/// nanosleep(2).
pub fn sys_nanosleep(&[request, remaining, ..]: &Args) -> Result<usize> {
    let ns = to_ns(UserPtr::<TimePair>::new(request).read()?, NS_PER_S)?;
    sleep(time::now_ns().saturating_add(ns), remaining)
}

/// clock_nanosleep(2).
pub fn sys_clock_nanosleep(&[clock, flags, request, remaining, ..]: &Args) -> Result<usize> {
    let base = match clock as u32 {
        abi::CLOCK_REALTIME | abi::CLOCK_TAI => Deadline::Wall,
        abi::CLOCK_MONOTONIC | abi::CLOCK_BOOTTIME => Deadline::Monotonic,
        abi::CLOCK_PROCESS_CPUTIME_ID => return Err(Errno::EOPNOTSUPP),
        _ => return Err(Errno::EINVAL),
    };
    let ns = to_ns(UserPtr::<TimePair>::new(request).read()?, NS_PER_S)?;
    if flags as u32 & abi::TIMER_ABSTIME == 0 {
        // What is relative does not follow a clock that is set.
        return sleep(time::now_ns().saturating_add(ns), remaining);
    }
    match sleep_until_time(Sleep::Interruptible, base(ns)) {
        Ok(()) => Ok(0),
        Err(_) => Err(Errno::ERESTARTNOHAND),
    }
}

/// restart_syscall(2): goes on with an interrupted sleep.
pub fn sys_restart_syscall(_: &Args) -> Result<usize> {
    let block = core::mem::replace(&mut *current().restart.lock(), RestartBlock::None);
    match block {
        RestartBlock::None => Err(Errno::EINTR),
        RestartBlock::Nanosleep {
            deadline_ns,
            remaining,
        } => sleep(deadline_ns, remaining),
        RestartBlock::Poll {
            fds,
            nfds,
            deadline_ns,
        } => super::poll::poll_until(fds, nfds, deadline_ns),
        RestartBlock::Futex {
            address,
            shared,
            expected,
            bitset,
            deadline_ns,
        } => crate::task::futex::wait(address, shared, expected, bitset, Some(deadline_ns)),
    }
}

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

/// struct itimerval: interval and value, each seconds and microseconds.
type Itimerval = [TimePair; 2];

fn itimerval(setting: Setting) -> Itimerval {
    [timeval(setting.interval), timeval(setting.value)]
}

/// setitimer(2); ITIMER_REAL only, the other two are `EINVAL`.
pub fn sys_setitimer(&[which, new, old, ..]: &Args) -> Result<usize> {
    if which as u32 != abi::ITIMER_REAL {
        return Err(Errno::EINVAL);
    }
    // A NULL value stops the timer, as on Linux.
    let [interval, value] = match UserPtr::<Itimerval>::optional(new) {
        Some(pointer) => pointer.read()?,
        None => [[0; 2]; 2],
    };
    let before = current().process.set_real_timer(Setting {
        value: to_ns(value, 1_000_000)?,
        interval: to_ns(interval, 1_000_000)?,
    })?;
    if let Some(pointer) = UserPtr::<Itimerval>::optional(old) {
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
    UserPtr::<Itimerval>::new(to)
        .write(itimerval(setting))
        .map(|()| 0)
}
