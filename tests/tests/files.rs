//! Files and their mappings as on the host, and a disk that fails.

use tests::programs::Compiled;
use tests::{guest, oracle};

#[test]
fn devices_and_sockets_by_name_are_those_of_the_host() {
    let program = Compiled::fixed("special_files");
    let expected = oracle::run(program.path(), &[], &[], b"");
    if !expected
        .text()
        .contains("zero: made 0, type 20000, device 1:5, size 0, opened 0")
    {
        eprintln!("skipped: device files cannot be made here");
        return;
    }
    oracle::assert_same(program.path(), &[], b"");
}

/// On the root, which is a disk with changes in memory, and in memory alone.
#[test]
fn files_and_their_mappings_are_as_on_the_host() {
    let program = Compiled::fixed("files");
    let temporary = std::env::temp_dir();
    let host = temporary.to_str().expect("a path that is text");
    let expected = oracle::run(program.path(), &[host, host], &[], b"");
    let seen = guest::exec(program.path(), &["/", "/tmp"]);
    assert_eq!(
        (seen.status, expected.status),
        (0, 0),
        "{}",
        seen.complaints()
    );
    oracle::assert_equal_bytes(&seen.stdout, &expected.stdout, "files: stdout");
}

/// Row 37: an error is not lost when the fault had to let go of its lock, nor when a signal ends the wait; and the next access tries
/// again.
#[test]
fn a_failed_read_is_sigbus_or_eio_once_and_the_next_access_tries_again() {
    let program = Compiled::fixed("bad_disk");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let contents: Vec<u8> = (0..8u8).flat_map(|page| [b'a' + page; 4096]).collect();
    std::fs::write(folder.path().join("data"), contents).expect("a temporary file");
    let with = format!("{}:/bad", folder.path().display());
    for options in [
        &["--fail", "/bad:3"][..],
        &["--fail", "/bad:3", "--slow", "/bad:5"],
    ] {
        for args in [&["/bad/data"][..], &["/bad/data", "signals"]] {
            let options = [options, &["--with", &with]].concat();
            let seen = guest::exec_with(&options, program.path(), args, b"");
            let expected = "mapped: 3 3 0\nread: 3 c\nbuffer: 3\nfirst part: 3 1 e\n";
            assert_eq!(
                (seen.status, seen.text().as_str()),
                (0, expected),
                "{options:?} {args:?}: {}",
                seen.complaints()
            );
        }
    }
}
