//! The handler: logs all that it gets, steps over faulting instructions, and sometimes sends itself another signal.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use super::log;

thread_local! {
    /// The thread's place among those that take turns.
    pub static INDEX: Cell<usize> = const { Cell::new(0) };
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// What handlers send themselves is drawn from this.
pub static DICE: AtomicU64 = AtomicU64::new(0);

/// How many signals each thread's handlers have sent in this step: a few, or a handler that sends itself its own signal would never end.
pub static SENT: [AtomicU32; log::THREADS] = [const { AtomicU32::new(0) }; log::THREADS];

/// The process whose pid is written as `me`, and its parent; others are its children.
pub static ME: AtomicU32 = AtomicU32::new(0);
pub static PARENT: AtomicU32 = AtomicU32::new(0);

/// Length of each instruction that faults on purpose.
const FAULT_LEN: i64 = 2;

/// Alternate stacks: for each thread two.
pub const STACK: usize = 64 << 10;
static mut STACKS: [[[u8; STACK]; 2]; log::THREADS] = [[[0; STACK]; 2]; log::THREADS];

/// Where an alternate stack begins.
pub fn stack(index: usize, which: usize) -> usize {
    &raw const STACKS as usize + (index * 2 + which) * STACK
}

/// An address within the alternate stacks, as a name.
pub fn stack_name(address: usize) -> &'static str {
    let from = &raw const STACKS as usize;
    match address.checked_sub(from).map(|offset| offset / STACK) {
        _ if address == 0 => "none",
        Some(n) if n < 2 * log::THREADS => ["a", "b"][n % 2],
        _ => "other",
    }
}

/// A pid, the same in every run.
pub fn pid_name(pid: i32) -> &'static str {
    match pid as u32 {
        0 => "0",
        pid if pid == ME.load(SeqCst) => "me",
        pid if pid == PARENT.load(SeqCst) => "parent",
        // A child may end before fork(2) has told its parent the number.
        _ => "child",
    }
}

/// The current thread's blocked signals.
pub fn mask() -> u64 {
    let mut mask = 0u64;
    // SAFETY: writes one word.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_BLOCK,
            std::ptr::null::<u64>(),
            &raw mut mask,
            8,
        )
    };
    mask
}

/// siginfo as text: the fields that its origin fills.
pub fn describe(info: &libc::siginfo_t) -> String {
    let mut text = Text::new();
    text.siginfo(info);
    text.as_str().to_owned()
}

/// A short text without memory of its own.
struct Text {
    bytes: [u8; 256],
    len: usize,
}

impl std::fmt::Write for Text {
    fn write_str(&mut self, more: &str) -> std::fmt::Result {
        let room = self.bytes.len() - self.len;
        let more = &more.as_bytes()[..more.len().min(room)];
        self.bytes[self.len..self.len + more.len()].copy_from_slice(more);
        self.len += more.len();
        Ok(())
    }
}

impl Text {
    fn new() -> Text {
        Text {
            bytes: [0; 256],
            len: 0,
        }
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or("?")
    }

    fn siginfo(&mut self, info: &libc::siginfo_t) {
        use std::fmt::Write;
        let (signal, code) = (info.si_signo, info.si_code);
        let _ = write!(self, "sig {signal} errno {} code {code}", info.si_errno);
        // SAFETY: each origin's fields lie inside the union, and all of it was written.
        unsafe {
            let _ = match (signal, code) {
                (_, libc::SI_USER | libc::SI_TKILL | libc::SI_QUEUE | ..=-100) => {
                    write!(
                        self,
                        " pid {} uid {} value {:x}",
                        pid_name(info.si_pid()),
                        info.si_uid(),
                        info.si_value().sival_ptr as usize
                    )
                }
                (libc::SIGCHLD, 1..=6) => write!(
                    self,
                    " pid {} uid {} status {}",
                    pid_name(info.si_pid()),
                    info.si_uid(),
                    info.si_status()
                ),
                // Addresses of code differ from build to build only; the same binary runs on both kernels.
                (_, 1..=6) => write!(self, " addr {:x}", info.si_addr() as usize),
                _ => Ok(()),
            };
        }
    }
}

pub extern "C" fn handler(_: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let index = INDEX.get();
    let depth = DEPTH.get();
    // SAFETY: the kernel's own pointers, used by this handler alone.
    let (info, context) = unsafe { (&*info, &mut *context.cast::<libc::ucontext_t>()) };
    let errno = std::io::Error::last_os_error().raw_os_error();
    let mut text = Text::new();
    text.siginfo(info);
    let here = stack_name(&raw const depth as usize);
    let gregs = &mut context.uc_mcontext.gregs;
    // SAFETY: the kernel's set is the first word of the C library's.
    let saved = unsafe { (&raw const context.uc_sigmask).cast::<u64>().read() };
    log::line(
        index,
        format_args!(
            "{depth}> {} mask {:x} saved {saved:x} on {here} stack {} {:x} {} trap {} err {:x} fl {:x}",
            text.as_str(),
            mask(),
            stack_name(context.uc_stack.ss_sp as usize),
            context.uc_stack.ss_flags,
            context.uc_stack.ss_size,
            gregs[libc::REG_TRAPNO as usize],
            gregs[libc::REG_ERR as usize],
            gregs[libc::REG_EFL as usize] & 0x4_7700,
        ),
    );
    let fault = matches!(
        info.si_signo,
        libc::SIGSEGV | libc::SIGILL | libc::SIGFPE | libc::SIGBUS
    ) && info.si_code > 0;
    if fault {
        gregs[libc::REG_RIP as usize] += FAULT_LEN;
    }
    DEPTH.set(depth + 1);
    if depth < 2 {
        send_another(index, info.si_signo);
    }
    DEPTH.set(depth);
    log::line(index, format_args!("{depth}< {}", info.si_signo));
    if let Some(errno) = errno {
        // SAFETY: the thread's own errno.
        unsafe { *libc::__errno_location() = errno };
    }
}

/// Depending on the step and the signal, sends one to the thread itself.
fn send_another(index: usize, signal: i32) {
    let dice = (DICE.load(SeqCst) ^ signal as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    if dice & 3 != 0 || SENT[index].fetch_add(1, SeqCst) >= 3 {
        return;
    }
    let which = super::steps::SIGNALS[(dice >> 2) as usize % super::steps::SIGNALS.len()];
    if matches!(which, libc::SIGCONT | libc::SIGTSTP | libc::SIGTTIN) {
        return;
    }
    log::line(index, format_args!("  sends itself {which}"));
    // SAFETY: a signal to this thread.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), which) };
}
