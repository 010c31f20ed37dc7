//! Real-time signals queue, in order and with a value each, as long as the user's allowance lasts.

use std::io;
use std::process::ExitCode;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};

use userspace::report::Demo;
use userspace::signals::{mask_set as mask, set_of};

/// An allowance that is soon used up. Other processes of the same user may have signals pending on Linux, so that fewer may fit.
const ALLOWED: u64 = 100;

fn main() -> ExitCode {
    let mut demo = Demo::start(
        "sigqueue-rt",
        "real-time signals queue in order, each with its value, up to a limit",
    );
    let first = libc::SIGRTMIN();
    let set = set_of(&[first, first + 1, libc::SIGUSR1]);
    mask(libc::SIG_BLOCK, &set);
    in_order(&mut demo, first, &set);
    by_number(&mut demo, first, &set);
    standard(&mut demo, &set);
    no_allowance(&mut demo, first, &set);
    used_up(&mut demo, first, &set);
    errors(&mut demo, first);
    demo.finish()
}

static VALUES: [AtomicI32; 8] = [const { AtomicI32::new(0) }; 8];
static SEEN: AtomicUsize = AtomicUsize::new(0);

extern "C" fn handler(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel's siginfo is valid while the handler runs.
    let value = value_of(unsafe { &*info });
    if let Some(place) = VALUES.get(SEEN.fetch_add(1, SeqCst)) {
        place.store(value, SeqCst);
    }
}

fn in_order(demo: &mut Demo, signal: i32, set: &libc::sigset_t) {
    demo.step("six values for one blocked signal, then it is unblocked");
    // SAFETY: the handler touches only its siginfo and atomics.
    let installed = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(signal, &action, std::ptr::null_mut())
    };
    assert_eq!(installed, 0, "sigaction");
    let values = [6, -5, i32::MAX, 3, i32::MIN, 1];
    let sent = values.iter().all(|&value| queue(signal, value).is_ok());
    demo.check(sent, "all are queued");
    mask(libc::SIG_UNBLOCK, set);
    mask(libc::SIG_BLOCK, set);
    let seen: Vec<i32> = VALUES[..SEEN.load(SeqCst).min(VALUES.len())]
        .iter()
        .map(|value| value.load(SeqCst))
        .collect();
    demo.check_eq(
        seen.as_slice(),
        values.as_slice(),
        "the handler ran once for each, in the order of sending",
    );
}

fn by_number(demo: &mut Demo, first: i32, set: &libc::sigset_t) {
    demo.step("two signals by turns, taken with sigtimedwait(2)");
    for value in 0..3 {
        queue(first + 1, 10 + value).expect("sigqueue");
        queue(first, value).expect("sigqueue");
    }
    let taken = take_all(set);
    let order: Vec<(i32, i32)> = taken
        .iter()
        .map(|info| (info.si_signo - first, value_of(info)))
        .collect();
    demo.check_eq(
        order.as_slice(),
        &[(0, 0), (0, 1), (0, 2), (1, 10), (1, 11), (1, 12)],
        "all of the lower number come first, each number in the order of sending",
    );
    // SAFETY: these calls only ask.
    let (pid, uid) = unsafe { (libc::getpid(), libc::getuid()) };
    let named = |info: &libc::siginfo_t| {
        // SAFETY: sigqueue(3) fills in the sender.
        let sender = unsafe { (info.si_pid(), info.si_uid()) };
        info.si_code == libc::SI_QUEUE && sender == (pid, uid)
    };
    demo.check(
        taken.iter().all(named),
        "each says SI_QUEUE and names the sender",
    );
}

fn standard(demo: &mut Demo, set: &libc::sigset_t) {
    demo.step("three values for SIGUSR1");
    for value in [7, 8, 9] {
        queue(libc::SIGUSR1, value).expect("sigqueue");
    }
    let values: Vec<i32> = take_all(set).iter().map(value_of).collect();
    demo.check_eq(values.as_slice(), &[7], "only the first one is kept");
}

fn no_allowance(demo: &mut Demo, signal: i32, set: &libc::sigset_t) {
    demo.step("RLIMIT_SIGPENDING is 0");
    let before = limit(0);
    demo.check_eq(
        queue(signal, 1),
        Err(libc::EAGAIN),
        "a real-time signal with a value is refused with EAGAIN",
    );
    demo.check_eq(queue(libc::SIGUSR1, 2), Ok(()), "a standard one is not");
    let taken = take_all(set);
    let plain = |info: &libc::siginfo_t| {
        // SAFETY: what kill(2) would fill in.
        info.si_code == libc::SI_USER && unsafe { info.si_pid() == 0 && info.si_uid() == 0 }
    };
    demo.check(
        taken.len() == 1 && taken.iter().all(plain),
        "but arrives without its value and its sender",
    );
    // SAFETY: two numbers.
    let sent = unsafe { libc::kill(libc::getpid(), signal) + libc::kill(libc::getpid(), signal) };
    let taken = take_all(set);
    demo.check(
        sent == 0 && taken.len() == 1 && taken.iter().all(plain),
        "kill(2) with a real-time signal succeeds, but two become one, without a sender",
    );
    // SAFETY: two numbers.
    let sent = unsafe { libc::kill(libc::getpid(), libc::SIGUSR1) };
    let taken = take_all(set);
    demo.check(
        // SAFETY: kill(2) fills in the sender.
        sent == 0 && taken.len() == 1 && unsafe { taken[0].si_pid() == libc::getpid() },
        "kill(2) with a standard signal names its sender all the same",
    );
    limit(before);
}

fn used_up(demo: &mut Demo, signal: i32, set: &libc::sigset_t) {
    demo.step("RLIMIT_SIGPENDING is 100, and signals are queued until it is used up");
    let before = limit(ALLOWED);
    let mut count = 0;
    let refused = loop {
        match queue(signal, count) {
            Ok(()) if count <= ALLOWED as i32 => count += 1,
            other => break other,
        }
    };
    demo.varies(format_args!("{count} were queued"));
    demo.check_eq(refused, Err(libc::EAGAIN), "then comes EAGAIN");
    demo.check(
        0 < count && count <= ALLOWED as i32,
        "no more than the limit were queued",
    );
    let values: Vec<i32> = take_all(set).iter().map(value_of).collect();
    demo.check(
        values.iter().copied().eq(0..count),
        "all that were queued arrive, in order",
    );
    demo.check_eq(queue(signal, 5), Ok(()), "there is room again");
    demo.check_eq(take_all(set).len(), 1, "and that one arrives");
    limit(before);
}

fn errors(demo: &mut Demo, signal: i32) {
    demo.step("what is refused");
    demo.check_eq(queue(65, 0), Err(libc::EINVAL), "there is no signal 65");
    demo.check_eq(queue(0, 0), Ok(()), "signal 0 only asks");
    demo.check_eq(
        queue_to(i32::MAX, signal, 0),
        Err(libc::ESRCH),
        "there is no such process",
    );
}

fn queue(signal: i32, value: i32) -> Result<(), i32> {
    // SAFETY: asks for a number.
    queue_to(unsafe { libc::getpid() }, signal, value)
}

unsafe extern "C" {
    /// The C library's own; the libc crate lacks it.
    fn sigqueue(pid: libc::pid_t, signal: libc::c_int, value: libc::sigval) -> libc::c_int;
}

/// sigqueue(3), or its errno.
fn queue_to(pid: i32, signal: i32, value: i32) -> Result<(), i32> {
    let value = libc::sigval {
        sival_ptr: std::ptr::without_provenance_mut(value as u32 as usize),
    };
    // SAFETY: the value is a number, not a pointer.
    match unsafe { sigqueue(pid, signal, value) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)),
    }
}

/// The integer that came along.
fn value_of(info: &libc::siginfo_t) -> i32 {
    // SAFETY: only asked of signals from sigqueue(3).
    unsafe { info.si_value() }.sival_ptr.addr() as i32
}

/// Sets the soft limit, and gives the one before.
fn limit(soft: u64) -> u64 {
    // SAFETY: valid pointers to a limit.
    unsafe {
        let mut now: libc::rlimit = std::mem::zeroed();
        assert_eq!(libc::getrlimit(libc::RLIMIT_SIGPENDING, &mut now), 0);
        let before = std::mem::replace(&mut now.rlim_cur, soft);
        assert_eq!(libc::setrlimit(libc::RLIMIT_SIGPENDING, &now), 0);
        before
    }
}

/// Takes what is pending, without waiting.
fn take_all(set: &libc::sigset_t) -> Vec<libc::siginfo_t> {
    let now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    std::iter::from_fn(|| {
        // SAFETY: valid pointers; a siginfo is plain numbers.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            (libc::sigtimedwait(set, &mut info, &now) > 0).then_some(info)
        }
    })
    .collect()
}
