//! The fw_cfg item `opt/faultline/config`: what the kernel is asked to run, and how.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use anyhow::{Result, ensure};

/// The environment of a program for which nothing else was asked.
pub const DEFAULT_ENV: [(&str, &str); 4] = [
    ("PATH", "/bin"),
    ("HOME", "/root"),
    ("TERM", "dumb"),
    ("LC_ALL", "C"),
];

/// The first program and the kernel's own settings.
#[derive(Debug, Clone, Default)]
pub struct GuestConfig {
    /// Path of the first program in the guest.
    pub program: Option<OsString>,
    /// argv, argv\[0\] included.
    pub args: Vec<OsString>,
    /// The environment, `K=V`, in order.
    pub env: Vec<OsString>,
    /// The program's working directory.
    pub cwd: Option<OsString>,
    /// Which of the descriptors 0, 1 and 2 are a terminal.
    pub tty: [bool; 3],
    /// Which of them are /dev/null.
    pub null: [bool; 3],
    /// `PREFIX:MILLISECONDS` of the slowed-down part of the disk.
    pub slow: Option<String>,
    /// `PREFIX:N` of the failing part of the disk.
    pub fail: Option<String>,
    /// Seed of the kernel's random generator.
    pub seed: Option<u64>,
    /// Most detailed level of the kernel's log.
    pub log: Option<String>,
    /// Kernel test images: run only the tests whose names contain this.
    pub test: Option<String>,
    /// How the kernel is to crash once it is up: `panic`, `overflow` or `null`.
    pub crash: Option<String>,
}

impl GuestConfig {
    /// The records as the kernel reads them: `key=value`, each ended by a NUL byte. A value that itself holds a NUL
    /// byte is an error (no argument that came through execve(2) can).
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut record = |key: &str, value: &[u8]| -> Result<()> {
            ensure!(!value.contains(&0), "the value of {key} holds a NUL byte");
            out.extend(key.as_bytes());
            out.push(b'=');
            out.extend(value);
            out.push(0);
            Ok(())
        };
        if let Some(program) = &self.program {
            record("program", program.as_bytes())?;
        }
        for arg in &self.args {
            record("arg", arg.as_bytes())?;
        }
        for variable in &self.env {
            record("env", variable.as_bytes())?;
        }
        if let Some(cwd) = &self.cwd {
            record("cwd", cwd.as_bytes())?;
        }
        for (key, which) in [("tty", self.tty), ("null", self.null)] {
            let digits: String = (0..3)
                .filter(|&fd| which[fd])
                .map(|fd| fd.to_string())
                .collect();
            record(key, digits.as_bytes())?;
        }
        if let Some(slow) = &self.slow {
            record("slow", slow.as_bytes())?;
        }
        if let Some(fail) = &self.fail {
            record("fail", fail.as_bytes())?;
        }
        if let Some(seed) = self.seed {
            record("seed", seed.to_string().as_bytes())?;
        }
        if let Some(log) = &self.log {
            record("log", log.as_bytes())?;
        }
        if let Some(test) = &self.test {
            record("test", test.as_bytes())?;
        }
        if let Some(crash) = &self.crash {
            record("crash", crash.as_bytes())?;
        }
        Ok(out)
    }
}

/// The default environment with `changes` (`K=V` each) over it: a known name is replaced in place, a new one appended.
pub fn environment(changes: &[OsString]) -> Vec<OsString> {
    let mut env: Vec<OsString> = DEFAULT_ENV
        .iter()
        .map(|(name, value)| format!("{name}={value}").into())
        .collect();
    for change in changes {
        match env.iter_mut().find(|old| name_of(old) == name_of(change)) {
            Some(old) => old.clone_from(change),
            None => env.push(change.clone()),
        }
    }
    env
}

fn name_of(variable: &OsString) -> &[u8] {
    let bytes = variable.as_bytes();
    bytes.split(|&byte| byte == b'=').next().unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_ended_by_nul_and_keep_their_order() {
        let config = GuestConfig {
            program: Some("/bin/x".into()),
            args: vec!["x".into(), "".into(), "a=b c".into()],
            env: vec!["K=V".into()],
            tty: [true, false, true],
            null: [false, true, false],
            seed: Some(7),
            ..GuestConfig::default()
        };
        let expected = b"program=/bin/x\0arg=x\0arg=\0arg=a=b c\0env=K=V\0tty=02\0null=1\0seed=7\0";
        assert_eq!(config.encode().unwrap(), expected);
    }

    #[test]
    fn a_nul_byte_cannot_forge_a_record() {
        let config = GuestConfig {
            args: vec!["a\0program=/bin/y".into()],
            ..GuestConfig::default()
        };
        assert!(config.encode().is_err());
    }

    #[test]
    fn environment_replaces_and_appends() {
        let env = environment(&["HOME=/".into(), "A=1".into(), "A=2".into()]);
        assert_eq!(env, ["PATH=/bin", "HOME=/", "TERM=dumb", "LC_ALL=C", "A=2"]);
    }
}
