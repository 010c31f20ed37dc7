//! What operations cost: the figures of the deterministic machine.

use tests::{guest, run};

/// No operation executes more of the instructions that take hardware long than Linux did when it was recorded (`boot/bench/slow.tsv`).
#[test]
fn slow_instructions_are_no_more_than_linux_executes() {
    let mut command = guest::boot();
    command.args(["bench", "--slow-instructions", "--no-linux"]);
    let seen = run::run(&mut command, b"", guest::LIMIT);
    assert_eq!(seen.status, 0, "{}{}", seen.text(), seen.complaints());
}

/// Nothing has become more than 2 % dearer than `boot/bench/budgets.tsv` allows, and everything did its work. If something has for a good
/// reason, its line in the file is changed.
#[test]
fn budgets_hold() {
    let mut command = guest::boot();
    command.args(["bench", "--check"]);
    let seen = run::run(&mut command, b"", guest::LIMIT);
    assert_eq!(seen.status, 0, "{}{}", seen.text(), seen.complaints());
}
