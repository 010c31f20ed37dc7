//! System calls that do next to nothing.

use core::mem::MaybeUninit;

use linux_raw_sys::general as abi;

use crate::check::require;
use crate::measure::SAMPLES;
use crate::signals::ignore;
use crate::sys;

pub fn getpid() {
    let pid = sys::getpid();
    for _ in 0..1000 {
        require(SAMPLES.time(sys::getpid) == pid, "getpid always the same");
    }
}

pub fn sched_yield() {
    for _ in 0..1000 {
        SAMPLES.time(sys::sched_yield);
    }
}

/// Replaces a handler and asks for the old one.
pub fn sigaction() {
    let actions = [abi::SA_RESTART, abi::SA_NODEFER].map(|flags| sys::action(ignore, flags));
    sys::on(abi::SIGUSR1, ignore, abi::SA_NODEFER);
    for round in 0..1000 {
        let mut old = MaybeUninit::<abi::kernel_sigaction>::zeroed();
        let new = &actions[round % 2];
        // SAFETY: valid actions.
        let result = SAMPLES.time(|| unsafe {
            sys::call4(
                abi::__NR_rt_sigaction,
                abi::SIGUSR1 as usize,
                &raw const *new as usize,
                old.as_mut_ptr().addr(),
                sys::SIGNAL_SET,
            )
        });
        // SAFETY: any bytes are an action.
        let old = unsafe { old.assume_init() };
        require(
            result == 0 && old.sa_flags == actions[1 - round % 2].sa_flags,
            "sigaction gives the old action",
        );
    }
}

/// Blocks and unblocks a signal, one of both a sample.
pub fn sigprocmask() {
    let set: u64 = 1 << (abi::SIGUSR1 - 1);
    for round in 0..1000 {
        let how = [abi::SIG_BLOCK, abi::SIG_UNBLOCK][round % 2];
        let mut old: u64 = 0;
        // SAFETY: valid sets.
        let result = SAMPLES.time(|| unsafe {
            sys::call4(
                abi::__NR_rt_sigprocmask,
                how as usize,
                &raw const set as usize,
                &raw mut old as usize,
                sys::SIGNAL_SET,
            )
        });
        let expected = if round % 2 == 0 { 0 } else { set };
        require(
            result == 0 && old == expected,
            "sigprocmask gives the old set",
        );
    }
}
