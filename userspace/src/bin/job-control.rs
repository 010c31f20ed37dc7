//! Job control on a pseudo terminal: this program is the person at the keyboard, its child a shell, the child's child a job.
//!
//! The shell leads a session whose terminal is the slave. It puts the job to the foreground or takes that back, and tells by a pipe
//! what became of it. What the job reads from the terminal it gives back there.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::ExitCode;

use nix::sys::signal::Signal::{SIGCONT, SIGTTOU};
use nix::sys::signal::{SigHandler, killpg, signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgid, getpid, setpgid, setsid, tcgetpgrp, tcsetpgrp};
use userspace::process::{self, Line, child, wait};
use userspace::report::Demo;

fn main() -> ExitCode {
    let mut demo = Demo::start(
        "job-control",
        "keys and groups: what stops, continues and ends a job on a terminal",
    );
    if let Err(error) = run(&mut demo) {
        demo.check(false, format_args!("everything works: {error}"));
    }
    demo.finish()
}

/// The person's side.
struct Keyboard {
    master: File,
    /// What the shell says of its job.
    news: File,
    /// Lets the shell go on.
    shell: Line,
}

impl Keyboard {
    fn type_in(&mut self, keys: &[u8]) -> io::Result<()> {
        self.master.write_all(keys)
    }

    /// The next line of the shell's news.
    fn news(&mut self) -> io::Result<String> {
        let mut text = String::new();
        loop {
            let mut byte = [0];
            self.news.read_exact(&mut byte)?;
            match byte[0] {
                b'\n' => return Ok(text),
                byte => text.push(byte as char),
            }
        }
    }

    /// What the terminal has shown, up to `end`.
    fn shown(&mut self, end: &str) -> io::Result<String> {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            let mut byte = [0];
            self.master.read_exact(&mut byte)?;
            text.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&text).escape_debug().to_string())
    }
}

fn run(demo: &mut Demo) -> io::Result<()> {
    demo.step("A pseudo terminal: a shell on its slave's side, with a job in the foreground.");
    let (master, slave) = terminal()?;
    let (news, mut tell) = process::pipe()?;
    let (mine, mut its) = Line::pair()?;
    let persons = master.as_raw_fd();
    let shell = child(move || {
        // Only the person holds the master.
        // SAFETY: this process never uses its copy.
        unsafe { libc::close(persons) };
        match shell(&slave, &mut tell, &mut its) {
            Ok(()) => 0,
            Err(error) => {
                let _ = writeln!(tell, "the shell fails: {error}");
                1
            }
        }
    })?;
    let mut keyboard = Keyboard {
        master,
        news,
        shell: mine,
    };
    let said = keyboard.news()?;
    demo.note(said);
    keyboard.type_in(b"hello\r")?;
    demo.check_eq(
        keyboard.shown("got hello\r\n")?.as_str(),
        "hello\\r\\ngot hello\\r\\n",
        "the line is echoed, and the job reads it",
    );

    demo.step("^Z stops the job.");
    keyboard.type_in(&[0x1a])?;
    demo.check_eq(
        keyboard.news()?.as_str(),
        "stopped by SIGTSTP",
        "the shell hears of it",
    );

    demo.step("In the background it may not read: SIGTTIN.");
    keyboard.shell.signal()?;
    demo.check_eq(
        keyboard.news()?.as_str(),
        "stopped by SIGTTIN",
        "it is stopped as soon as it tries",
    );

    demo.step("In the foreground again it reads on.");
    keyboard.shell.signal()?;
    demo.check_eq(
        keyboard.news()?.as_str(),
        "in the foreground",
        "tcsetpgrp(3), SIGCONT",
    );
    keyboard.type_in(b"again\r")?;
    let shown = keyboard.shown("got again\r\n")?;
    demo.check(shown.ends_with("got again\\r\\n"), "it got its line");

    demo.step("^C ends it.");
    keyboard.type_in(&[0x03])?;
    demo.check_eq(
        keyboard.news()?.as_str(),
        "killed by SIGINT",
        "the foreground group got SIGINT",
    );

    demo.step("With TOSTOP the background may not write either: SIGTTOU.");
    keyboard.shell.signal()?;
    demo.check_eq(
        keyboard.news()?.as_str(),
        "stopped by SIGTTOU",
        "the next job is stopped as it writes",
    );

    demo.step("^\\ quits a job in the foreground.");
    keyboard.shell.signal()?;
    keyboard.shown("written\r\n")?;
    keyboard.type_in(&[0x1c])?;
    demo.check_eq(
        keyboard.news()?.as_str(),
        "killed by SIGQUIT",
        "the foreground group got SIGQUIT",
    );

    demo.step("The person hangs up.");
    keyboard.shell.signal()?;
    keyboard.news()?;
    drop(keyboard.master);
    demo.check_eq(
        wait(shell)?,
        process::Ended::Killed(libc::SIGHUP),
        "the shell got SIGHUP",
    );
    Ok(())
}

/// A new pair: master and slave.
fn terminal() -> io::Result<(File, File)> {
    let (mut master, mut slave) = (0, 0);
    // SAFETY: the two places are written; no name, settings or size are asked for.
    let made = unsafe {
        libc::openpty(
            &mut master,
            &mut slave,
            std::ptr::null_mut(),
            std::ptr::null(),
            std::ptr::null(),
        )
    };
    if made != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both were just opened, and nobody else has them.
    Ok(unsafe {
        (
            OwnedFd::from_raw_fd(master).into(),
            OwnedFd::from_raw_fd(slave).into(),
        )
    })
}

fn shell(tty: &File, tell: &mut File, go: &mut Line) -> io::Result<()> {
    process::no_core_files();
    setsid()?;
    // SAFETY: takes no pointer.
    if unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSCTTY, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // A shell gives the terminal away and takes it back while it is in the background itself.
    // SAFETY: no handler is installed.
    unsafe { signal(SIGTTOU, SigHandler::SigIgn) }?;
    let job = start(tty, true, reader)?;
    writeln!(
        tell,
        "session, group and foreground are the shell's and the job's: {}",
        tcgetpgrp(tty)? == job && getpgid(None)? == getpid()
    )?;
    writeln!(tell, "{}", became(job)?)?;
    tcsetpgrp(tty, getpid())?;
    go.wait()?;
    killpg(job, SIGCONT)?;
    writeln!(tell, "{}", became(job)?)?;
    go.wait()?;
    tcsetpgrp(tty, job)?;
    killpg(job, SIGCONT)?;
    writeln!(tell, "in the foreground")?;
    writeln!(tell, "{}", became(job)?)?;
    tcsetpgrp(tty, getpid())?;
    go.wait()?;
    set_tostop(tty)?;
    let job = start(tty, false, writer)?;
    writeln!(tell, "{}", became(job)?)?;
    go.wait()?;
    tcsetpgrp(tty, job)?;
    killpg(job, SIGCONT)?;
    writeln!(tell, "{}", became(job)?)?;
    tcsetpgrp(tty, getpid())?;
    go.wait()?;
    writeln!(tell, "waits")?;
    go.wait()
}

/// Starts a job in a group of its own, in the foreground or not.
fn start(tty: &File, foreground: bool, body: fn(&File) -> io::Result<()>) -> io::Result<Pid> {
    let job = child(|| {
        let ready = setpgid(Pid::from_raw(0), Pid::from_raw(0)).and_then(|()| match foreground {
            true => tcsetpgrp(tty, getpid()),
            false => Ok(()),
        });
        // SAFETY: no handler is installed.
        let reset = unsafe { signal(SIGTTOU, SigHandler::SigDfl) };
        let done = ready.and(reset.map(|_| ()));
        i32::from(done.is_err() || body(tty).is_err())
    })?;
    // Both do it, so that whoever comes first finds it done.
    let _ = setpgid(job, job);
    if foreground {
        tcsetpgrp(tty, job)?;
    }
    Ok(job)
}

/// Reads lines and gives them back, for ever.
fn reader(mut tty: &File) -> io::Result<()> {
    let mut line = [0; 100];
    loop {
        let len = tty.read(&mut line)?;
        tty.write_all(b"got ")?;
        tty.write_all(&line[..len])?;
    }
}

fn writer(mut tty: &File) -> io::Result<()> {
    tty.write_all(b"written\n")?;
    loop {
        nix::unistd::pause();
    }
}

/// How a job stopped or ended.
fn became(job: Pid) -> io::Result<String> {
    Ok(match waitpid(job, Some(WaitPidFlag::WUNTRACED))? {
        WaitStatus::Stopped(_, signal) => format!("stopped by {signal}"),
        WaitStatus::Signaled(_, signal, _) => format!("killed by {signal}"),
        other => format!("{other:?}"),
    })
}

fn set_tostop(tty: &File) -> io::Result<()> {
    let fd = tty.as_raw_fd();
    // SAFETY: termios is plain data, filled by the first call.
    let set = unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        let got = libc::tcgetattr(fd, &mut settings);
        settings.c_lflag |= libc::TOSTOP;
        got == 0 && libc::tcsetattr(fd, libc::TCSANOW, &settings) == 0
    };
    match set {
        true => Ok(()),
        false => Err(io::Error::last_os_error()),
    }
}
