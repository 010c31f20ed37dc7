//! Signals to the process, to one thread, and with a siginfo of the sender; and calls that are refused.

use std::sync::atomic::Ordering::SeqCst;

use super::{NOBODY, OTHERS, a_signal, below, bits, result};
use crate::handler::ME;
use crate::turns::TIDS;

pub fn send_to_process() {
    let signal = a_signal();
    let to = ME.load(SeqCst) as i32;
    let target = match below(4) {
        0 => 0,
        1 => -to,
        _ => to,
    };
    // SAFETY: to this process and its group, which has no other.
    let done = unsafe { libc::syscall(libc::SYS_kill, target, signal) };
    note!("kill {} {signal}: {}", target.signum(), result(done));
}

pub fn a_thread() -> usize {
    below(OTHERS.load(SeqCst) + 1)
}

pub fn send_to_thread() {
    let (signal, index) = (a_signal(), a_thread());
    let tid = TIDS[index].load(SeqCst);
    // SAFETY: to a thread of this process.
    let done = unsafe {
        match below(3) {
            0 => libc::syscall(libc::SYS_tkill, tid, signal),
            // kill(2) takes threads' numbers too.
            1 => libc::syscall(libc::SYS_kill, tid, signal),
            _ => libc::syscall(libc::SYS_tgkill, ME.load(SeqCst), tid, signal),
        }
    };
    note!("thread {index} {signal}: {}", result(done));
}

pub fn queue_info() {
    let (signal, index) = (a_signal(), a_thread());
    let code = [
        libc::SI_QUEUE,
        libc::SI_QUEUE,
        libc::SI_USER,
        libc::SI_TKILL,
        libc::SI_MESGQ,
        -100,
        1,
        0x80,
    ][below(8)];
    let mut info = [0u32; 32];
    info[0] = 77;
    info[1] = below(3) as u32;
    info[2] = code as u32;
    // pid, uid, value.
    info[4] = NOBODY as u32;
    info[5] = below(5) as u32;
    info[6] = bits() as u32;
    info[20] = u32::from(below(8) == 0);
    let tid = TIDS[index].load(SeqCst);
    let pid = ME.load(SeqCst);
    // SAFETY: the kernel reads 128 bytes.
    let done = unsafe {
        match below(2) {
            0 => libc::syscall(libc::SYS_rt_sigqueueinfo, pid, signal, &raw const info),
            _ => libc::syscall(
                libc::SYS_rt_tgsigqueueinfo,
                pid,
                tid,
                signal,
                &raw const info,
            ),
        }
    };
    note!(
        "queue {index} {signal} {code} {}: {}",
        info[20],
        result(done)
    );
}

/// Calls that fail, or ask.
pub fn bad_calls() {
    let info = [0u32; 32];
    let gone = NOBODY;
    // SAFETY: none of them does anything.
    let results = unsafe {
        [
            libc::syscall(libc::SYS_kill, gone, libc::SIGUSR1),
            libc::syscall(libc::SYS_kill, gone, 999),
            libc::syscall(libc::SYS_kill, i32::MIN, libc::SIGUSR1),
            libc::syscall(libc::SYS_kill, ME.load(SeqCst), 65),
            libc::syscall(libc::SYS_kill, ME.load(SeqCst), 0),
            libc::syscall(libc::SYS_tgkill, -1, 5, libc::SIGUSR1),
            libc::syscall(libc::SYS_tgkill, 1, ME.load(SeqCst), libc::SIGUSR1),
            libc::syscall(libc::SYS_tkill, 0, libc::SIGUSR1),
            libc::syscall(libc::SYS_tkill, ME.load(SeqCst), -5),
            libc::syscall(libc::SYS_rt_sigqueueinfo, gone, 999, &raw const info),
            libc::syscall(libc::SYS_rt_sigqueueinfo, 1, 10, &raw const info),
            libc::syscall(libc::SYS_rt_sigqueueinfo, 1, 10, 8usize),
            libc::syscall(
                libc::SYS_rt_sigaction,
                libc::SIGKILL,
                &raw const info,
                0usize,
                8,
            ),
            libc::syscall(libc::SYS_rt_sigaction, libc::SIGKILL, 0usize, 0usize, 8),
            libc::syscall(libc::SYS_rt_sigaction, 65, 0usize, 0usize, 8),
            libc::syscall(libc::SYS_rt_sigaction, 1, 0usize, 0usize, 4),
            libc::syscall(libc::SYS_rt_sigpending, 8usize, 8),
            libc::syscall(libc::SYS_rt_sigpending, 8usize, 9),
            libc::syscall(libc::SYS_rt_sigtimedwait, 8usize, 0usize, 0usize, 8),
            libc::syscall(libc::SYS_rt_sigsuspend, 8usize, 8),
            libc::syscall(libc::SYS_signalfd4, -1, 8usize, 8, 0),
            libc::syscall(libc::SYS_signalfd4, -1, &raw const info, 8, 1),
            libc::syscall(libc::SYS_signalfd4, 0, &raw const info, 8, 0),
            libc::syscall(libc::SYS_signalfd4, 999, &raw const info, 8, 0),
        ]
        .map(|value| if value < 0 { -1 } else { value })
    };
    note!("bad calls {results:?}");
    // SAFETY: these fail, or ask.
    unsafe {
        note!("  {}", result(libc::syscall(libc::SYS_kill, gone, 999)));
        note!(
            "  {}",
            result(libc::syscall(libc::SYS_kill, ME.load(SeqCst), 65))
        );
        note!("  {}", result(libc::syscall(libc::SYS_kill, i32::MIN, 10)));
        note!(
            "  {}",
            result(libc::syscall(libc::SYS_tgkill, ME.load(SeqCst), gone, 999))
        );
        note!(
            "  {}",
            result(libc::syscall(
                libc::SYS_rt_sigqueueinfo,
                gone,
                999,
                &raw const info
            ))
        );
        note!(
            "  {}",
            result(libc::syscall(libc::SYS_signalfd4, 0, &raw const info, 8, 0))
        );
        note!(
            "  {}",
            result(libc::syscall(
                libc::SYS_signalfd4,
                999,
                &raw const info,
                8,
                0
            ))
        );
    }
}
