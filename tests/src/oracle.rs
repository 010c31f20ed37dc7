//! The host's Linux: what the same binary does there is right.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use boot::config;

use crate::fresh;
use crate::guest;
use crate::run::{self, Finished};

/// No program of the tests needs longer on the host.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a program on the host with the guest's environment and `env` over it.
pub fn run(program: &Path, args: &[&str], env: &[OsString], stdin: &[u8]) -> Finished {
    let mut command = Command::new(program);
    command.args(args).env_clear().current_dir("/");
    for variable in config::environment(env) {
        let bytes = variable.as_bytes();
        let at = bytes.iter().position(|&byte| byte == b'=').expect("K=V");
        command.env(
            std::ffi::OsStr::from_bytes(&bytes[..at]),
            std::ffi::OsStr::from_bytes(&bytes[at + 1..]),
        );
    }
    run::run(fresh::with_default_signals(&mut command), stdin, LIMIT)
}

/// Asserts that a program prints the same and ends in the same way in the guest, byte for byte.
pub fn assert_same(program: &Path, args: &[&str], stdin: &[u8]) -> Finished {
    let expected = run(program, args, &[], stdin);
    let seen = guest::exec_with(&[], program, args, stdin);
    let name = program.display();
    assert_eq!(
        seen.status,
        expected.status,
        "{name} {args:?}: status; stderr:\n{}",
        seen.complaints()
    );
    assert_equal_bytes(
        &seen.stdout,
        &expected.stdout,
        &format!("{name} {args:?}: stdout"),
    );
    assert_equal_bytes(
        &seen.stderr,
        &expected.stderr,
        &format!("{name} {args:?}: stderr"),
    );
    seen
}

/// Asserts that a program that is called as `PROGRAM FIRST COUNT ...`, and prints a line for each seed, prints the same in the guest. The
/// first seed that differs is run alone, so that its steps are compared.
pub fn assert_same_seeds(program: &Path, args: &[&str]) {
    let expected = run(program, args, &[], b"").text();
    let seen = guest::exec(program, args);
    assert_eq!(seen.status, 0, "{}", seen.complaints());
    let text = seen.text();
    let count: usize = args[1].parse().expect("a number of seeds");
    assert_eq!(expected.lines().count(), count);
    assert_eq!(text.lines().count(), count);
    let different = expected
        .lines()
        .zip(text.lines())
        .find(|(host, here)| host != here);
    if let Some((host, _)) = different {
        let seed = host.split(':').next().unwrap_or(host);
        let mut alone = args.to_vec();
        alone[..2].copy_from_slice(&[seed, "1"]);
        assert_same(program, &alone, b"");
        panic!("seed {seed} differs only after those before it");
    }
}

/// Asserts that a step-by-step report ends in the same way and says the same, but for the lines that may differ.
pub fn assert_same_report(name: &str, seen: &Finished, expected: &Finished) {
    let (seen_text, expected_text) = (seen.text(), expected.text());
    let whole = format!(
        "in the guest:\n{seen_text}{}\non the host:\n{expected_text}",
        seen.complaints()
    );
    assert_eq!(expected.status, 0, "{name} passes on the host; {whole}");
    assert_eq!(seen.status, expected.status, "{name}: status; {whole}");
    assert_eq!(
        fixed_lines(&seen_text),
        fixed_lines(&expected_text),
        "{name}: the lines that may not differ; {whole}"
    );
    assert_eq!(
        seen_text.lines().last(),
        Some("PASS"),
        "{name}: the last line; {whole}"
    );
}

/// The lines of a report that are equal on every kernel: all that do not start with `~ `.
pub fn fixed_lines(report: &str) -> Vec<&str> {
    report
        .lines()
        .filter(|line| !line.starts_with("~ "))
        .collect()
}

/// Like assert_eq on long outputs, but shows only where they part.
pub fn assert_equal_bytes(seen: &[u8], expected: &[u8], what: &str) {
    if seen == expected {
        return;
    }
    let at = seen
        .iter()
        .zip(expected)
        .position(|(a, b)| a != b)
        .unwrap_or(seen.len().min(expected.len()));
    let excerpt = |bytes: &[u8]| {
        let (from, to) = (
            at.saturating_sub(40).min(bytes.len()),
            (at + 120).min(bytes.len()),
        );
        String::from_utf8_lossy(&bytes[from..to]).into_owned()
    };
    panic!(
        "{what} differs at byte {at} ({} bytes in the guest, {} on the host)\nguest: {:?}\nhost:  {:?}",
        seen.len(),
        expected.len(),
        excerpt(seen),
        excerpt(expected)
    );
}
