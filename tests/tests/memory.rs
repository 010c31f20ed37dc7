//! Memory: every call as on the host, and what happens when there is none left.

use tests::programs::Compiled;
use tests::{guest, oracle};

#[test]
fn memory_calls_answer_as_on_the_host() {
    oracle::assert_same(&Compiled::fixed("mm_calls").path(), &[], b"");
}

#[test]
fn a_small_machine_survives_hogs_and_a_fork_bomb() {
    let program = Compiled::fixed("mm_oom");
    let seen = guest::exec_with(&["--memory", "64M"], &program.path(), &[], b"");
    let expected = "hog ended with 1009\nhog ended with 1009\nhog ended with 1009\n\
                    table hog ended with 1009\nreading hog ended with 1009\nthe bomb is over\n\
                    my memory is whole: 1\nand there is memory again: 1\n";
    assert_eq!(
        (seen.status, seen.text().as_str()),
        (0, expected),
        "{}",
        seen.complaints()
    );
}
