//! What `conformance-run` (userspace/) is told and what it says: the list of programs, and a line for each event.

use std::fmt::Write;
use std::time::Duration;

use super::result::{Outcome, Status};
use super::suite::Program;

/// Where the suite lies for the programs, on both sides.
pub const SUITE: &str = "/suite";

/// The list for the runner: `NAME SECONDS PROGRAM ARGS...`.
pub fn list(programs: &[&Program], limit: Duration) -> String {
    let mut list = String::new();
    for program in programs {
        let executable = program.executable();
        let _ = write!(
            list,
            "{} {} {SUITE}/{}",
            program.name,
            limit.as_secs(),
            executable.display()
        );
        for arg in &program.args {
            let _ = write!(list, " {arg}");
        }
        list.push('\n');
    }
    list
}

/// The runner's reports, put together from its lines.
#[derive(Debug, Default)]
pub struct Reports {
    /// The program that runs now.
    pub running: Option<String>,
    output: String,
}

impl Reports {
    /// Takes one line; gives a program that has ended. What is no report is passed over: the kernel's console may say something.
    pub fn line(&mut self, line: &str) -> Option<(String, Outcome)> {
        let (word, rest) = line.split_once(' ')?;
        match word {
            "run" => {
                self.running = Some(rest.to_owned());
                self.output.clear();
                None
            }
            "out" => {
                self.output = rest.split_once(' ').map_or("", |(_, text)| text).to_owned();
                None
            }
            "end" => {
                let mut words = rest.split(' ');
                let name = words.next()?.to_owned();
                let (how, number) = (words.next()?, words.next()?);
                let status = match how {
                    "exit" => Status::Exited(number.parse().ok()?),
                    "signal" => Status::Killed(number.parse().ok()?),
                    "limit" => Status::Late(Duration::from_secs(number.parse().ok()?)),
                    _ => return None,
                };
                let elapsed = Duration::from_millis(words.next()?.parse().ok()?);
                self.running = None;
                let output = std::mem::take(&mut self.output);
                Some((
                    name,
                    Outcome {
                        status,
                        output,
                        elapsed,
                        tries: 1,
                    },
                ))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::result::tests::compared;
    use crate::conformance::result::tests::outcome;

    #[test]
    fn the_list_has_a_line_for_each_program() {
        let pass = outcome(Status::Exited(0), 1);
        let mut one = compared("mmap/1-1", pass.clone(), pass).program;
        one.args = vec!["2".into(), "x".into()];
        assert_eq!(
            list(&[&one], Duration::from_secs(60)),
            "mmap/1-1 60 /suite/mmap/1-1.test 2 x\n"
        );
    }

    #[test]
    fn lines_become_outcomes() {
        let mut reports = Reports::default();
        assert!(reports.line("run kill/1-1").is_none());
        assert_eq!(reports.running.as_deref(), Some("kill/1-1"));
        assert!(reports.line("[    0.1] something else").is_none());
        assert!(reports.line("out kill/1-1 two words\\n").is_none());
        let (name, outcome) = reports.line("end kill/1-1 signal 9 1500").unwrap();
        assert_eq!(name, "kill/1-1");
        assert_eq!(outcome.status, Status::Killed(9));
        assert_eq!(outcome.output, "two words\\n");
        assert_eq!(outcome.elapsed, Duration::from_millis(1500));
        assert!(reports.running.is_none());
        let (_, outcome) = reports.line("end kill/1-2 limit 60 60012").unwrap();
        assert_eq!(outcome.status, Status::Late(Duration::from_secs(60)));
        assert_eq!(outcome.output, "");
        for broken in [
            "",
            "end",
            "end kill/1-1",
            "end kill/1-1 exit 256 1",
            "end kill/1-1 flew 1 1",
        ] {
            assert!(reports.line(broken).is_none(), "{broken:?}");
        }
    }
}
