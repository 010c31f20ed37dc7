//! One call, interrupted: the caller, and the helper that watches it, interrupts it and lets it succeed.

use std::io;
use std::mem::zeroed;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use libc::{c_int, c_long};

/// What the caller and its helper tell each other.
pub struct Shared {
    /// Handlers that ran.
    handled: AtomicU32,
    /// The call has returned.
    returned: AtomicU32,
    /// The helper has let the call succeed.
    released: AtomicU32,
    /// A word for futex(2).
    pub word: AtomicU32,
}

static SHARED: std::sync::OnceLock<&'static Shared> = std::sync::OnceLock::new();

pub fn shared() -> &'static Shared {
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
pub struct Row {
    /// Makes the call; its result, or the negative error number.
    call: Box<dyn Fn() -> c_long>,
    /// Lets it succeed, in the helper.
    release: Box<dyn Fn()>,
}

pub fn result(value: impl Into<i64>) -> c_long {
    match value.into() {
        -1 => -c_long::from(io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        value => value,
    }
}

/// A call that ends by itself.
pub fn timed(call: impl Fn() -> c_long + 'static) -> Row {
    row(call, || {})
}

pub fn row(call: impl Fn() -> c_long + 'static, release: impl Fn() + 'static) -> Row {
    Row {
        call: Box::new(call),
        release: Box::new(release),
    }
}

/// Long enough for the signal to come in between.
pub const NAP: libc::timespec = libc::timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

/// How a call is interrupted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum How {
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
pub enum Outcome {
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
pub fn run(prepare: fn() -> Row, how: How) -> Outcome {
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
