//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand};

use crate::bench::{Bench, Profile};
use crate::cargo;
use crate::conformance::Conformance;
use crate::image::Firmware;
use crate::qemu::{self, Hardware};

const AFTER_HELP: &str = "\
Exit status: the program's own (128+N if signal N killed it); 1 if a demo or test failed; 2 for bad usage or a PROGRAM \
that cannot be run; 3 if the kernel found no disk or program; 101 after a kernel panic; 124 if time was up; 125 if a \
build, QEMU or another tool failed; 130 after Ctrl-C.";

/// Boots Faultline in QEMU. Without a command, runs every demo and prints a table of the results.
#[derive(Debug, Parser)]
#[command(name = "boot", version, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(flatten)]
    pub options: Options,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs one demo and shows its output
    Demo {
        /// The demo's name, as in the list
        name: String,
    },
    /// Lists the demos
    List,
    /// Runs a static x86-64 Linux program as the first user program
    ///
    /// Its stdout, stderr and exit status become those of this command, and this command's stdin becomes its own. Each
    /// is a terminal inside exactly if it is one outside.
    Exec(Exec),
    /// Runs the Open POSIX Test Suite on this machine's Linux and in the guest, and shows what passes only on Linux
    ///
    /// The suite is fetched from the machine's Debian archive and built when it is needed. The exit status is 1 if any program passes on
    /// Linux and not in the guest.
    Conformance(Conformance),
    /// Measures what operations cost in instructions, here and under Linux
    ///
    /// Every figure is a number of instructions on the deterministic machine and the same from run to run. Debian's Linux kernels are
    /// fetched from the machine's Debian archive when they are needed.
    Bench(Bench),
    /// Shows in which functions of the kernel the instructions of an operation are spent
    Profile(Profile),
    /// Boots a test image of the kernel and shows its tests (cargo's runner for the kernel's target)
    TestImage {
        /// The test image's ELF file
        image: PathBuf,
        /// Run only tests whose names contain this
        filter: Option<String>,
        /// Accepted for cargo test's sake: the output is never captured
        #[arg(long, hide = true)]
        nocapture: bool,
        /// Accepted likewise: cargo test -q asks for it
        #[arg(long, hide = true)]
        quiet: bool,
    },
}

#[derive(Debug, Args)]
pub struct Exec {
    /// Put a file or folder of the host into the guest, at its own name in / or at GUEST (repeatable)
    #[arg(long, value_name = "HOST[:GUEST]")]
    pub with: Vec<OsString>,
    /// The program's own path and argv[0] in the guest [default: /bin/NAME]
    #[arg(long = "as", value_name = "GUEST")]
    pub guest_path: Option<OsString>,
    /// The program's working directory
    #[arg(long, value_name = "GUEST", default_value = "/")]
    pub cwd: OsString,
    /// Set a variable over the default environment, PATH=/bin HOME=/root TERM=dumb LC_ALL=C (repeatable)
    #[arg(long, value_name = "K=V", value_parser = parse_variable)]
    pub env: Vec<OsString>,
    /// The program on the host, and its arguments
    #[arg(required = true, num_args = 1.., trailing_var_arg = true, value_names = ["PROGRAM", "ARGS"])]
    pub command: Vec<OsString>,
}

/// Options of all commands that boot.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Machine")]
pub struct Options {
    /// Memory of the machine, such as 64M or 1G
    #[arg(long, global = true, value_name = "SIZE", default_value = "256M", value_parser = parse_memory)]
    pub memory: String,
    /// QEMU's CPU model [default: max, with --kvm host]
    #[arg(long, global = true, value_name = "MODEL", value_parser = NonEmptyStringValueParser::new())]
    pub cpu: Option<String>,
    /// Give up after this many seconds; 0 means never [default: 300, with --gdb 0]
    #[arg(long, global = true, value_name = "SECONDS", value_parser = parse_timeout)]
    pub timeout: Option<Duration>,
    /// The deterministic machine: instructions are counted and are its clock
    #[arg(long, global = true, conflicts_with = "kvm")]
    pub icount: bool,
    /// Seed of all randomness in the machine
    #[arg(long, global = true, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// Start with UEFI (OVMF) instead of a BIOS
    #[arg(long, global = true)]
    pub uefi: bool,
    /// Use hardware virtualisation instead of emulation
    #[arg(long, global = true)]
    pub kvm: bool,
    /// Let reads from the disk for files below PREFIX take MS milliseconds longer
    #[arg(long, global = true, value_name = "PREFIX:MS", value_parser = parse_slow)]
    pub slow: Option<String>,
    /// Let the first N reads from the disk of each page of files below PREFIX fail
    #[arg(long, global = true, value_name = "PREFIX:N", value_parser = parse_fail)]
    pub fail: Option<String>,
    /// Let the kernel crash once it is up, to see its report
    #[arg(long, global = true, value_name = "HOW", value_parser = ["panic", "overflow", "null"])]
    pub crash: Option<String>,
    /// Wait for a debugger before the machine runs, and say how to attach it
    #[arg(long, global = true)]
    pub gdb: bool,
    /// Boot this kernel (an ELF file) instead of building the workspace's own
    #[arg(long, global = true, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Build everything, print the QEMU command and run nothing
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// Show the kernel's log on stderr, and its counters at the end; -vv for debug, -vvv for trace messages
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl Options {
    /// The machine that the options describe. Chooses the debugger's port, if there is to be one.
    pub fn hardware(&self) -> Result<Hardware> {
        Ok(Hardware {
            memory: self.memory.clone(),
            cpu: self.cpu.clone(),
            icount: self.icount,
            seed: self.seed,
            firmware: self.firmware(),
            kvm: self.kvm,
            gdb_port: self.gdb.then(qemu::free_gdb_port).transpose()?,
            plugin: None,
        })
    }

    pub fn firmware(&self) -> Firmware {
        if self.uefi {
            Firmware::Uefi
        } else {
            Firmware::Bios
        }
    }

    /// The kernel to boot: the one that was asked for, else the workspace's, built if it is not current.
    pub fn kernel(&self) -> Result<PathBuf> {
        self.kernel.clone().map_or_else(cargo::kernel, Ok)
    }

    /// When to give up; `None`: never.
    pub fn time_limit(&self) -> Option<Duration> {
        let default = Duration::from_secs(if self.gdb { 0 } else { 300 });
        Some(self.timeout.unwrap_or(default)).filter(|limit| !limit.is_zero())
    }

    /// The kernel's log level, if it is not to be its default.
    pub fn log_level(&self) -> Option<String> {
        match self.verbose {
            0 | 1 => None,
            2 => Some("debug".into()),
            _ => Some("trace".into()),
        }
    }
}

/// Below this the bootloader finds no room for a kernel.
const LEAST_MEMORY: u64 = 32 << 20;

fn parse_memory(text: &str) -> Result<String, String> {
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, 'K' | 'k')) => (&text[..at], 1 << 10),
        Some((at, 'M' | 'm')) => (&text[..at], 1 << 20),
        Some((at, 'G' | 'g')) => (&text[..at], 1 << 30),
        _ => (text, 1 << 20),
    };
    let number: u32 = digits.parse().map_err(|_| "a size looks like 64M or 1G")?;
    if u64::from(number) * unit < LEAST_MEMORY {
        return Err("the machine needs at least 32M to boot".into());
    }
    Ok(text.to_owned())
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "not a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "not a number of seconds".into())
}

fn parse_slow(text: &str) -> Result<String, String> {
    parse_part_of_disk(text)
        .ok_or_else(|| "expected an absolute path and milliseconds, such as /data:300".into())
}

fn parse_fail(text: &str) -> Result<String, String> {
    parse_part_of_disk(text)
        .ok_or_else(|| "expected an absolute path and a number of reads, such as /data:2".into())
}

/// An absolute path and a number.
fn parse_part_of_disk(text: &str) -> Option<String> {
    let (prefix, number) = text.rsplit_once(':')?;
    let valid = prefix.starts_with('/') && number.parse::<u32>().is_ok();
    valid.then(|| text.to_owned())
}

fn parse_variable(text: &str) -> Result<OsString, String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(text.into()),
        _ => Err("expected NAME=VALUE".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn exec(words: &[&str]) -> Exec {
        let cli = Cli::try_parse_from([&["boot", "exec"], words].concat()).unwrap();
        let Some(Command::Exec(exec)) = cli.command else {
            panic!("it is exec")
        };
        exec
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_the_program_is_the_programs() {
        let parsed = exec(&[
            "--with",
            "a:b",
            "prog",
            "-v",
            "--with",
            "x",
            "--",
            "--no-such-option",
        ]);
        assert_eq!(parsed.with, ["a:b"]);
        assert_eq!(
            parsed.command,
            ["prog", "-v", "--with", "x", "--", "--no-such-option"]
        );
    }

    #[test]
    fn mistyped_options_are_errors() {
        for line in [
            &["boot", "--memroy", "64M"][..],
            &["boot", "exec", "--whith", "a", "prog"],
            &["boot", "exec"],
            &["boot", "--memory", "lots"],
            &["boot", "--memory", "16M"],
            &["boot", "--memory", "M"],
            &["boot", "--memory", ""],
            &["boot", "--timeout", "-1"],
            &["boot", "--slow", "data:3"],
            &["boot", "--fail", "/data"],
            &["boot", "exec", "--env", "NOVALUE", "prog"],
            &["boot", "--icount", "--kvm"],
            &["boot", "no-such-command"],
        ] {
            assert!(Cli::try_parse_from(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn the_timeout_is_bounded_unless_asked_otherwise() {
        let limit = |words: &[&str]| {
            Cli::try_parse_from([&["boot"], words].concat())
                .unwrap()
                .options
                .time_limit()
        };
        assert_eq!(limit(&[]), Some(Duration::from_secs(300)));
        assert_eq!(
            limit(&["--timeout", "1.5"]),
            Some(Duration::from_millis(1500))
        );
        assert_eq!(limit(&["--timeout", "0"]), None);
        assert_eq!(limit(&["--gdb"]), None);
    }
}
