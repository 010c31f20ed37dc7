//! Ctrl-C, SIGTERM and SIGHUP: ends the children, lets the main thread clean up, and gives the exit status.
//!
//! The handler thread only marks the signal and kills the registered children. The main thread then sees its child
//! end, asks [`caught`], and exits with 128 plus the signal's number. Should it not get there in time, the handler
//! thread exits for it; QEMU dies with this process in any case (see [`inherit`]).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{
    Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

static CAUGHT: AtomicI32 = AtomicI32::new(0);
static CHILDREN: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// How long the main thread has to come to its end after a signal.
const PATIENCE: Duration = Duration::from_secs(3);

/// Starts to catch SIGINT, SIGTERM and SIGHUP. Called once, by the binary; tests keep the default actions.
pub fn install() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot catch signals")?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            CAUGHT.store(signal, Ordering::SeqCst);
            for &child in CHILDREN.lock().expect("no holder panics").iter() {
                // The child may be gone already; then there is nothing to end.
                let _ = kill_process(child, Signal::KILL);
            }
            thread::sleep(PATIENCE);
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// The signal that was caught, if one was.
pub fn caught() -> Option<i32> {
    match CAUGHT.load(Ordering::SeqCst) {
        0 => None,
        signal => Some(signal),
    }
}

/// An error if a signal has asked this process to end.
pub fn check() -> Result<()> {
    anyhow::ensure!(caught().is_none(), "interrupted");
    Ok(())
}

/// A running child that is killed when this value is dropped, when a signal is caught, and when the thread that
/// started it ends in any way, SIGKILL of the process included.
#[derive(Debug)]
pub struct Guarded {
    child: Child,
    pid: Pid,
}

impl Guarded {
    /// Starts `command`; the descriptors in `inherited` stay open in the child under their own numbers.
    ///
    /// The calling thread must outlive the child: Linux ties the parent-death signal to the thread
    /// (PR_SET_PDEATHSIG(2const)).
    pub fn spawn(command: &mut Command, inherited: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let fds: Vec<RawFd> = inherited.iter().map(AsRawFd::as_raw_fd).collect();
        inherit(command, fds);
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        CHILDREN.lock().expect("no holder panics").push(pid);
        // A signal between the spawn and the registration found no child to kill.
        if caught().is_some() {
            let _ = kill_process(pid, Signal::KILL);
        }
        Ok(Self { child, pid })
    }

    /// The child, for its pipes and for waiting.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        CHILDREN
            .lock()
            .expect("no holder panics")
            .retain(|&pid| pid != self.pid);
        // Both fail only if the child was already waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes `command`'s process keep `fds` open and die with its parent.
fn inherit(command: &mut Command, fds: Vec<RawFd>) {
    let parent = getpid();
    let prepare = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above; then nobody will send the signal.
        if getppid() != Some(parent) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        for &fd in &fds {
            // SAFETY: the caller of `Guarded::spawn` holds the descriptors open until the spawn has returned.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            fcntl_setfd(fd, FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes only plain system calls: it neither allocates nor locks.
    unsafe { command.pre_exec(prepare) };
}
