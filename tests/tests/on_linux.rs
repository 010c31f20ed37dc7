//! The user programs on the host's Linux alone: they pass there, and what they say does not vary from run to run, or no comparison
//! with the guest would mean anything.

use boot::demos::DEMOS;
use tests::oracle;
use tests::programs::userspace;

fn passes_the_same_way_twice(name: &str, args: &[&str]) {
    let [first, second] = [(); 2].map(|()| oracle::run(userspace(name), args, &[], b""));
    oracle::assert_same_report(name, &first, &second);
}

#[test]
fn demos() {
    for demo in DEMOS {
        passes_the_same_way_twice(demo.name, &[]);
    }
}

#[test]
fn bad_pointers_are_efault() {
    passes_the_same_way_twice("efault", &[]);
}

#[test]
fn fault_storm() {
    passes_the_same_way_twice("storm", &["1", "2"]);
}

/// What could harm a real machine does not start by accident.
#[test]
fn fuzzer_refuses_to_run_here() {
    let seen = oracle::run(userspace("fuzz-syscalls"), &[], &[], b"");
    assert_eq!(seen.status, 2, "{}", seen.text());
    assert!(
        seen.complaints().contains("FAULTLINE_FUZZ"),
        "{}",
        seen.complaints()
    );
}
