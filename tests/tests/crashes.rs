//! A bug in the kernel ends the machine at once, with a status of its own and a report that names the functions.

use tests::guest;
use tests::programs::Compiled;
use tests::run::{self, Finished};

/// Boots with `--crash KIND` and a program that must not be reached.
fn crash(kind: &str) -> Finished {
    let program = Compiled::fixed("hello");
    let seen = run::run(
        &mut guest::exec_command(&["--crash", kind], program.path()),
        b"",
        guest::LIMIT,
    );
    let report = seen.complaints();
    assert_eq!(seen.status, 101, "{kind}:\n{report}");
    assert!(seen.stdout.is_empty(), "{kind}: the program did not run");
    assert!(
        report.contains("kernel panic: "),
        "{kind}: the report is shown:\n{report}"
    );
    seen
}

/// Asserts that the report has all `words`; gives the lines of its backtrace, innermost first.
fn backtrace(kind: &str, words: &[&str]) -> Vec<String> {
    let report = crash(kind).complaints();
    for word in words {
        assert!(report.contains(word), "{kind}: {word:?} in:\n{report}");
    }
    let (_, backtrace) = report
        .split_once("backtrace, innermost first:")
        .unwrap_or_else(|| panic!("{kind}: no backtrace with names:\n{report}"));
    assert!(
        backtrace.contains("(kernel/src/"),
        "{kind}: places in the source are named:\n{report}"
    );
    backtrace.lines().map(str::to_owned).collect()
}

/// Asserts that the functions are in the backtrace, in this order.
fn assert_order(backtrace: &[String], functions: &[&str]) {
    let mut rest = backtrace.iter();
    for function in functions {
        assert!(
            rest.any(|line| line.contains(function)),
            "{function} of {functions:?} in:\n{}",
            backtrace.join("\n")
        );
    }
}

#[test]
fn a_panic_is_reported_with_names() {
    let lines = backtrace("panic", &["a crash was asked for", "crash.rs:"]);
    assert_order(&lines, &["crash", "devices", "thread_start"]);
}

#[test]
fn a_stack_overflow_hits_the_guard_page() {
    let words = ["double fault", "kernel stack overflow", "rsp 0xffff"];
    let lines = backtrace("overflow", &words);
    assert_order(&lines, &["overflow_stack"; 10]);
}

#[test]
fn a_null_pointer_in_the_kernel_is_named() {
    let words = ["page fault: reading 0x0", "looks like a null pointer"];
    let lines = backtrace("null", &words);
    assert_order(&lines, &["read_null", "crash", "devices", "thread_start"]);
}
