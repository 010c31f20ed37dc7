//! The host tool around the machine: ends that leave nothing behind, repetition, terminals.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::programs::{Compiled, busybox};
use tests::{guest, run};

/// A machine whose program waits for input, with its temporary files in a folder of their own.
struct Waiting {
    boot: Child,
    qemu: Vec<Pid>,
    temp: tempfile::TempDir,
}

impl Waiting {
    fn start(busybox: &Path) -> Self {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let mut command = guest::exec_command(&[], busybox);
        command.arg("cat").env("TMPDIR", temp.path());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut boot = command.spawn().expect("boot runs");
        // The program runs when it echoes.
        boot.stdin
            .as_mut()
            .expect("stdin is piped")
            .write_all(b"x")
            .expect("writes");
        let mut echo = [0];
        boot.stdout
            .as_mut()
            .expect("stdout is piped")
            .read_exact(&mut echo)
            .expect("cat echoes");
        let qemu = children_of(boot.id());
        assert!(!qemu.is_empty(), "boot has QEMU as its child");
        Self { boot, qemu, temp }
    }

    /// Sends `signal` to boot; gives its status after everything is gone.
    fn end_by(mut self, signal: Signal) -> i32 {
        kill(Pid::from_raw(self.boot.id() as i32), signal).expect("boot can be signalled");
        let status = run::wait(&mut self.boot, Duration::from_secs(10)).expect("boot ends");
        let start = Instant::now();
        while self.qemu.iter().any(|&pid| is_running(pid)) {
            assert!(
                start.elapsed() < Duration::from_secs(5),
                "QEMU is still there after {signal}"
            );
            thread::sleep(Duration::from_millis(20));
        }
        let left: Vec<_> = fs::read_dir(self.temp.path()).expect("lists").collect();
        assert!(
            left.is_empty(),
            "temporary files are left after {signal}: {left:?}"
        );
        run::shell_status(status)
    }
}

#[test]
fn signals_leave_nothing_behind() {
    let Some(busybox) = busybox() else { return };
    for (signal, status) in [
        (Signal::SIGINT, 130),
        (Signal::SIGTERM, 143),
        (Signal::SIGKILL, 137),
    ] {
        assert_eq!(Waiting::start(busybox).end_by(signal), status, "{signal}");
    }
}

#[test]
fn a_machine_that_takes_too_long_is_ended() {
    let Some(busybox) = busybox() else { return };
    let mut command = guest::exec_command(&["--timeout", "4"], busybox);
    command
        .arg("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut boot = command.spawn().expect("boot runs");
    // stdin stays open, so cat waits.
    let status = run::wait(&mut boot, Duration::from_secs(30)).expect("boot ends by itself");
    assert_eq!(run::shell_status(status), 124);
}

#[test]
fn dry_run_boots_nothing() {
    let program = Compiled::fixed("hello");
    let seen = run::run(
        &mut guest::exec_command(&["--dry-run"], program.path()),
        b"",
        guest::LIMIT,
    );
    assert_eq!(seen.status, 0, "{}", seen.complaints());
    assert!(
        seen.text().contains("qemu-system-x86_64") && seen.text().contains("isa-debug-exit"),
        "{}",
        seen.text()
    );
    assert!(!seen.text().contains("hello"), "the program did not run");
}

#[test]
fn the_deterministic_machine_repeats_itself() {
    let program = Compiled::fixed("hello");
    let options = ["--icount", "--seed", "42"];
    let [first, second] =
        [(); 2].map(|()| guest::exec_with(&options, program.path(), &["again"], b""));
    assert_eq!(first.status, 7, "{}", first.complaints());
    assert_eq!(first, second);
}

/// A stream is a terminal in the guest exactly if it is one outside.
#[test]
fn terminals_are_terminals() {
    let program = Compiled::fixed("terminals");
    let piped = guest::exec(program.path(), &[]);
    assert_eq!(
        (piped.text().as_str(), piped.status),
        ("no no no\n", 0),
        "{}",
        piped.complaints()
    );

    let terminal = nix::pty::openpty(None, None).expect("a pseudoterminal");
    let mut command = guest::exec_command(&[], program.path());
    command
        .stdin(terminal.slave.try_clone().expect("a copy"))
        .stdout(terminal.slave)
        .stderr(Stdio::piped());
    let mut boot = command.spawn().expect("boot runs");
    // Closes this process's copies of the terminal, so that the end of boot is an end of file.
    drop(command);
    let mut shown = Vec::new();
    // Linux reports the last close of a terminal's other side as EIO.
    let _ = File::from(terminal.master).read_to_end(&mut shown);
    let status = run::wait(&mut boot, guest::LIMIT).expect("boot ends");
    let shown = String::from_utf8_lossy(&shown);
    assert!(shown.contains("yes yes no\r\n"), "{shown:?}");
    assert_eq!(run::shell_status(status), 0);
}

/// The processes whose parent is `parent`, by /proc/PID/stat (proc(5)).
fn children_of(parent: u32) -> Vec<Pid> {
    let processes = fs::read_dir("/proc")
        .expect("lists")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes
        .filter(|&pid: &i32| stat_field(pid, 1).is_some_and(|field| field == parent.to_string()))
        .map(Pid::from_raw)
        .collect()
}

fn is_running(pid: Pid) -> bool {
    stat_field(pid.as_raw(), 0).is_some_and(|state| state != "Z")
}

/// The fields behind the command's name, which is in parentheses: state, parent, ...
fn stat_field(pid: i32, index: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind) = stat.rsplit_once(')')?;
    behind.split_whitespace().nth(index).map(str::to_owned)
}
