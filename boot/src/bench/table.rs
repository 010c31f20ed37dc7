//! The figures side by side.

use comfy_table::{Cell, CellAlignment};

use super::figures::{self, Column};
use super::operations;
use crate::table::new_table;

/// A row for each operation that the first column has, and under them the mean.
pub fn results(columns: &[Column]) -> String {
    let headings: Vec<String> = columns.iter().map(Column::heading).collect();
    let mut line = vec!["operation", "what it is"];
    line.extend(headings.iter().map(String::as_str));
    line.extend(["floor", "ratio"]);
    let mut table = new_table(&line);
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    for operation in &operations::ALL {
        let of = |column: &Column| {
            if column.failed.contains_key(operation.name) {
                return "FAILED".into();
            }
            number(column.medians.get(operation.name).copied())
        };
        if columns.first().is_none_or(|own| {
            !own.medians.contains_key(operation.name) && !own.failed.contains_key(operation.name)
        }) {
            continue;
        }
        let mut cells = vec![Cell::new(operation.name), Cell::new(operation.what)];
        cells.extend(columns.iter().map(|column| right(of(column))));
        cells.push(right(number(operation.floor)));
        cells.push(right(share(figures::ratio(columns, operation.name))));
        table.add_row(cells);
    }
    let versions: Vec<String> = columns
        .iter()
        .filter(|column| !column.version.is_empty())
        .map(|column| format!("{}: {}", column.name, column.version))
        .collect();
    format!(
        "{table}\ngeometric mean of the ratios, against the fastest lean Linux of each row: {}\n{}",
        share(figures::mean_ratio(columns)),
        versions.join(", ")
    )
}

fn number(value: Option<u64>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

fn share(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_all_columns_and_the_ratio() {
        let column = |name: &str, lean, median| Column {
            name: name.into(),
            lean,
            medians: [("getpid".into(), median)].into(),
            ..Column::default()
        };
        let text = results(&[column("here", false, 100), column("6.1 lean", true, 400)]);
        let row = text.lines().find(|line| line.contains("getpid")).unwrap();
        let cells: Vec<&str> = row.split(['│', '┆']).map(str::trim).collect();
        assert_eq!(cells[3..7], ["100", "400", "60", "0.25"]);
        assert!(text.contains("each row: 0.25"));
        assert!(!text.contains("sigaction"), "it was not measured");
    }
}
