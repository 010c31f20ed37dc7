//! Control records: what the kernel reports on COM2, one line each (`docs/machine-protocol.md`).

use std::fmt;

/// What the kernel counted over all processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Faults resolved without waiting for the disk.
    pub minor: u64,
    /// Faults that waited for the disk.
    pub major: u64,
    /// Fault attempts that ended in RETRY.
    pub retries: u64,
    /// Signal handlers started.
    pub signals: u64,
}

impl Stats {
    /// Minor and major faults together.
    pub fn faults(&self) -> u64 {
        self.minor.saturating_add(self.major)
    }

    fn parse(words: &str) -> Self {
        let mut stats = Self::default();
        for word in words.split(' ') {
            let Some((key, value)) = word.split_once('=') else {
                continue;
            };
            let Ok(value) = value.parse() else { continue };
            match key {
                "minor" => stats.minor = value,
                "major" => stats.major = value,
                "retries" => stats.retries = value,
                "signals" => stats.signals = value,
                _ => {}
            }
        }
        stats
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            minor,
            major,
            retries,
            signals,
        } = self;
        write!(
            f,
            "{minor} minor and {major} major faults, {retries} retries, {signals} signals"
        )
    }
}

/// One control record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Counts of the CPU's counter that bring-up took, without waiting.
    Boot(u64),
    /// The first user program is about to run.
    Start,
    /// The first program exited with this status.
    Exit(u8),
    /// The first program was killed by this signal.
    Signal(u8),
    /// Counters, just before the end.
    Stats(Stats),
    /// The kernel panicked; the report is in the log.
    Panic(String),
    /// Test image: a test starts.
    Test(String),
    /// Test image: a test passed.
    Ok(String),
    /// Test image: a test failed.
    Failed(String),
    /// Test image: all tests ran.
    Tests { passed: u64, failed: u64 },
}

impl Record {
    /// Reads one line; `None` for anything that is no record, such as a firmware's greeting.
    pub fn parse(line: &str) -> Option<Self> {
        let line = line.trim_end_matches(['\r', '\n']);
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        Some(match word {
            "boot" => Self::Boot(rest.strip_prefix("counts=")?.parse().ok()?),
            "start" if rest.is_empty() => Self::Start,
            "exit" => Self::Exit(rest.parse().ok()?),
            "signal" => Self::Signal(rest.parse().ok()?),
            "stats" => Self::Stats(Stats::parse(rest)),
            "panic" => Self::Panic(rest.to_owned()),
            "test" => Self::Test(rest.to_owned()),
            "ok" => Self::Ok(rest.to_owned()),
            "failed" => Self::Failed(rest.to_owned()),
            "tests" => {
                let (passed, failed) = rest.split_once(' ')?;
                Self::Tests {
                    passed: passed.strip_prefix("passed=")?.parse().ok()?,
                    failed: failed.strip_prefix("failed=")?.parse().ok()?,
                }
            }
            _ => return None,
        })
    }

    /// Whether the machine is to end right after this record.
    pub fn is_last(&self) -> bool {
        matches!(
            self,
            Self::Exit(_) | Self::Signal(_) | Self::Panic(_) | Self::Tests { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_of_the_protocol_is_read() {
        let cases = [
            ("boot counts=123", Record::Boot(123)),
            ("start", Record::Start),
            ("exit 0", Record::Exit(0)),
            ("exit 255\r\n", Record::Exit(255)),
            ("signal 11", Record::Signal(11)),
            (
                "panic at mm: frame 3 mapped twice",
                Record::Panic("at mm: frame 3 mapped twice".into()),
            ),
            ("test mm::vma::split", Record::Test("mm::vma::split".into())),
            ("ok mm::vma::split", Record::Ok("mm::vma::split".into())),
            (
                "failed mm::vma::split",
                Record::Failed("mm::vma::split".into()),
            ),
            (
                "tests passed=12 failed=1",
                Record::Tests {
                    passed: 12,
                    failed: 1,
                },
            ),
        ];
        for (line, record) in cases {
            assert_eq!(Record::parse(line), Some(record), "{line}");
        }
    }

    #[test]
    fn counters_may_come_in_any_order_and_grow_new_ones() {
        let stats = Stats {
            minor: 3,
            major: 4,
            retries: 5,
            signals: 6,
        };
        let line = "stats signals=6 minor=3 colour=9 major=4 retries=5";
        assert_eq!(Record::parse(line), Some(Record::Stats(stats)));
        assert_eq!(stats.faults(), 7);
    }

    #[test]
    fn noise_is_not_a_record() {
        for line in [
            "",
            "exit",
            "exit 256",
            "exit -1",
            "exit 0 0",
            "signal x",
            "SeaBIOS (version 1)",
            "tests passed=1",
        ] {
            assert_eq!(Record::parse(line), None, "{line:?}");
        }
    }
}
