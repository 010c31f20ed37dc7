//! How programs ended, on either side, and what the difference is.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::suite::Program;

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    Exited(u8),
    Killed(u8),
    /// Its time was up.
    Late(Duration),
    /// It took the whole side with it.
    Died(String),
}

impl Status {
    /// Whether the program says that what it tests is right.
    pub fn passes(&self) -> bool {
        *self == Self::Exited(0)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The suite's own meanings.
            Self::Exited(0) => write!(f, "pass"),
            Self::Exited(1) => write!(f, "fail"),
            Self::Exited(2) => write!(f, "unresolved"),
            Self::Exited(4) => write!(f, "unsupported"),
            Self::Exited(5) => write!(f, "untested"),
            Self::Exited(status) => write!(f, "exit status {status}"),
            Self::Killed(signal) => write!(f, "killed by signal {signal}"),
            Self::Late(limit) => write!(f, "no end after {} s", limit.as_secs()),
            Self::Died(how) => write!(f, "{how}"),
        }
    }
}

/// One program's end on one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub status: Status,
    /// The end of what it printed, in one line; empty if it passed.
    pub output: String,
    pub elapsed: Duration,
    /// How often it was run until this came out.
    pub tries: u32,
}

impl Outcome {
    fn json(&self) -> Value {
        json!({
            "result": self.status.to_string(),
            "passes": self.status.passes(),
            "output": self.output,
            "milliseconds": u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX),
            "tries": self.tries,
        })
    }
}

/// One program on both sides.
#[derive(Debug, Clone)]
pub struct Compared {
    pub program: Program,
    pub linux: Outcome,
    pub here: Outcome,
}

impl Compared {
    /// Whether it passes on Linux and not here.
    pub fn differs(&self) -> bool {
        self.linux.status.passes() && !self.here.status.passes()
    }

    /// Whether it passed on some side only when it was run again.
    pub fn is_flaky(&self) -> bool {
        [&self.linux, &self.here]
            .iter()
            .any(|outcome| outcome.status.passes() && outcome.tries > 1)
    }
}

/// A program that cannot be built, and why.
#[derive(Debug, Clone)]
pub struct Unbuilt {
    pub name: String,
    pub why: String,
}

/// Everything, for other programs to read.
pub fn json(compared: &[Compared], unbuilt: &[Unbuilt]) -> Value {
    let programs = compared.iter().map(|program| {
        json!({
            "name": program.program.name,
            "interface": program.program.interface(),
            "group": program.program.group.name(),
            "linux": program.linux.json(),
            "here": program.here.json(),
            "differs": program.differs(),
        })
    });
    let unbuilt = unbuilt
        .iter()
        .map(|unbuilt| json!({"name": unbuilt.name, "why": unbuilt.why}));
    json!({
        "programs": programs.collect::<Vec<_>>(),
        "unbuilt": unbuilt.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::conformance::suite::Group;

    pub fn outcome(status: Status, tries: u32) -> Outcome {
        let output = if status.passes() {
            ""
        } else {
            "it printed this"
        };
        Outcome {
            status,
            output: output.into(),
            elapsed: Duration::from_millis(12),
            tries,
        }
    }

    pub fn compared(name: &str, linux: Outcome, here: Outcome) -> Compared {
        let interface = name.split('/').next().unwrap();
        let program = Program {
            name: name.into(),
            group: Group::of(interface),
            source: format!("{name}.c").into(),
            args: Vec::new(),
        };
        Compared {
            program,
            linux,
            here,
        }
    }

    #[test]
    fn only_a_pass_on_linux_alone_is_a_difference() {
        let pass = || outcome(Status::Exited(0), 1);
        let fail = || outcome(Status::Exited(1), 3);
        assert!(compared("kill/1-1", pass(), fail()).differs());
        assert!(compared("kill/1-1", pass(), outcome(Status::Killed(11), 1)).differs());
        assert!(!compared("kill/1-1", pass(), pass()).differs());
        assert!(!compared("kill/1-1", fail(), fail()).differs());
        assert!(!compared("kill/1-1", fail(), pass()).differs());
    }

    #[test]
    fn a_pass_at_the_second_try_is_said_to_be_flaky() {
        let again = outcome(Status::Exited(0), 2);
        let pass = outcome(Status::Exited(0), 1);
        assert!(compared("kill/1-1", pass.clone(), again).is_flaky());
        assert!(!compared("kill/1-1", pass, outcome(Status::Exited(1), 3)).is_flaky());
    }

    #[test]
    fn json_has_both_sides() {
        let one = compared(
            "mmap/1-1",
            outcome(Status::Exited(0), 1),
            outcome(Status::Late(Duration::from_secs(60)), 3),
        );
        let unbuilt = Unbuilt {
            name: "mmap/2-1".into(),
            why: "no header".into(),
        };
        let value = json(&[one], &[unbuilt]);
        assert_eq!(value["programs"][0]["group"], "memory");
        assert_eq!(value["programs"][0]["linux"]["passes"], true);
        assert_eq!(value["programs"][0]["here"]["result"], "no end after 60 s");
        assert_eq!(value["programs"][0]["differs"], true);
        assert_eq!(value["unbuilt"][0]["why"], "no header");
    }
}
