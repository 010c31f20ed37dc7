//! The table of demos: one row each, with what the kernel counted.

use std::io::IsTerminal;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use crate::demos::Demo;
use crate::records::Stats;

/// How one demo went.
#[derive(Debug)]
pub struct Row {
    pub demo: &'static Demo,
    pub passed: bool,
    /// What went wrong, if something did.
    pub remark: String,
    pub stats: Option<Stats>,
}

/// The rows under their headings.
pub fn results(rows: &[Row]) -> String {
    let mut table = new_table(&[
        "demo",
        "what it shows",
        "result",
        "faults",
        "retries",
        "signals",
    ]);
    for row in rows {
        let number = |count: fn(&Stats) -> u64| {
            let text = row
                .stats
                .as_ref()
                .map_or_else(|| "-".into(), |stats| count(stats).to_string());
            Cell::new(text).set_alignment(CellAlignment::Right)
        };
        let result = if row.passed {
            "pass".into()
        } else {
            format!("FAIL: {}", row.remark)
        };
        table.add_row([
            Cell::new(row.demo.name),
            Cell::new(row.demo.shows),
            Cell::new(result),
            number(Stats::faults),
            number(|stats| stats.retries),
            number(|stats| stats.signals),
        ]);
    }
    table.to_string()
}

/// All demos and what they show.
pub fn list(demos: &[Demo]) -> String {
    let mut table = new_table(&["demo", "what it shows"]);
    for demo in demos {
        table.add_row([demo.name, demo.shows]);
    }
    table.to_string()
}

/// An empty table under its headings.
pub fn new_table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_FULL_CONDENSED)
        .set_header(headings.iter().copied());
    // Lines are broken to fit a terminal, never in a file or a pipe.
    if std::io::stdout().is_terminal() {
        let columns =
            rustix::termios::tcgetwinsize(std::io::stdout()).map_or(0, |size| size.ws_col);
        table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(if columns > 0 { columns } else { 100 });
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demos::DEMOS;

    #[test]
    fn a_row_has_the_result_and_the_counters() {
        let stats = Stats {
            minor: 40,
            major: 2,
            retries: 7,
            signals: 3,
        };
        let rows = [
            Row {
                demo: &DEMOS[0],
                passed: true,
                remark: String::new(),
                stats: Some(stats),
            },
            Row {
                demo: &DEMOS[1],
                passed: false,
                remark: "kernel panic: x".into(),
                stats: None,
            },
        ];
        let text = results(&rows);
        let words = |name: &str| -> Vec<String> {
            let line = text.lines().find(|line| line.contains(name)).unwrap();
            let words = line.split([' ', '│', '┆']).filter(|word| !word.is_empty());
            words.map(str::to_owned).collect()
        };
        assert!(
            words(DEMOS[0].name).ends_with(&["pass", "42", "7", "3"].map(String::from)),
            "{text}"
        );
        assert!(text.contains("FAIL: kernel panic: x"), "{text}");
        assert!(
            words(DEMOS[1].name).ends_with(&["-", "-", "-"].map(String::from)),
            "{text}"
        );
    }

    #[test]
    fn the_list_names_every_demo() {
        let text = list(&DEMOS);
        assert!(
            DEMOS
                .iter()
                .all(|demo| text.contains(demo.name) && text.contains(demo.shows))
        );
    }
}
