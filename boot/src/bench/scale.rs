//! `bench --scale`: what operations cost when there is more and more of something, as a table and as plots.

use std::collections::BTreeMap;

use comfy_table::{Cell, CellAlignment};

use super::figures::Column;
use super::svg::{Anchor, Drawing};
use crate::table::new_table;

/// Memory of the machine: half a million pages and what keeps track of them.
pub const MEMORY: &str = "3G";

/// The subjects under the names by which the program reports them, and what they are.
const SUBJECTS: [(&str, &str); 8] = [
    ("areas-fault", "write fault, by number of areas"),
    ("areas-mmap", "mmap + munmap, by number of areas"),
    (
        "processes-fork",
        "fork + exit + wait, by number of sleeping processes",
    ),
    (
        "processes-switch",
        "pipe ping-pong, by number of sleeping processes",
    ),
    ("pages-fault", "write fault, by touched pages"),
    (
        "pages-fork",
        "fork + exit + wait per touched page, by touched pages",
    ),
    (
        "signals-queue",
        "a signal queued and one taken, by pending ones",
    ),
    ("waiters-wake", "wake-up per waiter for a page, by waiters"),
];

/// The figures of one subject: for each size what each column has.
type Rows = BTreeMap<u64, Vec<Option<u64>>>;

fn rows(columns: &[Column], subject: &str) -> Rows {
    let mut rows = Rows::new();
    for (place, column) in columns.iter().enumerate() {
        for (name, &median) in &column.medians {
            let size = name
                .split_once('@')
                .filter(|(name, _)| *name == subject)
                .and_then(|(_, size)| size.parse().ok());
            if let Some(size) = size {
                rows.entry(size)
                    .or_insert_with(|| vec![None; columns.len()])[place] = Some(median);
            }
        }
    }
    rows
}

/// A row for each subject and size.
pub fn table(columns: &[Column]) -> String {
    let headings: Vec<String> = columns.iter().map(Column::heading).collect();
    let mut line = vec!["operation", "what it is", "amount"];
    line.extend(headings.iter().map(String::as_str));
    let mut table = new_table(&line);
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    for (subject, what) in SUBJECTS {
        for (size, figures) in rows(columns, subject) {
            let mut cells = vec![Cell::new(subject), Cell::new(what), right(size.to_string())];
            let figure = |figure: Option<u64>| figure.map_or_else(|| "-".into(), |n| n.to_string());
            cells.extend(figures.into_iter().map(|median| right(figure(median))));
            table.add_row(cells);
        }
    }
    table.to_string()
}

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 60.0;
const PLOT: (f64, f64) = (WIDTH - LEFT - 30.0, HEIGHT - TOP - 40.0);
const COLOURS: [&str; 3] = ["#d1495b", "#30638e", "#7fb2d9"];

/// A plot for each subject, with logarithmic axes.
pub fn draw(columns: &[Column]) -> String {
    let plots: Vec<(&str, Rows)> = SUBJECTS
        .iter()
        .map(|(subject, what)| (*what, rows(columns, subject)))
        .filter(|(_, rows)| !rows.is_empty())
        .collect();
    let lines = plots.len().div_ceil(2) as f64;
    let mut drawing = Drawing::new(2.0 * WIDTH, lines * HEIGHT);
    for (at, (what, rows)) in plots.iter().enumerate() {
        let origin = ((at % 2) as f64 * WIDTH, (at / 2) as f64 * HEIGHT);
        plot(&mut drawing, origin, what, rows, columns);
    }
    drawing.finish()
}

fn plot(drawing: &mut Drawing, (x, y): (f64, f64), what: &str, rows: &Rows, columns: &[Column]) {
    let figures = || rows.values().flatten().flatten().map(|&n| decades(n));
    // Whole decades, so that plots can be compared at a glance.
    let low = figures().fold(f64::MAX, f64::min).floor();
    let high = figures().fold(f64::MIN, f64::max).ceil().max(low + 1.0);
    let widest = rows.keys().map(|&n| decades(n)).fold(1.0, f64::max);
    let right = |size: u64| x + LEFT + PLOT.0 * decades(size) / widest;
    let down = |decade: f64| y + TOP + PLOT.1 * (high - decade) / (high - low);
    drawing.text(x + 10.0, y + 20.0, Anchor::Start, what);
    for (place, column) in columns.iter().enumerate() {
        let at = x + 10.0 + 150.0 * place as f64;
        drawing.rectangle(at, y + 32.0, 12.0, 4.0, COLOURS[place % COLOURS.len()]);
        drawing.text(at + 16.0, y + 38.0, Anchor::Start, &column.heading());
    }
    let mut decade = low;
    while decade <= high {
        let line = down(decade);
        drawing.line(
            &[(x + LEFT, line), (x + LEFT + PLOT.0, line)],
            "#dddddd",
            1.0,
        );
        let label = format!("{:.0}", 10f64.powf(decade));
        drawing.text(x + LEFT - 6.0, line + 4.0, Anchor::End, &label);
        decade += 1.0;
    }
    for &size in rows.keys() {
        drawing.text(
            right(size),
            y + TOP + PLOT.1 + 18.0,
            Anchor::Middle,
            &size.to_string(),
        );
    }
    for place in 0..columns.len() {
        let points: Vec<(f64, f64)> = rows
            .iter()
            .filter_map(|(&size, figures)| Some((right(size), down(decades(figures[place]?)))))
            .collect();
        drawing.line(&points, COLOURS[place % COLOURS.len()], 2.0);
    }
}

fn decades(number: u64) -> f64 {
    (number.max(1) as f64).log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rows_in_their_order() {
        let column = |name: &str, figures: &[(&str, u64)]| Column {
            name: name.into(),
            medians: figures.iter().map(|&(name, n)| (name.into(), n)).collect(),
            ..Column::default()
        };
        let columns = [
            column(
                "here",
                &[("areas-fault@100", 7), ("areas-fault@20", 5), ("getpid", 1)],
            ),
            column("6.1 lean", &[("areas-fault@100", 9)]),
        ];
        let rows = rows(&columns, "areas-fault");
        let rows: Vec<_> = rows.into_iter().collect();
        assert_eq!(
            rows,
            [(20, vec![Some(5), None]), (100, vec![Some(7), Some(9)])]
        );
        assert!(table(&columns).contains("100"));
        let drawn = draw(&columns);
        assert_eq!(drawn.matches("stroke-width=\"2\"").count(), 2);
    }
}
