//! `conformance`: runs the Open POSIX Test Suite, or another suite of that form, on this machine's Linux and on the kernel, and compares.
//!
//! The suite is fetched and built on demand and never stored in the repository ([`fetch`], [`build`]). A small program runs the suite's
//! programs in the same surroundings on both sides ([`sides`]); what comes out differently is run again, as some programs depend on time
//! ([`run`]). A program counts against the kernel if it passes on Linux and not here ([`result`]).

mod build;
mod fetch;
mod protocol;
mod result;
mod run;
mod sides;
mod suite;
mod table;

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::Options;
use crate::commands::say;
use crate::{cargo, interrupt};
use result::Compared;
use run::Pace;
use sides::{Here, Linux, Side};
pub use suite::Group;
use suite::{Program, Suite};

/// How often a program is run in all before it counts as failed.
const TRIES: u32 = 3;
/// The guest may be emulated: its programs have more time.
const SLOWER: u32 = 2;

/// Options of the command.
#[derive(Debug, Args)]
pub struct Conformance {
    /// Which groups to run: memory, signals, processes, threads, timers, scheduling, other [default: all but other; with --suite all]
    #[arg(value_name = "GROUP", value_parser = Group::parse)]
    pub groups: Vec<Group>,
    /// Run only programs whose names, such as mmap/1-1, contain this
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// List the programs and run nothing
    #[arg(long)]
    pub list: bool,
    /// Write all results to FILE
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Take the programs from this folder, INTERFACE/N-M.c in it, instead of fetching the Open POSIX Test Suite
    #[arg(long, value_name = "DIR")]
    pub suite: Option<PathBuf>,
    /// Programs that run at a time [default: twice the cores; most of them sleep]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Time for each program on Linux in seconds; it has twice as long in the guest
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u16).range(1..))]
    pub limit: u16,
}

impl Conformance {
    fn groups(&self) -> Vec<Group> {
        let default = |group: &Group| self.suite.is_some() || *group != Group::Other;
        if self.groups.is_empty() {
            Group::ALL.into_iter().filter(default).collect()
        } else {
            self.groups.clone()
        }
    }

    fn suite(&self) -> Result<Suite> {
        let top = self.suite.clone().map_or_else(fetch::suite, Ok)?;
        let mut suite = Suite::read(&top)?;
        suite.select(&self.groups(), self.filter.as_deref());
        anyhow::ensure!(
            !suite.programs.is_empty(),
            "the suite has no such program (--list shows all)"
        );
        Ok(suite)
    }
}

/// Runs the command; gives the exit status.
pub fn conformance(arguments: &Conformance, options: &Options) -> Result<u8> {
    let suite = arguments.suite()?;
    if arguments.list {
        say(&table::list(&suite.programs))?;
        return Ok(0);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = arguments.jobs.map_or(2 * cores, usize::from);
    let kernel = options.kernel()?;
    let runner = cargo::programs()?
        .into_iter()
        .find(|program| program.ends_with("conformance-run"))
        .context("userspace/ has no conformance-run")?;
    let bar = bar("building")?;
    let built = build::build(&suite, cores, &bar)?;
    bar.finish_and_clear();
    let linux = Linux {
        runner: runner.clone(),
        top: built.top.clone(),
    };
    let here = Here {
        runner,
        top: built.top,
        suite: &suite,
        kernel,
        options: options.clone(),
    };
    let limit = Duration::from_secs(arguments.limit.into());
    let pace = Pace {
        jobs,
        limit,
        tell: options.verbose > 0,
    };
    let slower = Pace {
        limit: limit * SLOWER,
        ..pace
    };
    let compared = compare(built.programs, [&linux, &here], [pace, slower])?;
    interrupt::check()?;
    if let Some(file) = &arguments.json {
        let json = result::json(&compared, &built.unbuilt);
        write(file, &format!("{json:#}\n"))?;
    }
    say(&table::results(&compared, &built.unbuilt))?;
    let differing = compared.iter().filter(|program| program.differs()).count();
    if differing > 0 {
        eprintln!(
            "boot: {differing} of {} programs pass on Linux and not here",
            compared.len()
        );
    }
    Ok(u8::from(differing > 0))
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Runs the programs on both sides, Linux first; where only one side passes, the other one has two more tries.
fn compare(
    programs: Vec<Program>,
    sides: [&dyn Side; 2],
    paces: [Pace; 2],
) -> Result<Vec<Compared>> {
    let all: Vec<&Program> = programs.iter().collect();
    let mut outcomes = Vec::new();
    for (side, pace) in sides.into_iter().zip(paces) {
        let bar = bar(side.name())?;
        bar.set_length(all.len() as u64);
        outcomes.push(run::run(side, &all, pace, &bar)?);
        bar.finish_and_clear();
    }
    for (at, (side, pace)) in sides.into_iter().zip(paces).enumerate() {
        let passes = |at: usize, program: &Program| {
            outcomes[at]
                .get(&program.name)
                .is_some_and(|outcome| outcome.status.passes())
        };
        let differing: Vec<&Program> = all
            .iter()
            .copied()
            .filter(|program| !passes(at, program) && passes(1 - at, program))
            .collect();
        let bar = bar(&format!("{} again", side.name()))?;
        // Fewer at a time: what failed for want of time has more of it.
        let pace = Pace {
            jobs: pace.jobs.div_ceil(2),
            ..pace
        };
        run::run_again(side, &differing, &mut outcomes[at], pace, TRIES, &bar)?;
        bar.finish_and_clear();
    }
    let compared = programs.into_iter().map(|program| {
        let mut take = |at: usize| {
            outcomes[at]
                .remove(&program.name)
                .context("every program was run")
        };
        let (linux, here) = (take(0)?, take(1)?);
        Ok(Compared {
            program,
            linux,
            here,
        })
    });
    compared.collect()
}

/// Progress over a number of programs. Where stderr is no terminal, one line.
fn bar(what: &str) -> Result<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        eprintln!("conformance: {what} ...");
    }
    let style = ProgressStyle::with_template(
        "{spinner} {prefix} {bar:30} {pos}/{len} {wide_msg:.dim} {elapsed}",
    )
    .context("the template is valid")?;
    let bar = ProgressBar::new(0)
        .with_style(style)
        .with_prefix(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    Ok(bar)
}
