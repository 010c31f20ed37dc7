//! Programs that nobody here wrote, and C programs: output, input and exit status are those of the host.

use std::process::{Command, Stdio};

use tests::programs::{Compiled, busybox};
use tests::{guest, oracle};

#[test]
fn busybox_echo() {
    let Some(busybox) = busybox() else { return };
    let seen = oracle::assert_same(busybox, &["echo", "hi"], b"");
    assert_eq!(seen.stdout, b"hi\n");
}

#[test]
fn busybox_seq_with_much_output() {
    let Some(busybox) = busybox() else { return };
    let seen = oracle::assert_same(busybox, &["seq", "1", "20000"], b"");
    assert!(seen.stdout.ends_with(b"\n20000\n"));
}

#[test]
fn busybox_md5sum_of_its_own_file() {
    let Some(busybox) = busybox() else { return };
    let seen = oracle::assert_same(busybox, &["md5sum", "/bin/busybox"], b"");
    assert!(seen.stdout.ends_with(b"  /bin/busybox\n"));
}

#[test]
fn busybox_false_and_true() {
    let Some(busybox) = busybox() else { return };
    assert_eq!(oracle::assert_same(busybox, &["false"], b"").status, 1);
    assert_eq!(oracle::assert_same(busybox, &["true"], b"").status, 0);
}

#[test]
fn stdin_arrives_byte_for_byte() {
    let Some(busybox) = busybox() else { return };
    // Every byte, the escape and the end-of-file byte of the serial line among them, alone and doubled.
    let mut input: Vec<u8> = (0..=255)
        .flat_map(|byte| [byte, byte, 0x10, byte, 0x04])
        .collect();
    input.extend((0..60_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8));
    let seen = oracle::assert_same(busybox, &["cat"], &input);
    oracle::assert_equal_bytes(&seen.stdout, &input, "what cat gave back");
}

#[test]
fn a_megabyte_of_stdin_is_counted() {
    let Some(busybox) = busybox() else { return };
    let input: Vec<u8> = (0..1 << 20u32).map(|i| (i % 251) as u8).collect();
    assert_eq!(
        oracle::assert_same(busybox, &["wc", "-c"], &input).stdout,
        b"1048576\n"
    );
}

#[test]
fn empty_stdin_ends_at_once() {
    let Some(busybox) = busybox() else { return };
    assert_eq!(
        oracle::assert_same(busybox, &["wc", "-c"], b"").stdout,
        b"0\n"
    );
}

#[test]
fn null_dereference_is_139() {
    let program = Compiled::fixed("null");
    let seen = oracle::assert_same(program.path(), &[], b"");
    assert_eq!(seen.status, 139);
    assert_eq!(seen.stdout, b"before\n");
}

#[test]
fn arguments_environment_streams_and_status() {
    let program = Compiled::fixed("hello");
    let args = ["one", "", "two words", "ä€", "--with", "-v"];
    let expected = oracle::run(program.path(), &args, &["ANSWER=4 2".into()], b"");
    let seen = guest::exec_with(&["--env", "ANSWER=4 2"], program.path(), &args, b"");
    assert_eq!(
        (seen.text(), seen.complaints()),
        (expected.text(), expected.complaints())
    );
    assert_eq!(seen.status, 7);
}

/// /dev/null is handed on as what it is, a pipe as a pipe.
#[test]
fn standard_input_is_what_it_was() {
    let program = Compiled::fixed("streams");
    oracle::assert_same(program.path(), &[], b"x");
    let stdout_of = |command: &mut Command| {
        let output = command.stdin(Stdio::null()).output().expect("it starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let expected = stdout_of(&mut Command::new(program.path()));
    let seen = stdout_of(&mut guest::exec_command(&[], program.path()));
    assert_eq!(seen, expected);
}

#[test]
fn files_and_working_directory() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(dir.path().join("data"), b"the file's contents\n").expect("writes");
    let Some(busybox) = busybox() else { return };
    let with = format!("{}:/given", dir.path().display());
    let seen = guest::exec_with(
        &["--with", &with, "--cwd", "/given"],
        busybox,
        &["cat", "data"],
        b"",
    );
    assert_eq!(
        (seen.text().as_str(), seen.status),
        ("the file's contents\n", 0),
        "{}",
        seen.complaints()
    );
}

#[test]
fn malloc_and_qsort() {
    oracle::assert_same(Compiled::fixed("sort").path(), &[], b"");
}

#[test]
fn static_pie() {
    oracle::assert_same(
        Compiled::new("sort", &["-static-pie", "-fPIE"]).path(),
        &[],
        b"",
    );
}

#[test]
fn signals_in_c() {
    oracle::assert_same(Compiled::fixed("signals").path(), &[], b"");
}

#[test]
fn processes_in_c() {
    oracle::assert_same(Compiled::fixed("processes").path(), &[], b"");
}

#[test]
fn what_processes_and_threads_share() {
    oracle::assert_same(Compiled::fixed("sharing").path(), &[], b"");
}

#[test]
fn file_permissions_of_owner_group_others_and_root() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!(
            "skipped: only root can compare file permissions with those of this machine's Linux"
        );
        return;
    }
    oracle::assert_same(Compiled::fixed("permissions").path(), &[], b"");
}

#[test]
fn how_many_processes_and_threads_a_user_may_have() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can become a user whom nobody else is");
        return;
    }
    oracle::assert_same(Compiled::fixed("processes_limit").path(), &[], b"");
}

#[test]
fn record_locks_of_processes_and_open_files_and_flock() {
    oracle::assert_same(Compiled::fixed("locks").path(), &[], b"");
}

#[test]
fn a_script_of_busybox_applets() {
    let Some(busybox) = busybox() else { return };
    let applets = tempfile::tempdir().expect("a temporary folder");
    let names = oracle::run(busybox, &["--list"], &[], b"").text();
    for name in names.lines().filter(|&name| name != "busybox") {
        let link = applets.path().join(name);
        std::os::unix::fs::symlink("busybox", link).expect("a link");
    }
    std::fs::copy(busybox, applets.path().join("busybox")).expect("a copy");
    let script = boot::workspace::root().join("tests/scripts/applets.sh");
    let script = std::fs::read_to_string(script).expect("the script is there");
    let path = applets.path().to_str().expect("text");
    let args = ["sh", "-c", &script];
    let expected = oracle::run(busybox, &args, &[format!("PATH={path}").into()], b"");
    let with = format!("{path}:/applets");
    let options = ["--with", &with, "--env", "PATH=/applets"];
    let seen = guest::exec_with(&options, busybox, &args, b"");
    assert_eq!(seen.text(), expected.text());
    assert_eq!(seen.complaints(), expected.complaints());
    assert_eq!((seen.status, expected.status), (42, 42));
}
