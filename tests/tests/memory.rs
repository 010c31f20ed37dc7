//! Memory: every call as on the host, and what happens when there is none left.

use tests::programs::{Compiled, userspace};
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

/// 2,000 sequences of 50 random steps each, in one boot; a difference is shown by its seed, and step by step.
#[test]
fn random_memory_calls_answer_as_on_the_host() {
    let program = userspace("mm-fuzz");
    let args = ["1", "2000", "50"];
    let expected = oracle::run(program, &args, &[], b"").text();
    let seen = guest::exec(program, &args);
    assert_eq!(seen.status, 0, "{}", seen.complaints());
    let text = seen.text();
    assert_eq!(expected.lines().count(), 2000);
    assert_eq!(text.lines().count(), 2000);
    let different = expected
        .lines()
        .zip(text.lines())
        .find(|(host, here)| host != here);
    if let Some((host, _)) = different {
        let seed = host.split(':').next().unwrap_or(host);
        oracle::assert_same(program, &[seed, "1", "50"], b"");
        panic!("seed {seed} differs only after those before it");
    }
}
