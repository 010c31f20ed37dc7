//! The report that a demo prints: numbered steps, facts that were checked, and a last line `PASS` or `FAIL`.
//!
//! Promise: a line without the prefix `~ ` is the same on every correct kernel. Whatever may differ goes through [`Demo::varies`].

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

/// One run of a demo; counts what did not hold.
pub struct Demo {
    steps: u32,
    failures: u32,
}

impl Demo {
    /// Prints the title: the program's name and what it shows.
    pub fn start(name: &str, shows: &str) -> Self {
        println!("{name}: {shows}");
        Self {
            steps: 0,
            failures: 0,
        }
    }

    /// Begins the next numbered step.
    pub fn step(&mut self, what: impl Display) {
        self.steps += 1;
        println!("{}. {what}", self.steps);
    }

    /// A line that is equal on every kernel.
    pub fn note(&self, text: impl Display) {
        println!("   {text}");
    }

    /// A line that may differ between kernels and runs.
    pub fn varies(&self, text: impl Display) {
        println!("~  {text}");
    }

    /// An assertion. The fact's wording is equal on every kernel; put numbers that differ into [`Demo::varies`] before it.
    pub fn check(&mut self, holds: bool, fact: impl Display) {
        println!("   {}: {fact}", self.verdict(holds));
    }

    /// An assertion made only where it makes sense, for example on a slow disk.
    pub fn check_here(&mut self, holds: bool, fact: impl Display) {
        println!("~  {}: {fact}", self.verdict(holds));
    }

    /// An assertion of equality that shows both sides if it fails.
    pub fn check_eq<T: PartialEq + std::fmt::Debug>(
        &mut self,
        seen: T,
        expected: T,
        fact: impl Display,
    ) {
        let holds = seen == expected;
        self.check(holds, fact);
        if !holds {
            self.varies(format_args!("expected {expected:x?}, saw {seen:x?}"));
        }
    }

    /// Prints the verdict and gives the exit status: 0 if every check held, else 1.
    pub fn finish(self) -> ExitCode {
        println!("{}", if self.failures == 0 { "PASS" } else { "FAIL" });
        let flushed = std::io::stdout().flush().is_ok();
        ExitCode::from(u8::from(self.failures != 0 || !flushed))
    }

    fn verdict(&mut self, holds: bool) -> &'static str {
        if holds {
            "ok"
        } else {
            self.failures += 1;
            "NOT SO"
        }
    }
}
