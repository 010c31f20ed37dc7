//! Linux's figures of an earlier run, kept in `boot/bench/linux.tsv`: for machines without a network, and to compare with in a hurry.
//!
//! The first line names the columns, the second their versions, the third says which are lean; then a line for each operation.

use std::fs;

use anyhow::{Context, Result};

use super::figures::Column;
use super::operations;
use crate::workspace;

const FIGURES: &str = include_str!("../../bench/linux.tsv");
const FILE: &str = "boot/bench/linux.tsv";

/// The recorded columns.
pub fn columns() -> Vec<Column> {
    read(FIGURES)
}

fn read(text: &str) -> Vec<Column> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut columns: Vec<Column> = Vec::new();
    for (at, line) in lines.enumerate() {
        let mut words = line.split('\t');
        let key = words.next().unwrap_or_default();
        if at == 0 {
            columns = words
                .map(|name| Column {
                    name: name.into(),
                    recorded: true,
                    ..Column::default()
                })
                .collect();
            continue;
        }
        for (column, word) in columns.iter_mut().zip(words) {
            match key {
                "version" => column.version = word.into(),
                "lean" => column.lean = word == "yes",
                operation => {
                    if let Ok(median) = word.parse() {
                        column.medians.insert(operation.into(), median);
                    }
                }
            }
        }
    }
    columns
}

fn text(columns: &[Column]) -> String {
    let row = |key: &str, word: &dyn Fn(&Column) -> String| {
        let words: Vec<String> = columns.iter().map(word).collect();
        format!("{key}\t{}\n", words.join("\t"))
    };
    let mut text = String::from(
        "# Instructions under Debian's Linux, written by `cargo run -- bench --record`.\n",
    );
    text += &row("operation", &|column| column.name.clone());
    text += &row("version", &|column| column.version.clone());
    text += &row("lean", &|column| {
        if column.lean { "yes" } else { "no" }.into()
    });
    for operation in &operations::ALL {
        text += &row(operation.name, &|column| {
            let median = column.medians.get(operation.name);
            median.map_or_else(|| "-".into(), u64::to_string)
        });
    }
    text
}

/// Keeps `columns` as the recorded ones.
pub fn write(columns: &[Column]) -> Result<()> {
    let file = workspace::root().join(FILE);
    fs::write(&file, text(columns)).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let column = Column {
            name: "6.1 lean".into(),
            version: "6.1.2-3".into(),
            lean: true,
            medians: [("getpid".into(), 300)].into(),
            ..Column::default()
        };
        let again = read(&text(&[column.clone(), column]));
        assert_eq!(again.len(), 2);
        assert!(again.iter().all(|column| column.lean && column.recorded));
        assert_eq!(again[1].version, "6.1.2-3");
        assert_eq!(again[0].medians.len(), 1);
        assert_eq!(again[0].medians["getpid"], 300);
    }

    #[test]
    fn the_recorded_figures_are_whole() {
        let columns = columns();
        assert!(columns.iter().any(|column| column.lean));
        for operation in &operations::ALL {
            // Linux does not end the wait for a disk for a signal that has a handler.
            let expected = operation.name != "disk-signal";
            let known = |column: &Column| column.medians.contains_key(operation.name);
            assert!(
                columns.iter().all(|column| known(column) == expected),
                "{}",
                operation.name
            );
        }
    }
}
