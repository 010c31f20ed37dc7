//! The host tool `boot`, built once for each test program.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use crate::run::{self, Finished};

/// No single boot in the tests takes longer than this, on a slow machine with other work.
pub const LIMIT: Duration = Duration::from_secs(150);

/// The binary, current with the sources.
static BOOT: LazyLock<PathBuf> = LazyLock::new(|| {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(boot::workspace::root())
        .args([
            "build",
            "--quiet",
            "--package",
            "boot",
            "--bin",
            "boot",
            "--message-format=json",
        ])
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "boot does not build: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let messages = String::from_utf8_lossy(&output.stdout);
    let executable = messages.lines().rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message.get("executable")?.as_str()?))
    });
    executable.expect("cargo names the binary")
});

/// The kernel, so that each run need not ask cargo for it.
static KERNEL: LazyLock<PathBuf> =
    LazyLock::new(|| boot::cargo::kernel().expect("the kernel builds"));

/// `boot`, without any argument yet.
pub fn boot() -> Command {
    Command::new(&*BOOT)
}

/// `boot` with the kernel and a time limit of its own.
fn boot_kernel() -> Command {
    let mut command = boot();
    let seconds = (LIMIT - Duration::from_secs(10)).as_secs();
    command
        .arg("--kernel")
        .arg(&*KERNEL)
        .args(["--timeout", &seconds.to_string()]);
    command
}

/// `boot exec` with `options` for `program`; the caller adds the program's arguments.
pub fn exec_command(options: &[&str], program: &Path) -> Command {
    let mut command = boot_kernel();
    command.arg("exec").args(options).arg(program);
    command
}

/// Runs a program in the guest.
pub fn exec(program: &Path, args: &[&str]) -> Finished {
    exec_with(&[], program, args, b"")
}

/// Runs a program in the guest, with options for `boot exec` and input for the program.
pub fn exec_with(options: &[&str], program: &Path, args: &[&str], stdin: &[u8]) -> Finished {
    run::run(exec_command(options, program).args(args), stdin, LIMIT)
}

/// Runs a demo in the guest.
pub fn demo(name: &str) -> Finished {
    run::run(boot_kernel().arg("demo").arg(name), b"", LIMIT)
}

/// Boots a test image of the kernel.
pub fn test_image(image: &Path, limit: Duration) -> Finished {
    let mut command = boot();
    command
        .args(["--timeout", &limit.as_secs().to_string(), "test-image"])
        .arg(image);
    run::run(&mut command, b"", limit + Duration::from_secs(10))
}
