//! What a signal says about a bad access: siginfo and ucontext for each cause. The handler skips the faulting instruction by editing
//! RIP in the frame.

use std::process::ExitCode;

use nix::sys::mman::{MapFlags, ProtFlags};
use nix::sys::signal::SaFlags;
use userspace::memory::{PAGE, RW, Region};
use userspace::probe;
use userspace::report::Demo;
use userspace::signals::{Caught, SEGV_ACCERR, SEGV_MAPERR, code_name, signal_name};
use userspace::slow::fast_file;

/// Page fault and general protection: the CPU's exception numbers.
const PF: u64 = 14;
const GP: u64 = 13;
/// Error code bits of a page fault: the page was present, the access a write, from user mode, an instruction fetch.
const PRESENT: u64 = 1;
const WRITE: u64 = 2;
const USER: u64 = 4;
const FETCH: u64 = 16;

/// What the frame must say.
struct Expected {
    signo: i32,
    code: i32,
    addr: usize,
    trapno: u64,
    err: u64,
    rip: usize,
}

fn main() -> ExitCode {
    let mut demo = Demo::start(
        "segv-codes",
        "each kind of bad access has its own siginfo and ucontext",
    );
    probe::catch_faults(SaFlags::empty()).expect("sigaction");
    missing(&mut demo);
    forbidden(&mut demo);
    beyond_user_space(&mut demo);
    past_end_of_file(&mut demo);
    demo.finish()
}

/// Addresses in no mapping.
fn missing(demo: &mut Demo) {
    let region = Region::anonymous(4 * PAGE, RW).expect("mmap");
    let hole = region.addr() + 2 * PAGE;
    // SAFETY: our own page, which nothing uses from here on.
    assert_eq!(unsafe { libc::munmap(hole as *mut libc::c_void, PAGE) }, 0);

    demo.step("read through the NULL pointer");
    let got = probe::load(0);
    check(demo, got.is_some(), load_fault(SEGV_MAPERR, 0, USER));

    demo.step("write where nothing is mapped");
    // SAFETY: nothing is there.
    let done = unsafe { probe::store(hole + 8, 1) };
    check(demo, done, store_fault(SEGV_MAPERR, hole + 8, USER | WRITE));

    demo.step("read eight bytes of which the last four lie in a page that is not mapped");
    region.write(2 * PAGE - 1, 1);
    let got = probe::load(hole - 4);
    check(demo, got.is_some(), load_fault(SEGV_MAPERR, hole, USER));

    demo.step("jump to where nothing is mapped");
    // SAFETY: nothing is there.
    let done = unsafe { probe::jump(hole) };
    check(
        demo,
        done,
        Expected {
            rip: hole,
            ..load_fault(SEGV_MAPERR, hole, USER | FETCH)
        },
    );
}

/// Mapped, but the protection forbids it.
fn forbidden(demo: &mut Demo) {
    let region = Region::anonymous(4 * PAGE, RW).expect("mmap");
    let at = region.addr();

    demo.step("write to a read-only page that has contents");
    region.write(0, 1);
    region
        .protect(0, PAGE, ProtFlags::PROT_READ)
        .expect("mprotect");
    // SAFETY: our own page.
    let done = unsafe { probe::store(at + 16, 1) };
    check(
        demo,
        done,
        store_fault(SEGV_ACCERR, at + 16, USER | WRITE | PRESENT),
    );

    demo.step("write to a read-only page that was never touched");
    region
        .protect(PAGE, PAGE, ProtFlags::PROT_READ)
        .expect("mprotect");
    // SAFETY: our own page.
    let done = unsafe { probe::store(at + PAGE, 1) };
    check(
        demo,
        done,
        store_fault(SEGV_ACCERR, at + PAGE, USER | WRITE),
    );

    demo.step("read a page without any access (PROT_NONE)");
    region
        .protect(2 * PAGE, PAGE, ProtFlags::PROT_NONE)
        .expect("mprotect");
    let got = probe::load(at + 2 * PAGE);
    check(
        demo,
        got.is_some(),
        load_fault(SEGV_ACCERR, at + 2 * PAGE, USER),
    );

    demo.step("execute a page that holds data");
    region.write(3 * PAGE, 0xc3);
    // SAFETY: the page may not be executed; if it could, it holds a `ret`.
    let done = unsafe { probe::jump(at + 3 * PAGE) };
    let fetch = USER | FETCH | PRESENT;
    check(
        demo,
        done,
        Expected {
            rip: at + 3 * PAGE,
            ..load_fault(SEGV_ACCERR, at + 3 * PAGE, fetch)
        },
    );
}

/// Addresses that no user program can have.
fn beyond_user_space(demo: &mut Demo) {
    demo.step("read a kernel address; the frame does not tell whether anything is mapped there");
    let kernel = 0xffff_8000_0000_1000;
    let got = probe::load(kernel);
    check(
        demo,
        got.is_some(),
        load_fault(SEGV_MAPERR, kernel, USER | PRESENT),
    );

    demo.step("read a non-canonical address: the CPU reports no address");
    let got = probe::load(0x8000_0000_0000_0000 | 0x1234);
    let general_protection = Expected {
        signo: libc::SIGSEGV,
        code: libc::SI_KERNEL,
        addr: 0,
        trapno: GP,
        err: 0,
        rip: probe::load_insn(),
    };
    check(demo, got.is_some(), general_protection);
}

/// Mapped, permitted, but the file has nothing there.
fn past_end_of_file(demo: &mut Demo) {
    demo.step("read a mapped page past the end of its file");
    let file = fast_file().expect("the file to map");
    let end = (file.metadata().expect("stat").len() as usize).next_multiple_of(PAGE);
    let region = Region::file(
        &file,
        0,
        end + 2 * PAGE,
        ProtFlags::PROT_READ,
        MapFlags::MAP_PRIVATE,
    )
    .expect("mmap");
    let at = region.addr() + end + 24;
    let got = probe::load(at);
    check(
        demo,
        got.is_some(),
        Expected {
            signo: libc::SIGBUS,
            ..load_fault(libc::BUS_ADRERR, at, USER)
        },
    );
}

fn load_fault(code: i32, addr: usize, err: u64) -> Expected {
    Expected {
        signo: libc::SIGSEGV,
        code,
        addr,
        trapno: PF,
        err,
        rip: probe::load_insn(),
    }
}

fn store_fault(code: i32, addr: usize, err: u64) -> Expected {
    Expected {
        rip: probe::store_insn(),
        ..load_fault(code, addr, err)
    }
}

fn check(demo: &mut Demo, succeeded: bool, expected: Expected) {
    let Some(Caught {
        signo,
        code,
        addr,
        trapno,
        err,
        cr2,
        rip,
        ..
    }) = probe::take_fault()
    else {
        demo.check(false, "the access raised a signal");
        return;
    };
    demo.varies(format_args!(
        "si_addr {addr:#x}, cr2 {cr2:#x}, rip {rip:#x}"
    ));
    demo.note(format_args!(
        "{} {}, trapno {trapno}, err {err:#x}",
        signal_name(signo),
        code_name(signo, code)
    ));
    demo.check(!succeeded, "the access did not happen");
    demo.check_eq(
        (signo, code),
        (expected.signo, expected.code),
        "signal and code",
    );
    demo.check_eq(addr, expected.addr, "si_addr");
    demo.check_eq(
        (trapno, err),
        (expected.trapno, expected.err),
        "trapno and err",
    );
    demo.check(
        trapno != PF || cr2 == addr,
        "cr2 is the address of a page fault",
    );
    demo.check_eq(rip, expected.rip, "rip is the faulting instruction");
}
