//! Builds the kernel and the user programs with cargo, in target directories of their own.
//!
//! Their own, because they need other flags than the host's code and because cargo may hold the lock of the usual
//! one while this runs (as it does when it starts the kernel's test images).

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};

use crate::interrupt::{self, Guarded};
use crate::progress::{self, Step};
use crate::workspace;

const KERNEL_TARGET: &str = "x86_64-unknown-none";
const USER_TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the kernel; returns its ELF file, with symbols.
pub fn kernel() -> Result<PathBuf> {
    let target = workspace::target_subdir("kernel")?;
    let mut cargo = cargo(&target);
    cargo.args([
        "build",
        "--package",
        "kernel",
        "--bin",
        "kernel",
        "--release",
        "--target",
        KERNEL_TARGET,
    ]);
    run(cargo, "building the kernel")?;
    Ok(target.join(KERNEL_TARGET).join("release/kernel"))
}

/// Builds the kernel's test images; returns their ELF files.
pub fn kernel_tests() -> Result<Vec<PathBuf>> {
    let target = workspace::target_subdir("kernel")?;
    let mut cargo = cargo(&target);
    cargo.args([
        "test",
        "--no-run",
        "--message-format=json",
        "--package",
        "kernel",
        "--lib",
        "--target",
        KERNEL_TARGET,
    ]);
    let messages = run(cargo, "building the kernel's tests")?;
    let images: Vec<PathBuf> = String::from_utf8_lossy(&messages)
        .lines()
        .filter_map(test_executable)
        .collect();
    ensure!(
        !images.is_empty(),
        "cargo built no test image of the kernel"
    );
    Ok(images)
}

/// Builds the user programs; returns their ELF files, stripped, sorted by name.
pub fn programs() -> Result<Vec<PathBuf>> {
    let target = workspace::target_subdir("userspace")?;
    let mut cargo = cargo(&target);
    cargo.args([
        "build",
        "--package",
        "userspace",
        "--bins",
        "--release",
        "--target",
        USER_TARGET,
    ]);
    cargo.arg("--message-format=json-render-diagnostics");
    cargo.env(
        "RUSTFLAGS",
        "-C target-feature=+crt-static -C relocation-model=static",
    );
    cargo.env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    let messages = run(cargo, "building the user programs")?;
    let mut programs: Vec<PathBuf> = String::from_utf8_lossy(&messages)
        .lines()
        .filter_map(executable)
        .collect();
    programs.sort();
    Ok(programs)
}

/// Builds the plugin of QEMU that profiles; returns its file.
pub fn profiler() -> Result<PathBuf> {
    let target = workspace::target_subdir("profiler")?;
    let mut cargo = cargo(&target);
    cargo.args(["build", "--package", "profiler", "--release"]);
    run(cargo, "building the profiler")?;
    Ok(target.join("release/libprofiler.so"))
}

/// The executable that one of cargo's JSON messages announces.
fn executable(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    Some(message.get("executable")?.as_str()?.into())
}

fn test_executable(message: &str) -> Option<PathBuf> {
    let value: serde_json::Value = serde_json::from_str(message).ok()?;
    value
        .get("profile")?
        .get("test")?
        .as_bool()?
        .then(|| executable(message))?
}

/// cargo with `target` as its target directory and without what an outer cargo or build script left in the environment.
fn cargo(target: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os().filter(|(name, _)| is_of_outer_build(name)) {
        command.env_remove(name);
    }
    command
        .current_dir(workspace::root())
        .env("CARGO_TARGET_DIR", target)
        .env("RUSTC_BOOTSTRAP", "1");
    command
}

fn is_of_outer_build(name: &OsStr) -> bool {
    const KEPT: [&str; 6] = [
        "CARGO_HOME",
        "CARGO_NET_",
        "CARGO_HTTP_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
    ];
    const OWN: [&str; 9] = [
        "RUSTFLAGS",
        "RUSTDOCFLAGS",
        "TARGET",
        "HOST",
        "OUT_DIR",
        "PROFILE",
        "OPT_LEVEL",
        "DEBUG",
        "NUM_JOBS",
    ];
    let name = name.to_string_lossy();
    OWN.contains(&&*name)
        || name.starts_with("CARGO_") && !KEPT.iter().any(|kept| name.starts_with(kept))
}

/// Runs cargo with its messages as progress; shows them whole if it fails or warns. Returns its stdout.
fn run(mut cargo: Command, what: &str) -> Result<Vec<u8>> {
    let step = Step::begin(what);
    cargo
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut guarded = Guarded::spawn(&mut cargo, &[])
        .with_context(|| format!("cannot start cargo ({})", display(cargo.get_program())))?;
    let mut stdout = guarded.child().stdout.take().expect("stdout is piped");
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).map(|_| bytes)
    });
    let mut messages = String::new();
    let mut stderr = BufReader::new(guarded.child().stderr.take().expect("stderr is piped"));
    while stderr
        .read_line(&mut messages)
        .context("cannot read cargo's messages")?
        > 0
    {
        step.detail(messages.lines().last().unwrap_or_default());
    }
    let status = guarded.child().wait().context("cannot wait for cargo")?;
    drop(step);
    interrupt::check()?;
    // cargo repeats the warnings of what is current; here they are shown once, when it was compiled.
    let has_news = messages.contains("warning: ") && messages.contains("Compiling ");
    if !status.success() || has_news && !progress::is_quiet() {
        eprint!("{messages}");
    }
    ensure!(
        status.success(),
        "{what} failed (cargo's messages are above)"
    );
    let bytes = reader
        .join()
        .expect("the reader does not panic")
        .context("cannot read cargo's output")?;
    Ok(bytes)
}

fn display(program: &OsStr) -> String {
    OsString::from(program).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_in_cargos_messages() {
        let artifact = r#"{"reason":"compiler-artifact","profile":{"test":true},"executable":"/t/deps/kernel-1"}"#;
        assert_eq!(executable(artifact), Some("/t/deps/kernel-1".into()));
        assert_eq!(test_executable(artifact), Some("/t/deps/kernel-1".into()));
        let library =
            r#"{"reason":"compiler-artifact","profile":{"test":false},"executable":null}"#;
        assert_eq!(executable(library), None);
        assert_eq!(test_executable(&artifact.replace("true", "false")), None);
        assert_eq!(executable("warning: no JSON"), None);
    }

    #[test]
    fn a_nested_build_is_free_of_the_outer_ones_settings() {
        for name in [
            "CARGO_MANIFEST_DIR",
            "CARGO_PKG_NAME",
            "CARGO_TARGET_DIR",
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
        ] {
            assert!(is_of_outer_build(OsStr::new(name)), "{name}");
        }
        for name in [
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "PATH",
            "RUSTUP_TOOLCHAIN",
            "HTTPS_PROXY",
        ] {
            assert!(!is_of_outer_build(OsStr::new(name)), "{name}");
        }
    }
}
