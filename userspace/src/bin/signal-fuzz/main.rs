//! Random signal, mask, alternate-stack, thread and process calls: `signal-fuzz FIRST COUNT [STEPS]`. For each of COUNT seeds from FIRST
//! on, a process of its own makes STEPS (40) steps, and one line comes out: the seed and a number made of every result, errno, siginfo,
//! mask and wait status, with pids made equal. With COUNT 1 the steps are printed too. The output is the same on every correct kernel.
//!
//! Why it is deterministic: the threads make one step at a time, and after each every thread shows that it has taken what was sent to it.
//! Each thread writes its own log; a step's logs count when the step is over, in the order of the threads, so that a process that is
//! killed leaves whole steps only.

mod handler;
mod log;
mod steps;
mod turns;

use std::fmt::Write;
use std::process::ExitCode;

use log::Shared;

fn main() -> ExitCode {
    let number = |at: usize, default: u64| {
        std::env::args()
            .nth(at)
            .map_or(Ok(default), |text| text.parse::<u64>())
    };
    let (Ok(first), Ok(count), Ok(steps)) = (number(1, 1), number(2, 1), number(3, 40)) else {
        eprintln!("usage: signal-fuzz FIRST COUNT [STEPS]");
        return ExitCode::from(2);
    };
    for seed in first..first + count {
        let log = run(seed, steps as usize);
        if count == 1 {
            print!("{log}");
        }
        println!("{seed}: {:016x}", hash(&log));
    }
    ExitCode::SUCCESS
}

/// Runs one seed in a process of its own; what was observed.
fn run(seed: u64, steps: usize) -> String {
    let shared = Shared::new();
    // SAFETY: this process has one thread; the child runs the seed and ends without coming back.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork");
    if child == 0 {
        steps::run(seed, steps, shared);
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(0) };
    }
    let mut ends = String::new();
    loop {
        let mut status = 0;
        // SAFETY: waits for our own child.
        unsafe { libc::waitpid(child, &raw mut status, libc::WUNTRACED) };
        // How far the process was when it stopped is part of what is observed.
        let _ = writeln!(ends, "status {status:#x} at {}", shared.committed().len());
        if !libc::WIFSTOPPED(status) {
            break;
        }
        // SAFETY: our own child.
        unsafe { libc::kill(child, libc::SIGCONT) };
    }
    let log = format!("{}{ends}", shared.committed());
    shared.unmap();
    log
}

/// 64-bit FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}
