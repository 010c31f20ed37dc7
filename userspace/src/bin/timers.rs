//! Timers that ring into a signal: how rings that nobody took are counted, what becomes of a deleted timer's signal, and timers by CPU
//! time (`timer_create(2)`, `setitimer(2)`).

use std::mem::zeroed;
use std::process::ExitCode;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use libc::{c_int, c_long, c_void};
use userspace::report::Demo;

static SIGNALS: AtomicU32 = AtomicU32::new(0);
static OVERRUNS: AtomicI32 = AtomicI32::new(0);

extern "C" fn handler(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel's siginfo; the overrun count of a timer is its second word after the header (sigaction(2)).
    let overruns = unsafe { *info.cast::<c_int>().add(5) };
    SIGNALS.fetch_add(1, SeqCst);
    OVERRUNS.store(overruns, SeqCst);
}

fn handle(signal: c_int) {
    // SAFETY: a handler that only stores numbers.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigaction(signal, &action, null_mut());
    }
}

fn block(how: c_int, signal: c_int) {
    // SAFETY: a set that is filled in first.
    unsafe {
        let mut set = zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        libc::sigprocmask(how, &set, null_mut());
    }
}

/// A POSIX timer, by the calls as they are.
struct Timer(c_int);

impl Timer {
    fn new(clock: libc::clockid_t, signal: c_int) -> Timer {
        let mut id: c_int = -1;
        // SAFETY: a valid event, and a place for the number.
        unsafe {
            let mut event: libc::sigevent = zeroed();
            event.sigev_notify = libc::SIGEV_SIGNAL;
            event.sigev_signo = signal;
            let made = libc::syscall(libc::SYS_timer_create, c_long::from(clock), &event, &mut id);
            assert_eq!(made, 0, "a timer");
        }
        Timer(id)
    }

    fn set(&self, first: Duration, interval: Duration) {
        let timespec = |time: Duration| libc::timespec {
            tv_sec: time.as_secs() as libc::time_t,
            tv_nsec: c_long::from(time.subsec_nanos()),
        };
        let value = libc::itimerspec {
            it_interval: timespec(interval),
            it_value: timespec(first),
        };
        // SAFETY: a valid value; the old one is not asked for.
        unsafe { libc::syscall(libc::SYS_timer_settime, self.0, 0, &value, 0) };
    }

    fn overruns(&self) -> c_long {
        // SAFETY: no memory is involved.
        unsafe { libc::syscall(libc::SYS_timer_getoverrun, self.0) }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: no memory is involved.
        unsafe { libc::syscall(libc::SYS_timer_delete, self.0) };
    }
}

const MS: Duration = Duration::from_millis(1);
const SIGNAL: c_int = libc::SIGUSR1;

fn sleep(time: Duration) {
    std::thread::sleep(time);
}

fn spin_until(condition: impl Fn() -> bool) {
    while !condition() {
        std::hint::spin_loop();
    }
}

fn signals() -> u32 {
    SIGNALS.swap(0, SeqCst)
}

fn overruns(demo: &mut Demo) {
    demo.step("a timer rings every 10 ms while its signal is blocked for 100 ms");
    let timer = Timer::new(libc::CLOCK_MONOTONIC, SIGNAL);
    block(libc::SIG_BLOCK, SIGNAL);
    timer.set(10 * MS, 10 * MS);
    sleep(105 * MS);
    demo.check_eq(
        timer.overruns(),
        0,
        "nothing is counted before the signal is taken",
    );
    block(libc::SIG_UNBLOCK, SIGNAL);
    timer.set(Duration::ZERO, Duration::ZERO);
    let overruns = OVERRUNS.load(SeqCst);
    demo.varies(format_args!("{overruns} overruns"));
    demo.check_eq(signals(), 1, "one signal comes");
    demo.check(overruns >= 9, "it tells of the other rings");
}

fn deleted(demo: &mut Demo) {
    demo.step("a timer is deleted while its signal is pending");
    let (timer, other) = (
        Timer::new(libc::CLOCK_MONOTONIC, SIGNAL),
        Timer::new(libc::CLOCK_MONOTONIC, SIGNAL),
    );
    block(libc::SIG_BLOCK, SIGNAL);
    timer.set(MS, Duration::ZERO);
    other.set(MS, Duration::ZERO);
    sleep(10 * MS);
    drop(timer);
    block(libc::SIG_UNBLOCK, SIGNAL);
    demo.check_eq(signals(), 1, "only the other timer's signal comes");
}

fn cpu_time(demo: &mut Demo) {
    demo.step("a timer by CPU time rings while the process computes, not while it sleeps");
    let timer = Timer::new(libc::CLOCK_PROCESS_CPUTIME_ID, SIGNAL);
    timer.set(20 * MS, 20 * MS);
    sleep(60 * MS);
    demo.check_eq(SIGNALS.load(SeqCst), 0, "asleep: no signal");
    let start = Instant::now();
    spin_until(|| SIGNALS.load(SeqCst) >= 3);
    demo.varies(format_args!(
        "{} ms for three rings",
        start.elapsed().as_millis()
    ));
    demo.check(signals() >= 3, "computing: it rings again and again");
}

fn interval_timers(demo: &mut Demo) {
    demo.step("the three interval timers of a process");
    for (name, which, signal) in [
        ("ITIMER_REAL", libc::ITIMER_REAL, libc::SIGALRM),
        ("ITIMER_VIRTUAL", libc::ITIMER_VIRTUAL, libc::SIGVTALRM),
        ("ITIMER_PROF", libc::ITIMER_PROF, libc::SIGPROF),
    ] {
        handle(signal);
        let time = libc::timeval {
            tv_sec: 0,
            tv_usec: 10_000,
        };
        let value = libc::itimerval {
            it_interval: time,
            it_value: time,
        };
        // SAFETY: valid values; the old ones are not asked for.
        unsafe {
            libc::setitimer(which, &value, null_mut());
            spin_until(|| SIGNALS.load(SeqCst) >= 2);
            libc::setitimer(which, &zeroed(), null_mut());
        }
        demo.check(signals() >= 2, format_args!("{name} sends signal {signal}"));
    }
}

fn main() -> ExitCode {
    let mut demo = Demo::start(
        "timers",
        "rings that nobody took are counted, and CPU time has timers of its own",
    );
    handle(SIGNAL);
    overruns(&mut demo);
    deleted(&mut demo);
    cpu_time(&mut demo);
    interval_timers(&mut demo);
    demo.finish()
}
