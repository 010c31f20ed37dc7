//! One Linux from start to end.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::interrupt::Guarded;
use crate::memfile;
use crate::qemu::{self, Hardware};

/// How long it may say nothing: the start, and each operation.
const SILENCE: Duration = Duration::from_secs(150);

/// What Linux and the program said.
pub struct Said {
    pub text: String,
    /// How it ended, if not in order.
    pub trouble: Option<String>,
}

/// Boots `kernel` with further `settings`; the program gets `filters`.
pub fn boot(
    hardware: &Hardware,
    kernel: &Path,
    initrd: &File,
    settings: &str,
    filters: &[String],
) -> Result<Said> {
    // What stands behind `--` is init's.
    let arguments = format!(
        "console=ttyS0 quiet loglevel=0 panic=-1 nokaslr rdinit=/init {settings} -- {}",
        filters.join(" ")
    );
    let line = qemu::linux_command(
        hardware,
        kernel,
        &memfile::path_in_child(initrd),
        &arguments,
    )?;
    let mut command = Command::new(&line[0]);
    command
        .args(&line[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // Ctrl-C is for this process, which ends QEMU in order.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut qemu = Guarded::spawn(&mut command, &[initrd.as_fd()])
        .with_context(|| format!("cannot start {}", qemu::PROGRAM))?;
    let stdout = BufReader::new(qemu.child().stdout.take().expect("stdout is piped"));
    let mut stderr = qemu.child().stderr.take().expect("stderr is piped");
    let (sender, lines) = mpsc::channel();
    let reader = thread::spawn(move || {
        let lines = stdout.split(b'\n').map_while(Result::ok);
        // The receiver is gone if Linux fell silent.
        let _ = lines.into_iter().try_for_each(|line| sender.send(line));
    });
    let complaints = thread::spawn(move || {
        let mut text = String::new();
        // What is no text is lost; it only serves a message.
        let _ = stderr.read_to_string(&mut text);
        text
    });
    let mut text = String::new();
    let silent = loop {
        match lines.recv_timeout(SILENCE) {
            Ok(line) => {
                text += &String::from_utf8_lossy(&line);
                text.push('\n');
            }
            Err(RecvTimeoutError::Disconnected) => break false,
            Err(RecvTimeoutError::Timeout) => break true,
        }
    };
    if silent {
        // It fails only if QEMU is gone already.
        let _ = qemu.child().kill();
    }
    let status = qemu.child().wait().context("cannot wait for QEMU")?;
    drop(lines);
    reader.join().expect("the reader does not panic");
    let complaints = complaints.join().expect("the reader does not panic");
    let trouble = match (silent, status.success()) {
        (true, _) => Some(format!("nothing was heard for {} s", SILENCE.as_secs())),
        (false, true) => None,
        (false, false) => Some(format!("QEMU failed ({status}): {}", complaints.trim())),
    };
    Ok(Said { text, trouble })
}
