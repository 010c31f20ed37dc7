//! Handlers inside handlers: who may interrupt whom, on which stack, and that the interrupted program notices nothing.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

use nix::sys::signal::{SaFlags, SigSet, SigmaskHow, Signal};
use userspace::memory::{PAGE, RW, Region, page_of};
use userspace::registers::{self, Registers};
use userspace::report::Demo;
use userspace::signals::{self, Caught, send_self};
use userspace::time;

const USR1: Signal = Signal::SIGUSR1;
const USR2: Signal = Signal::SIGUSR2;

fn main() -> ExitCode {
    let mut demo = Demo::start(
        "nested-signals",
        "handlers nest, masks hold, and every register survives",
    );
    nesting(&mut demo);
    masks(&mut demo);
    pending_together(&mut demo);
    recursion(&mut demo);
    altstack(&mut demo);
    register_file(&mut demo);
    demo.finish()
}

/// What happened, in order, one letter an event.
static LOG: [AtomicU64; 16] = [const { AtomicU64::new(0) }; 16];
static LOGGED: AtomicUsize = AtomicUsize::new(0);

fn log(event: u8) {
    let at = LOGGED.fetch_add(1, SeqCst);
    if let Some(place) = LOG.get(at) {
        place.store(u64::from(event), SeqCst);
    }
}

fn take_log() -> String {
    let count = LOGGED.swap(0, SeqCst).min(LOG.len());
    LOG[..count]
        .iter()
        .map(|event| event.load(SeqCst) as u8 as char)
        .collect()
}

/// Enters as `A`, sends SIGUSR2 inside, leaves as `a`.
extern "C" fn usr1_sends_usr2(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    log(b'A');
    let _ = send_self(USR2);
    log(b'a');
}

/// Enters as `B`, leaves as `b`.
extern "C" fn usr2(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    log(b'B');
    log(b'b');
}

/// Enters as `A`, leaves as `a`.
extern "C" fn usr1(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    log(b'A');
    log(b'a');
}

fn nesting(demo: &mut Demo) {
    demo.step("SIGUSR1's handler (A..a) sends SIGUSR2, whose handler is B..b");
    signals::on(USR1, SaFlags::empty(), usr1_sends_usr2).expect("sigaction");
    signals::on(USR2, SaFlags::empty(), usr2).expect("sigaction");
    send_self(USR1).expect("kill");
    logged(demo, "ABba", "the second handler ran inside the first");
}

fn masks(demo: &mut Demo) {
    demo.step("the same with SIGUSR2 in SIGUSR1's sa_mask");
    let mut mask = SigSet::empty();
    mask.add(USR2);
    signals::on_masking(USR1, SaFlags::empty(), mask, usr1_sends_usr2).expect("sigaction");
    send_self(USR1).expect("kill");
    logged(
        demo,
        "AaBb",
        "the second handler waited until the first had returned",
    );
}

fn pending_together(demo: &mut Demo) {
    demo.step("SIGUSR1 and SIGUSR2 are both pending when they are unblocked together");
    signals::on(USR1, SaFlags::empty(), usr1).expect("sigaction");
    let mut both = SigSet::empty();
    both.add(USR1);
    both.add(USR2);
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_BLOCK, Some(&both), None).expect("sigprocmask");
    send_self(USR1).expect("kill");
    send_self(USR2).expect("kill");
    send_self(USR2).expect("kill");
    logged(demo, "", "nothing runs while they are blocked");
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&both), None).expect("sigprocmask");
    logged(
        demo,
        "BbAa",
        "both frames are built before either runs, so the last one built runs first; a standard signal does not queue",
    );
}

/// How deep [`recursive`] still goes.
static DEPTH: AtomicU64 = AtomicU64::new(0);

extern "C" fn recursive(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    log(b'A');
    if DEPTH.fetch_sub(1, SeqCst) > 1 {
        let _ = send_self(USR1);
    }
    log(b'a');
}

fn recursion(demo: &mut Demo) {
    demo.step("SIGUSR1's handler sends SIGUSR1 to itself, three times");
    DEPTH.store(3, SeqCst);
    signals::on(USR1, SaFlags::empty(), recursive).expect("sigaction");
    send_self(USR1).expect("kill");
    logged(
        demo,
        "AaAaAa",
        "a signal is blocked while its own handler runs",
    );

    demo.step("the same with SA_NODEFER");
    DEPTH.store(3, SeqCst);
    signals::on(USR1, SaFlags::SA_NODEFER, recursive).expect("sigaction");
    send_self(USR1).expect("kill");
    logged(demo, "AAAaaa", "with it the handler interrupts itself");
}

fn logged(demo: &mut Demo, expected: &str, fact: &str) {
    let log = take_log();
    demo.note(format_args!(
        "order: {}",
        if log.is_empty() { "nothing" } else { &log }
    ));
    demo.check_eq(log.as_str(), expected, fact);
}

/// Where the handlers' own stack frames were, outer and inner, and what sigaltstack(2) said in the inner one.
static OUTER_SP: AtomicU64 = AtomicU64::new(0);
static INNER_SP: AtomicU64 = AtomicU64::new(0);
static INNER_FLAGS: AtomicU64 = AtomicU64::new(0);
static CHANGE_ERRNO: AtomicU64 = AtomicU64::new(0);

extern "C" fn outer_on_altstack(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let here = 0u8;
    OUTER_SP.store(&raw const here as u64, SeqCst);
    let _ = send_self(USR2);
}

extern "C" fn inner_on_altstack(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let here = 0u8;
    INNER_SP.store(&raw const here as u64, SeqCst);
    INNER_FLAGS.store(signals::altstack_flags() as u64, SeqCst);
    let off = libc::stack_t {
        ss_sp: std::ptr::null_mut(),
        ss_flags: libc::SS_DISABLE,
        ss_size: 0,
    };
    // SAFETY: a valid stack_t; the kernel refuses the change while the stack is in use.
    if unsafe { libc::sigaltstack(&off, std::ptr::null_mut()) } != 0 {
        CHANGE_ERRNO.store(
            std::io::Error::last_os_error().raw_os_error().unwrap_or(0) as u64,
            SeqCst,
        );
    }
}

fn altstack(demo: &mut Demo) {
    demo.step("both handlers use the alternate stack, one inside the other");
    // Rust std gave the main thread a stack of its own; a fresh one has known bounds.
    let stack = Region::anonymous(16 * PAGE, RW).expect("mmap");
    // SAFETY: the region is used for nothing else until it is disabled below.
    unsafe { signals::use_altstack(&stack) }.expect("sigaltstack");
    signals::on(USR1, SaFlags::SA_ONSTACK, outer_on_altstack).expect("sigaction");
    signals::on(USR2, SaFlags::SA_ONSTACK, inner_on_altstack).expect("sigaction");
    demo.check_eq(
        signals::altstack_flags(),
        0,
        "outside of handlers it is not in use",
    );
    send_self(USR1).expect("kill");
    let (outer, inner) = (
        OUTER_SP.load(SeqCst) as usize,
        INNER_SP.load(SeqCst) as usize,
    );
    let inside = |sp: usize| (stack.addr()..stack.addr() + stack.len()).contains(&sp);
    demo.check(inside(outer) && inside(inner), "both ran on it");
    demo.check(
        inner < outer,
        "the inner one went on below the outer one instead of starting over",
    );
    demo.check_eq(
        INNER_FLAGS.load(SeqCst) as i32,
        libc::SS_ONSTACK,
        "inside, sigaltstack(2) says SS_ONSTACK",
    );
    demo.check_eq(
        CHANGE_ERRNO.load(SeqCst) as i32,
        libc::EPERM,
        "changing it there fails with EPERM",
    );
    demo.check_eq(signals::altstack_flags(), 0, "afterwards it is free again");
    let off = libc::stack_t {
        ss_sp: std::ptr::null_mut(),
        ss_flags: libc::SS_DISABLE,
        ss_size: 0,
    };
    // SAFETY: no handler runs; the region goes away only after this.
    unsafe { libc::sigaltstack(&off, std::ptr::null_mut()) };
}

/// MXCSR and the flags that the handler started with, and how often it ran.
static HANDLER_MXCSR: AtomicU64 = AtomicU64::new(0);
static HANDLERS: AtomicU64 = AtomicU64::new(0);
/// The byte that ends the spin, as an address.
static RELEASE: AtomicU64 = AtomicU64::new(0);

extern "C" fn clobbering(
    signo: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    HANDLER_MXCSR.store(u64::from(registers::mxcsr()), SeqCst);
    HANDLERS.fetch_add(1, SeqCst);
    if signo == libc::SIGSEGV {
        // SAFETY: the kernel's own pointers.
        let page = page_of(unsafe { Caught::read(info, context) }.addr);
        // SAFETY: the program's own page.
        unsafe {
            libc::mprotect(
                page as *mut libc::c_void,
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
            )
        };
    }
    if signo == libc::SIGALRM {
        // SAFETY: the byte that the program spins on.
        unsafe { (RELEASE.load(SeqCst) as *mut u8).write_volatile(1) };
    }
    registers::clobber();
}

fn register_file(demo: &mut Demo) {
    let block = Registers::pattern();
    let page = Region::anonymous(PAGE, RW).expect("mmap");
    // SAFETY: the page is ours and writable.
    let reference = unsafe { registers::across_store(&block, page.ptr(0)) };
    demo.step("fill every register, the vectors, x87 and MXCSR, and do nothing special");
    demo.varies(if block.avx == 1 {
        "vectors: 16 YMM registers"
    } else {
        "vectors: 16 XMM registers"
    });
    let x87_was_set = reference.x87 != block.x87;
    let same = Registers {
        x87: block.x87,
        ..reference.clone()
    }
    .differences(&block);
    demo.check(same.is_empty() && x87_was_set, "they keep their values");
    let block = reference;

    demo.step("a signal at a system call; its handler overwrites vectors, x87 and MXCSR");
    signals::on(USR1, SaFlags::empty(), clobbering).expect("sigaction");
    let me = nix::unistd::getpid().as_raw() as u64;
    let after = registers::across_syscall(&block, libc::SYS_kill, me, USR1 as u64);
    survived(demo, &after, &block);

    demo.step("a signal at a store that faults; its handler makes the page writable");
    signals::on(Signal::SIGSEGV, SaFlags::empty(), clobbering).expect("sigaction");
    page.protect(0, PAGE, nix::sys::mman::ProtFlags::PROT_READ)
        .expect("mprotect");
    // SAFETY: the page is ours, and the handler makes it writable again.
    let after = unsafe { registers::across_store(&block, page.ptr(9)) };
    survived(demo, &after, &block);
    demo.check_eq(page.read(9), 1, "the store was done");

    demo.step("a timer's signal in a loop that makes no system call");
    signals::on(Signal::SIGALRM, SaFlags::empty(), clobbering).expect("sigaction");
    RELEASE.store(page.ptr(17) as u64, SeqCst);
    time::set_timer(
        std::time::Duration::from_millis(30),
        std::time::Duration::ZERO,
    )
    .expect("setitimer");
    // SAFETY: the byte can be read.
    let after = unsafe { registers::across_spin(&block, page.ptr(17)) };
    survived(demo, &after, &block);
}

fn survived(demo: &mut Demo, after: &Registers, before: &Registers) {
    demo.check_eq(HANDLERS.swap(0, SeqCst), 1, "the handler ran once");
    demo.check_eq(
        HANDLER_MXCSR.load(SeqCst),
        0x1f80,
        "it started with a fresh floating-point state",
    );
    let lost = after.differences(before);
    demo.check_eq(
        lost.as_slice(),
        &[] as &[String],
        "every register has its value of before",
    );
}
