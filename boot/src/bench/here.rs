//! The program under this kernel.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::figures::Column;
use super::hardware;
use crate::cli::Options;
use crate::config::{GuestConfig, environment};
use crate::image::{self, Firmware};
use crate::progress::Step;
use crate::qemu::Hardware;
use crate::records::Record;
use crate::rootfs::{Source, Tree};
use crate::session::{self, End, Machine, Outcome, Output, Root};
use crate::stdin::Input;
use crate::{cargo, report};

/// Under what name a column's machine has the instructions of bring-up.
pub const BOOT_COUNTS: &str = "boot";
/// Memory of the machine in bytes.
pub const MEMORY: u64 = 512 << 20;

const PROGRAM: &str = "/bin/bench";
/// A file that is read slowly, so that a fault on it waits: 8 MiB, and milliseconds of the machine's own clock.
const SLOW_FILE: &str = "/slow/bench";
const SLOW_PAGES: usize = 2048;
const SLOW: &str = "/slow:20";

/// The program's file, built if it is not current.
pub fn program() -> Result<PathBuf> {
    cargo::programs()?
        .into_iter()
        .find(|program| program.ends_with("bench"))
        .context("userspace/ has no bench")
}

/// Runs the operations whose names contain one of `filters`.
pub fn run(
    program: &Path,
    kernel: &Path,
    filters: &[String],
    options: &Options,
) -> Result<(Column, Outcome)> {
    run_on(hardware(), program, kernel, filters, options)
}

/// The same on a machine that may differ.
pub fn run_on(
    hardware: Hardware,
    program: &Path,
    kernel: &Path,
    filters: &[String],
    options: &Options,
) -> Result<(Column, Outcome)> {
    let mut arguments = vec!["--disk".to_owned(), SLOW_FILE.to_owned()];
    arguments.extend_from_slice(filters);
    let machine = machine(hardware, program, kernel, &arguments, options)?;
    let _step = Step::begin("measuring here");
    let outcome = session::run(machine, |_| {})?;
    let explanation = report::explain(&outcome, kernel);
    eprint!("{explanation}");
    Ok((column(&outcome), outcome))
}

fn column(outcome: &Outcome) -> Column {
    let mut column = Column {
        name: "here".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ended: match outcome.end {
            // The program says itself what went wrong.
            End::Exited(0 | 1) => None,
            ref end => Some(end.to_string()),
        },
        ..Column::default()
    };
    column.read(&String::from_utf8_lossy(&outcome.stdout));
    let boot = outcome.records.iter().find_map(|record| match record {
        Record::Boot(counts) => Some(*counts),
        _ => None,
    });
    if let Some(counts) = boot {
        column.machine.insert(BOOT_COUNTS.into(), counts);
    }
    column
}

/// The machine, with the program as the first one.
fn machine(
    hardware: Hardware,
    program: &Path,
    kernel: &Path,
    arguments: &[String],
    options: &Options,
) -> Result<Machine> {
    let mut tree = Tree::base();
    let size = fs::metadata(program)
        .with_context(|| format!("{} cannot be read", program.display()))?
        .len();
    let source = Source::Host {
        path: program.to_path_buf(),
        size,
    };
    tree.file(Path::new(PROGRAM), source, 0o755, 0)?;
    tree.bytes(Path::new(SLOW_FILE), slow_file(), 0o644)?;
    let line = std::iter::once(PROGRAM.to_owned()).chain(arguments.iter().cloned());
    Ok(Machine {
        hardware,
        boot: image::boot_disk(kernel, Firmware::Bios)?,
        root: Root::Cached(image::root_disk("bench", &tree)?),
        guest: GuestConfig {
            program: Some(PROGRAM.into()),
            args: line.map(Into::into).collect(),
            env: environment(&[]),
            slow: Some(SLOW.into()),
            seed: Some(1),
            log: options.log_level(),
            ..GuestConfig::default()
        },
        stdin: Input::Empty,
        stdout: Output::Capture,
        stderr: Output::Capture,
        log: session::own_log_file("bench")?,
        show_log: options.verbose > 0,
        timeout: options.time_limit(),
        timeout_after_output: true,
    })
}

/// Pages that begin as the program expects it: its `files::byte_of`.
fn slow_file() -> Vec<u8> {
    (0..SLOW_PAGES)
        .flat_map(|page| [(page % 251) as u8 + 1; 4096])
        .collect()
}
