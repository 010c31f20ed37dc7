//! Programs with threads, the same on the host's Linux and in the guest: glibc's, musl's and Rust's.

use std::path::Path;
use std::process::Command;

use tests::guest;
use tests::oracle::{assert_same, assert_same_seeds};
use tests::programs::{Compiled, userspace};

const STATIC_THREADS: &[&str] = &["-static", "-pthread"];

/// Runs tests/c/NAME.c on both; the host has to find nothing wrong.
fn same_as_on_linux(name: &str) {
    let program = Compiled::new(name, STATIC_THREADS);
    let seen = assert_same(program.path(), &[], b"");
    assert_eq!(seen.status, 0, "{}", seen.text());
}

#[test]
fn posix_threads() {
    same_as_on_linux("threads");
}

#[test]
fn ends_stops_and_programs() {
    same_as_on_linux("ends");
}

#[test]
fn family_and_descriptors() {
    same_as_on_linux("family");
}

/// 2,000 sequences of 40 random steps each, in one boot: signals, masks, actions, alternate stacks, threads and children.
#[test]
fn random_signal_calls_answer_as_on_the_host() {
    assert_same_seeds(userspace("signal-fuzz"), &["1", "2000"]);
}

#[test]
fn signals_that_are_read() {
    same_as_on_linux("signal_files");
}

#[test]
fn a_million_signals_among_fifty_threads() {
    same_as_on_linux("signal_flood");
}

#[test]
fn registers_around_calls() {
    same_as_on_linux("registers");
}

#[test]
fn pseudo_terminals() {
    same_as_on_linux("ptys");
}

#[test]
fn exceptions_single_steps_and_segments() {
    same_as_on_linux("exceptions");
}

#[test]
fn process_groups_among_many_processes() {
    same_as_on_linux("groups");
}

#[test]
fn scheduling_policies() {
    same_as_on_linux("policies");
}

#[test]
fn pairs_of_sockets() {
    same_as_on_linux("sockets");
}

#[test]
fn message_queues() {
    same_as_on_linux("message_queues");
}

#[test]
fn semaphores_and_messages_with_types() {
    same_as_on_linux("semaphores");
}

/// /proc/PID/task: each thread's name, state, signals and descriptors.
#[test]
fn what_proc_tells_of_threads() {
    same_as_on_linux("task_files");
}

#[test]
fn restartable_sequences() {
    same_as_on_linux("sequences");
}

/// musl makes and ends threads in its own way: clone(2) with other flags, and an exit that unmaps the thread's own stack.
#[test]
fn posix_threads_of_musl() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let program = dir.path().join("program");
    let source = boot::workspace::root().join("tests/c/threads.c");
    let compiled = Command::new("musl-gcc")
        .args(["-O2", "-static", "-pthread", "-o"])
        .args([&program, &source])
        .output();
    let Ok(output) = compiled else {
        eprintln!("skipped: musl-gcc is not installed (Debian package musl-tools)");
        return;
    };
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let seen = assert_same(&program, &[], b"");
    assert_eq!(seen.status, 0, "{}", seen.text());
}

/// The lines but for the last, which says whether the memory came back: other programs use the host's too.
fn crowd(options: &[&str]) -> (String, String) {
    let program = Compiled::new("crowd", STATIC_THREADS);
    let seen = guest::exec_with(options, program.path(), &["10000"], b"");
    assert_eq!(seen.status, 0, "{} {}", seen.text(), seen.complaints());
    let text = seen.text();
    let (said, memory) = text.trim_end().rsplit_once('\n').expect("lines");
    (said.to_string(), memory.to_string())
}

#[test]
fn ten_thousand_threads_leave_nothing_behind() {
    let (said, memory) = crowd(&["--memory", "2G"]);
    let expected = "one after the other: 10000\nall at once: all \nwoken and joined: 1";
    assert_eq!(
        (said.as_str(), memory.as_str()),
        (expected, "memory back: 1")
    );
}

#[test]
fn a_small_machine_has_fewer_threads_and_lives() {
    let (said, memory) = crowd(&["--memory", "64M"]);
    let expected = "one after the other: 10000\nall at once: fewer EAGAIN\nwoken and joined: 1";
    assert_eq!(
        (said.as_str(), memory.as_str()),
        (expected, "memory back: 1")
    );
}

#[test]
fn rust_threads() {
    let program: &Path = userspace("threads");
    let seen = assert_same(program, &[], b"");
    assert_eq!(seen.text().lines().last(), Some("PASS"), "{}", seen.text());
}
