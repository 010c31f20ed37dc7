//! The two sides: this machine's Linux, and the kernel in its machine. Either runs a batch of programs and passes on what the runner says.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::protocol::{self, SUITE};
use super::suite::{Program, Suite};
use crate::cli::Options;
use crate::config::{GuestConfig, environment};
use crate::image;
use crate::interrupt::{self, Guarded};
use crate::rootfs::{Source, Tree};
use crate::session::{self, End, Event, Machine, Output, Root};
use crate::stdin::Input;
use crate::{memfile, workspace};

/// How much longer than a program's time limit a side may be silent before it is taken for dead.
const PATIENCE: Duration = Duration::from_secs(25);

/// Something that runs programs.
pub trait Side: Sync {
    /// Runs `batch`, each program for at most `limit`, and gives every line of the runner to `heard`. Says how it ended if that was
    /// not in order.
    fn run(
        &self,
        batch: &[&Program],
        limit: Duration,
        heard: &mut dyn FnMut(&str),
    ) -> Result<Option<String>>;

    /// As the table calls it.
    fn name(&self) -> &'static str;
}

/// This machine's own kernel, in namespaces of its own.
pub struct Linux {
    pub runner: PathBuf,
    /// The folder of built programs.
    pub top: PathBuf,
}

impl Side for Linux {
    fn name(&self) -> &'static str {
        "Linux"
    }

    fn run(
        &self,
        batch: &[&Program],
        limit: Duration,
        heard: &mut dyn FnMut(&str),
    ) -> Result<Option<String>> {
        let list =
            memfile::with_bytes("conformance-list", protocol::list(batch, limit).as_bytes())?;
        // A place to mount on: what is mounted is seen in the runner's namespace only, so all runners share it.
        let root = workspace::target_subdir("conformance/root")?;
        let mut command = Command::new(&self.runner);
        command
            .arg("--isolated")
            .arg(memfile::path_in_child(&list))
            .arg(&self.top)
            .arg(&root)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // Ctrl-C is for this process, which ends the runner in order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut guarded = Guarded::spawn(&mut command, &[list.as_fd()])
            .context("cannot start conformance-run")?;
        let stdout = BufReader::new(guarded.child().stdout.take().expect("stdout is piped"));
        let mut stderr = guarded.child().stderr.take().expect("stderr is piped");
        let (sender, lines) = mpsc::channel();
        // Both readers end with the runner, whose programs write elsewhere.
        let reader = thread::spawn(move || {
            stdout
                .split(b'\n')
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        let complaints = thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = std::io::copy(&mut stderr, &mut bytes);
            String::from_utf8_lossy(&bytes).trim().to_owned()
        });
        let silent = loop {
            match lines.recv_timeout(limit + PATIENCE) {
                Ok(line) => heard(&String::from_utf8_lossy(&line)),
                Err(RecvTimeoutError::Disconnected) => break false,
                Err(RecvTimeoutError::Timeout) => break true,
            }
        };
        if silent {
            // It fails only if the runner is gone already.
            let _ = guarded.child().kill();
        }
        let status = guarded
            .child()
            .wait()
            .context("cannot wait for conformance-run")?;
        drop(lines);
        let _ = reader.join().expect("the reader does not panic");
        let complaints = complaints.join().expect("the reader does not panic");
        interrupt::check()?;
        Ok(match (silent, status.success()) {
            (true, _) => Some("the runner fell silent".into()),
            (false, true) => None,
            (false, false) => Some(complaints),
        })
    }
}

/// The kernel, in a machine for each batch.
pub struct Here<'a> {
    pub runner: PathBuf,
    pub top: PathBuf,
    pub suite: &'a Suite,
    pub kernel: PathBuf,
    pub options: Options,
}

impl Here<'_> {
    fn machine(&self, batch: &[&Program], limit: Duration) -> Result<Machine> {
        const RUNNER: &str = "/bin/conformance-run";
        const LIST: &str = "/etc/conformance-list";
        let mut tree = Tree::base();
        self.add(&mut tree, &self.runner, Path::new(RUNNER), 0o755)?;
        tree.bytes(
            Path::new(LIST),
            protocol::list(batch, limit).into_bytes(),
            0o644,
        )?;
        tree.directory(&Path::new(SUITE).join("conformance"), 0o755)?;
        let executables = batch.iter().map(|program| program.executable());
        let sources = batch.iter().map(|program| program.source.clone());
        let companions = self
            .suite
            .companions_of(batch)
            .into_iter()
            .map(super::suite::executable);
        for file in executables.chain(sources).chain(companions) {
            self.add(
                &mut tree,
                &self.top.join(&file),
                &Path::new(SUITE).join(&file),
                0o755,
            )?;
        }
        let root = memfile::create("faultline-conformance")?;
        tree.write_image(&root)?;
        Ok(Machine {
            hardware: self.options.hardware()?,
            boot: image::boot_disk(&self.kernel, self.options.firmware())?,
            root: Root::Memory(root),
            guest: GuestConfig {
                program: Some(RUNNER.into()),
                args: vec![RUNNER.into(), LIST.into()],
                env: environment(&[]),
                seed: self.options.seed,
                log: self.options.log_level(),
                ..GuestConfig::default()
            },
            stdin: Input::Empty,
            stdout: Output::Capture,
            stderr: Output::Capture,
            log: session::own_log_file(&format!("conformance-{:?}", thread::current().id()))?,
            show_log: self.options.verbose > 1,
            timeout: Some(limit + PATIENCE),
            timeout_after_output: true,
        })
    }

    fn add(&self, tree: &mut Tree, host: &Path, guest: &Path, mode: u32) -> Result<()> {
        let Ok(metadata) = fs::metadata(host) else {
            // A companion that cannot be built: who runs it will say so.
            return Ok(());
        };
        let source = Source::Host {
            path: host.to_path_buf(),
            size: metadata.len(),
        };
        tree.file(guest, source, mode, 0)
    }
}

impl Side for Here<'_> {
    fn name(&self) -> &'static str {
        "here"
    }

    fn run(
        &self,
        batch: &[&Program],
        limit: Duration,
        heard: &mut dyn FnMut(&str),
    ) -> Result<Option<String>> {
        let machine = self.machine(batch, limit)?;
        let mut line = Vec::new();
        let outcome = session::run(machine, |event| {
            let Event::Stdout(bytes) = event else { return };
            for &byte in bytes {
                if byte == b'\n' {
                    heard(&String::from_utf8_lossy(&line));
                    line.clear();
                } else {
                    line.push(byte);
                }
            }
        })?;
        interrupt::check()?;
        let said = String::from_utf8_lossy(&outcome.stderr).trim().to_owned();
        Ok(match outcome.end {
            End::Exited(0) => None,
            End::TimedOut(_) => Some("the machine fell silent".into()),
            end if said.is_empty() => Some(end.to_string()),
            end => Some(format!("{end}: {said}")),
        })
    }
}
