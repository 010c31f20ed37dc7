//! Threads that change one address space at once: `area-storm [SECONDS]`. One grows stacks and takes them away, one splits and joins areas,
//! one moves pages that another is writing, and readers see nothing of all this but their own bytes.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::SaFlags;
use userspace::memory::PAGE;
use userspace::probe;
use userspace::rng::Rng;

const STACK: usize = 0x2100_0000_0000;
const SHARED: usize = 0x2200_0000_0000;
const MOVED: usize = 0x2300_0000_0000;
const ELSEWHERE: usize = 0x2400_0000_0000;
const FRESH: usize = 0x2500_0000_0000;
/// Pages that a stack grows by, and pages of the memory that is split and joined.
const PAGES: usize = 64;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// What one thread does until the time is over; how often it did.
type Job = fn() -> u64;

static STOP: AtomicBool = AtomicBool::new(false);
static WRONG: AtomicU64 = AtomicU64::new(0);

/// Runs `round` until the time is over; how often.
fn rounds(mut round: impl FnMut(u64)) -> u64 {
    let mut done = 0;
    while !STOP.load(Ordering::Relaxed) {
        round(done);
        done += 1;
    }
    done
}

fn expect(what: &str, right: bool) {
    if !right && WRONG.fetch_add(1, Ordering::Relaxed) < 10 {
        println!("wrong: {what}");
    }
}

fn map(at: usize, pages: usize, flags: i32) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | flags;
    // SAFETY: these addresses are used by this program's threads only, which expect what happens to them.
    let at = unsafe { libc::mmap(at as *mut libc::c_void, pages * PAGE, RW, flags, -1, 0) };
    expect("mmap", at != libc::MAP_FAILED);
}

fn unmap(at: usize, pages: usize) {
    // SAFETY: as in `map`.
    let done = unsafe { libc::munmap(at as *mut libc::c_void, pages * PAGE) };
    expect("munmap", done == 0);
}

/// Stores at an address that may be gone; whether it was there.
fn store(at: usize, value: u64) -> bool {
    // SAFETY: as in `map`.
    unsafe { probe::store(at, value) }
}

/// fault-path.md, row 15: growth of a stack changes the areas while others look addresses up in them.
fn grow_stacks() -> u64 {
    rounds(|round| {
        map(STACK, 1, libc::MAP_GROWSDOWN);
        for page in 1..=PAGES {
            expect("growth", store(STACK - page * PAGE, round + page as u64));
        }
        for page in 1..=PAGES {
            let seen = probe::load(STACK - page * PAGE);
            expect("a stack's contents", seen == Some(round + page as u64));
        }
        unmap(STACK - PAGES * PAGE, PAGES + 1);
    })
}

/// Row 18: areas are split and joined while others fault in them.
fn split_and_join() -> u64 {
    let mut rng = Rng::new(15);
    rounds(|_| {
        let first = rng.below(PAGES);
        let len = (1 + rng.below(PAGES - first)) * PAGE;
        let at = (SHARED + first * PAGE) as *mut libc::c_void;
        // SAFETY: the memory stays readable, and nobody writes it.
        let done = unsafe {
            libc::mprotect(at, len, libc::PROT_READ);
            libc::mprotect(at, len, RW)
        };
        expect("mprotect", done == 0);
    })
}

fn read_all() -> u64 {
    rounds(|_| {
        for page in 0..PAGES {
            let seen = probe::load(SHARED + page * PAGE);
            expect("what nobody writes", seen == Some(page as u64 + 1));
        }
    })
}

/// Row 16: once pages are moved and gone, nobody reaches them through the old address, whatever their frames hold then.
fn move_pages() -> u64 {
    rounds(|round| {
        map(MOVED, 4, 0);
        for page in 0..4 {
            store(MOVED + page * PAGE + 8, round);
        }
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: as in `map`.
        unsafe {
            let (old, new) = (MOVED as *mut libc::c_void, ELSEWHERE as *mut libc::c_void);
            expect(
                "mremap",
                libc::mremap(old, 4 * PAGE, 4 * PAGE, flags, new) == new,
            );
            for page in 0..4 {
                let seen = probe::load(ELSEWHERE + page * PAGE + 8);
                expect("moved contents", seen == Some(round));
            }
            libc::madvise(new, 4 * PAGE, libc::MADV_DONTNEED);
        }
        map(FRESH, 4, libc::MAP_POPULATE);
        for _ in 0..20 {
            for page in 0..4 {
                let seen = probe::load(FRESH + page * PAGE);
                expect("memory that was never written", seen == Some(0));
            }
        }
        unmap(FRESH, 4);
        unmap(ELSEWHERE, 4);
    })
}

fn write_through_the_old_address() -> u64 {
    rounds(|round| {
        for page in 0..4 {
            store(MOVED + page * PAGE, round | 1);
        }
    })
}

fn main() -> ExitCode {
    let seconds = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(2);
    probe::catch_faults(SaFlags::empty()).expect("sigaction");
    map(SHARED, PAGES, 0);
    for page in 0..PAGES {
        store(SHARED + page * PAGE, page as u64 + 1);
    }
    let jobs: [(&str, Job); 5] = [
        ("stacks grown", grow_stacks),
        ("splits and joins", split_and_join),
        ("readings", read_all),
        ("moves", move_pages),
        ("writings", write_through_the_old_address),
    ];
    let until = Instant::now() + Duration::from_secs(seconds);
    let threads = jobs.map(|(what, job)| (what, std::thread::spawn(job)));
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    STOP.store(true, Ordering::Relaxed);
    for (what, thread) in threads {
        let rounds = thread.join().expect("no thread panics");
        println!("~ {what}: {rounds}");
        expect(what, rounds > 0);
    }
    if WRONG.load(Ordering::Relaxed) > 0 {
        return ExitCode::FAILURE;
    }
    println!("PASS");
    ExitCode::SUCCESS
}
