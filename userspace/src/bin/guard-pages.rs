//! Guard pages around buffers: the SIGSEGV handler says which guard was hit, and the program goes on, either elsewhere or with the guard
//! moved.

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use nix::sys::mman::ProtFlags;
use nix::sys::signal::{SaFlags, Signal};
use userspace::memory::{PAGE, RW, Region};
use userspace::probe;
use userspace::report::Demo;
use userspace::signals::{self, Caught, SEGV_ACCERR};

const BUFFERS: usize = 3;
/// Pages of a buffer, between its guards.
const BODY: usize = 2;
/// Guard, body, guard, body, ..., guard.
const PAGES: usize = BUFFERS * (BODY + 1) + 1;

/// For the handler that opens guards.
static BASE: AtomicUsize = AtomicUsize::new(0);
static OPENED: AtomicUsize = AtomicUsize::new(0);

fn main() -> ExitCode {
    let mut demo = Demo::start(
        "guard-pages",
        "an overrun hits a guard page, and the handler says which and recovers",
    );
    demo.step(format_args!("put guards around {BUFFERS} buffers"));
    let region = Region::anonymous(PAGES * PAGE, ProtFlags::PROT_NONE).expect("mmap");
    for buffer in 0..BUFFERS {
        region
            .protect(body(buffer), BODY * PAGE, RW)
            .expect("mprotect");
        (0..BODY * PAGE).for_each(|byte| region.write(body(buffer) + byte, b'a' + buffer as u8));
    }
    demo.check(intact(&region), "all of each buffer can be used");
    hits(&mut demo, &region);
    runs_over(&mut demo, &region);
    opens(&mut demo, &region);
    demo.finish()
}

/// Offset of a buffer's first byte; its guard is the page before.
fn body(buffer: usize) -> usize {
    (buffer * (BODY + 1) + 1) * PAGE
}

/// The number of the guard that `offset` lies in: that before buffer 0 is 0.
fn guard_of(offset: usize) -> Option<usize> {
    let page = offset / PAGE;
    page.is_multiple_of(BODY + 1).then_some(page / (BODY + 1))
}

fn intact(region: &Region) -> bool {
    (0..BUFFERS).all(|buffer| {
        (0..BODY * PAGE).all(|byte| region.read(body(buffer) + byte) == b'a' + buffer as u8)
    })
}

/// A single access just outside of each buffer, on either side.
fn hits(demo: &mut Demo, region: &Region) {
    demo.step("store just before and load just behind each buffer");
    probe::catch_faults(SaFlags::empty()).expect("sigaction");
    for buffer in 0..BUFFERS {
        let before = region.addr() + body(buffer) - 8;
        // SAFETY: a guard, which nobody else uses.
        let stored = unsafe { probe::store(before, !0) };
        report(demo, region, stored, before, buffer);
        let behind = region.addr() + body(buffer) + BODY * PAGE;
        let loaded = probe::load(behind).is_some();
        report(demo, region, loaded, behind, buffer + 1);
    }
    demo.check(intact(region), "no buffer has changed");
}

fn report(demo: &mut Demo, region: &Region, done: bool, address: usize, guard: usize) {
    let fault = probe::take_fault().filter(|_| !done);
    let seen = fault.map(|fault| (fault.signo, fault.code, fault.addr));
    demo.check_eq(
        seen,
        Some((libc::SIGSEGV, SEGV_ACCERR, address)),
        "SIGSEGV with SEGV_ACCERR at that address",
    );
    let hit = fault.and_then(|fault| guard_of(fault.addr - region.addr()));
    demo.check_eq(hit, Some(guard), format_args!("it is guard {guard}"));
}

/// A loop that forgets where its buffer ends.
fn runs_over(demo: &mut Demo, region: &Region) {
    demo.step("fill a buffer without looking where it ends");
    let start = region.addr() + body(1);
    let pattern = u64::from_le_bytes([b'b'; 8]);
    // SAFETY: the buffer's own bytes, and then a guard.
    let stores = (0..).find(|n| !unsafe { probe::store(start + n * 8, pattern) });
    demo.check_eq(
        stores,
        Some(BODY * PAGE / 8),
        "it stops where the buffer ends",
    );
    let hit = probe::take_fault().and_then(|fault| guard_of(fault.addr - region.addr()));
    demo.check_eq(hit, Some(2), "at guard 2");
    demo.check(intact(region), "the next buffer has not changed");
}

extern "C" fn open_guard(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel's own pointers.
    let fault = unsafe { Caught::read(info, context) };
    let offset = fault.addr.wrapping_sub(BASE.load(SeqCst));
    if offset >= PAGES * PAGE || guard_of(offset).is_none() {
        // SAFETY: ends the process; nothing else would make the access succeed.
        unsafe { libc::_exit(3) }
    }
    let page = fault.addr & !(PAGE - 1);
    // SAFETY: a guard of the region, which has no contents yet.
    unsafe { libc::mprotect(page as *mut libc::c_void, PAGE, RW.bits()) };
    OPENED.fetch_add(1 << (8 * guard_of(offset).unwrap_or(7)), SeqCst);
}

/// The guard gives way, and the same instruction is done again.
fn opens(demo: &mut Demo, region: &Region) {
    demo.step("let the handler open the guard that was hit, and store again");
    BASE.store(region.addr(), SeqCst);
    signals::on(Signal::SIGSEGV, SaFlags::empty(), open_guard).expect("sigaction");
    let end = body(2) + BODY * PAGE;
    (0..PAGE).for_each(|byte| region.write(end + byte, b'x'));
    demo.check_eq(
        OPENED.load(SeqCst),
        1 << 24,
        "guard 3 was hit once, and no other",
    );
    demo.check(
        (0..PAGE).all(|byte| region.read(end + byte) == b'x'),
        "all stores are there",
    );
    demo.check(intact(region), "and the buffers as they were");
    region
        .protect(end, PAGE, ProtFlags::PROT_NONE)
        .expect("mprotect");
    demo.check_eq(
        region.read(end),
        b'x',
        "closed and opened again, it has kept its bytes",
    );
    demo.check_eq(OPENED.load(SeqCst), 2 << 24, "for one more hit");
}
