//! `bench --slow-instructions`: what each operation executes of the instructions that count as one and take hardware long (writes of CR3, INVLPG, WRMSR,
//! IRET and their like), and the host's time for it under emulation, here and under the lean Linuxes.
//!
//! A plugin of QEMU counts between the marks that the program sets (`boot/profiler`). Counts are means and come out the same in every
//! run; the times are medians, and the host's affair.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use comfy_table::{Cell, CellAlignment};

use super::figures::Column;
use super::profile::{file_for_counts, watched};
use super::{Bench, here, linux, operations};
use crate::cli::Options;
use crate::commands::say;
use crate::table::new_table;
use crate::{cargo, interrupt, workspace};

/// What the lean Linuxes executed when it was recorded, without the host's times.
const RECORDED: &str = include_str!("../../bench/slow.tsv");
const FILE: &str = "boot/bench/slow.tsv";

/// So many more than Linux is no difference: what a tick of the clock adds now and then.
const NOISE: f64 = 0.1;

/// What one kernel executes, by operation.
struct Tally {
    kernel: String,
    operations: BTreeMap<&'static str, Slow>,
}

/// What one operation executes, each time.
#[derive(Debug, Default, PartialEq)]
struct Slow {
    /// The host's nanoseconds; not known of what was recorded.
    time: Option<u64>,
    kinds: BTreeMap<String, f64>,
}

impl Slow {
    fn total(&self) -> f64 {
        self.kinds.values().sum()
    }
}

/// Runs the command; gives the exit status.
pub fn run(arguments: &Bench, program: &Path, kernel: &Path, options: &Options) -> Result<u8> {
    let plugin = cargo::profiler()?;
    let out = file_for_counts()?;
    let machine = watched(&plugin, out.path(), ",tally=on");
    let filters = &arguments.filter;
    let own = here::run_on(machine.clone(), program, kernel, filters, options)?.0;
    interrupt::check()?;
    let mut failures = own.failures();
    let mut tallies = vec![tally(&own, out.path())?];
    if arguments.no_linux {
        tallies.extend(recorded(RECORDED));
    } else {
        linux::run_lean(
            program,
            filters,
            || Ok(machine.clone()),
            |column| {
                failures.extend(column.failures());
                tallies.push(tally(&column, out.path())?);
                Ok(())
            },
        )?;
    }
    if arguments.record && failures.is_empty() {
        let file = workspace::root().join(FILE);
        fs::write(&file, recording(&tallies[1..]))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    say(&table(&tallies))?;
    let more = more_than_linux(&tallies);
    if tallies.len() > 1 {
        say(&match more.is_empty() {
            true => "no operation executes more of them here than under any of the others".into(),
            false => format!("more than under one of the others: {}", more.join(", ")),
        })?;
    }
    for failure in &failures {
        eprintln!("boot: {failure}");
    }
    Ok(u8::from(!failures.is_empty() || !more.is_empty()))
}

/// What the plugin wrote while the operations of a column ran. The program runs them in the order of the table.
fn tally(column: &Column, counts: &Path) -> Result<Tally> {
    let text = fs::read_to_string(counts).context("cannot read the counts")?;
    let ran = operations::ALL
        .iter()
        .map(|operation| operation.name)
        .filter(|&name| column.medians.contains_key(name) || column.failed.contains_key(name));
    let counted = read(&text);
    ensure!(
        !counted.is_empty(),
        "nothing was counted: QEMU has no plugins, or the program failed ({})",
        column.failures().join("; ")
    );
    Ok(Tally {
        kernel: column.name.clone(),
        operations: ran.zip(counted).collect(),
    })
}

/// The operations in the plugin's file.
fn read(text: &str) -> Vec<Slow> {
    let mut operations: Vec<Slow> = Vec::new();
    let mut windows = 1.0;
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        match *words {
            ["operation", count, time] => {
                windows = count.parse().unwrap_or(1.0);
                operations.push(Slow {
                    time: time.parse().ok(),
                    ..Slow::default()
                });
            }
            ["slow", count, kind] => {
                let count: f64 = count.parse().unwrap_or(0.0);
                if let Some(operation) = operations.last_mut() {
                    operation.kinds.insert(kind.into(), count / windows);
                }
            }
            _ => {}
        }
    }
    operations
}

/// Lines `kernel`, NAME, and under each OPERATION, KIND, COUNT; an operation that executes none has a line of its own, too.
fn recording(tallies: &[Tally]) -> String {
    let mut text = String::from(
        "# Instructions that take hardware long under the lean Linuxes, each time; written by `cargo run -- bench --slow-instructions --record`.\n",
    );
    for tally in tallies {
        text += &format!("kernel\t{}\n", tally.kernel);
        for (name, slow) in &tally.operations {
            text += &format!("{name}\n");
            for (kind, count) in &slow.kinds {
                text += &format!("{name}\t{kind}\t{count:.2}\n");
            }
        }
    }
    text
}

fn recorded(text: &str) -> Vec<Tally> {
    let mut tallies: Vec<Tally> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split('\t').collect();
        if let ["kernel", name] = *words {
            tallies.push(Tally {
                kernel: format!("{name} (recorded)"),
                operations: BTreeMap::new(),
            });
            continue;
        }
        let known = operations::ALL.iter().map(|operation| operation.name);
        let name = known.into_iter().find(|name| words.first() == Some(name));
        let (Some(tally), Some(name)) = (tallies.last_mut(), name) else {
            continue;
        };
        let slow = tally.operations.entry(name).or_default();
        if let [_, kind, count] = *words {
            slow.kinds.insert(kind.into(), count.parse().unwrap_or(0.0));
        }
    }
    tallies
}

/// Operations that execute more of them in the first kernel than in one of the others.
fn more_than_linux(tallies: &[Tally]) -> Vec<&'static str> {
    let Some((own, others)) = tallies.split_first() else {
        return Vec::new();
    };
    let more = own.operations.iter().filter(|(name, slow)| {
        others
            .iter()
            .filter_map(|other| other.operations.get(*name))
            .any(|other| slow.total() > other.total() + NOISE)
    });
    more.map(|(&name, _)| name).collect()
}

fn table(tallies: &[Tally]) -> String {
    let mut headings = vec!["operation".to_owned()];
    headings.extend(tallies.iter().map(|tally| tally.kernel.clone()));
    headings.extend(tallies.iter().map(|tally| format!("{}, µs", tally.kernel)));
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    let mut table = new_table(&headings);
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    for operation in &operations::ALL {
        let of = |tally: &'_ Tally| tally.operations.contains_key(operation.name);
        if !tallies.first().is_some_and(of) {
            continue;
        }
        let slow = |tally: &Tally| tally.operations.get(operation.name).map(kinds);
        let time = |tally: &Tally| {
            let slow = tally.operations.get(operation.name)?;
            Some(format!("{:.1}", slow.time? as f64 / 1000.0))
        };
        let absent = || "-".to_owned();
        let mut cells = vec![Cell::new(operation.name)];
        cells.extend(
            tallies
                .iter()
                .map(|tally| right(slow(tally).unwrap_or_else(absent))),
        );
        cells.extend(
            tallies
                .iter()
                .map(|tally| right(time(tally).unwrap_or_else(absent))),
        );
        table.add_row(cells);
    }
    format!("instructions that take hardware long, each time, and the host's time\n{table}")
}

/// A line for each kind, those that hardly ever come left out.
fn kinds(slow: &Slow) -> String {
    let lines: Vec<String> = slow
        .kinds
        .iter()
        .filter(|&(_, &count)| count >= NOISE / 2.0)
        .map(|(kind, count)| format!("{kind} {count:.1}"))
        .collect();
    if lines.is_empty() {
        "0".into()
    } else {
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(kernel: &str, text: &str) -> Tally {
        Tally {
            kernel: kernel.into(),
            operations: ["getpid", "fork"].into_iter().zip(read(text)).collect(),
        }
    }

    #[test]
    fn operations_are_told_apart_and_compared() {
        let own = tally(
            "here",
            "windows 12\noperation 10 1500\nslow 20 swapgs\nslow 1 iret\noperation 2 9000\nslow 6 cr3 write\n",
        );
        let fork = &own.operations["fork"];
        assert_eq!((fork.time, fork.kinds["cr3 write"]), (Some(9000), 3.0));
        let other = tally(
            "6.1 lean",
            "operation 10 1600\nslow 20 swapgs\noperation 2 9000\nslow 4 cr3 write\n",
        );
        let again = recorded(&recording(std::slice::from_ref(&other)));
        assert_eq!(again[0].kernel, "6.1 lean (recorded)");
        assert_eq!(
            again[0].operations["fork"].kinds,
            other.operations["fork"].kinds
        );
        // A tenth of an IRET more is the clock's.
        let both = [own, other];
        assert_eq!(more_than_linux(&both), ["fork"]);
        let text = table(&both);
        assert!(
            text.contains("cr3 write 3.0") && text.contains("1.6"),
            "{text}"
        );
    }
}
