//! Signal handlers and the frame that they get: siginfo, ucontext, and the one edit that the demos make there, a new RIP.
//!
//! A handler stores what it saw into a [`Slot`] of atomics; the interrupted code takes it out afterwards.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask,
};

use crate::memory::Region;

/// si_code of SIGSEGV where nothing is mapped (sigaction(2); the libc crate lacks it).
pub const SEGV_MAPERR: i32 = 1;
/// si_code of SIGSEGV where the mapping forbids the access.
pub const SEGV_ACCERR: i32 = 2;

/// The signature of an SA_SIGINFO handler.
pub type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);

/// Installs `handler` with SA_SIGINFO, `flags` and an empty mask.
pub fn on(signal: Signal, flags: SaFlags, handler: Handler) -> io::Result<()> {
    on_masking(signal, flags, SigSet::empty(), handler)
}

/// As [`on`], with the signals that stay blocked while the handler runs.
pub fn on_masking(
    signal: Signal,
    flags: SaFlags,
    mask: SigSet,
    handler: Handler,
) -> io::Result<()> {
    let action = SigAction::new(
        SigHandler::SigAction(handler),
        flags | SaFlags::SA_SIGINFO,
        mask,
    );
    // SAFETY: the programs' handlers touch only atomics, their frame and async-signal-safe calls.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}

/// Back to the default action.
pub fn default_action(signal: Signal) -> io::Result<()> {
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler is installed.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}

/// Blocks or unblocks one signal.
pub fn mask(how: SigmaskHow, signal: Signal) -> io::Result<()> {
    let mut set = SigSet::empty();
    set.add(signal);
    Ok(sigprocmask(how, Some(&set), None)?)
}

/// A set of signals by number, real-time ones included.
pub fn set_of(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: an empty set is made of nothing but zeros, and what is no signal is refused.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for &signal in signals {
            libc::sigaddset(&mut set, signal);
        }
        set
    }
}

/// Blocks or unblocks the signals of a set, or exactly those: `how` is that of sigprocmask(2).
pub fn mask_set(how: i32, set: &libc::sigset_t) {
    // SAFETY: a valid set.
    let result = unsafe { libc::sigprocmask(how, set, std::ptr::null_mut()) };
    assert_eq!(result, 0, "sigprocmask");
}

/// Sends a signal to this process; unblocked, it is delivered before this returns.
pub fn send_self(signal: Signal) -> io::Result<()> {
    Ok(nix::sys::signal::kill(nix::unistd::getpid(), signal)?)
}

/// Makes `stack` the alternate signal stack.
///
/// # Safety
/// Nothing else uses the memory of `stack`, which is readable and writable, as long as handlers may run on it.
pub unsafe fn use_altstack(stack: &Region) -> io::Result<()> {
    let stack = libc::stack_t {
        ss_sp: stack.ptr(0).cast(),
        ss_flags: 0,
        ss_size: stack.len(),
    };
    // SAFETY: a valid stack_t; the caller vouches for the memory.
    match unsafe { libc::sigaltstack(&stack, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The alternate stack's flags now: SS_ONSTACK inside a handler that runs on it, SS_DISABLE without one.
pub fn altstack_flags() -> i32 {
    let mut now = libc::stack_t {
        ss_sp: std::ptr::null_mut(),
        ss_flags: 0,
        ss_size: 0,
    };
    // SAFETY: only asks; a valid place for the answer.
    unsafe { libc::sigaltstack(std::ptr::null(), &mut now) };
    now.ss_flags
}

/// A copy of what a handler was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caught {
    pub signo: i32,
    pub code: i32,
    pub addr: usize,
    pub trapno: u64,
    pub err: u64,
    pub cr2: usize,
    pub rip: usize,
    pub rsp: usize,
    pub rax: u64,
}

impl Caught {
    /// Reads siginfo and ucontext.
    ///
    /// # Safety
    /// Both pointers are what the kernel passed to a handler that still runs.
    pub unsafe fn read(info: *const libc::siginfo_t, context: *const libc::c_void) -> Self {
        let context = context.cast::<libc::ucontext_t>();
        // SAFETY: the caller's promise.
        let (signo, code, addr, gregs) = unsafe {
            (
                (*info).si_signo,
                (*info).si_code,
                (*info).si_addr() as usize,
                (*context).uc_mcontext.gregs,
            )
        };
        let register = |index: libc::c_int| gregs[index as usize] as u64;
        Self {
            signo,
            code,
            addr,
            trapno: register(libc::REG_TRAPNO),
            err: register(libc::REG_ERR),
            cr2: register(libc::REG_CR2) as usize,
            rip: register(libc::REG_RIP) as usize,
            rsp: register(libc::REG_RSP) as usize,
            rax: register(libc::REG_RAX),
        }
    }
}

/// Makes the interrupted code go on at `rip` when the handler returns.
///
/// # Safety
/// `context` is what the kernel passed to a handler that still runs, and the code at `rip` is right for the interrupted registers.
pub unsafe fn resume_at(context: *mut libc::c_void, rip: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_RIP as usize] = rip as i64
    };
}

/// Where a handler leaves its last [`Caught`], and how often it ran.
#[derive(Default)]
pub struct Slot {
    count: AtomicU64,
    words: [AtomicU64; 9],
}

impl Slot {
    pub const fn new() -> Self {
        Self {
            count: AtomicU64::new(0),
            words: [const { AtomicU64::new(0) }; 9],
        }
    }

    /// Called by the handler.
    pub fn store(&self, caught: &Caught) {
        let values = [
            caught.signo as u64,
            caught.code as u64,
            caught.addr as u64,
            caught.trapno,
            caught.err,
            caught.cr2 as u64,
            caught.rip as u64,
            caught.rsp as u64,
            caught.rax,
        ];
        for (word, value) in self.words.iter().zip(values) {
            word.store(value, SeqCst);
        }
        self.count.fetch_add(1, SeqCst);
    }

    /// How often the handler ran since the last [`Slot::take`].
    pub fn count(&self) -> u64 {
        self.count.load(SeqCst)
    }

    /// The last one caught since the last call, if any.
    pub fn take(&self) -> Option<Caught> {
        let [signo, code, addr, trapno, err, cr2, rip, rsp, rax] =
            std::array::from_fn(|i| self.words[i].load(SeqCst));
        (self.count.swap(0, SeqCst) != 0).then_some(Caught {
            signo: signo as i32,
            code: code as i32,
            addr: addr as usize,
            trapno,
            err,
            cr2: cr2 as usize,
            rip: rip as usize,
            rsp: rsp as usize,
            rax,
        })
    }
}

/// The symbolic name of a fault signal's code.
pub fn code_name(signo: i32, code: i32) -> String {
    match (signo, code) {
        (libc::SIGSEGV, SEGV_MAPERR) => "SEGV_MAPERR".into(),
        (libc::SIGSEGV, SEGV_ACCERR) => "SEGV_ACCERR".into(),
        (libc::SIGBUS, libc::BUS_ADRERR) => "BUS_ADRERR".into(),
        (_, libc::SI_KERNEL) => "SI_KERNEL".into(),
        _ => format!("code {code}"),
    }
}

/// The name of a signal number, `signal N` if it has none.
pub fn signal_name(signo: i32) -> String {
    Signal::try_from(signo).map_or_else(
        |_| format!("signal {signo}"),
        |signal| signal.as_str().to_owned(),
    )
}
