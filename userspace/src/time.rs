//! Timers by setitimer(2) and sleeps by pause(2), the calls that this stage is about.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use nix::sys::signal::{SaFlags, Signal};

use crate::signals;

/// Starts ITIMER_REAL: SIGALRM after `first`, then every `interval` (zero: only once). Zero and zero stops it.
pub fn set_timer(first: Duration, interval: Duration) -> io::Result<()> {
    let timeval = |time: Duration| libc::timeval {
        tv_sec: time.as_secs() as libc::time_t,
        tv_usec: libc::suseconds_t::from(time.subsec_micros()),
    };
    let value = libc::itimerval {
        it_interval: timeval(interval),
        it_value: timeval(first),
    };
    // SAFETY: a valid itimerval; the old value is not asked for.
    match unsafe { libc::setitimer(libc::ITIMER_REAL, &value, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Stops ITIMER_REAL.
pub fn stop_timer() -> io::Result<()> {
    set_timer(Duration::ZERO, Duration::ZERO)
}

static TICKS: AtomicU64 = AtomicU64::new(0);

extern "C" fn tick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    TICKS.fetch_add(1, SeqCst);
}

/// Sleeps at least `time`. Takes over SIGALRM and ITIMER_REAL. The timer repeats, so a tick before pause(2) is not a lost wake-up.
pub fn sleep(time: Duration) -> io::Result<()> {
    let start = Instant::now();
    signals::on(Signal::SIGALRM, SaFlags::empty(), tick)?;
    set_timer(time.max(Duration::from_millis(1)), Duration::from_millis(5))?;
    while start.elapsed() < time {
        nix::unistd::pause();
    }
    stop_timer()
}

/// Whole milliseconds, for lines that vary.
pub fn ms(time: Duration) -> u128 {
    time.as_millis()
}

/// CLOCK_MONOTONIC in nanoseconds: async-signal-safe, for handlers.
pub fn now_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid place for the result.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
