//! Signals that are looked at, waited for and read.

use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

use super::state::action_of;
use super::{a_set, a_signal, below, result};
use crate::handler::{describe, mask, pid_name};

static SIGNAL_FILE: AtomicI32 = AtomicI32::new(-1);

pub fn pending_set() -> u64 {
    let mut set = 0u64;
    // SAFETY: writes one word.
    unsafe { libc::syscall(libc::SYS_rt_sigpending, &raw mut set, 8) };
    set
}

pub fn pending() {
    note!("pending {:x} of {:x}", pending_set(), mask());
}

pub fn timed_wait() {
    let set = a_set() | 1 << (a_signal() - 1);
    let zero = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel fills what it takes.
    let (done, info) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let done = libc::syscall(
            libc::SYS_rt_sigtimedwait,
            &raw const set,
            &raw mut info,
            &raw const zero,
            8,
        );
        (done, info)
    };
    let taken = if done > 0 {
        describe(&info)
    } else {
        String::new()
    };
    note!("timedwait {set:x}: {} {taken}", result(done));
}

pub fn signal_file() {
    let set = a_set();
    let before = SIGNAL_FILE.load(SeqCst);
    if before < 0 || below(3) == 0 {
        // SAFETY: a new file, or a new set for the one there is.
        let file = unsafe {
            libc::syscall(
                libc::SYS_signalfd4,
                before,
                &raw const set,
                8,
                libc::SFD_NONBLOCK | libc::SFD_CLOEXEC,
            )
        };
        SIGNAL_FILE.store(file as i32, SeqCst);
        note!(
            "signalfd {set:x}: {}",
            file == i64::from(before) || before < 0
        );
        return;
    }
    let mut poll = libc::pollfd {
        fd: before,
        events: libc::POLLIN,
        revents: 0,
    };
    let mut records = [[0u8; 128]; 3];
    let room = [100, 128, 256, 384][below(4)];
    // SAFETY: one entry; at most all records are filled.
    let (ready, done) = unsafe {
        (
            libc::poll(&raw mut poll, 1, 0),
            libc::syscall(libc::SYS_read, before, &raw mut records, room),
        )
    };
    note!(
        "signalfd ready {ready} {:x}, {room}: {}",
        poll.revents,
        result(done)
    );
    for record in records.iter().take(done.max(0) as usize / 128) {
        // SAFETY: the kernel filled it.
        let info: libc::signalfd_siginfo =
            unsafe { std::ptr::read_unaligned(record.as_ptr().cast()) };
        note!(
            "  ssi {} {} {} {} {} {} {} {} {} {:x} {:x}",
            info.ssi_signo,
            info.ssi_errno,
            info.ssi_code,
            pid_name(info.ssi_pid as i32),
            info.ssi_uid,
            info.ssi_fd,
            info.ssi_status,
            info.ssi_int,
            info.ssi_ptr,
            info.ssi_addr,
            info.ssi_band
        );
    }
}

/// Suspends, if a signal that ends it is pending already.
pub fn suspend() {
    let set = a_set();
    let ends = |signal: i32| {
        let ignored_by_default = matches!(
            signal,
            libc::SIGCHLD
                | libc::SIGCONT
                | libc::SIGURG
                | libc::SIGWINCH
                | libc::SIGTSTP
                | libc::SIGTTIN
        );
        match action_of(signal).handler {
            libc::SIG_DFL => !ignored_by_default,
            libc::SIG_IGN => false,
            _ => true,
        }
    };
    let pending = pending_set() & !set;
    let due = (1..=64).find(|&signal| pending >> (signal - 1) & 1 != 0 && ends(signal));
    let Some(signal) = due else {
        note!("suspend: nothing");
        return;
    };
    note!("suspend {set:x} for {signal}");
    // SAFETY: ends for the signal that is pending.
    let done = unsafe { libc::syscall(libc::SYS_rt_sigsuspend, &raw const set, 8) };
    note!("suspend: {} mask {:x}", result(done), mask());
}
