//! Random system calls with random arguments: `fuzz-syscalls [SEED] [CHILDREN] [CALLS]`. The calls may do anything to the children that
//! make them; the kernel must survive, and this program must be able to tell so.
//!
//! It is made for the guest alone and starts only with `FAULTLINE_FUZZ=1` in its environment: on a real machine random calls by
//! root could do harm.

use std::process::ExitCode;
use std::time::Duration;

use nix::sys::signal::{SaFlags, SigmaskHow, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use userspace::bad_pointers::{BadPointers, KINDS};
use userspace::memory::{PAGE, RW, Region};
use userspace::process::{self, Ended};
use userspace::report::Demo;
use userspace::rng::Rng;
use userspace::{signals, syscall, time};

/// Numbers that a child never calls: they end it too soon, multiply it, or reach other processes by design.
const NEVER: [i64; 12] = [
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_reboot,
];

/// A child that takes longer than this is killed.
const PATIENCE: Duration = Duration::from_millis(1500);

/// A call that blocks for this long is interrupted.
const BLOCKED: Duration = Duration::from_millis(10);

fn main() -> ExitCode {
    let number = |at: usize, default: u64| {
        std::env::args()
            .nth(at)
            .map_or(Ok(default), |text| text.parse())
    };
    let (Ok(seed), Ok(children), Ok(calls)) = (number(1, 1), number(2, 24), number(3, 400)) else {
        eprintln!("usage: fuzz-syscalls [SEED] [CHILDREN] [CALLS]");
        return ExitCode::from(2);
    };
    if std::env::var("FAULTLINE_FUZZ").as_deref() != Ok("1") {
        eprintln!(
            "fuzz-syscalls makes random system calls: run it in the guest, with FAULTLINE_FUZZ=1"
        );
        return ExitCode::from(2);
    }
    let mut demo = Demo::start(
        "fuzz-syscalls",
        "random system calls hurt nobody but their caller",
    );
    process::no_core_files();
    demo.varies(format_args!(
        "seed {seed}, {children} children, {calls} calls each"
    ));
    let (mut exited, mut killed, mut stuck) = (0, 0, 0);
    for index in 0..children {
        let child = process::child(|| fuzz(Rng::new(seed ^ index << 40), calls)).expect("fork");
        match end_of(child) {
            Some(Ended::Exited(_)) => exited += 1,
            Some(Ended::Killed(_)) => killed += 1,
            None => stuck += 1,
        }
    }
    demo.varies(format_args!("{exited} made all their calls, {killed} were killed by a signal, {stuck} blocked until they were killed"));
    demo.check(
        exited + killed + stuck == children,
        "every child could be ended",
    );
    let region = Region::anonymous(16 * PAGE, RW).expect("mmap");
    (0..16).for_each(|page| region.write_u64(page * PAGE, page as u64));
    demo.check(
        (0..16).all(|page| region.read_u64(page * PAGE) == page as u64),
        "memory still works here",
    );
    let fresh = process::child(|| 7).expect("fork");
    demo.check_eq(
        process::wait(fresh).expect("wait"),
        Ended::Exited(7),
        "a fresh child works",
    );
    demo.finish()
}

/// How the child ended by itself, or None if it had to be killed.
fn end_of(child: Pid) -> Option<Ended> {
    let start = std::time::Instant::now();
    while start.elapsed() < PATIENCE {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, status)) => return Some(Ended::Exited(status)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Some(Ended::Killed(signal as i32)),
            _ => time::sleep(Duration::from_millis(5)).expect("setitimer"),
        }
    }
    let _ = kill(child, Signal::SIGKILL);
    let _ = process::wait(child);
    None
}

/// Interrupts calls that block.
extern "C" fn interrupt(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// In the child: closes what it shares with others, then calls at random.
fn fuzz(mut rng: Rng, calls: u64) -> i32 {
    let (Ok(scratch), Ok(bad)) = (Region::anonymous(8 * PAGE, RW), BadPointers::new()) else {
        return 2;
    };
    // Its own pipes take the places of the parent's files.
    for fd in 0..64 {
        let _ = nix::unistd::close(fd);
    }
    let _pipes = (process::pipe(), process::pipe());
    for call in 0..calls {
        // The calls may change handlers, timers and masks, so this is done again and again.
        if call % 8 == 0 {
            let _ = signals::on(Signal::SIGALRM, SaFlags::empty(), interrupt);
            let _ = signals::mask(SigmaskHow::SIG_UNBLOCK, Signal::SIGALRM);
            let _ = time::set_timer(BLOCKED, BLOCKED);
        }
        let number = number(&mut rng);
        let args = std::array::from_fn(|_| argument(&mut rng, &scratch, &bad));
        // SAFETY: none is claimed: the child is there to be damaged, and shares nothing that is writable with its parent.
        unsafe { syscall::raw(number, args) };
    }
    // Not by a destructor: nothing here can be trusted any more.
    // SAFETY: ends the child at once.
    unsafe { libc::_exit(0) }
}

/// Mostly a number that exists, sometimes any at all.
fn number(rng: &mut Rng) -> u64 {
    loop {
        let number = match rng.below(16) {
            0 => rng.bits(),
            1..4 => rng.below(600) as u64,
            _ => rng.below(335) as u64,
        };
        // The kernel looks at the lower half alone.
        if !NEVER.contains(&i64::from(number as u32)) {
            return number;
        }
    }
}

fn argument(rng: &mut Rng, scratch: &Region, bad: &BadPointers) -> u64 {
    match rng.below(12) {
        0..3 => rng.below(8) as u64,
        3 => rng.below(4096) as u64,
        4 => (rng.below(64) * PAGE) as u64,
        5 => 1 << rng.below(64),
        6 => (rng.below(64) as u64).wrapping_neg(),
        7 => bad.pointer(KINDS[rng.below(KINDS.len())]),
        8 => rng.bits(),
        9 => (1 << rng.below(64)) - 1,
        _ => (scratch.addr() + rng.below(scratch.len())) as u64,
    }
}
