//! Calls that wait for a child, a futex, a time or a signal.

use std::mem::zeroed;
use std::ptr::{null, null_mut};
use std::sync::atomic::Ordering::SeqCst;

use libc::{c_int, c_long};

use crate::harness::{NAP, Row, result, row, shared, timed};

pub fn signal_set(signal: c_int) -> libc::sigset_t {
    // SAFETY: an empty set is valid, and filled in.
    unsafe {
        let mut set = zeroed();
        libc::sigemptyset(&mut set);
        if signal != 0 {
            libc::sigaddset(&mut set, signal);
        }
        set
    }
}

pub fn read_signalfd() -> Row {
    let wanted = signal_set(libc::SIGHUP);
    // SAFETY: a valid set.
    let fd = unsafe {
        libc::sigprocmask(libc::SIG_BLOCK, &wanted, null_mut());
        libc::signalfd(-1, &wanted, 0)
    };
    row(
        move || {
            let mut record = [0u8; 128];
            // SAFETY: a record to be written.
            result(unsafe { libc::read(fd, record.as_mut_ptr().cast(), record.len()) } as i64)
        },
        // SAFETY: no memory is involved.
        || unsafe {
            libc::kill(libc::getppid(), libc::SIGHUP);
        },
    )
}

/// A call that waits for the helper, which ends when it has released it.
pub fn wait4() -> Row {
    // SAFETY: nothing is to be written.
    timed_by_exit(|| result(unsafe { libc::wait4(-1, null_mut(), 0, null_mut()) }))
}

pub fn waitid() -> Row {
    // SAFETY: a place for the answer.
    timed_by_exit(|| unsafe {
        let mut info = zeroed();
        result(libc::waitid(libc::P_ALL, 0, &mut info, libc::WEXITED))
    })
}

fn timed_by_exit(call: impl Fn() -> c_long + 'static) -> Row {
    row(call, || {})
}

pub fn futex(timeout: Option<libc::timespec>) -> Row {
    let word = &shared().word;
    word.store(0, SeqCst);
    row(
        move || {
            let timeout = timeout.as_ref().map_or(null(), std::ptr::from_ref);
            // SAFETY: the word lives for ever, the time-out for the call.
            result(unsafe {
                libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, 0, timeout)
            })
        },
        move || {
            word.store(1, SeqCst);
            // SAFETY: as above.
            unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
        },
    )
}

pub fn nanosleep() -> Row {
    // SAFETY: a valid time; the rest is not asked for.
    timed(|| result(unsafe { libc::nanosleep(&NAP, null_mut()) }))
}

/// glibc's function answers with the error number itself.
pub fn clock_nanosleep(absolute: bool) -> Row {
    timed(move || {
        let mut time = NAP;
        let mut flags = 0;
        if absolute {
            // SAFETY: a place for the answer.
            unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
            time.tv_nsec += NAP.tv_nsec;
            time.tv_sec += time.tv_nsec / 1_000_000_000;
            time.tv_nsec %= 1_000_000_000;
            flags = libc::TIMER_ABSTIME;
        }
        // SAFETY: a valid time; the rest is not asked for.
        -c_long::from(unsafe {
            libc::clock_nanosleep(libc::CLOCK_MONOTONIC, flags, &time, null_mut())
        })
    })
}

/// Calls that only a signal ends are released by another one.
fn signal_the_caller() {
    // SAFETY: no memory is involved.
    unsafe { libc::kill(libc::getppid(), libc::SIGUSR2) };
}

pub fn pause() -> Row {
    // SAFETY: no memory is involved.
    row(|| result(unsafe { libc::pause() }), signal_the_caller)
}

pub fn sigsuspend() -> Row {
    let none = signal_set(0);
    // SAFETY: a valid set.
    row(
        move || result(unsafe { libc::sigsuspend(&none) }),
        signal_the_caller,
    )
}

pub fn sigtimedwait() -> Row {
    let wanted = signal_set(libc::SIGHUP);
    row(
        // SAFETY: a valid set and time; no more is asked for.
        move || unsafe {
            libc::sigprocmask(libc::SIG_BLOCK, &wanted, null_mut());
            let taken = result(libc::sigtimedwait(&wanted, null_mut(), &LONG));
            libc::sigprocmask(libc::SIG_UNBLOCK, &wanted, null_mut());
            taken
        },
        // SAFETY: no memory is involved.
        || unsafe {
            libc::kill(libc::getppid(), libc::SIGHUP);
        },
    )
}

pub const LONG: libc::timespec = libc::timespec {
    tv_sec: 20,
    tv_nsec: 0,
};
