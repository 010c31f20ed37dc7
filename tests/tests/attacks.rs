//! Programs that try to hurt the kernel: it must refuse, survive, and do what Linux does.

use tests::programs::userspace;
use tests::{guest, oracle};

/// Runs one of the attacking programs in the guest; its report must end in PASS.
fn survives(name: &str, options: &[&str], args: &[&str]) {
    let seen = guest::exec_with(options, userspace(name), args, b"");
    let report = format!("{}{}", seen.text(), seen.complaints());
    assert_eq!(seen.status, 0, "{name} {args:?}:\n{report}");
    assert_eq!(
        seen.text().lines().last(),
        Some("PASS"),
        "{name} {args:?}:\n{report}"
    );
}

/// As [`survives`], and the report's fixed lines are those of the host.
fn same_as_on_linux(name: &str, args: &[&str]) {
    let expected = oracle::run(userspace(name), args, &[], b"");
    let seen = guest::exec(userspace(name), args);
    oracle::assert_same_report(name, &seen, &expected);
}

#[test]
fn bad_pointers_are_efault() {
    same_as_on_linux("efault", &[]);
}

#[test]
fn every_number_with_bad_pointers() {
    survives("efault", &[], &["sweep"]);
}

#[test]
fn random_system_calls() {
    for seed in ["1", "2"] {
        survives("fuzz-syscalls", &["--env", "FAULTLINE_FUZZ=1"], &[seed]);
    }
}

#[test]
fn fault_storm() {
    same_as_on_linux("storm", &["5"]);
}

/// The long form of [`fault_storm`]: `cargo test -p tests -- --ignored`.
#[test]
#[ignore = "takes more than a minute"]
fn fault_storm_for_a_minute() {
    survives("storm", &[], &["60"]);
}

#[test]
fn fault_storm_in_little_memory() {
    survives("storm", &["--memory", "64M"], &["3", "3", "7"]);
}
