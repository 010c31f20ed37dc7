//! What the program reported, and what follows from it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::operations;

/// What one kernel needs for the operations.
#[derive(Debug, Clone, Default)]
pub struct Column {
    /// Which kernel, such as `6.1 lean`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Whether it is Linux with settings that favour speed: what is to be beaten.
    pub lean: bool,
    /// Whether the figures are those of an earlier run.
    pub recorded: bool,
    /// Median instructions by operation.
    pub medians: BTreeMap<String, u64>,
    /// What the program said of the machine before it began.
    pub machine: BTreeMap<String, u64>,
    /// Operations that did not do their work, and why.
    pub failed: BTreeMap<String, String>,
    /// How the run as a whole went wrong, if it did.
    pub ended: Option<String>,
}

impl Column {
    /// Reads what the program wrote: lines behind `@ `, among whatever else a kernel says on that line.
    pub fn read(&mut self, output: &str) {
        let mut complete = false;
        for line in output.lines() {
            let Some(report) = line.trim_end().strip_prefix("@ ") else {
                continue;
            };
            let (name, rest) = report.split_once(' ').unwrap_or((report, ""));
            if name == "end" {
                complete = true;
            } else if name == "machine" {
                self.machine = numbers(rest);
            } else if let Some(why) = rest.strip_prefix("failed: ") {
                self.failed.insert(name.into(), why.into());
            } else if let Some(&median) = numbers(rest).get("median") {
                self.medians.insert(name.into(), median);
            } else {
                self.failed.insert(name.into(), rest.into());
            }
        }
        if !complete && self.ended.is_none() {
            self.ended = Some("the program did not come to its end".into());
        }
    }

    /// A sentence for each thing that went wrong.
    pub fn failures(&self) -> Vec<String> {
        let operations = self.failed.iter();
        let operations = operations.map(|(name, why)| format!("{}: {name}: {why}", self.name));
        let ended = self.ended.iter();
        operations
            .chain(ended.map(|how| format!("{}: {how}", self.name)))
            .collect()
    }

    /// The column's heading.
    pub fn heading(&self) -> String {
        let mark = if self.recorded { " (recorded)" } else { "" };
        format!("{}{mark}", self.name)
    }
}

/// `KEY=NUMBER` words.
fn numbers(words: &str) -> BTreeMap<String, u64> {
    let number = |word: &str| {
        let (key, value) = word.split_once('=')?;
        Some((key.to_owned(), value.parse().ok()?))
    };
    words.split(' ').filter_map(number).collect()
}

/// What the fastest lean Linux needs.
pub fn to_beat(columns: &[Column], operation: &str) -> Option<u64> {
    let lean = columns.iter().filter(|column| column.lean);
    lean.filter_map(|column| column.medians.get(operation).copied())
        .min()
}

/// The first column's part of what the fastest lean Linux needs.
pub fn ratio(columns: &[Column], operation: &str) -> Option<f64> {
    let own = *columns.first()?.medians.get(operation)?;
    Some(own as f64 / to_beat(columns, operation)? as f64)
}

/// The geometric mean of all ratios.
pub fn mean_ratio(columns: &[Column]) -> Option<f64> {
    let ratios = operations::ALL
        .iter()
        .filter_map(|operation| ratio(columns, operation.name));
    let logarithms: Vec<f64> = ratios.map(f64::ln).collect();
    let count = logarithms.len();
    (count > 0).then(|| (logarithms.iter().sum::<f64>() / count as f64).exp())
}

/// Everything, for programs.
pub fn json(columns: &[Column]) -> Value {
    let kernels: Vec<Value> = columns
        .iter()
        .map(|column| {
            json!({
                "name": column.name,
                "version": column.version,
                "lean": column.lean,
                "recorded": column.recorded,
                "instructions": column.medians,
                "failed": column.failed,
            })
        })
        .collect();
    let operations: Vec<Value> = operations::ALL
        .iter()
        .map(|operation| {
            json!({
                "name": operation.name,
                "what": operation.what,
                "floor": operation.floor,
                "ratio": ratio(columns, operation.name),
            })
        })
        .collect();
    json!({ "kernels": kernels, "operations": operations, "mean_ratio": mean_ratio(columns) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(lean: bool, medians: &[(&str, u64)]) -> Column {
        Column {
            lean,
            medians: medians.iter().map(|&(name, n)| (name.into(), n)).collect(),
            ..Column::default()
        }
    }

    #[test]
    fn reports_are_read_from_among_a_kernels_messages() {
        let mut column = Column::default();
        column.read(
            "[ 0.1] booting\r\n@ machine tsc=5 free=7\r\n@ getpid median=100 least=99 most=300 samples=9\r\n\
             @ fork failed: the child ends (status 0x100)\r\n@ end\r\n",
        );
        assert_eq!(column.machine["free"], 7);
        assert_eq!(column.medians["getpid"], 100);
        assert_eq!(column.failed["fork"], "the child ends (status 0x100)");
        assert_eq!(column.ended, None);
        assert_eq!(column.failures().len(), 1);
    }

    #[test]
    fn a_program_that_ends_early_is_a_failure() {
        let mut column = Column::default();
        column.read("@ getpid median=100\n");
        assert_eq!(column.failures().len(), 1);
    }

    #[test]
    fn only_lean_linux_is_to_be_beaten() {
        let columns = [
            column(false, &[("getpid", 50), ("fork", 200)]),
            column(true, &[("getpid", 100), ("fork", 300)]),
            column(true, &[("getpid", 200), ("fork", 250)]),
            column(false, &[("getpid", 10), ("fork", 1)]),
        ];
        assert_eq!(ratio(&columns, "getpid"), Some(0.5));
        assert_eq!(ratio(&columns, "fork"), Some(0.8));
        let mean = mean_ratio(&columns).unwrap();
        assert!((mean - 0.4f64.sqrt()).abs() < 1e-9);
        assert_eq!(mean_ratio(&columns[..1]), None);
    }
}
