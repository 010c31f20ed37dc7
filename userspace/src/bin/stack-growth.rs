//! The main stack grows by page faults: downward to its limit, and never close to another mapping.

use std::hint::black_box;
use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SaFlags;
use userspace::memory::{PAGE, RW, Region, page_of, resident_pages};
use userspace::probe;
use userspace::report::Demo;
use userspace::signals::{self, SEGV_MAPERR};

/// The limit that the demo works with; a larger one is lowered to it.
const LIMIT: usize = 8 << 20;
/// How deep the recursion goes.
const DEEP: usize = LIMIT / 2;
/// Pages that stay free between a growing stack and the mapping below it (Linux: stack_guard_gap).
const GUARD_GAP: usize = 256;

fn main() -> ExitCode {
    let mut demo = Demo::start(
        "stack-growth",
        "each page of the main stack appears when it is first touched",
    );
    let top = &raw const demo as usize;
    if let Err(why) = prepare() {
        demo.check(false, why);
        return demo.finish();
    }
    let altstack = Region::anonymous(16 * PAGE, RW).expect("mmap");
    // SAFETY: the region is used for nothing else and lives until the program ends.
    unsafe { signals::use_altstack(&altstack) }.expect("sigaltstack");
    probe::catch_faults(SaFlags::SA_ONSTACK).expect("sigaction");

    demo.step("recurse through 4 MiB of stack, one page a call");
    let before = resident_pages().expect("statm");
    let mut deepest = 0;
    let kept = descend(top, top - DEEP, &mut deepest);
    let grown = resident_pages().expect("statm").saturating_sub(before);
    demo.varies(format_args!(
        "{} KiB deep, {grown} more pages resident",
        (top - deepest) >> 10
    ));
    demo.check(top - deepest >= DEEP, "the recursion got there");
    demo.check(kept, "every frame still held its contents on the way back");
    demo.check(
        grown.abs_diff(DEEP / PAGE) < DEEP / PAGE / 4,
        "about as many pages became resident as the stack is deep",
    );

    demo.step("map one page 2 MiB further down and touch the stack above it");
    let neighbour = Region::at(page_of(top - LIMIT * 3 / 4), PAGE, RW).expect("mmap");
    let end = neighbour.addr() + PAGE;
    denied(&mut demo, end, "right above the mapping");
    denied(
        &mut demo,
        end + (GUARD_GAP - 1) * PAGE,
        "255 pages above it",
    );
    granted(&mut demo, end + GUARD_GAP * PAGE, "256 pages above it");
    demo.check_eq(neighbour.read(0), 0, "the mapping itself is untouched");

    demo.step("unmap it and try again");
    drop(neighbour);
    granted(&mut demo, end, "where the guard gap was");

    demo.step("reach below the limit of the stack");
    denied(
        &mut demo,
        page_of(top - LIMIT - (2 << 20)),
        "2 MiB below the limit",
    );
    demo.finish()
}

/// Sees to a stack limit of exactly [`LIMIT`].
fn prepare() -> Result<(), String> {
    let (soft, hard) =
        getrlimit(Resource::RLIMIT_STACK).map_err(|errno| format!("getrlimit: {errno}"))?;
    if soft < LIMIT as u64 {
        return Err("this demo needs a stack limit of at least 8 MiB (ulimit -s 8192)".into());
    }
    if soft > LIMIT as u64 {
        setrlimit(Resource::RLIMIT_STACK, LIMIT as u64, hard)
            .map_err(|errno| format!("setrlimit: {errno}"))?;
    }
    Ok(())
}

/// Calls itself with a frame of a page until the stack reaches down to `until`; says whether all frames kept their contents.
#[inline(never)]
fn descend(above: usize, until: usize, deepest: &mut usize) -> bool {
    let mut frame = [0u64; PAGE / 8 - 16];
    let here = black_box(frame.as_mut_ptr()) as usize;
    *deepest = here;
    let marks = [0, frame.len() / 2, frame.len() - 1];
    marks.iter().for_each(|&at| frame[at] = (here + at) as u64);
    let below_kept = here <= until || descend(here, until, deepest);
    black_box(&mut frame);
    below_kept && here < above && marks.iter().all(|&at| frame[at] == (here + at) as u64)
}

fn denied(demo: &mut Demo, address: usize, place: &str) {
    let got = probe::load(address);
    let caught = probe::take_fault();
    let as_expected = got.is_none()
        && caught.is_some_and(|caught| {
            (caught.signo, caught.code, caught.addr) == (libc::SIGSEGV, SEGV_MAPERR, address)
        });
    demo.check(
        as_expected,
        format_args!("{place}: SIGSEGV, SEGV_MAPERR, the stack does not grow there"),
    );
}

fn granted(demo: &mut Demo, address: usize, place: &str) {
    let got = probe::load(address);
    demo.check(
        got == Some(0) && probe::take_fault().is_none(),
        format_args!("{place}: the stack grows, the new page is zero"),
    );
}
