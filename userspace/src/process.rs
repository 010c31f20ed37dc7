//! Children by fork, and how they ended.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Exited(i32),
    Killed(i32),
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exited with status {status}"),
            Self::Killed(signo) => write!(f, "killed by {}", crate::signals::signal_name(*signo)),
        }
    }
}

/// Runs `body` in a child whose exit status is what it returns. Nothing of the parent's destructors runs there.
pub fn child(body: impl FnOnce() -> i32) -> io::Result<Pid> {
    io::stdout().flush()?;
    // SAFETY: the programs are single-threaded, so the child may do everything that the parent may.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let status = body();
            let _ = io::stdout().flush();
            // SAFETY: ends the process at once; no destructor is owed anything.
            unsafe { libc::_exit(status) }
        }
    }
}

/// Waits for a child; a signal handler that runs meanwhile does not end the wait.
pub fn wait(pid: Pid) -> io::Result<Ended> {
    loop {
        match waitpid(pid, None) {
            Ok(WaitStatus::Exited(_, status)) => return Ok(Ended::Exited(status)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(Ended::Killed(signal as i32)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Asks for no core files from children that die on purpose. A kernel that writes none need not know the limit.
pub fn no_core_files() {
    let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
}

/// A pipe as two files: read end, write end.
pub fn pipe() -> io::Result<(std::fs::File, std::fs::File)> {
    let (read, write): (OwnedFd, OwnedFd) = nix::unistd::pipe()?;
    Ok((read.into(), write.into()))
}

/// One side of a two-way line between parent and child: who waits gets exactly one token for each [`Line::signal`].
pub struct Line {
    from: std::fs::File,
    to: std::fs::File,
}

impl Line {
    /// Both ends; each process keeps one and drops the other.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a_from, b_to) = pipe()?;
        let (b_from, a_to) = pipe()?;
        Ok((
            Self {
                from: a_from,
                to: a_to,
            },
            Self {
                from: b_from,
                to: b_to,
            },
        ))
    }

    /// Lets the other side go on.
    pub fn signal(&mut self) -> io::Result<()> {
        self.to.write_all(b".")
    }

    /// Waits for the other side; an error if it is gone.
    pub fn wait(&mut self) -> io::Result<()> {
        self.from.read_exact(&mut [0])
    }
}
