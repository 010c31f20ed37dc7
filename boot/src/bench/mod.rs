//! `bench`: what operations cost in instructions on the deterministic machine, under this kernel and under Linux.
//!
//! One program (`userspace/src/bin/bench`) runs under all of them, as the first one: here from the disk ([`here`]), under Debian's Linux
//! from an initial RAM disk ([`linux`]). The time-stamp counter counts instructions there, the kernel's and the program's, so a figure
//! depends neither on the host nor on its load. Without Linux the figures are those of an earlier run ([`recorded`]).

mod budgets;
mod chart;
pub mod figures;
pub mod here;
mod linux;
pub mod operations;
mod profile;
mod recorded;
mod scale;
mod slow;
mod svg;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::cli::Options;
use crate::commands::say;
use crate::interrupt;
use crate::qemu::Hardware;
use figures::Column;
pub use profile::{Profile, profile};

/// Options of the command.
#[derive(Debug, Args)]
pub struct Bench {
    /// Measure only operations whose names contain this (repeatable)
    #[arg(long, value_name = "TEXT")]
    pub filter: Vec<String>,
    /// Do not run Linux: show figures recorded earlier, marked as such
    #[arg(long)]
    pub no_linux: bool,
    /// Write all figures to FILE
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw the figures as a bar chart into FILE
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Measure what operations cost among more and more areas, processes, pages, signals and waiters, here and under the lean 6.1
    #[arg(long, conflicts_with_all = ["record", "json"])]
    pub scale: bool,
    /// Count the instructions that take hardware long, and take the host's time, here and under the lean Linuxes; the exit status is 1 if
    /// an operation executes more of them here
    #[arg(long, conflicts_with_all = ["scale", "json", "svg", "check", "set_budgets"])]
    pub slow_instructions: bool,
    /// Keep Linux's figures as the recorded ones (in a checkout)
    #[arg(long, conflicts_with_all = ["no_linux", "filter"])]
    pub record: bool,
    /// Compare this kernel's figures with their budgets; the exit status is 1 if one is more than 2 % above
    #[arg(long, conflicts_with_all = ["record", "filter", "scale"])]
    pub check: bool,
    /// Make this kernel's figures the budgets (in a checkout)
    #[arg(long, conflicts_with_all = ["record", "filter", "check", "scale"])]
    pub set_budgets: bool,
}

/// The machine that all kernels are measured on.
pub fn hardware() -> Hardware {
    Hardware {
        memory: format!("{}M", here::MEMORY >> 20),
        cpu: Some("EPYC-v1".into()),
        icount: true,
        seed: Some(1),
        ..Hardware::default()
    }
}

/// Runs the command; gives the exit status.
pub fn bench(arguments: &Bench, options: &Options) -> Result<u8> {
    let program = here::program()?;
    let kernel = options.kernel()?;
    if arguments.slow_instructions {
        return slow::run(arguments, &program, &kernel, options);
    }
    if arguments.scale {
        return scaled(arguments, &program, &kernel, options);
    }
    let here = here::run(&program, &kernel, &arguments.filter, options)?.0;
    interrupt::check()?;
    if arguments.check || arguments.set_budgets {
        return compare(arguments, &here, &kernel);
    }
    let linux = linux_columns(arguments, &program)?;
    if arguments.record {
        recorded::write(&linux)?;
    }
    let columns: Vec<Column> = std::iter::once(here).chain(linux).collect();
    let failures: Vec<String> = columns.iter().flat_map(Column::failures).collect();
    say(&table::results(&columns))?;
    if let Some(file) = &arguments.json {
        write(file, &format!("{:#}\n", figures::json(&columns)))?;
    }
    if let Some(file) = &arguments.svg {
        write(file, &chart::draw(&columns))?;
    }
    for failure in &failures {
        eprintln!("boot: {failure}");
    }
    Ok(u8::from(!failures.is_empty()))
}

/// Does `--scale`; gives the exit status.
fn scaled(arguments: &Bench, program: &Path, kernel: &Path, options: &Options) -> Result<u8> {
    let hardware = Hardware {
        memory: scale::MEMORY.into(),
        ..hardware()
    };
    let mut filters = vec!["--scale".to_owned()];
    filters.extend_from_slice(&arguments.filter);
    let here = here::run_on(hardware.clone(), program, kernel, &filters, options)?.0;
    interrupt::check()?;
    let mut columns = vec![here];
    if !arguments.no_linux {
        columns.push(linux::run_one(&hardware, program, &filters)?);
    }
    say(&scale::table(&columns))?;
    if let Some(file) = &arguments.svg {
        write(file, &scale::draw(&columns))?;
    }
    let failures: Vec<String> = columns.iter().flat_map(Column::failures).collect();
    for failure in &failures {
        eprintln!("boot: {failure}");
    }
    Ok(u8::from(!failures.is_empty()))
}

/// Compares with the budgets, or makes them anew; gives the exit status.
fn compare(arguments: &Bench, here: &Column, kernel: &Path) -> Result<u8> {
    let measured = budgets::measured(here, kernel)?;
    let mut wrong = here.failures();
    if arguments.set_budgets && wrong.is_empty() {
        budgets::write(&measured)?;
    } else {
        let budgets = budgets::budgets();
        for line in budgets::savings(&measured, &budgets) {
            say(&line)?;
        }
        wrong.extend(budgets::excesses(&measured, &budgets));
    }
    for line in &wrong {
        say(line)?;
    }
    if wrong.is_empty() {
        say(&format!(
            "{} figures are within their budgets",
            measured.len()
        ))?;
    }
    Ok(u8::from(!wrong.is_empty()))
}

/// Linux's figures, measured now or recorded.
fn linux_columns(arguments: &Bench, program: &Path) -> Result<Vec<Column>> {
    if arguments.no_linux {
        return Ok(recorded::columns());
    }
    match linux::run(program, &arguments.filter) {
        Ok(columns) => Ok(columns),
        Err(error) if arguments.record || interrupt::caught().is_some() => Err(error),
        Err(error) => {
            eprintln!("boot: {error:#}; the figures of Linux are recorded ones");
            Ok(recorded::columns())
        }
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
