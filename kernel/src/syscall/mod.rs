//! System calls: one table, one file per family.
//!
//! A handler gets the six argument registers and answers with a value or an error number; those that change where user code goes
//! on get the registers themselves. A number without a handler is `ENOSYS`, and is logged the first time.

pub mod memory;
pub mod poll;
pub mod process;
pub mod signal;
pub mod time;

use core::sync::atomic::{AtomicU64, Ordering};

use linux_raw_sys::general::*;

use crate::arch::PtRegs;
use crate::errno::{Errno, Result};

/// How a call is handled.
#[derive(Clone, Copy)]
enum Handler {
    Plain(fn(&[usize; 6]) -> Result<usize>),
    WithRegs(fn(&mut PtRegs) -> Result<usize>),
}

use Handler::{Plain, WithRegs};

/// A system call: its name for traces, and its handler.
#[derive(Clone, Copy)]
struct Syscall {
    name: &'static str,
    handler: Handler,
}

/// One more than the highest number in the table.
const NUMBERS: usize = 512;

/// Builds the table from rows `number name handler`.
macro_rules! table {
    ($($number:ident $kind:ident $handler:expr;)*) => {{
        let mut table: [Option<Syscall>; NUMBERS] = [None; NUMBERS];
        $(
            assert!(table[$number as usize].is_none(), "a call has two rows");
            table[$number as usize] =
                Some(Syscall { name: stringify!($number), handler: $kind($handler) });
        )*
        table
    }};
}

static TABLE: [Option<Syscall>; NUMBERS] = table! {
    // Memory.
    __NR_mmap Plain memory::sys_mmap;
    __NR_munmap Plain memory::sys_munmap;
    __NR_mprotect Plain memory::sys_mprotect;
    __NR_brk Plain memory::sys_brk;
    __NR_madvise Plain memory::sys_madvise;
    // Signals.
    __NR_rt_sigaction Plain signal::sys_rt_sigaction;
    __NR_rt_sigprocmask Plain signal::sys_rt_sigprocmask;
    __NR_rt_sigreturn WithRegs signal::sys_rt_sigreturn;
    __NR_rt_sigpending Plain signal::sys_rt_sigpending;
    __NR_rt_sigsuspend Plain signal::sys_rt_sigsuspend;
    __NR_rt_sigtimedwait Plain signal::sys_rt_sigtimedwait;
    __NR_rt_sigqueueinfo Plain signal::sys_rt_sigqueueinfo;
    __NR_sigaltstack WithRegs signal::sys_sigaltstack;
    __NR_pause Plain signal::sys_pause;
    __NR_kill Plain signal::sys_kill;
    __NR_tkill Plain signal::sys_tkill;
    __NR_tgkill Plain signal::sys_tgkill;
    // Time.
    __NR_clock_gettime Plain time::sys_clock_gettime;
    __NR_clock_getres Plain time::sys_clock_getres;
    __NR_gettimeofday Plain time::sys_gettimeofday;
    __NR_time Plain time::sys_time;
    __NR_times Plain time::sys_times;
    __NR_nanosleep Plain time::sys_nanosleep;
    __NR_clock_nanosleep Plain time::sys_clock_nanosleep;
    __NR_restart_syscall Plain time::sys_restart_syscall;
    __NR_alarm Plain time::sys_alarm;
    __NR_setitimer Plain time::sys_setitimer;
    __NR_getitimer Plain time::sys_getitimer;
    // Processes.
    __NR_fork WithRegs process::sys_fork;
    __NR_vfork WithRegs process::sys_fork;
    __NR_clone WithRegs process::sys_clone;
    __NR_execve WithRegs process::sys_execve;
    __NR_exit Plain process::sys_exit;
    __NR_exit_group Plain process::sys_exit_group;
    __NR_wait4 Plain process::sys_wait4;
    __NR_waitid Plain process::sys_waitid;
    __NR_getrusage Plain process::sys_getrusage;
    __NR_getpid Plain process::sys_getpid;
    __NR_gettid Plain process::sys_gettid;
    __NR_getppid Plain process::sys_getppid;
    __NR_getuid Plain process::sys_get_root_id;
    __NR_geteuid Plain process::sys_get_root_id;
    __NR_getgid Plain process::sys_get_root_id;
    __NR_getegid Plain process::sys_get_root_id;
    __NR_setuid Plain process::sys_set_root_id;
    __NR_setgid Plain process::sys_set_root_id;
    __NR_getresuid Plain process::sys_getresid;
    __NR_getresgid Plain process::sys_getresid;
    __NR_getgroups Plain process::sys_getgroups;
    __NR_getpgid Plain process::sys_getpgid;
    __NR_getpgrp Plain process::sys_getpgrp;
    __NR_getsid Plain process::sys_getsid;
    __NR_setpgid Plain process::sys_setpgid;
    __NR_setsid Plain process::sys_setsid;
    __NR_set_tid_address Plain process::sys_set_tid_address;
    __NR_set_robust_list Plain process::sys_set_robust_list;
    __NR_arch_prctl Plain process::sys_arch_prctl;
    __NR_prctl Plain process::sys_prctl;
    __NR_prlimit64 Plain process::sys_prlimit64;
    __NR_getrlimit Plain process::sys_getrlimit;
    __NR_setrlimit Plain process::sys_setrlimit;
    __NR_sched_yield Plain process::sys_sched_yield;
    __NR_sched_getaffinity Plain process::sys_sched_getaffinity;
    __NR_sched_setaffinity Plain process::sys_sched_setaffinity;
    __NR_sched_getscheduler Plain process::sys_sched_getscheduler;
    __NR_sched_getparam Plain process::sys_sched_getparam;
    __NR_getpriority Plain process::sys_getpriority;
    __NR_getcpu Plain process::sys_getcpu;
};

/// Runs the system call that `regs` ask for and leaves its answer in them. Interrupts on, no lock held.
pub fn dispatch(regs: &mut PtRegs) {
    let number = regs.syscall_nr().unwrap_or(usize::MAX);
    let answer = match TABLE.get(number) {
        Some(Some(call)) => {
            log::trace!("{}{:x?}", call.name, regs.syscall_args());
            match call.handler {
                Plain(handler) => handler(&regs.syscall_args()),
                WithRegs(handler) => handler(regs),
            }
        }
        _ => unknown(number),
    };
    regs.set_return_value(answer.unwrap_or_else(Errno::to_ret));
}

/// Numbers that were logged, one bit each.
static LOGGED: [AtomicU64; NUMBERS / 64] = [const { AtomicU64::new(0) }; NUMBERS / 64];

#[cold]
fn unknown(number: usize) -> Result<usize> {
    if let Some(word) = LOGGED.get(number / 64) {
        let bit = 1 << (number % 64);
        if word.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            log::info!("system call {number} is not implemented");
        }
    }
    Err(Errno::ENOSYS)
}
