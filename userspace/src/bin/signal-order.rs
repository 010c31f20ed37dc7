//! Many signals are pending at once: which is taken first, and in which order their handlers run.

use std::process::ExitCode;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};

use userspace::report::Demo;
use userspace::signals::{mask_set as mask, set_of};

/// A real-time signal that no C library keeps for itself.
const REAL_TIME: i32 = 40;

fn main() -> ExitCode {
    let mut demo = Demo::start(
        "signal-order",
        "which of many pending signals is taken first, and whose handler runs first",
    );
    let kinds = [
        libc::SIGHUP,
        libc::SIGUSR1,
        libc::SIGSEGV,
        libc::SIGUSR2,
        libc::SIGFPE,
        libc::SIGTERM,
        REAL_TIME,
        REAL_TIME + 1,
    ];
    let all = set_of(&kinds);
    mask(libc::SIG_BLOCK, &all);
    taken(&mut demo, &all);
    private_first(&mut demo, &all);
    frames(&mut demo, &kinds, &all);
    one_by_one(&mut demo, &kinds, &all);
    partly_masked(&mut demo, &[libc::SIGHUP, libc::SIGUSR2]);
    demo.finish()
}

/// Sends from high to low, so that the order of sending is not the order of taking.
fn send_to_process() {
    for signal in [
        REAL_TIME + 1,
        REAL_TIME,
        libc::SIGTERM,
        libc::SIGUSR2,
        libc::SIGSEGV,
        libc::SIGUSR1,
        libc::SIGFPE,
        REAL_TIME,
        libc::SIGHUP,
        libc::SIGHUP,
    ] {
        send(signal);
    }
}

fn taken(demo: &mut Demo, all: &libc::sigset_t) {
    demo.step(
        "ten signals wait for the process, sent from high to low; sigtimedwait(2) takes them",
    );
    send_to_process();
    demo.check_eq(
        take_all(all),
        names(&[8, 11, 1, 10, 12, 15, 40, 40, 41]),
        "FPE and SEGV first, as if a fault had sent them; then the lowest number; only real-time signals queue",
    );
}

fn private_first(demo: &mut Demo, all: &libc::sigset_t) {
    demo.step("some wait for the process, some for the thread");
    for signal in [libc::SIGHUP, libc::SIGSEGV, libc::SIGUSR1] {
        send(signal);
    }
    for signal in [REAL_TIME, libc::SIGUSR2, libc::SIGUSR1] {
        send_to_thread(signal);
    }
    demo.check_eq(
        take_all(all),
        names(&[10, 12, 40, 11, 1, 10]),
        "the thread's own come first, whatever their numbers",
    );
}

fn frames(demo: &mut Demo, kinds: &[i32], all: &libc::sigset_t) {
    demo.step("the same ten have handlers and are unblocked together");
    for &signal in kinds {
        on(signal, &set_of(&[]));
    }
    send_to_process();
    mask(libc::SIG_UNBLOCK, all);
    demo.check_eq(
        take_log(),
        names(&[41, 40, 40, 15, 12, 10, 1, 11, 8]),
        "all frames are built before a handler runs, so the last one built runs first; a second signal 40 waits for the first",
    );

    demo.step("some of them wait for the thread");
    mask(libc::SIG_BLOCK, all);
    send(libc::SIGHUP);
    send_to_thread(libc::SIGTERM);
    send_to_thread(libc::SIGUSR2);
    mask(libc::SIG_UNBLOCK, all);
    demo.check_eq(
        take_log(),
        names(&[1, 15, 12]),
        "the thread's own frames are the outer ones",
    );
}

fn one_by_one(demo: &mut Demo, kinds: &[i32], all: &libc::sigset_t) {
    demo.step("each handler's sa_mask blocks all the others");
    for &signal in kinds {
        on(signal, all);
    }
    mask(libc::SIG_BLOCK, all);
    send_to_process();
    mask(libc::SIG_UNBLOCK, all);
    demo.check_eq(
        take_log(),
        names(&[8, 11, 1, 10, 12, 15, 40, 40, 41]),
        "one frame at a time: they run in the order in which they are taken",
    );
}

fn partly_masked(demo: &mut Demo, pair: &[i32; 2]) {
    demo.step("the lower signal's sa_mask blocks the higher, not the other way round");
    let [low, high] = *pair;
    on(low, &set_of(&[high]));
    on(high, &set_of(&[]));
    let both = set_of(pair);
    mask(libc::SIG_BLOCK, &both);
    send(high);
    send(low);
    mask(libc::SIG_UNBLOCK, &both);
    demo.check_eq(
        take_log(),
        names(pair),
        "the lower is taken first and holds the higher back",
    );
}

static LOG: [AtomicI32; 16] = [const { AtomicI32::new(0) }; 16];
static LOGGED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn handler(signal: libc::c_int) {
    if let Some(place) = LOG.get(LOGGED.fetch_add(1, SeqCst)) {
        place.store(signal, SeqCst);
    }
}

fn take_log() -> String {
    let count = LOGGED.swap(0, SeqCst).min(LOG.len());
    let signals: Vec<i32> = LOG[..count]
        .iter()
        .map(|place| place.load(SeqCst))
        .collect();
    names(&signals)
}

fn names(signals: &[i32]) -> String {
    let names: Vec<String> = signals.iter().map(i32::to_string).collect();
    names.join(" ")
}

fn on(signal: i32, while_it_runs: &libc::sigset_t) {
    // SAFETY: the handler touches only atomics.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_mask = *while_it_runs;
        libc::sigaction(signal, &action, std::ptr::null_mut())
    };
    assert_eq!(result, 0, "sigaction");
}

fn send(signal: i32) {
    // SAFETY: two numbers.
    let result = unsafe { libc::kill(libc::getpid(), signal) };
    assert_eq!(result, 0, "kill");
}

fn send_to_thread(signal: i32) {
    // SAFETY: three numbers.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), signal) };
    assert_eq!(result, 0, "tgkill");
}

/// Takes what is pending, without waiting.
fn take_all(set: &libc::sigset_t) -> String {
    let now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: valid pointers; nobody asks for the siginfo.
    let take = || unsafe { libc::sigtimedwait(set, std::ptr::null_mut(), &now) };
    let signals: Vec<i32> = std::iter::repeat_with(take)
        .take_while(|&signal| signal > 0)
        .collect();
    names(&signals)
}
