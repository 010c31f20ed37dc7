//! Time, and waiting for files: the same on the host's Linux and in the guest.

use tests::oracle::assert_same;
use tests::programs::Compiled;

/// Runs tests/c/NAME.c on both; the host has to find nothing wrong.
fn same_as_on_linux(name: &str) {
    let program = Compiled::new(name, &["-static", "-pthread"]);
    let seen = assert_same(program.path(), &[], b"");
    assert_eq!(seen.status, 0, "{}", seen.text());
}

#[test]
fn readiness_of_files() {
    same_as_on_linux("readiness");
}

#[test]
fn timers_and_the_limit_of_cpu_time() {
    same_as_on_linux("timers");
}

#[test]
fn clocks_and_the_vdso() {
    same_as_on_linux("clocks");
}
