//! Out of memory: a process that takes more than there is is ended, one beside it goes on computing right, and the memory is there
//! for others afterwards.
//!
//! On a machine with much memory the hog has a limit on its data (RLIMIT_DATA) and ends itself by SIGKILL when it gets to it.

use std::process::ExitCode;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, raise};
use userspace::memory::{PAGE, RW, Region, checksum};
use userspace::process::{self, Ended};
use userspace::report::Demo;

const MIB: usize = 1 << 20;
/// A machine with more than this is not filled.
const LARGE: usize = 512 * MIB;
/// What the hog may have there.
const LIMIT: usize = 128 * MIB;
/// The hog takes its memory in such pieces.
const PIECE: usize = MIB;
/// What the bystander computes with.
const BYSTANDER: usize = MIB;
const HOGS: u64 = 3;

/// Words of the shared page.
const ROUNDS: usize = 0;
const STOP: usize = 8;
const TAKEN: usize = 16;

fn main() -> ExitCode {
    let mut demo = Demo::start(
        "oom",
        "what takes more memory than there is is ended, and nobody else notices",
    );
    let total = meminfo("MemTotal").expect("/proc/meminfo");
    let is_large = total > LARGE;
    demo.varies(format_args!("{} MiB of memory", total / MIB));
    if is_large {
        demo.varies("so much is not filled: a hog ends itself at its RLIMIT_DATA");
    }
    demo.step("start a bystander that computes the same again and again");
    let shared = Region::shared(PAGE).expect("mmap");
    let bystander = process::child(|| compute(&shared)).expect("fork");
    demo.check(rounds_after(&shared, 0), "it computes");
    let before = meminfo("MemAvailable").expect("/proc/meminfo");

    for hog in 1..=HOGS {
        demo.step(format_args!("hog {hog} takes memory without end"));
        shared.atomic(TAKEN).store(0, Release);
        let child = process::child(|| take(&shared, is_large)).expect("fork");
        demo.check_eq(
            process::wait(child).expect("wait"),
            Ended::Killed(libc::SIGKILL),
            "it is ended by SIGKILL",
        );
        let taken = shared.atomic(TAKEN).load(Acquire) as usize;
        demo.varies(format_args!("it had {} MiB", taken / MIB));
        let most = if is_large { LIMIT } else { total };
        demo.check(
            taken > before.min(most) / 2 && taken <= most,
            "it had most of what there was",
        );
        let rounds = shared.atomic(ROUNDS).load(Acquire);
        demo.check(rounds_after(&shared, rounds), "the bystander goes on");
    }

    demo.step("look at what is left");
    if is_large {
        demo.varies("other programs use this machine's memory, too: nothing is counted");
    } else {
        let after = meminfo("MemAvailable").expect("/proc/meminfo");
        demo.varies(format_args!(
            "available before: {} KiB, after: {} KiB",
            before / 1024,
            after / 1024
        ));
        demo.check_here(after + 2 * MIB >= before, "all memory is back");
    }
    let len = before.min(LIMIT) / 2;
    let region = Region::anonymous(len / PAGE * PAGE, RW).expect("mmap");
    let pages = region.len() / PAGE;
    (0..pages).for_each(|page| region.write_u64(page * PAGE, page as u64));
    demo.check(
        (0..pages).all(|page| region.read_u64(page * PAGE) == page as u64),
        "half of the memory can be used at once",
    );
    shared.atomic(STOP).store(1, Release);
    demo.check_eq(
        process::wait(bystander).expect("wait"),
        Ended::Exited(0),
        "each result of the bystander was right",
    );
    demo.finish()
}

/// The bystander: memory of its own, filled and summed in rounds, until it is told to stop.
fn compute(shared: &Region) -> i32 {
    let mut seed = 0;
    let mut data = vec![0; BYSTANDER];
    let mut expected = None;
    while shared.atomic(STOP).load(Acquire) == 0 {
        for (at, byte) in data.iter_mut().enumerate() {
            *byte = (at / PAGE + at + seed) as u8;
        }
        // Every 256th round has the same bytes as the first.
        let sum = checksum(data.iter().copied());
        if seed % 256 == 0 && *expected.get_or_insert(sum) != sum {
            return 1;
        }
        if (0..BYSTANDER).any(|at| data[at] != (at / PAGE + at + seed) as u8) {
            return 2;
        }
        seed += 1;
        shared.atomic(ROUNDS).fetch_add(1, Release);
    }
    0
}

/// Whether the bystander ends two more rounds than `rounds`: one may have been under way.
fn rounds_after(shared: &Region, rounds: u64) -> bool {
    let start = Instant::now();
    while shared.atomic(ROUNDS).load(Acquire) < rounds + 2 {
        if start.elapsed() > Duration::from_secs(20) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// The hog: writes to every page of what it gets.
fn take(shared: &Region, is_large: bool) -> i32 {
    if is_large && setrlimit(Resource::RLIMIT_DATA, LIMIT as u64, LIMIT as u64).is_err() {
        return 1;
    }
    let mut pieces = 0;
    loop {
        let Ok(piece) = Region::unreserved(PIECE) else {
            break;
        };
        for page in 0..PIECE / PAGE {
            piece.write(page * PAGE, 1);
        }
        // It stays mapped.
        std::mem::forget(piece);
        pieces += 1;
        shared.atomic(TAKEN).store((pieces * PIECE) as u64, Release);
    }
    // Only the limit brings it here: without one it is ended before.
    if is_large {
        let _ = raise(Signal::SIGKILL);
    }
    2
}

/// A line of /proc/meminfo (proc_meminfo(5)), in bytes.
fn meminfo(name: &str) -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(':'))
    })?;
    let kib: usize = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
