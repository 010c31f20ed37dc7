//! Which blocking calls go on after a signal, and which end with EINTR (`signal(7)`): each one is interrupted by a handler without
//! SA_RESTART, by one with it, and by being stopped and continued.
//!
//! A helper process watches the caller's state, so that the signal comes when the call sleeps, and lets the call succeed once it sleeps
//! again. A call that returns before that was ended by the signal.

use std::io;
use std::mem::zeroed;
use std::process::ExitCode;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use libc::{c_int, c_long};
use userspace::report::Demo;

/// What the caller and its helper tell each other.
struct Shared {
    /// Handlers that ran.
    handled: AtomicU32,
    /// The call has returned.
    returned: AtomicU32,
    /// The helper has let the call succeed.
    released: AtomicU32,
    /// A word for futex(2).
    word: AtomicU32,
}

static SHARED: std::sync::OnceLock<&'static Shared> = std::sync::OnceLock::new();

fn shared() -> &'static Shared {
    SHARED.get_or_init(|| {
        // SAFETY: fresh memory, zero at first, which is a valid value of atomics; never unmapped.
        unsafe {
            let memory = libc::mmap(
                null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert!(memory != libc::MAP_FAILED, "memory");
            &*memory.cast::<Shared>()
        }
    })
}

extern "C" fn handler(_: c_int) {
    shared().handled.fetch_add(1, SeqCst);
}

/// One blocking call.
struct Row {
    /// Makes the call; its result, or the negative error number.
    call: Box<dyn Fn() -> c_long>,
    /// Lets it succeed, in the helper.
    release: Box<dyn Fn()>,
}

fn result(value: impl Into<i64>) -> c_long {
    match value.into() {
        -1 => -c_long::from(io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        value => value,
    }
}

/// A call that ends by itself.
fn timed(call: impl Fn() -> c_long + 'static) -> Row {
    row(call, || {})
}

fn row(call: impl Fn() -> c_long + 'static, release: impl Fn() + 'static) -> Row {
    Row {
        call: Box::new(call),
        release: Box::new(release),
    }
}

/// Long enough for the signal to come in between.
const NAP: libc::timespec = libc::timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

fn pipe() -> (c_int, c_int) {
    let mut ends = [0; 2];
    // SAFETY: a valid place for two descriptors.
    let made = unsafe { libc::pipe(ends.as_mut_ptr()) };
    assert_eq!(made, 0, "a pipe");
    (ends[0], ends[1])
}

fn write_one(fd: c_int) {
    let one = 1u64;
    // SAFETY: eight valid bytes.
    unsafe { libc::write(fd, (&raw const one).cast(), 8) };
}

fn read_eight(fd: c_int) -> c_long {
    let mut bytes = [0u8; 8];
    // SAFETY: eight bytes to be written.
    result(unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), 8) } as i64)
}

fn signal_set(signal: c_int) -> libc::sigset_t {
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

fn read_pipe() -> Row {
    let (read, write) = pipe();
    row(move || read_eight(read), move || write_one(write))
}

fn write_pipe() -> Row {
    let (read, write) = pipe();
    let page = [0u8; 4096];
    // SAFETY: valid descriptors and bytes.
    unsafe {
        libc::fcntl(write, libc::F_SETFL, libc::O_NONBLOCK);
        while libc::write(write, page.as_ptr().cast(), page.len()) > 0 {}
        libc::fcntl(write, libc::F_SETFL, 0);
    }
    row(
        // SAFETY: as above.
        move || result(unsafe { libc::write(write, page.as_ptr().cast(), page.len()) } as i64),
        move || {
            let mut page = [0u8; 4096];
            // SAFETY: a page to be written.
            unsafe { libc::read(read, page.as_mut_ptr().cast(), page.len()) };
        },
    )
}

fn eventfd(count: u32) -> c_int {
    // SAFETY: no memory is involved.
    unsafe { libc::eventfd(count, 0) }
}

fn read_eventfd() -> Row {
    let fd = eventfd(0);
    row(move || read_eight(fd), move || write_one(fd))
}

fn write_eventfd() -> Row {
    let fd = eventfd(0);
    let most = u64::MAX - 1;
    // SAFETY: eight valid bytes.
    unsafe { libc::write(fd, (&raw const most).cast(), 8) };
    row(
        move || {
            let one = 1u64;
            // SAFETY: eight valid bytes.
            result(unsafe { libc::write(fd, (&raw const one).cast(), 8) } as i64)
        },
        move || {
            read_eight(fd);
        },
    )
}

fn read_timerfd() -> Row {
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, 0) };
    timed(move || {
        // SAFETY: a valid value; the old one is not asked for.
        unsafe {
            let mut value: libc::itimerspec = zeroed();
            value.it_value = NAP;
            libc::timerfd_settime(fd, 0, &value, null_mut());
        }
        read_eight(fd)
    })
}

fn open_fifo() -> Row {
    let path = c"/tmp/restart-fifo";
    // SAFETY: a valid path.
    unsafe {
        libc::unlink(path.as_ptr());
        libc::mkfifo(path.as_ptr(), 0o600);
    }
    row(
        // SAFETY: a valid path.
        move || result(unsafe { libc::open(path.as_ptr(), libc::O_RDONLY) }),
        // SAFETY: a valid path.
        move || unsafe {
            libc::open(path.as_ptr(), libc::O_WRONLY);
        },
    )
}

/// A call that waits for the helper, which ends when it has released it.
fn wait4() -> Row {
    // SAFETY: nothing is to be written.
    timed_by_exit(|| result(unsafe { libc::wait4(-1, null_mut(), 0, null_mut()) }))
}

fn waitid() -> Row {
    // SAFETY: a place for the answer.
    timed_by_exit(|| unsafe {
        let mut info = zeroed();
        result(libc::waitid(libc::P_ALL, 0, &mut info, libc::WEXITED))
    })
}

fn timed_by_exit(call: impl Fn() -> c_long + 'static) -> Row {
    row(call, || {})
}

fn futex(timeout: Option<libc::timespec>) -> Row {
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

fn nanosleep() -> Row {
    // SAFETY: a valid time; the rest is not asked for.
    timed(|| result(unsafe { libc::nanosleep(&NAP, null_mut()) }))
}

/// glibc's function answers with the error number itself.
fn clock_nanosleep(absolute: bool) -> Row {
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

fn read_signalfd() -> Row {
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

/// A file that the caller locks when its helper lets go.
fn locked_file() -> c_int {
    let path = c"/tmp/restart-lock";
    // SAFETY: a valid path.
    unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o600) }
}

fn flock() -> Row {
    let (held, wanted) = (locked_file(), locked_file());
    // SAFETY: no memory is involved.
    unsafe { libc::flock(held, libc::LOCK_EX) };
    row(
        // SAFETY: no memory is involved.
        move || result(unsafe { libc::flock(wanted, libc::LOCK_EX) }),
        // SAFETY: no memory is involved.
        move || unsafe {
            libc::flock(held, libc::LOCK_UN);
        },
    )
}

/// Locks of open files: one process can wait for itself.
fn record_lock() -> Row {
    let (held, wanted) = (locked_file(), locked_file());
    let lock = |fd: c_int, kind: c_int, command: c_int| {
        // SAFETY: a valid lock: all of the file.
        unsafe {
            let mut lock: libc::flock = zeroed();
            lock.l_type = kind as libc::c_short;
            result(libc::fcntl(fd, command, &lock))
        }
    };
    lock(held, libc::F_WRLCK, libc::F_OFD_SETLK);
    row(
        move || lock(wanted, libc::F_WRLCK, libc::F_OFD_SETLKW),
        move || {
            lock(held, libc::F_UNLCK, libc::F_OFD_SETLK);
        },
    )
}

/// Calls that only a signal ends are released by another one.
fn signal_the_caller() {
    // SAFETY: no memory is involved.
    unsafe { libc::kill(libc::getppid(), libc::SIGUSR2) };
}

fn pause() -> Row {
    // SAFETY: no memory is involved.
    row(|| result(unsafe { libc::pause() }), signal_the_caller)
}

fn sigsuspend() -> Row {
    let none = signal_set(0);
    // SAFETY: a valid set.
    row(
        move || result(unsafe { libc::sigsuspend(&none) }),
        signal_the_caller,
    )
}

fn sigtimedwait() -> Row {
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

const LONG: libc::timespec = libc::timespec {
    tv_sec: 20,
    tv_nsec: 0,
};

/// How a descriptor is waited for.
#[derive(Clone, Copy)]
enum Call {
    Poll(c_int),
    Ppoll,
    Select,
    Pselect,
    EpollWait,
    EpollPwait,
}

fn poll(how: Call) -> Row {
    let fd = eventfd(0);
    row(move || poll_once(how, fd), move || write_one(fd))
}

fn poll_once(how: Call, fd: c_int) -> c_long {
    let none = signal_set(0);
    let mut polled = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: all that the calls are given lives as long as they do.
    unsafe {
        let mut set: libc::fd_set = zeroed();
        libc::FD_SET(fd, &mut set);
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: 0,
        };
        let epoll = || {
            let epoll = libc::epoll_create1(0);
            libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &mut event.clone());
            epoll
        };
        result(match how {
            Call::Poll(timeout) => libc::poll(&mut polled, 1, timeout),
            Call::Ppoll => libc::ppoll(&mut polled, 1, &LONG, &none),
            Call::Select => {
                let mut time = libc::timeval {
                    tv_sec: 20,
                    tv_usec: 0,
                };
                libc::select(fd + 1, &mut set, null_mut(), null_mut(), &mut time)
            }
            Call::Pselect => libc::pselect(fd + 1, &mut set, null_mut(), null_mut(), &LONG, &none),
            Call::EpollWait => libc::epoll_wait(epoll(), &mut event, 1, 20_000),
            Call::EpollPwait => libc::epoll_pwait(epoll(), &mut event, 1, 20_000, &none),
        })
    }
}

/// A call's name, what prepares it, and how it comes out for each of [`WAYS`].
type Case = (&'static str, fn() -> Row, [Outcome; 3]);

/// Goes on after a handler with SA_RESTART.
const RESTARTS: [Outcome; 3] = [Interrupted, GoesOn, GoesOn];
/// Never goes on after a handler, whatever its flags.
const NO_HANDLER: [Outcome; 3] = [Interrupted, Interrupted, GoesOn];
/// Is ended even by a stop.
const NEVER: [Outcome; 3] = [Interrupted, Interrupted, Interrupted];

const CASES: &[Case] = &[
    ("read, pipe", read_pipe, RESTARTS),
    ("write, full pipe", write_pipe, RESTARTS),
    ("read, eventfd", read_eventfd, RESTARTS),
    ("write, full eventfd", write_eventfd, RESTARTS),
    ("read, timerfd", read_timerfd, RESTARTS),
    ("read, signalfd", read_signalfd, RESTARTS),
    ("open, FIFO", open_fifo, RESTARTS),
    ("flock", flock, RESTARTS),
    ("fcntl, record lock", record_lock, RESTARTS),
    ("wait4", wait4, RESTARTS),
    ("waitid", waitid, RESTARTS),
    ("futex", || futex(None), RESTARTS),
    ("futex, time-out", || futex(Some(LONG)), NO_HANDLER),
    ("nanosleep", nanosleep, NO_HANDLER),
    ("clock_nanosleep", || clock_nanosleep(false), NO_HANDLER),
    (
        "clock_nanosleep, until",
        || clock_nanosleep(true),
        NO_HANDLER,
    ),
    ("pause", pause, NO_HANDLER),
    ("sigsuspend", sigsuspend, NO_HANDLER),
    ("sigtimedwait", sigtimedwait, NEVER),
    ("poll", || poll(Call::Poll(-1)), NO_HANDLER),
    ("poll, time-out", || poll(Call::Poll(20_000)), NO_HANDLER),
    ("ppoll", || poll(Call::Ppoll), NO_HANDLER),
    ("select", || poll(Call::Select), NO_HANDLER),
    ("pselect", || poll(Call::Pselect), NO_HANDLER),
    ("epoll_wait", || poll(Call::EpollWait), NEVER),
    ("epoll_pwait", || poll(Call::EpollPwait), NEVER),
];

/// How a call is interrupted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Handler { restart: bool },
    Stop,
}

/// The state letter of the process `pid`: S while it sleeps, T while it is stopped.
fn state_of(pid: c_int) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    after_name.chars().next().unwrap_or('?')
}

fn until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The helper's part: interrupts the caller in its call, and lets that succeed.
fn help(caller: c_int, how: How, release: &dyn Fn()) {
    let returned = || shared().returned.load(SeqCst) > 0;
    let kill = |signal| {
        // SAFETY: no memory is involved.
        unsafe { libc::kill(caller, signal) };
    };
    until(|| state_of(caller) == 'S');
    match how {
        How::Handler { .. } => {
            kill(libc::SIGUSR1);
            until(|| shared().handled.load(SeqCst) > 0);
        }
        How::Stop => {
            kill(libc::SIGSTOP);
            until(|| state_of(caller) == 'T');
            kill(libc::SIGCONT);
            until(|| state_of(caller) != 'T');
        }
    }
    until(|| returned() || state_of(caller) == 'S');
    if !returned() {
        shared().released.store(1, SeqCst);
        release();
    }
}

/// How a call came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It went on until the helper let it succeed, or its time was over.
    GoesOn,
    /// It ended with EINTR.
    Interrupted,
    /// Anything else.
    Wrong,
}

use Outcome::{GoesOn, Interrupted};

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Outcome::GoesOn => "goes on",
            Outcome::Interrupted => "EINTR",
            Outcome::Wrong => "wrong",
        })
    }
}

fn on(signal: c_int, restart: bool) {
    // SAFETY: a handler that only counts.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = if restart { libc::SA_RESTART } else { 0 };
        libc::sigaction(signal, &action, null_mut());
    }
}

/// The caller's part, in a process of its own: makes the call while its helper interrupts it.
fn call(prepare: fn() -> Row, how: How) -> Outcome {
    on(libc::SIGUSR1, how == How::Handler { restart: true });
    on(libc::SIGUSR2, false);
    let row = prepare();
    let caller = std::process::id() as c_int;
    // SAFETY: the child only runs the helper.
    let helper = unsafe { libc::fork() };
    if helper == 0 {
        help(caller, how, &row.release);
        // SAFETY: ends the helper, without what the caller has to tidy up.
        unsafe { libc::_exit(0) };
    }
    let result = (row.call)();
    shared().returned.store(1, SeqCst);
    let released = shared().released.load(SeqCst) > 0;
    // SAFETY: nothing is to be written. The helper may be gone already.
    while unsafe { libc::waitpid(helper, null_mut(), 0) } == -1
        && io::Error::last_os_error().raw_os_error() == Some(libc::EINTR)
    {}
    match result {
        _ if released => GoesOn,
        result if result == -c_long::from(libc::EINTR) => Interrupted,
        _ => Outcome::Wrong,
    }
}

/// Runs a case in a fresh process, so that being stopped is no business of whoever started the demo.
fn run(prepare: fn() -> Row, how: How) -> Outcome {
    for counter in [&shared().handled, &shared().returned, &shared().released] {
        counter.store(0, SeqCst);
    }
    // SAFETY: the child makes its call and ends.
    match unsafe { libc::fork() } {
        0 => {
            let outcome = call(prepare, how);
            // SAFETY: ends the child.
            unsafe { libc::_exit(outcome as c_int) }
        }
        child => {
            let mut status = 0;
            // SAFETY: a place for the status.
            unsafe { libc::waitpid(child, &mut status, 0) };
            match (libc::WIFEXITED(status), libc::WEXITSTATUS(status)) {
                (true, 0) => GoesOn,
                (true, 1) => Interrupted,
                _ => Outcome::Wrong,
            }
        }
    }
}

const WAYS: [How; 3] = [
    How::Handler { restart: false },
    How::Handler { restart: true },
    How::Stop,
];

fn main() -> ExitCode {
    let mut demo = Demo::start(
        "restart",
        "which blocking calls go on after a signal, and which end with EINTR",
    );
    demo.step("interrupt each call by a handler, by one with SA_RESTART, and by a stop");
    demo.note(format_args!(
        "{:<24} {:<8} {:<8} stopped and continued",
        "", "handler", "restart"
    ));
    let mut as_expected = 0;
    for (name, prepare, expected) in CASES {
        let seen = WAYS.map(|how| run(*prepare, how));
        let [plain, restart, stop] = seen;
        demo.note(format_args!("{name:<24} {plain:<8} {restart:<8} {stop}"));
        as_expected += usize::from(seen == *expected);
    }
    demo.check_eq(
        as_expected,
        CASES.len(),
        "each call came out as signal(7) says",
    );
    demo.finish()
}
