//! The results as tables.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, Table};

use super::result::{Compared, Unbuilt};
use super::suite::{Group, Program};
use crate::table::new_table;

/// Counts of programs.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    programs: usize,
    linux: usize,
    here: usize,
    differ: usize,
}

impl Counts {
    fn add(&mut self, program: &Compared) {
        self.programs += 1;
        self.linux += usize::from(program.linux.status.passes());
        self.here += usize::from(program.here.status.passes());
        self.differ += usize::from(program.differs());
    }

    fn row(self, table: &mut Table, names: [&str; 2]) {
        let numbers = [
            self.programs,
            self.linux,
            self.programs - self.linux,
            self.here,
            self.programs - self.here,
            self.differ,
        ];
        let number = |number: usize| Cell::new(number).set_alignment(CellAlignment::Right);
        table.add_row(names.map(Cell::new).into_iter().chain(numbers.map(number)));
    }
}

/// All that there is to say: counts by interface and group, and the lists of what is remarkable.
pub fn results(compared: &[Compared], unbuilt: &[Unbuilt]) -> String {
    let mut text = counts(compared).to_string();
    let pick = |wanted: fn(&Compared) -> bool| {
        compared
            .iter()
            .filter(move |program| wanted(program))
            .collect()
    };
    let differing: Vec<&Compared> = pick(Compared::differs);
    if !differing.is_empty() {
        let mut table = new_table(&[
            "passes on Linux, not here",
            "how it ended here",
            "what it said",
        ]);
        for program in &differing {
            let here = &program.here;
            table.add_row([
                &program.program.name,
                &here.status.to_string(),
                &last_line(&here.output),
            ]);
        }
        let _ = write!(text, "\n\n{table}");
    }
    let flaky: Vec<&Compared> = pick(Compared::is_flaky);
    if !flaky.is_empty() {
        let mut table = new_table(&["passed only when run again", "runs on Linux", "runs here"]);
        for program in flaky {
            let runs = [program.linux.tries, program.here.tries].map(|tries| tries.to_string());
            table.add_row([&program.program.name, &runs[0], &runs[1]]);
        }
        let _ = write!(text, "\n\n{table}");
    }
    if !unbuilt.is_empty() {
        let mut table = new_table(&["cannot be built", "why"]);
        for program in unbuilt {
            table.add_row([&program.name, &program.why]);
        }
        let _ = write!(text, "\n\n{table}");
    }
    text
}

fn counts(compared: &[Compared]) -> Table {
    let mut table = new_table(&[
        "group",
        "interface",
        "programs",
        "pass on Linux",
        "do not",
        "pass here",
        "do not",
        "only on Linux",
    ]);
    let mut all = Counts::default();
    for group in Group::ALL {
        let mut interfaces: BTreeMap<&str, Counts> = BTreeMap::new();
        let mut sum = Counts::default();
        for program in compared
            .iter()
            .filter(|program| program.program.group == group)
        {
            interfaces
                .entry(program.program.interface())
                .or_default()
                .add(program);
            sum.add(program);
            all.add(program);
        }
        for (interface, counts) in &interfaces {
            counts.row(&mut table, [group.name(), interface]);
        }
        if interfaces.len() > 1 {
            sum.row(&mut table, [group.name(), "all"]);
        }
    }
    all.row(&mut table, ["all", "all"]);
    table
}

/// The last line of an output in which line ends are escaped, cut to what fits beside other columns.
fn last_line(output: &str) -> String {
    const LONGEST: usize = 90;
    let line = output
        .rsplit("\\n")
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default();
    match line.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line.to_owned(),
    }
}

/// The programs by group and interface.
pub fn list(programs: &[Program]) -> String {
    let mut interfaces: BTreeMap<(Group, &str), Vec<&str>> = BTreeMap::new();
    for program in programs {
        let number = program
            .name
            .split_once('/')
            .map_or("", |(_, number)| number);
        interfaces
            .entry((program.group, program.interface()))
            .or_default()
            .push(number);
    }
    let mut table = new_table(&["group", "interface", "programs"]);
    for ((group, interface), numbers) in interfaces {
        table.add_row([group.name(), interface, &numbers.join(" ")]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::conformance::result::Status;
    use crate::conformance::result::tests::{compared, outcome};

    fn words<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
        let line = text.lines().find(|line| line.contains(name)).unwrap();
        line.split(['│', '┆'])
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .collect()
    }

    #[test]
    fn programs_are_counted_by_interface_and_listed_where_they_differ() {
        let pass = || outcome(Status::Exited(0), 1);
        let all = [
            compared("mmap/1-1", pass(), pass()),
            compared(
                "mmap/1-2",
                pass(),
                outcome(Status::Late(Duration::from_secs(9)), 3),
            ),
            compared(
                "mmap/1-3",
                outcome(Status::Exited(5), 1),
                outcome(Status::Exited(5), 1),
            ),
            compared("munmap/1-1", outcome(Status::Exited(0), 2), pass()),
        ];
        let unbuilt = [Unbuilt {
            name: "kill/9-9".into(),
            why: "no such type".into(),
        }];
        let text = results(&all, &unbuilt);
        assert_eq!(
            words(&text, " mmap "),
            ["memory", "mmap", "3", "2", "1", "1", "2", "1"]
        );
        assert_eq!(
            words(&text, "memory ┆ all"),
            ["memory", "all", "4", "3", "1", "2", "2", "1"]
        );
        assert_eq!(
            words(&text, "mmap/1-2"),
            ["mmap/1-2", "no end after 9 s", "it printed this"]
        );
        assert_eq!(words(&text, "munmap/1-1"), ["munmap/1-1", "2", "1"]);
        assert_eq!(words(&text, "kill/9-9"), ["kill/9-9", "no such type"]);
        assert!(
            !text.contains("mmap/1-3"),
            "what passes nowhere is no difference"
        );
    }

    #[test]
    fn nothing_remarkable_is_one_table() {
        let pass = || outcome(Status::Exited(0), 1);
        let text = results(&[compared("kill/1-1", pass(), pass())], &[]);
        assert!(!text.contains("not here") && !text.contains("again") && !text.contains("built"));
    }

    #[test]
    fn the_last_line_of_an_output_is_shown() {
        assert_eq!(last_line("one\\ntwo\\n"), "two");
        assert_eq!(last_line(""), "");
        assert_eq!(last_line(&"x".repeat(200)).len(), 93);
    }
}
