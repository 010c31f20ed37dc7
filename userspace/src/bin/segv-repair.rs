//! A SIGSEGV is a question that a handler can answer: it reads what happened, repairs the memory and returns, and the very same
//! instruction then succeeds.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use nix::sys::mman::ProtFlags;
use nix::sys::signal::{SaFlags, Signal};
use userspace::memory::{PAGE, RW, Region, page_of};
use userspace::probe;
use userspace::report::Demo;
use userspace::signals::{self, Caught, SEGV_ACCERR, SEGV_MAPERR, Slot, code_name};

static FAULT: Slot = Slot::new();
/// More repairs than this for one access mean that the repair did not help.
static REPAIRS_LEFT: AtomicU64 = AtomicU64::new(8);

extern "C" fn repair(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel's own pointers.
    let caught = unsafe { Caught::read(info, context) };
    FAULT.store(&caught);
    let page = page_of(caught.addr) as *mut libc::c_void;
    let rw = libc::PROT_READ | libc::PROT_WRITE;
    let repaired = REPAIRS_LEFT.load(SeqCst) > 0
        && match caught.code {
            // SAFETY: the programs' own page, which it wants to be writable.
            SEGV_ACCERR => unsafe { libc::mprotect(page, PAGE, rw) == 0 },
            SEGV_MAPERR => {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
                // SAFETY: nothing is mapped there, the kernel just said so.
                unsafe { libc::mmap(page, PAGE, rw, flags, -1, 0) == page }
            }
            _ => false,
        };
    REPAIRS_LEFT.fetch_sub(1, SeqCst);
    if !repaired {
        // SAFETY: ends the program at once, with a status that no verdict has.
        unsafe { libc::_exit(3) };
    }
}

fn main() -> ExitCode {
    let mut demo = Demo::start(
        "segv-repair",
        "the handler repairs the memory, and the interrupted access succeeds",
    );
    signals::on(Signal::SIGSEGV, SaFlags::empty(), repair).expect("sigaction");
    let region = Region::anonymous(8 * PAGE, RW).expect("mmap");

    demo.step("write to a page without any access (PROT_NONE)");
    region
        .protect(0, PAGE, ProtFlags::PROT_NONE)
        .expect("mprotect");
    region.write(123, 42);
    seen(&mut demo, region.addr() + 123, SEGV_ACCERR);
    demo.check_eq(region.read(123), 42, "the write was done after the repair");

    demo.step("write to a read-only page that has contents");
    region.write(PAGE, 7);
    region
        .protect(PAGE, PAGE, ProtFlags::PROT_READ)
        .expect("mprotect");
    demo.check_eq(region.read(PAGE), 7, "reading it raises nothing");
    demo.check_eq(FAULT.count(), 0, "the handler did not run");
    region.write(PAGE + 1, 8);
    seen(&mut demo, region.addr() + PAGE + 1, SEGV_ACCERR);
    demo.check_eq(
        (region.read(PAGE), region.read(PAGE + 1)),
        (7, 8),
        "old and new contents are there",
    );

    demo.step("read where nothing is mapped");
    let hole = region.addr() + 2 * PAGE;
    // SAFETY: our own page; the handler maps it again before anyone uses it.
    assert_eq!(unsafe { libc::munmap(hole as *mut libc::c_void, PAGE) }, 0);
    demo.check_eq(
        region.read(2 * PAGE + 5),
        0,
        "the read gives zero from the page that the handler mapped",
    );
    seen(&mut demo, hole + 5, SEGV_MAPERR);

    demo.step("write eight bytes across two pages that are both protected");
    region
        .protect(4 * PAGE, 2 * PAGE, ProtFlags::PROT_NONE)
        .expect("mprotect");
    let across = region.addr() + 5 * PAGE - 4;
    // SAFETY: inside our region.
    let done = unsafe { probe::store(across, 0x1122_3344_5566_7788) };
    demo.check(done, "the one instruction succeeded");
    demo.check_eq(FAULT.count(), 2, "it took two repairs, one for each page");
    demo.check_eq(
        FAULT.take().map(|caught| caught.rip),
        Some(probe::store_insn()),
        "both times the instruction was begun again",
    );
    demo.check_eq(
        region.read_u64(5 * PAGE - 4),
        0x1122_3344_5566_7788,
        "all eight bytes are there",
    );
    demo.finish()
}

/// Reports the one fault since the last report and checks it.
fn seen(demo: &mut Demo, addr: usize, code: i32) {
    demo.check_eq(FAULT.count(), 1, "the handler ran once");
    let Some(caught) = FAULT.take() else { return };
    REPAIRS_LEFT.store(8, SeqCst);
    demo.varies(format_args!(
        "si_addr {:#x}, rip {:#x}",
        caught.addr, caught.rip
    ));
    demo.note(format_args!(
        "si_code {}",
        code_name(caught.signo, caught.code)
    ));
    demo.check_eq(
        (caught.signo, caught.code),
        (libc::SIGSEGV, code),
        "signal and code say what was wrong",
    );
    demo.check_eq(caught.addr, addr, "si_addr is the address of the access");
    demo.check_eq(caught.cr2, addr, "cr2 in the frame is the same");
}
