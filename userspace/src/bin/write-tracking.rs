//! Two ways to learn which pages a program writes to: write protection by a userfaultfd, whose handler thread is asked, and mprotect(2)
//! with a SIGSEGV handler. Both find the same pages, each once.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::mman::ProtFlags;
use nix::sys::signal::{SaFlags, Signal};
use userfaultfd::{Event, FaultKind, FeatureFlags, RegisterMode, Uffd, UffdBuilder};
use userspace::memory::{PAGE, RW, Region};
use userspace::report::Demo;
use userspace::rng::Rng;
use userspace::signals;

const PAGES: usize = 256;
const WRITES: usize = 400;
const ROUNDS: u64 = 3;
/// The page whose write ends a round: the handler thread stops after it.
const END: usize = PAGES;

/// Where the SIGSEGV handler finds the memory, and what it saw: pages in the order of their first write.
static BASE: AtomicUsize = AtomicUsize::new(0);
static SEEN: [AtomicUsize; PAGES] = [const { AtomicUsize::new(0) }; PAGES];
static SEEN_LEN: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_segv(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel's own pointer.
    let address = unsafe { (*info).si_addr() } as usize;
    let page = address.wrapping_sub(BASE.load(SeqCst)) / PAGE;
    let place = SEEN_LEN.fetch_add(1, SeqCst);
    if page >= PAGES || place >= PAGES {
        // A bug of this program.
        std::process::abort();
    }
    SEEN[place].store(page, SeqCst);
    let start = (address & !(PAGE - 1)) as *mut libc::c_void;
    // SAFETY: a page of the tracked memory; mprotect(2) may be called in a signal handler.
    unsafe { libc::mprotect(start, PAGE, libc::PROT_READ | libc::PROT_WRITE) };
}

fn main() -> ExitCode {
    let mut demo = Demo::start(
        "write-tracking",
        "userfaultfd and mprotect(2) as trackers of written pages",
    );
    let region = Region::anonymous((PAGES + 1) * PAGE, RW).expect("mmap");
    (0..=PAGES).for_each(|page| region.write(page * PAGE, 1));
    BASE.store(region.addr(), SeqCst);
    let mut times = [Duration::ZERO; 2];
    for round in 1..=ROUNDS {
        let plan = plan(round);
        let expected: BTreeSet<usize> = plan.iter().copied().collect();
        demo.step(format_args!(
            "round {round}: {WRITES} writes to {} of {PAGES} pages",
            expected.len()
        ));
        for (which, name) in ["userfaultfd", "mprotect"].into_iter().enumerate() {
            let start = Instant::now();
            let found = match which {
                0 => by_userfaultfd(&region, &plan),
                _ => by_mprotect(&region, &plan),
            };
            times[which] += start.elapsed();
            demo.check_eq(
                found.len(),
                expected.len(),
                format_args!("{name}: each page was told once"),
            );
            let found: BTreeSet<usize> = found.into_iter().collect();
            demo.check(
                found == expected,
                format_args!("{name}: they are the pages that were written"),
            );
        }
    }
    demo.varies(format_args!(
        "userfaultfd {} µs, mprotect {} µs for all rounds",
        times[0].as_micros(),
        times[1].as_micros()
    ));
    let total = ROUNDS as usize * 2 * WRITES;
    let sum: usize = (0..PAGES).map(|page| counter(&region, page)).sum();
    demo.check_eq(sum, total, "no write was lost or made twice");
    demo.finish()
}

/// The pages of one round's writes.
fn plan(round: u64) -> Vec<usize> {
    let mut rng = Rng::new(round);
    (0..WRITES)
        .map(|_| rng.below(PAGES / 2) * round as usize % PAGES)
        .collect()
}

/// Every page counts the writes to it.
fn counter(region: &Region, page: usize) -> usize {
    region.read_u64(page * PAGE + 8) as usize
}

fn write_all(region: &Region, plan: &[usize]) {
    for &page in plan {
        region.atomic(page * PAGE + 8).fetch_add(1, SeqCst);
    }
}

fn by_userfaultfd(region: &Region, plan: &[usize]) -> Vec<usize> {
    let uffd = UffdBuilder::new()
        .require_features(FeatureFlags::PAGEFAULT_FLAG_WP)
        .create()
        .expect("userfaultfd");
    let start = region.ptr(0).cast();
    uffd.register_with_mode(start, region.len(), RegisterMode::WRITE_PROTECT)
        .expect("register");
    uffd.write_protect(start, region.len()).expect("protect");
    let base = region.addr();
    thread::scope(|scope| {
        let tracker = scope.spawn(|| track(&uffd, base));
        write_all(region, plan);
        region.write(END * PAGE, 1);
        tracker.join().expect("the tracker")
    })
}

/// The handler thread: notes each page and lets writes to it through.
fn track(uffd: &Uffd, base: usize) -> Vec<usize> {
    let mut found = Vec::new();
    loop {
        let event = uffd.read_event().expect("read").expect("it waits");
        let Event::Pagefault {
            kind: FaultKind::WriteProtected,
            addr,
            ..
        } = event
        else {
            panic!("nothing else was asked for: {event:?}");
        };
        let page = (addr as usize - base) / PAGE;
        uffd.remove_write_protection(addr, PAGE, true)
            .expect("unprotect");
        if page == END {
            return found;
        }
        found.push(page);
    }
}

fn by_mprotect(region: &Region, plan: &[usize]) -> Vec<usize> {
    SEEN_LEN.store(0, SeqCst);
    signals::on(Signal::SIGSEGV, SaFlags::empty(), on_segv).expect("sigaction");
    region
        .protect(0, PAGES * PAGE, ProtFlags::PROT_READ)
        .expect("mprotect");
    write_all(region, plan);
    region.protect(0, PAGES * PAGE, RW).expect("mprotect");
    signals::default_action(Signal::SIGSEGV).expect("sigaction");
    let seen = SEEN_LEN.load(SeqCst);
    SEEN[..seen].iter().map(|page| page.load(SeqCst)).collect()
}
