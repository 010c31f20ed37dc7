//! What the machine was started with: the records of docs/machine-protocol.md.

use alloc::vec::Vec;

use log::LevelFilter;
use spin::Once;

use crate::arch::machine;

/// A slow disk for experiments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slow {
    /// Files at or below this path are slow.
    pub prefix: Vec<u8>,
    pub delay_ns: u64,
}

impl Slow {
    /// Whether the file at the absolute `path` is slow.
    pub fn covers(&self, path: &[u8]) -> bool {
        is_below(path, &self.prefix)
    }
}

/// Whether `path` is `prefix` or lies below it.
fn is_below(path: &[u8], prefix: &[u8]) -> bool {
    let prefix = prefix.strip_suffix(b"/").unwrap_or(prefix);
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.first().is_none_or(|&byte| byte == b'/'))
}

/// A failing disk for experiments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fail {
    /// Files at or below this path fail.
    pub prefix: Vec<u8>,
    /// How many of the first reads of each of their pages.
    pub reads: u32,
}

impl Fail {
    /// Whether the file at the absolute `path` fails.
    pub fn covers(&self, path: &[u8]) -> bool {
        is_below(path, &self.prefix)
    }
}

/// A way for the kernel to crash on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Rust's own panic.
    Panic,
    /// Overflow of a kernel stack.
    Overflow,
    /// A read at address 0.
    Null,
}

/// The configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct Config {
    /// The first program's path.
    pub program: Vec<u8>,
    pub args: Vec<Vec<u8>>,
    pub env: Vec<Vec<u8>>,
    pub cwd: Vec<u8>,
    /// Which of the descriptors 0, 1, 2 are a terminal.
    pub tty: [bool; 3],
    /// Which of them are /dev/null.
    pub null: [bool; 3],
    pub slow: Option<Slow>,
    pub fail: Option<Fail>,
    pub seed: Option<u64>,
    pub log: LevelFilter,
    /// Only tests whose name contains this are run.
    pub test: Option<Vec<u8>>,
    /// The kernel crashes in this way once it is up.
    pub crash: Option<Crash>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            program: b"/bin/init".to_vec(),
            args: Vec::new(),
            env: Vec::new(),
            cwd: b"/".to_vec(),
            tty: [false; 3],
            null: [false; 3],
            slow: None,
            fail: None,
            seed: None,
            log: LevelFilter::Info,
            test: None,
            crash: None,
        }
    }
}

static CONFIG: Once<Config> = Once::new();

/// The configuration, read from the machine at the first call, which comes at bring-up once there is a heap.
pub fn get() -> &'static Config {
    CONFIG.call_once(|| machine::config_bytes().map_or_else(Config::default, |bytes| parse(&bytes)))
}

/// Parses records `key=value`, each ended by NUL. What cannot be understood is logged and left out, so that an older kernel starts
/// with a newer tool.
fn parse(bytes: &[u8]) -> Config {
    let mut config = Config::default();
    for record in bytes
        .split(|&byte| byte == 0)
        .filter(|record| !record.is_empty())
    {
        let Some(equals) = record.iter().position(|&byte| byte == b'=') else {
            log::warn!("configuration: no value in {}", record.escape_ascii());
            continue;
        };
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if !config.set(key, value) {
            log::warn!("configuration: {} not understood", record.escape_ascii());
        }
    }
    config
}

impl Config {
    /// Takes one record in; false if it makes no sense.
    fn set(&mut self, key: &[u8], value: &[u8]) -> bool {
        match key {
            b"program" => self.program = value.into(),
            b"arg" => self.args.push(value.into()),
            b"env" => self.env.push(value.into()),
            b"cwd" => self.cwd = value.into(),
            b"tty" => return set_digits(&mut self.tty, value),
            b"null" => return set_digits(&mut self.null, value),
            b"slow" => self.slow = parse_slow(value),
            b"fail" => self.fail = parse_fail(value),
            b"seed" => self.seed = parse_number(value),
            b"log" => match parse_level(value) {
                Some(level) => self.log = level,
                None => return false,
            },
            b"test" => self.test = Some(value.into()),
            b"crash" => self.crash = parse_crash(value),
            _ => return false,
        }
        match key {
            b"slow" => self.slow.is_some(),
            b"fail" => self.fail.is_some(),
            b"seed" => self.seed.is_some(),
            b"crash" => self.crash.is_some(),
            _ => true,
        }
    }
}

/// Sets what the digits name; false if one names nothing.
fn set_digits(which: &mut [bool; 3], digits: &[u8]) -> bool {
    for digit in digits {
        match which.get_mut(digit.wrapping_sub(b'0') as usize) {
            Some(it) => *it = true,
            None => return false,
        }
    }
    true
}

fn parse_slow(value: &[u8]) -> Option<Slow> {
    let colon = value.iter().rposition(|&byte| byte == b':')?;
    let delay_ns = parse_number(&value[colon + 1..])?.checked_mul(1_000_000)?;
    Some(Slow {
        prefix: value[..colon].into(),
        delay_ns,
    })
}

fn parse_fail(value: &[u8]) -> Option<Fail> {
    let colon = value.iter().rposition(|&byte| byte == b':')?;
    Some(Fail {
        prefix: value[..colon].into(),
        reads: parse_number(&value[colon + 1..])?.try_into().ok()?,
    })
}

fn parse_crash(kind: &[u8]) -> Option<Crash> {
    match kind {
        b"panic" => Some(Crash::Panic),
        b"overflow" => Some(Crash::Overflow),
        b"null" => Some(Crash::Null),
        _ => None,
    }
}

fn parse_number(digits: &[u8]) -> Option<u64> {
    core::str::from_utf8(digits).ok()?.parse().ok()
}

fn parse_level(name: &[u8]) -> Option<LevelFilter> {
    core::str::from_utf8(name).ok()?.parse().ok()
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    #[test]
    fn nothing_means_defaults() {
        assert_eq!(parse(b""), Config::default());
        assert_eq!(&*parse(b"").program, b"/bin/init");
    }

    #[test]
    fn every_key() {
        let config = parse(
            b"program=/bin/x\0arg=x\0arg=a=b\0arg=\0env=K=V\0cwd=/tmp\0tty=02\0null=1\0slow=/slow:250\0fail=/bad:3\0seed=18446744073709551615\0log=debug\0test=pipe\0crash=null\0",
        );
        assert_eq!(&*config.program, b"/bin/x");
        assert_eq!(
            config.args.iter().map(|arg| &arg[..]).collect::<Vec<_>>(),
            [&b"x"[..], b"a=b", b""]
        );
        assert_eq!(&*config.env[0], b"K=V");
        assert_eq!(&*config.cwd, b"/tmp");
        assert_eq!(config.tty, [true, false, true]);
        assert_eq!(config.null, [false, true, false]);
        assert_eq!(
            config.slow,
            Some(Slow {
                prefix: b"/slow".to_vec(),
                delay_ns: 250_000_000
            })
        );
        assert_eq!(
            config.fail,
            Some(Fail {
                prefix: b"/bad".to_vec(),
                reads: 3
            })
        );
        assert_eq!(config.seed, Some(u64::MAX));
        assert_eq!(config.log, LevelFilter::Debug);
        assert_eq!(config.test.as_deref(), Some(&b"pipe"[..]));
        assert_eq!(config.crash, Some(Crash::Null));
    }

    #[test]
    fn nonsense_is_left_out() {
        let config = parse(b"unknown=1\0novalue\0seed=x\0slow=/a\0fail=/a:-1\0fail=/a:4294967296\0slow=/a:99999999999999999999\0log=loud\0crash=softly\0tty=7\0cwd=/ok");
        assert_eq!(
            config,
            Config {
                cwd: b"/ok".to_vec(),
                ..Config::default()
            }
        );
    }

    #[test]
    fn slow_covers_whole_components() {
        let slow = |prefix: &[u8]| Slow {
            prefix: prefix.into(),
            delay_ns: 1,
        };
        assert!(slow(b"/slow").covers(b"/slow/file") && slow(b"/slow").covers(b"/slow"));
        assert!(slow(b"/slow/").covers(b"/slow/file"));
        assert!(!slow(b"/slow").covers(b"/slower/file"));
        assert!(slow(b"/").covers(b"/any"));
    }
}
