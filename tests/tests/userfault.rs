//! userfaultfd: every call, and who waits for how long.

use tests::programs::Compiled;
use tests::{guest, oracle};

#[test]
fn userfaultfd_answers_as_on_the_host() {
    oracle::assert_same(Compiled::fixed("userfault").path(), &[], b"");
}

/// One case of `tests/c/userfault_waits.c`, in the guest and on the host.
fn same_wait(case: &str) -> String {
    let compiled = Compiled::fixed("userfault_waits");
    let program = compiled.path();
    let expected = oracle::run(program, &[case], &[], b"");
    let seen = guest::exec(program, &[case]);
    oracle::assert_same_report(case, &seen, &expected);
    seen.text()
}

#[test]
fn a_wait_of_user_code_ends_for_a_signal_and_begins_again_after_its_handler() {
    same_wait("signal");
}

/// Row 19 of the past bugs of fault paths: a fault inside a system call that a fatal signal does not end lives for ever.
#[test]
fn sigkill_ends_whoever_waits_for_a_handler_in_any_state() {
    same_wait("kill");
}

/// Row 20: the sleep has to match the signal check, or a caught signal turns the wait into a busy loop, as on Linux.
#[test]
fn a_wait_inside_a_system_call_sleeps_through_a_caught_signal() {
    let text = same_wait("kernel");
    let spent = text
        .lines()
        .find_map(|line| line.strip_prefix("~ CPU time of the waiting thread: "))
        .and_then(|rest| rest.strip_suffix(" ms"))
        .and_then(|number| number.parse::<u64>().ok());
    assert!(spent.is_some_and(|ms| ms < 50), "{text}");
}

/// Row 21: after an interrupted wait everything is looked up again, whoever has changed the memory meanwhile.
#[test]
fn a_wait_ends_in_the_memory_that_is_mapped_then() {
    same_wait("mapping");
}

/// Row 22: a thread that ends takes no signal, so it must not wait for user memory.
#[test]
fn a_thread_that_ends_waits_for_nobody() {
    same_wait("exit");
}

/// Row 23: a fault that is killed while it takes `mmap_lock` again does not have it.
#[test]
fn faults_can_be_killed_while_the_address_space_changes() {
    same_wait("relock");
}

/// Row 24: filling obeys what the file was opened for.
#[test]
fn memory_that_can_never_be_written_is_not_filled() {
    same_wait("unwritable");
}

#[test]
fn a_signal_every_millisecond_starves_no_fault() {
    same_wait("timer");
}

#[test]
fn a_stop_signal_stops_whoever_waits_for_a_handler() {
    same_wait("stop");
}
