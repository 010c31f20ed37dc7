//! Signals sent to oneself, and by faults.

use core::arch::asm;
use core::ffi::{c_int, c_void};
use core::mem::offset_of;

use linux_raw_sys::general as abi;

use crate::check::{Counter, require};
use crate::measure::{self, SAMPLES};
use crate::memory::{NONE, PAGE, READ, RW, Region};
use crate::sys;

static HANDLED: Counter = Counter::new();
/// The clock at a handler's first instruction.
pub static ENTERED: Counter = Counter::new();
/// Where the stack was in the handler.
static STACK: Counter = Counter::new();

const ROUNDS: u64 = 500;

pub extern "C" fn ignore(_: c_int, _: *mut abi::siginfo_t, _: *mut c_void) {}

extern "C" fn count(_: c_int, _: *mut abi::siginfo_t, _: *mut c_void) {
    HANDLED.bump();
}

/// Counts, and leaves other values in the vector registers.
extern "C" fn spoil(_: c_int, info: *mut abi::siginfo_t, _: *mut c_void) {
    HANDLED.bump();
    STACK.set(info.addr() as u64);
    // SAFETY: the registers are a handler's to change, the kernel brings them back.
    unsafe {
        asm!(
            "pcmpeqd xmm0, xmm0",
            "pcmpeqd xmm7, xmm7",
            "pcmpeqd xmm15, xmm15",
            "fldz",
            "fstp st(0)",
            out("xmm0") _, out("xmm7") _, out("xmm15") _,
            options(nomem, nostack),
        );
    }
}

/// Sends a signal with values in the vector registers that its handler overwrites; whether they are there afterwards.
fn registers_survive(signal: u32) -> bool {
    let mut values = [
        0x1122_3344_5566_7788_u64,
        0x99aa_bbcc_ddee_ff00,
        0x0123_4567_89ab_cdef,
    ];
    let before = values;
    // SAFETY: kill(2) of this process, with a handler; the registers come back as they were.
    unsafe {
        asm!(
            "movq xmm0, qword ptr [r8]",
            "movq xmm7, qword ptr [r8 + 8]",
            "movq xmm15, qword ptr [r8 + 16]",
            "syscall",
            "movq qword ptr [r8], xmm0",
            "movq qword ptr [r8 + 8], xmm7",
            "movq qword ptr [r8 + 16], xmm15",
            inlateout("rax") abi::__NR_kill as usize => _,
            in("rdi") sys::getpid(),
            in("rsi") signal as usize,
            in("r8") values.as_mut_ptr(),
            out("rcx") _, out("r11") _,
            out("xmm0") _, out("xmm7") _, out("xmm15") _,
            options(nostack),
        );
    }
    values == before
}

/// kill(2) of oneself, to the handler and back.
pub fn kill_self() {
    sys::on(abi::SIGUSR1, count, 0);
    kill_rounds();
    sys::on(abi::SIGUSR1, spoil, 0);
    require(
        registers_survive(abi::SIGUSR1),
        "registers survive a handler",
    );
}

/// The same with the handler on the alternate stack.
pub fn kill_self_on_altstack() {
    let stack = Region::anonymous(16 * PAGE);
    let alternate = abi::stack_t {
        ss_sp: stack.address() as *mut c_void,
        ss_flags: 0,
        ss_size: (16 * PAGE) as u64,
    };
    // SAFETY: memory of our own.
    let result = unsafe { sys::call2(abi::__NR_sigaltstack, &raw const alternate as usize, 0) };
    require(result == 0, "sigaltstack");
    sys::on(abi::SIGUSR1, count, abi::SA_ONSTACK);
    kill_rounds();
    sys::on(abi::SIGUSR1, spoil, abi::SA_ONSTACK);
    require(
        registers_survive(abi::SIGUSR1),
        "registers survive a handler",
    );
    let used = STACK.get() as usize;
    let inside = stack.address()..stack.address() + 16 * PAGE;
    require(inside.contains(&used), "the handler runs on its stack");
}

fn kill_rounds() {
    let pid = sys::getpid();
    for round in 0..ROUNDS {
        SAMPLES.time(|| sys::kill(pid, abi::SIGUSR1));
        require(HANDLED.get() == round + 1, "the handler ran once");
    }
}

extern "C" fn repair(_: c_int, info: *mut abi::siginfo_t, _: *mut c_void) {
    ENTERED.set(measure::now());
    HANDLED.bump();
    mend(info);
}

/// The same, for what ends with the handler's first instruction.
extern "C" fn repair_after_stop(_: c_int, info: *mut abi::siginfo_t, _: *mut c_void) {
    ENTERED.set(measure::stop());
    HANDLED.bump();
    mend(info);
}

/// Makes the page writable.
fn mend(info: *const abi::siginfo_t) {
    // SAFETY: a fault's siginfo has the address.
    let address = unsafe { fault_address(info) };
    // SAFETY: the page is this program's own.
    unsafe {
        sys::call3(abi::__NR_mprotect, address & !(PAGE - 1), PAGE, RW as usize);
    }
}

/// # Safety
/// `info` is that of a fault.
unsafe fn fault_address(info: *const abi::siginfo_t) -> usize {
    /// The common words of a siginfo, and what those of faults have next.
    #[repr(C)]
    struct Fault {
        signo: c_int,
        errno: c_int,
        code: c_int,
        address: usize,
    }
    const { assert!(offset_of!(Fault, address) == 16) };
    // SAFETY: the caller's promise.
    unsafe { (*info.cast::<Fault>()).address }
}

/// A write to a read-only page; the handler makes it writable, and the write succeeds.
pub fn segv_repair() {
    segv_rounds(repair, |ticks, _| ticks);
}

/// From that write to the handler's first instruction.
pub fn segv_entry() {
    segv_rounds(repair_after_stop, |_, to_handler| to_handler);
}

fn segv_rounds(handler: sys::Handler, choose: fn(u64, u64) -> u64) {
    sys::on(abi::SIGSEGV, handler, 0);
    // A page between two others, so that nothing is cut in two or made one.
    let region = Region::anonymous(3 * PAGE);
    region.fill(1);
    region.protect(0, NONE);
    region.protect(2, NONE);
    for round in 0..ROUNDS {
        region.protect(1, READ);
        let start = measure::start();
        region.write(1, round as u8);
        let end = measure::stop();
        SAMPLES.add(choose(end - start, ENTERED.get() - start));
        require(HANDLED.get() == round + 1, "the handler ran once");
        require(region.read(1) == round as u8, "the write was done");
    }
}
