//! What signals meet: masks, actions, alternate stacks.

use super::{a_set, a_signal, below, bits, me, result};
use crate::handler::{self, STACK, mask, stack, stack_name};

pub fn change_mask() {
    let (how, set) = (below(4) as i32, a_set());
    let mut old = 0u64;
    // SAFETY: both sets are words.
    let done = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            how,
            &raw const set,
            &raw mut old,
            8,
        )
    };
    note!(
        "mask {how} {set:x}: {} old {old:x} new {:x}",
        result(done),
        mask()
    );
}

/// The kernel's struct sigaction.
#[repr(C)]
pub struct Action {
    pub handler: usize,
    pub flags: u64,
    restorer: usize,
    mask: u64,
}

pub fn set_action(signal: i32, handler: usize, flags: i32, mask: u64) -> (i32, libc::sigaction) {
    // SAFETY: plain structures; the handler is async-signal-safe.
    unsafe {
        let mut new: libc::sigaction = std::mem::zeroed();
        let mut old: libc::sigaction = std::mem::zeroed();
        new.sa_sigaction = handler;
        new.sa_flags = flags;
        (&raw mut new.sa_mask).cast::<u64>().write(mask);
        let done = libc::sigaction(signal, &raw const new, &raw mut old);
        (done, old)
    }
}

/// The action as the kernel has it now.
pub fn action_of(signal: i32) -> Action {
    let mut old = Action {
        handler: 0,
        flags: 0,
        restorer: 0,
        mask: 0,
    };
    // SAFETY: the kernel fills the structure.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            std::ptr::null::<Action>(),
            &raw mut old,
            8,
        )
    };
    old
}

pub fn change_action() {
    let signal = a_signal();
    let handler = match below(24) {
        0 => libc::SIG_DFL,
        1 => libc::SIG_IGN,
        _ => handler::handler as *const () as usize,
    };
    let wanted = [
        libc::SA_NODEFER,
        libc::SA_RESETHAND,
        libc::SA_ONSTACK,
        libc::SA_RESTART,
        libc::SA_NOCLDSTOP,
        libc::SA_NOCLDWAIT,
    ];
    let chosen = bits() & bits();
    let flags = wanted
        .iter()
        .enumerate()
        .filter(|(n, _)| chosen >> n & 1 != 0)
        .fold(libc::SA_SIGINFO, |flags, (_, flag)| flags | flag);
    let (done, old) = set_action(signal, handler, flags, a_set());
    // SAFETY: the first word of the set is the kernel's.
    let mask = unsafe { (&raw const old.sa_mask).cast::<u64>().read() };
    let kind = match old.sa_sigaction {
        libc::SIG_DFL => "default",
        libc::SIG_IGN => "ignore",
        _ => "handler",
    };
    note!(
        "action {signal} {handler:x} {flags:x}: {done} old {kind} {:x} {mask:x}",
        old.sa_flags
    );
}

pub fn alternate_stack(base: usize, size: usize, flags: i32) -> (i64, libc::stack_t) {
    // SAFETY: the stacks are this thread's own, and live for ever.
    unsafe {
        let mut old: libc::stack_t = std::mem::zeroed();
        let new = libc::stack_t {
            ss_sp: base as *mut _,
            ss_flags: flags,
            ss_size: size,
        };
        let done = libc::syscall(libc::SYS_sigaltstack, &raw const new, &raw mut old);
        (done, old)
    }
}

pub fn change_stack() {
    let base = stack(me(), below(2));
    let autodisarm = i32::MIN;
    let (size, flags) = match below(8) {
        0 => (STACK, libc::SS_DISABLE),
        1 => (2047, 0),
        2 => (STACK, 4),
        3 => (STACK, libc::SS_ONSTACK),
        4 => (STACK, autodisarm),
        _ => (STACK, 0),
    };
    let (done, old) = alternate_stack(base, size, flags);
    note!(
        "stack {} {size} {flags:x}: {} old {} {:x} {}",
        stack_name(base),
        result(done),
        stack_name(old.ss_sp as usize),
        old.ss_flags,
        old.ss_size
    );
}
