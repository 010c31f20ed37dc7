//! Handlers that spoil their own signal frame before they return. What sigreturn(2) takes back must be harmless: a frame that
//! cannot be restored ends the process by SIGSEGV, bits that a program may not set are ignored, and the kernel is never hurt.

use std::arch::asm;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use nix::sys::signal::{SaFlags, Signal};
use userspace::bad_pointers::{BadPointers, Kind};
use userspace::process::{self, Ended};
use userspace::report::Demo;
use userspace::signals::{self, send_self};

const SEGV: Ended = Ended::Killed(libc::SIGSEGV);
const LIVES: Ended = Ended::Exited(0);

/// What is spoiled, how, and how the process must end.
type Case = (&'static str, fn(&mut Frame), Ended);

const CASES: &[Case] = &[
    ("nothing", |_| {}, LIVES),
    ("cs is the null selector", |frame| frame.set_cs(0), SEGV),
    ("cs is the kernel's", |frame| frame.set_cs(0x10), SEGV),
    ("cs is beyond the GDT", |frame| frame.set_cs(0xfff8), SEGV),
    ("ss is the null selector", |frame| frame.set_ss(0), SEGV),
    ("ss is the kernel's", |frame| frame.set_ss(0x18), SEGV),
    ("ss is beyond the GDT", |frame| frame.set_ss(0xfff8), SEGV),
    (
        "fs and gs are beyond the GDT, but not used",
        |frame| frame.set_fs_gs(0xfff8),
        LIVES,
    ),
    ("rip is 0", |frame| frame.set(libc::REG_RIP, 0), SEGV),
    (
        "rip is the first address that is not canonical",
        |frame| frame.set(libc::REG_RIP, 1 << 47),
        SEGV,
    ),
    (
        "rip is far from canonical",
        |frame| frame.set(libc::REG_RIP, 0x8000_0000_0000_0000),
        SEGV,
    ),
    (
        "rip is the kernel's",
        |frame| frame.set(libc::REG_RIP, 0xffff_ffff_8100_0000),
        SEGV,
    ),
    (
        "IOPL 3 is asked for",
        |frame| frame.set_flags(0x3000),
        LIVES,
    ),
    ("IF is taken away", |frame| frame.clear_flags(0x200), LIVES),
    (
        "NT, VM, VIF, VIP and ID are asked for",
        |frame| frame.set_flags(0x3a_4000),
        LIVES,
    ),
    (
        "TF is asked for, which a program may",
        |frame| frame.set_flags(0x100),
        Ended::Killed(libc::SIGTRAP),
    ),
    (
        "mxcsr has reserved bits",
        |frame| frame.write_u32(24, 0xffff_0000),
        SEGV,
    ),
    (
        "the XSAVE header asks for unknown state",
        |frame| frame.write_u64_if_xsave(512, 1 << 62),
        SEGV,
    ),
    (
        "the XSAVE header has reserved bits",
        |frame| frame.write_u64_if_xsave(512 + 16, u64::MAX),
        SEGV,
    ),
    (
        "the first magic number is wrong",
        |frame| frame.write_u32(464, 0x1234_5678),
        LIVES,
    ),
    (
        "the second magic number is wrong",
        |frame| frame.spoil_second_magic(),
        LIVES,
    ),
    (
        "the state's size is absurd",
        |frame| frame.write_u32(464 + 16, 0xffff_fff0),
        LIVES,
    ),
    (
        "the state says that it is small, and ends where nothing is mapped",
        |frame| frame.cut_off_state(),
        SEGV,
    ),
    (
        "there is no floating-point state",
        |frame| frame.set_fpstate(0),
        LIVES,
    ),
    (
        "its address is not mapped",
        |frame| frame.set_fpstate(0x1000),
        SEGV,
    ),
    (
        "its address is not canonical",
        |frame| frame.set_fpstate(0x8000_0000_0000_0000),
        SEGV,
    ),
    (
        "its address is the kernel's",
        |frame| frame.set_fpstate(0xffff_8000_0000_0000),
        SEGV,
    ),
    (
        "the mask blocks SIGKILL and SIGSTOP",
        |frame| frame.set_mask(u64::MAX),
        LIVES,
    ),
    (
        "the alternate stack is nonsense",
        |frame| frame.spoil_altstack(),
        LIVES,
    ),
];

/// The index of this child's case.
static CASE: AtomicU32 = AtomicU32::new(0);

extern "C" fn spoil(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let (_, spoil, _) = CASES[CASE.load(SeqCst) as usize];
    // SAFETY: the kernel's own pointer, used by this handler alone.
    spoil(&mut Frame(unsafe { &mut *context.cast() }));
}

fn main() -> ExitCode {
    let mut demo = Demo::start(
        "sigreturn-attacks",
        "what a handler does to its frame hurts at most its own process",
    );
    process::no_core_files();

    demo.step("handlers spoil their frame and return");
    for (index, &(what, _, expected)) in CASES.iter().enumerate() {
        let child = process::child(|| return_through(index as u32)).expect("fork");
        let ended = process::wait(child).expect("wait");
        demo.check_eq(ended, expected, format_args!("{what}: {ended}"));
    }

    demo.step("a stack pointer that a program cannot have ends it, by SIGSEGV or by SIGBUS");
    for rsp in [1 << 47, 0x8000_0000_0000_0000, 0xffff_8000_0000_0000] {
        BAD_RSP.store(rsp, SeqCst);
        let child = process::child(return_to_bad_stack).expect("fork");
        let ended = process::wait(child).expect("wait");
        demo.varies(format_args!("rsp {rsp:#x}: {ended}"));
        demo.check(
            matches!(ended, Ended::Killed(libc::SIGSEGV | libc::SIGBUS)),
            format_args!("rsp {rsp:#x} ends it"),
        );
    }

    demo.step("sigreturn(2) without a frame");
    let bad = BadPointers::new().expect("mmap");
    for kind in [
        Kind::Null,
        Kind::Unmapped,
        Kind::NoAccess,
        Kind::Straddling,
        Kind::NonCanonical,
        Kind::KernelHalf,
        Kind::Highest,
    ] {
        let child = process::child(|| sigreturn_with_stack(bad.pointer(kind))).expect("fork");
        let ended = process::wait(child).expect("wait");
        demo.check_eq(
            ended,
            SEGV,
            format_args!("the stack pointer is {kind:?}: {ended}"),
        );
    }

    demo.step("a frame that asks for privileges gives none");
    for (what, instruct) in PRIVILEGED {
        let child = process::child(|| privileged(*instruct)).expect("fork");
        let ended = process::wait(child).expect("wait");
        demo.check_eq(ended, SEGV, format_args!("{what} afterwards: {ended}"));
    }

    demo.step("afterwards");
    let child = process::child(|| return_through(0)).expect("fork");
    demo.check_eq(
        process::wait(child).expect("wait"),
        LIVES,
        "a handler that spoils nothing returns as ever",
    );
    demo.finish()
}

/// In the child: Rust std's own handler for SIGSEGV and SIGBUS would return to where the process was, as if nothing had happened.
fn default_actions() -> bool {
    [Signal::SIGSEGV, Signal::SIGBUS]
        .into_iter()
        .all(|signal| signals::default_action(signal).is_ok())
}

/// In the child: takes a signal, lets the handler spoil its frame, and looks at itself if it still lives.
fn return_through(case: u32) -> i32 {
    CASE.store(case, SeqCst);
    let installed =
        default_actions() && signals::on(Signal::SIGUSR1, SaFlags::empty(), spoil).is_ok();
    if !installed || send_self(Signal::SIGUSR1).is_err() {
        return 2;
    }
    let flags: u64;
    // SAFETY: reads the flags.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags) };
    let mut mask = nix::sys::signal::SigSet::empty();
    let asked = nix::sys::signal::sigprocmask(
        nix::sys::signal::SigmaskHow::SIG_BLOCK,
        None,
        Some(&mut mask),
    );
    let harmless_flags = flags & 0x1f_7200 == 0x200 & flags;
    let harmless_mask =
        asked.is_ok() && !mask.contains(Signal::SIGKILL) && !mask.contains(Signal::SIGSTOP);
    // Floating point still works, whatever became of its state.
    let sum: f64 = std::hint::black_box([0.5, 0.25]).iter().sum();
    i32::from(!(harmless_flags && harmless_mask && sum == 0.75)) * 3
}

/// Instructions that user code may not use, whatever flags a frame asks for.
const PRIVILEGED: &[(&str, fn())] = &[
    // SAFETY: each of them faults, or a check fails.
    ("cli", || unsafe { asm!("cli") }),
    // SAFETY: as above.
    ("sti", || unsafe { asm!("sti") }),
    // SAFETY: as above.
    ("hlt", || unsafe { asm!("hlt") }),
    // SAFETY: as above.
    ("in", || unsafe {
        asm!("in al, dx", out("al") _, in("dx") 0x64u16)
    }),
];

/// In the child: returns through a frame with IOPL 3, and then does what only that would allow.
fn privileged(instruct: fn()) -> i32 {
    let iopl = CASES
        .iter()
        .position(|(what, ..)| what.starts_with("IOPL"))
        .expect("there is such a case");
    let returned = return_through(iopl as u32);
    instruct();
    returned
}

static BAD_RSP: AtomicU64 = AtomicU64::new(0);

extern "C" fn spoil_rsp(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel's own pointer, used by this handler alone.
    Frame(unsafe { &mut *context.cast() }).set(libc::REG_RSP, BAD_RSP.load(SeqCst));
}

/// In the child: goes on with a bad RSP, and uses the stack at once.
fn return_to_bad_stack() -> i32 {
    let installed =
        default_actions() && signals::on(Signal::SIGUSR1, SaFlags::empty(), spoil_rsp).is_ok();
    let me = nix::unistd::getpid().as_raw();
    if installed {
        // SAFETY: kill(2) by hand, so that the next instruction is ours: it uses the stack, whose pointer the handler changed.
        unsafe {
            asm!(
                "syscall",
                "push rax",
                "pop rax",
                inout("rax") libc::SYS_kill => _,
                in("rdi") me,
                in("rsi") libc::SIGUSR1,
                out("rcx") _,
                out("r11") _,
            );
        }
    }
    4
}

/// In the child: calls sigreturn(2) with a stack pointer that has no frame.
fn sigreturn_with_stack(rsp: u64) -> i32 {
    if !default_actions() {
        return 2;
    }
    // SAFETY: does not return; either the kernel ends the process or `ud2` does.
    unsafe {
        asm!("mov rsp, {rsp}", "syscall", "ud2", rsp = in(reg) rsp, in("rax") libc::SYS_rt_sigreturn, options(noreturn))
    }
}

/// The frame that a handler spoils.
struct Frame<'a>(&'a mut libc::ucontext_t);

impl Frame<'_> {
    fn set(&mut self, register: libc::c_int, value: u64) {
        self.0.uc_mcontext.gregs[register as usize] = value as i64;
    }

    fn set_flags(&mut self, flags: i64) {
        self.0.uc_mcontext.gregs[libc::REG_EFL as usize] |= flags;
    }

    fn clear_flags(&mut self, flags: i64) {
        self.0.uc_mcontext.gregs[libc::REG_EFL as usize] &= !flags;
    }

    /// cs, gs, fs and ss share one word, 16 bits each.
    fn set_selector(&mut self, index: u32, selector: u16) {
        let word = &mut self.0.uc_mcontext.gregs[libc::REG_CSGSFS as usize];
        *word = *word & !(0xffff << (16 * index)) | i64::from(selector) << (16 * index);
    }

    fn set_cs(&mut self, selector: u16) {
        self.set_selector(0, selector);
    }

    fn set_ss(&mut self, selector: u16) {
        self.set_selector(3, selector);
    }

    fn set_fs_gs(&mut self, selector: u16) {
        self.set_selector(1, selector);
        self.set_selector(2, selector);
    }

    fn set_fpstate(&mut self, address: u64) {
        self.0.uc_mcontext.fpregs = address as *mut _;
    }

    fn set_mask(&mut self, mask: u64) {
        let set = (&raw mut self.0.uc_sigmask).cast::<u64>();
        // SAFETY: the kernel's set is the first word of the C library's.
        unsafe { set.write(mask) };
    }

    fn spoil_altstack(&mut self) {
        self.0.uc_stack = libc::stack_t {
            ss_sp: 0x1000 as *mut _,
            ss_flags: 0x7f,
            ss_size: 1,
        };
    }

    /// The floating-point state: 512 bytes by FXSAVE, and behind them more if the CPU has XSAVE.
    fn fpstate(&mut self) -> *mut u8 {
        self.0.uc_mcontext.fpregs.cast()
    }

    fn write_u32(&mut self, offset: usize, value: u32) {
        // SAFETY: inside the state that the kernel wrote.
        unsafe {
            self.fpstate()
                .add(offset)
                .cast::<u32>()
                .write_unaligned(value)
        };
    }

    fn read_u32(&mut self, offset: usize) -> u32 {
        // SAFETY: inside the state that the kernel wrote.
        unsafe { self.fpstate().add(offset).cast::<u32>().read_unaligned() }
    }

    /// Whether there is an XSAVE area: the first magic number says so.
    fn has_xsave(&mut self) -> bool {
        self.read_u32(464) == 0x4650_5853
    }

    /// Without an XSAVE area there is nothing to spoil; the process then ends in the way that the case expects.
    fn write_u64_if_xsave(&mut self, offset: usize, value: u64) {
        if self.has_xsave() {
            // SAFETY: inside the XSAVE header, which the magic number vouches for.
            unsafe {
                self.fpstate()
                    .add(offset)
                    .cast::<u64>()
                    .write_unaligned(value)
            };
        } else {
            self.set(libc::REG_RIP, 0);
        }
    }

    /// A copy of the state at the end of a page, of which it claims to need no more than the legacy part and the header.
    fn cut_off_state(&mut self) {
        const CLAIMED: usize = 576;
        if !self.has_xsave() {
            return self.set(libc::REG_RIP, 0);
        }
        let from = self.fpstate();
        // SAFETY: a new mapping whose second page goes again; the copy and its closing magic end within the first.
        unsafe {
            let page = libc::mmap(
                std::ptr::null_mut(),
                0x2000,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            libc::munmap(page.byte_add(0x1000), 0x1000);
            let to: *mut u8 = page.byte_add(0x1000 - CLAIMED - 64).cast();
            std::ptr::copy_nonoverlapping(from, to, CLAIMED);
            to.add(464 + 16).cast::<u32>().write(CLAIMED as u32);
            to.add(CLAIMED).cast::<u32>().write(0x4650_5845);
            self.set_fpstate(to as u64);
        }
    }

    fn spoil_second_magic(&mut self) {
        if self.has_xsave() {
            let at = self.read_u32(464 + 16) as usize;
            self.write_u32(at, 0);
        }
    }
}
