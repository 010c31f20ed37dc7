//! System calls on time.

use alloc::sync::Arc;

use linux_raw_sys::general as abi;

use crate::arch::time;
use crate::errno::{Errno, Result};
use crate::fs::timerfd;
use crate::mm::uaccess::UserPtr;
use crate::sched::timer::{Deadline, set_wall_clock_offset_ns, wall_ns};
use crate::sched::wait::{sleep_until, sleep_until_time};
use crate::sched::{Sleep, current};
use crate::task::cpu_clock::{CpuClock, Kind};
use crate::task::exec::stack::CLOCK_TICKS;
use crate::task::table;
use crate::task::thread::RestartBlock;

type Args = [usize; 6];

pub const NS_PER_S: u64 = 1_000_000_000;
const NS_PER_US: u64 = 1_000;
/// What the coarse clocks count in: Linux's usual tick of 250 Hz.
pub const COARSE_NS: u64 = 4_000_000;

/// struct timespec and, with microseconds, struct timeval: seconds and a fraction.
pub type TimePair = [i64; 2];

pub(super) fn timespec(ns: u64) -> TimePair {
    [(ns / NS_PER_S) as i64, (ns % NS_PER_S) as i64]
}

pub(super) fn timeval(ns: u64) -> TimePair {
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
        _ => cpu_clock(clock)?.read().ok_or(Errno::EINVAL),
    }
}

/// The CPU clock that a number stands for: of the caller, or in a negative number of a process or a thread of the caller's
/// (`clock_getcpuclockid(3)`; the layout is that of Linux's `include/linux/posix-timers_types.h`). `EINVAL`.
pub(super) fn cpu_clock(clock: usize) -> Result<CpuClock> {
    const PER_THREAD: i32 = 4;
    const KINDS: i32 = 3;
    let own = &current().process;
    match clock as u32 {
        abi::CLOCK_PROCESS_CPUTIME_ID => return Ok(CpuClock::of_process(own, Kind::Total)),
        abi::CLOCK_THREAD_CPUTIME_ID => {
            return Ok(CpuClock::of_thread(&current().arc(), Kind::Total));
        }
        _ => {}
    }
    let clock = clock as i32;
    // PROF, VIRT, SCHED; the first and the last read alike.
    let kind = match clock & KINDS {
        _ if clock >= 0 => return Err(Errno::EINVAL),
        0 | 2 => Kind::Total,
        1 => Kind::User,
        _ => return Err(Errno::EINVAL),
    };
    let id = !(clock >> 3) as u32;
    if clock & PER_THREAD == 0 {
        return match id {
            0 => Ok(CpuClock::of_process(own, kind)),
            id => table::find(id)
                .map(|process| CpuClock::of_process(&process, kind))
                .ok_or(Errno::EINVAL),
        };
    }
    let thread = match id {
        0 => Some(current().arc()),
        id => table::find_thread(id),
    };
    thread
        .filter(|thread| Arc::ptr_eq(&thread.process, own))
        .map(|thread| CpuClock::of_thread(&thread, kind))
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
    let process = &current().process;
    if let Some(to) = UserPtr::<[i64; 4]>::optional(to) {
        let (user, system) = process.counts().ticks();
        let (child_user, child_system) = process.child_usage.get().ticks();
        to.write([user, system, child_user, child_system])?;
    }
    Ok((time::now_ns() / (NS_PER_S / CLOCK_TICKS as u64)) as usize)
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
        abi::CLOCK_PROCESS_CPUTIME_ID
        | abi::CLOCK_MONOTONIC_RAW
        | abi::CLOCK_REALTIME_COARSE
        | abi::CLOCK_MONOTONIC_COARSE
        | abi::CLOCK_REALTIME_ALARM
        | abi::CLOCK_BOOTTIME_ALARM => return Err(Errno::EOPNOTSUPP),
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
            deadline,
        } => crate::task::futex::wait(address, shared, expected, bitset, Some(deadline)),
    }
}

/// Sets the wall clock to `ns` since 1970. `EPERM`; `EINVAL` for a time before the machine was started, as time since boot counts from
/// then, or one further away than the clock's reach.
fn set_wall_clock(ns: u64) -> Result<usize> {
    check_may_set_clock()?;
    let offset = ns.checked_sub(time::now_ns()).ok_or(Errno::EINVAL)?;
    if ns > MAX_WALL_NS {
        return Err(Errno::EINVAL);
    }
    set_wall_clock_offset_ns(offset);
    timerfd::wall_clock_was_set();
    Ok(0)
}

/// Linux leaves thirty years to the end of the clock's reach.
const MAX_WALL_NS: u64 = i64::MAX as u64 - 30 * 365 * 24 * 3600 * NS_PER_S;

fn check_may_set_clock() -> Result {
    match current().process.credentials.get().user.effective {
        0 => Ok(()),
        _ => Err(Errno::EPERM),
    }
}

/// clock_settime(2).
pub fn sys_clock_settime(&[clock, from, ..]: &Args) -> Result<usize> {
    match clock as u32 {
        abi::CLOCK_REALTIME => {
            let pair = UserPtr::<TimePair>::new(from).read()?;
            set_wall_clock(to_ns(pair, NS_PER_S)?)
        }
        // CPU clocks cannot be set, by nobody.
        clock if (clock as i32) < 0 && read_clock(clock as usize).is_ok() => {
            UserPtr::<TimePair>::new(from).read()?;
            Err(Errno::EPERM)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// settimeofday(2). There is no time zone to be set.
pub fn sys_settimeofday(&[from, zone, ..]: &Args) -> Result<usize> {
    let time = match UserPtr::<TimePair>::optional(from) {
        Some(pointer) => {
            let [seconds, us] = pointer.read()?;
            if !(0..=1_000_000).contains(&us) {
                return Err(Errno::EINVAL);
            }
            let whole = us / 1_000_000;
            Some(to_ns(
                [seconds.saturating_add(whole), us % 1_000_000],
                1_000_000,
            )?)
        }
        None => None,
    };
    if let Some(zone) = UserPtr::<[i32; 2]>::optional(zone) {
        zone.read()?;
    }
    check_may_set_clock()?;
    time.map_or(Ok(0), set_wall_clock)
}

/// struct timex as words of eight bytes.
type Timex = [u64; 26];

/// Places in [`Timex`], and values of it that linux-raw-sys does not name (Linux's `include/uapi/linux/timex.h`).
mod timex {
    pub const MODES: usize = 0;
    pub const MAX_ERROR: usize = 3;
    pub const ESTIMATED_ERROR: usize = 4;
    pub const STATUS: usize = 5;
    pub const CONSTANT: usize = 6;
    pub const PRECISION: usize = 7;
    pub const TOLERANCE: usize = 8;
    pub const SECONDS: usize = 9;
    pub const FRACTION: usize = 10;
    pub const TICK: usize = 11;
    pub const ADJ_SETOFFSET: u32 = 0x100;
    pub const ADJ_NANO: u32 = 0x2000;
    pub const STA_UNSYNC: u64 = 0x40;
    pub const TIME_ERROR: usize = 5;
    /// What Linux says of a clock that nothing has synchronised, us.
    pub const UNKNOWN_ERROR_US: u64 = 16_000_000;
}

/// adjtimex(2) of a clock that nothing disciplines: it can be asked, which says that it is not synchronised, and stepped; other changes
/// are `EINVAL`.
pub fn sys_adjtimex(&[buffer, ..]: &Args) -> Result<usize> {
    let pointer = UserPtr::<Timex>::new(buffer);
    let given = pointer.read()?;
    let modes = given[timex::MODES] as u32;
    if modes != 0 {
        check_may_set_clock()?;
    }
    match modes & !timex::ADJ_NANO {
        0 => {}
        timex::ADJ_SETOFFSET => step_wall_clock(&given, modes & timex::ADJ_NANO != 0)?,
        _ => return Err(Errno::EINVAL),
    }
    let [seconds, us] = timeval(wall_ns());
    let mut answer: Timex = [0; 26];
    for (place, value) in [
        (timex::MODES, u64::from(modes)),
        (timex::MAX_ERROR, timex::UNKNOWN_ERROR_US),
        (timex::ESTIMATED_ERROR, timex::UNKNOWN_ERROR_US),
        (timex::STATUS, timex::STA_UNSYNC),
        (timex::CONSTANT, 2),
        (timex::PRECISION, 1),
        (timex::TOLERANCE, 32_768_000),
        (timex::SECONDS, seconds as u64),
        (timex::FRACTION, us as u64),
        (timex::TICK, 10_000),
    ] {
        answer[place] = value;
    }
    pointer.write(answer)?;
    Ok(timex::TIME_ERROR)
}

/// Moves the wall clock by a number of seconds, negative or not, and a fraction that is not negative. `EINVAL`.
fn step_wall_clock(given: &Timex, nanoseconds: bool) -> Result {
    let unit = if nanoseconds { 1 } else { NS_PER_US };
    let fraction = given[timex::FRACTION]
        .checked_mul(unit)
        .filter(|&ns| ns < NS_PER_S)
        .ok_or(Errno::EINVAL)?;
    let seconds = given[timex::SECONDS] as i64;
    let ns =
        i128::from(wall_ns()) + i128::from(seconds) * i128::from(NS_PER_S) + i128::from(fraction);
    set_wall_clock(u64::try_from(ns).map_err(|_| Errno::EINVAL)?).map(|_| ())
}

/// clock_adjtime(2).
pub fn sys_clock_adjtime(&[clock, buffer, ..]: &Args) -> Result<usize> {
    match clock as u32 {
        abi::CLOCK_REALTIME => sys_adjtimex(&[buffer, 0, 0, 0, 0, 0]),
        clock => {
            read_clock(clock as usize)?;
            Err(Errno::EOPNOTSUPP)
        }
    }
}
