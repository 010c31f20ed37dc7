//! The random steps of one seed.

/// Adds a line to the log of the thread whose turn it is.
macro_rules! note {
    ($($arg:tt)*) => { $crate::log::line($crate::steps::me(), format_args!($($arg)*)) };
}

mod child;
mod send;
mod state;
mod take;

use std::arch::asm;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use state::{alternate_stack, set_action};
use userspace::rng::Rng;

use super::handler::{self, DICE, INDEX, ME, PARENT, SENT};
use super::log::Shared;
use super::turns::{self, TIDS};

/// The signals that play: of every default action, standard and real-time.
pub const SIGNALS: [i32; 22] = [
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGTRAP,
    libc::SIGUSR1,
    libc::SIGUSR1,
    libc::SIGSEGV,
    libc::SIGUSR2,
    libc::SIGUSR2,
    libc::SIGPIPE,
    libc::SIGTERM,
    libc::SIGCHLD,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGURG,
    libc::SIGWINCH,
    libc::SIGFPE,
    35,
    36,
    36,
    50,
    64,
];

/// The seed's numbers, which whoever's turn it is draws from.
static RNG: Mutex<Option<Rng>> = Mutex::new(None);
/// Threads besides the first.
static OTHERS: AtomicUsize = AtomicUsize::new(0);

/// No process has this number: Linux's largest is below 1 << 22, whatever pid_max(5) says.
const NOBODY: i32 = 5_000_000;

fn below(bound: usize) -> usize {
    let mut rng = RNG.lock().expect("nobody panics");
    rng.as_mut().expect("set at the start").below(bound)
}

fn bits() -> u64 {
    let mut rng = RNG.lock().expect("nobody panics");
    rng.as_mut().expect("set at the start").bits()
}

fn a_signal() -> i32 {
    loop {
        let signal = SIGNALS[below(SIGNALS.len())];
        let stops = matches!(signal, libc::SIGTSTP | libc::SIGTTIN | libc::SIGCONT);
        // Who of several threads goes on first after a stop is not determined.
        if !stops || OTHERS.load(SeqCst) == 0 {
            return signal;
        }
    }
}

/// A set of about a quarter of the signals.
fn a_set() -> u64 {
    let chosen = bits() & bits();
    SIGNALS
        .iter()
        .enumerate()
        .filter(|(n, _)| chosen >> n & 1 != 0)
        .fold(0, |set, (_, &signal)| set | 1 << (signal - 1))
}

fn me() -> usize {
    INDEX.get()
}

/// A result with its errno.
fn result(value: i64) -> String {
    if value < 0 {
        let errno = std::io::Error::last_os_error().raw_os_error();
        format!("-{}", errno.unwrap_or(0))
    } else {
        value.to_string()
    }
}

/// Runs the seed in this process.
pub fn run(seed: u64, steps: usize, shared: Shared) {
    *RNG.lock().expect("nobody panics") = Some(Rng::new(seed));
    // SAFETY: calls without memory, and limits for this process alone.
    unsafe {
        PARENT.store(libc::getppid() as u32, SeqCst);
        ME.store(libc::getpid() as u32, SeqCst);
        let none = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        // Where cores go into a pipe the limit does not count, and the status would say that one was written.
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        // A group of its own, that is not an orphan: stops by the terminal's signals count.
        libc::setpgid(0, 0);
    }
    for signal in 1..=64 {
        set_action(signal, libc::SIG_DFL, 0, 0);
    }
    // Most have handlers, so that processes live for a while.
    for signal in SIGNALS {
        if below(8) != 0 {
            set_action(
                signal,
                handler::handler as *const () as usize,
                libc::SA_SIGINFO,
                0,
            );
        }
    }
    alternate_stack(0, 0, libc::SS_DISABLE);
    let others = below(3);
    OTHERS.store(others, SeqCst);
    for index in 1..=others {
        turns::announce(index);
        std::thread::spawn(move || {
            alternate_stack(0, 0, libc::SS_DISABLE);
            turns::follow(index, step);
        });
        turns::wait_for_start(index);
    }
    // SAFETY: no arguments.
    TIDS[0].store(unsafe { libc::gettid() } as u32, SeqCst);
    for _ in 0..steps {
        DICE.store(bits(), SeqCst);
        SENT.iter().for_each(|sent| sent.store(0, SeqCst));
        let alive = OTHERS.load(SeqCst);
        match below(alive + 1) {
            0 => step(),
            index => turns::work(index),
        }
        (1..=alive).for_each(turns::settle);
        shared.commit();
    }
}

fn step() {
    match below(24) {
        0..=2 => state::change_mask(),
        3..=6 => state::change_action(),
        7..=9 => send::send_to_process(),
        10..=12 => send::send_to_thread(),
        13 => send::queue_info(),
        14 => take::pending(),
        15 => take::timed_wait(),
        16 => state::change_stack(),
        17 => take::signal_file(),
        18 => take::suspend(),
        19 | 20 => fault(),
        21 => send::bad_calls(),
        _ => child::child(),
    }
}

/// An instruction of two bytes that faults.
fn fault() {
    let kind = below(5);
    note!("fault {kind}");
    // SAFETY: each ends in a signal, after which a handler goes on behind it.
    unsafe {
        match kind {
            0 => asm!("ud2"),
            1 => asm!("div cl", in("al") 1u8, in("cl") 0u8, lateout("ax") _),
            2 => asm!("mov al, [rdi]", in("rdi") 0x10usize, out("al") _),
            3 => asm!("mov al, [rdi]", in("rdi") 0x8000_0000_0000_0000usize, out("al") _),
            _ => asm!("int3"),
        }
    }
    note!("fault {kind} over");
}
