//! Budgets: what each operation may cost, kept in `boot/bench/budgets.tsv`, one line each. A figure may be 2 % above its budget before the
//! check fails; to lower a budget is to change its line.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use object::{Object, ObjectSegment};

use super::figures::Column;
use super::{here, operations};
use crate::workspace;

const BUDGETS: &str = include_str!("../../bench/budgets.tsv");
const FILE: &str = "boot/bench/budgets.tsv";

/// How far a figure may be above its budget, in percent of it.
const TOLERANCE: u64 = 2;

/// Figures beside those of the operations.
const BOOT: &str = "boot";
const MEMORY: &str = "memory-idle-kib";
const IMAGE: &str = "image-kib";

/// What was measured under this kernel, by name: instructions of each operation and of bring-up, KiB of memory in use before anything
/// was measured, KiB of the kernel in memory.
pub fn measured(column: &Column, kernel: &Path) -> Result<Vec<(String, u64)>> {
    let operations = operations::ALL.iter().filter_map(|operation| {
        let median = column.medians.get(operation.name)?;
        Some((operation.name.to_owned(), *median))
    });
    let mut figures: Vec<(String, u64)> = operations.collect();
    let of_machine = |name: &str| column.machine.get(name).copied();
    if let Some(counts) = of_machine(here::BOOT_COUNTS) {
        figures.push((BOOT.into(), counts));
    }
    if let Some(free) = of_machine("free") {
        figures.push((MEMORY.into(), (here::MEMORY - free) >> 10));
    }
    figures.push((IMAGE.into(), image_size(kernel)? >> 10));
    Ok(figures)
}

/// What is loaded of the kernel, in bytes.
fn image_size(kernel: &Path) -> Result<u64> {
    let data = fs::read(kernel).with_context(|| format!("{} cannot be read", kernel.display()))?;
    let file = object::File::parse(&*data).context("the kernel is no ELF file")?;
    Ok(file.segments().map(|segment| segment.size()).sum())
}

/// The budgets.
pub fn budgets() -> Vec<(String, u64)> {
    read(BUDGETS)
}

fn read(text: &str) -> Vec<(String, u64)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let row = |line: &str| {
        let (name, budget) = line.split_once('\t')?;
        Some((name.to_owned(), budget.parse().ok()?))
    };
    lines.filter_map(row).collect()
}

/// A sentence for each figure above its budget, without a budget, or missing.
pub fn excesses(measured: &[(String, u64)], budgets: &[(String, u64)]) -> Vec<String> {
    let find = |list: &[(String, u64)], name: &str| {
        let row = list.iter().find(|(other, _)| other == name);
        row.map(|&(_, number)| number)
    };
    let missing = budgets
        .iter()
        .filter(|(name, _)| find(measured, name).is_none())
        .map(|(name, _)| format!("{name} has a budget and was not measured"));
    let above = measured.iter().filter_map(|(name, figure)| {
        let Some(budget) = find(budgets, name) else {
            return Some(format!("{name} has no budget in {FILE}"));
        };
        let growth = *figure as f64 / budget as f64 - 1.0;
        (figure * 100 > budget * (100 + TOLERANCE)).then(|| {
            format!(
                "{name} costs {figure}, {:.1} % more than its budget of {budget}",
                100.0 * growth
            )
        })
    });
    above.chain(missing).collect()
}

/// A sentence for each figure so far below its budget that the budget should follow.
pub fn savings(measured: &[(String, u64)], budgets: &[(String, u64)]) -> Vec<String> {
    let rows = measured.iter().filter_map(|(name, figure)| {
        let (_, budget) = budgets.iter().find(|(other, _)| other == name)?;
        let saved = 1.0 - *figure as f64 / *budget as f64;
        (figure * 100 < budget * (100 - TOLERANCE)).then(|| {
            format!(
                "{name} costs {figure}, {:.1} % less than its budget of {budget}",
                100.0 * saved
            )
        })
    });
    rows.collect()
}

/// Makes what was measured the budgets.
pub fn write(measured: &[(String, u64)]) -> Result<()> {
    let file = workspace::root().join(FILE);
    let mut text = String::from(
        "# What operations may cost, in instructions; `cargo run -- bench --check` compares, `--set-budgets` writes this file.\n",
    );
    for (name, figure) in measured {
        text += &format!("{name}\t{figure}\n");
    }
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[(&str, u64)]) -> Vec<(String, u64)> {
        rows.iter().map(|&(name, n)| (name.into(), n)).collect()
    }

    #[test]
    fn what_grew_is_named() {
        let budgets = rows(&[("getpid", 100), ("fork", 1000), ("exec", 500), ("gone", 1)]);
        let measured = rows(&[("getpid", 102), ("fork", 1021), ("exec", 400), ("new", 5)]);
        let excesses = excesses(&measured, &budgets);
        assert_eq!(excesses.len(), 3, "{excesses:?}");
        assert!(excesses[0].starts_with("fork costs 1021, 2.1 % more"));
        assert!(excesses[1].starts_with("new has no budget"));
        assert!(excesses[2].starts_with("gone has a budget"));
        let savings = savings(&measured, &budgets);
        assert!(savings.len() == 1 && savings[0].starts_with("exec costs 400, 20.0 % less"));
    }

    #[test]
    fn every_operation_has_a_budget() {
        let budgets = budgets();
        let names = operations::ALL.iter().map(|operation| operation.name);
        for name in names.chain([BOOT, MEMORY, IMAGE]) {
            assert!(budgets.iter().any(|(other, _)| other == name), "{name}");
        }
    }
}
