//! Children that end, stop and go on.

use super::state::{action_of, set_action};
use super::{below, result};
use crate::handler::describe;

/// A child ends, or stops and goes on; its parent waits.
pub fn child() {
    // A stop is told after it can be seen, so that SIGCHLD and the answer have no order: it plays only where no signal is sent.
    let quiet = action_of(libc::SIGCHLD).flags & libc::SA_NOCLDSTOP as u64 != 0;
    let kind = below(if quiet { 5 } else { 4 });
    let number = below(250) as i32;
    let signal = [
        libc::SIGKILL,
        libc::SIGTERM,
        libc::SIGQUIT,
        libc::SIGUSR1,
        40,
    ][below(5)];
    let mut pipe = [0; 2];
    // SAFETY: a pipe of our own, and a child that makes only calls.
    let pid = unsafe {
        libc::pipe(pipe.as_mut_ptr());
        let pid = libc::fork();
        if pid == 0 {
            for signal in 1..=64 {
                set_action(signal, libc::SIG_DFL, 0, 0);
            }
            let none = 0u64;
            libc::syscall(
                libc::SYS_rt_sigprocmask,
                libc::SIG_SETMASK,
                &raw const none,
                0usize,
                8,
            );
            libc::close(pipe[1]);
            match kind {
                0 | 1 => {}
                2 | 3 => {
                    libc::kill(libc::getpid(), signal);
                }
                _ => {
                    libc::kill(libc::getpid(), libc::SIGSTOP);
                    let mut byte = 0u8;
                    libc::read(pipe[0], (&raw mut byte).cast(), 1);
                }
            }
            libc::_exit(number);
        }
        libc::close(pipe[0]);
        pid
    };
    if kind == 4 {
        wait("stop", pid, libc::WSTOPPED);
        // SAFETY: our own child.
        unsafe { libc::kill(pid, libc::SIGCONT) };
        wait("go on", pid, libc::WCONTINUED);
    }
    // SAFETY: our own end of the pipe.
    unsafe { libc::close(pipe[1]) };
    wait("end", pid, libc::WEXITED);
}

/// waitid(2) until it is not interrupted.
pub fn wait(what: &str, pid: i32, options: i32) {
    loop {
        // SAFETY: the kernel fills the structure.
        let (done, info) = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let done = libc::waitid(libc::P_PID, pid as u32, &raw mut info, options);
            (done, info)
        };
        let answer = result(i64::from(done));
        if answer == format!("-{}", libc::EINTR) {
            continue;
        }
        let seen = if done == 0 {
            describe(&info)
        } else {
            String::new()
        };
        note!("{what}: {answer} {seen}");
        return;
    }
}
