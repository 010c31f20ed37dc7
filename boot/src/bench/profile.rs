//! `profile`: where the instructions of one operation are spent. A plugin of QEMU (`boot/profiler`) counts each instruction between the marks
//! that the program sets around what it measures; here the counts get the names of functions.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::Args;
use comfy_table::{Cell, CellAlignment};
use tempfile::NamedTempFile;

use super::{hardware, here, operations};
use crate::cli::Options;
use crate::commands::{IMAGE_BASE, say};
use crate::qemu::{Hardware, doubled_commas};
use crate::symbols::Symbols;
use crate::table::new_table;
use crate::{cargo, interrupt, workspace};

/// The user's half of the address space ends here at the latest.
const USER_END: u64 = 1 << 47;

/// Options of the command.
#[derive(Debug, Args)]
pub struct Profile {
    /// The operation, under its name in the table of `bench`
    pub operation: String,
    /// Attribute instructions to lines of source, the innermost inlined function's, instead of functions
    #[arg(long)]
    pub lines: bool,
    /// Rows to show
    #[arg(long, value_name = "NUMBER", default_value = "40")]
    pub top: usize,
}

/// What the plugin counted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    /// How often the operation was done.
    windows: u64,
    /// Executions by address, with the kind of a slow instruction.
    at: Vec<(u64, u64, Option<String>)>,
}

/// Runs the command; gives the exit status.
pub fn profile(arguments: &Profile, options: &Options) -> Result<u8> {
    let known = operations::ALL.iter().map(|operation| operation.name);
    let names: Vec<&str> = known.collect();
    ensure!(
        names.contains(&&*arguments.operation),
        "there is no operation {}; there are {}",
        arguments.operation,
        names.join(", ")
    );
    let program = here::program()?;
    let kernel = options.kernel()?;
    let symbols = Symbols::load(&kernel)?;
    let plugin = cargo::profiler()?;
    let out = file_for_counts()?;
    let hardware = watched(&plugin, out.path(), "");
    let filters = [format!("={}", arguments.operation)];
    let (column, _) = here::run_on(hardware, &program, &kernel, &filters, options)?;
    interrupt::check()?;
    let text = fs::read_to_string(out.path()).context("cannot read the counts")?;
    let counts = Counts::read(&text);
    ensure!(
        counts.windows > 0,
        "nothing was counted: QEMU has no plugins, or the operation failed ({})",
        column.failures().join("; ")
    );
    say(&table(&counts, arguments, &symbols))?;
    Ok(u8::from(!column.failures().is_empty()))
}

/// A file that the plugin can write into.
pub fn file_for_counts() -> Result<NamedTempFile> {
    NamedTempFile::new_in(workspace::target_subdir("profiler")?)
        .context("cannot make a file for the counts")
}

/// The machine with the plugin, which has further `arguments` and writes to `out`.
pub fn watched(plugin: &Path, out: &Path, arguments: &str) -> Hardware {
    let mut option = OsString::from("file=");
    option.push(doubled_commas(plugin));
    option.push(",out=");
    option.push(doubled_commas(out));
    option.push(arguments);
    Hardware {
        plugin: Some(option),
        ..hardware()
    }
}

impl Counts {
    fn read(text: &str) -> Self {
        let mut counts = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match *words {
                ["windows", count] => counts.windows = count.parse().unwrap_or(0),
                ["at", address, count, kind] => {
                    let numbers = u64::from_str_radix(address, 16)
                        .ok()
                        .zip(count.parse().ok());
                    let kind = (kind != "-").then(|| kind.to_owned());
                    counts
                        .at
                        .extend(numbers.map(|(address, count)| (address, count, kind)));
                }
                _ => {}
            }
        }
        counts
    }

    /// Sums of the executions by what `name` says, the largest first.
    fn sums(&self, name: impl Fn(u64, Option<&str>) -> Option<String>) -> Vec<(String, u64)> {
        let mut sums = HashMap::new();
        for (address, count, kind) in &self.at {
            if let Some(name) = name(*address, kind.as_deref()) {
                *sums.entry(name).or_insert(0) += count;
            }
        }
        let mut sums: Vec<(String, u64)> = sums.into_iter().collect();
        sums.sort_by(|(a, x), (b, y)| y.cmp(x).then_with(|| a.cmp(b)));
        sums
    }
}

fn table(counts: &Counts, arguments: &Profile, symbols: &Symbols) -> String {
    let place = |address: u64, _: Option<&str>| {
        if address < USER_END {
            return Some("the program".into());
        }
        let offset = address.wrapping_sub(IMAGE_BASE);
        let name = if arguments.lines {
            symbols.describe(offset).into_iter().next()
        } else {
            symbols.function(offset)
        };
        Some(name.unwrap_or_else(|| "?".into()))
    };
    let by_place = counts.sums(place);
    let total: u64 = by_place.iter().map(|(_, count)| count).sum();
    let each = |count: u64| count as f64 / counts.windows as f64;
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let mut places = new_table(&["instructions", "part", "where"]);
    for (name, count) in by_place.iter().take(arguments.top) {
        let part = 100.0 * *count as f64 / total as f64;
        places.add_row([
            right(format!("{:.1}", each(*count))),
            right(format!("{part:.1} %")),
            Cell::new(name),
        ]);
    }
    let mut slow = new_table(&["times", "instruction that takes hardware long"]);
    for (kind, count) in counts.sums(|_, kind| kind.map(str::to_owned)) {
        slow.add_row([right(format!("{:.2}", each(count))), Cell::new(kind)]);
    }
    format!(
        "{}: {:.1} instructions, the mean of {} times\n{places}\n{slow}",
        arguments.operation,
        each(total),
        counts.windows
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_and_summed() {
        let counts = Counts::read(
            "windows 2\nat ffff800000000010 6 -\nat 201000 2 cr3 write\nat 201004 3 -\n",
        );
        assert_eq!(counts.windows, 2);
        assert_eq!(counts.at[1], (0x20_1000, 2, Some("cr3 write".into())));
        let sums = counts
            .sums(|address, _| Some(if address < USER_END { "user" } else { "kernel" }.into()));
        assert_eq!(sums, [("kernel".into(), 6), ("user".into(), 5)]);
        assert_eq!(
            counts.sums(|_, kind| kind.map(str::to_owned)),
            [("cr3 write".into(), 2)]
        );
    }
}
