//! Runs a command to its end, or kills it when its time is up.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What a command printed and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// The exit status; 128 plus the signal's number if one killed it.
    pub status: i32,
}

impl Finished {
    /// stdout as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// stderr as text.
    pub fn complaints(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// The status as a shell has it: the program's own, or 128 plus the signal that killed it.
pub fn shell_status(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Runs `command` with `stdin` as its input. Panics if it takes longer than `limit`, with what it printed until then.
pub fn run(command: &mut Command, stdin: &[u8], limit: Duration) -> Finished {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let input = stdin.to_vec();
    let mut to = child.stdin.take().expect("stdin is piped");
    // A program that ends without reading all of it closes the pipe, which is its right.
    let feeder = thread::spawn(move || drop(to.write_all(&input)));
    let stdout = reader(child.stdout.take().expect("stdout is piped"));
    let stderr = reader(child.stderr.take().expect("stderr is piped"));
    let status = wait(&mut child, limit);
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let (stdout, stderr) = (stdout.join().expect("reads"), stderr.join().expect("reads"));
    let Some(status) = status else {
        let (out, err) = (
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr),
        );
        panic!("{command:?} did not end within {limit:?}\nstdout:\n{out}\nstderr:\n{err}");
    };
    // The pipe is closed now, so the feeder ends.
    feeder.join().expect("writes");
    Finished {
        stdout,
        stderr,
        status: shell_status(status),
    }
}

/// Waits for a child for at most `limit`.
pub fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("waits for its own child") {
            return Some(status);
        }
        if start.elapsed() > limit {
            return None;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn reader(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // An error ends the text like an end of file; the comparison will show it.
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}
