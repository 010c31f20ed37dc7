//! Bugs that kernels have had in signals, on entry and on return: none of them is here. One program shows them all, on the host and in
//! the guest; each test looks at its part. Rows 4, 5 and 6 are tests of the kernel's entry code.

use std::sync::LazyLock;

use tests::oracle;
use tests::programs::Compiled;
use tests::{guest, run::Finished};

/// What tests/c/past_bugs.c prints, on the host and in the guest.
static SHOWN: LazyLock<[Finished; 2]> = LazyLock::new(|| {
    let program = Compiled::new("past_bugs", &["-static", "-pthread"]);
    let path = program.path();
    [oracle::run(path, &[], &[], b""), guest::exec(path, &[])]
});

/// The lines of one row.
fn part(of: &Finished, row: u32) -> String {
    let text = of.text();
    let title = format!("row {row}");
    let lines = text.lines().skip_while(|line| *line != title).skip(1);
    let lines: Vec<&str> = lines.take_while(|line| !line.starts_with("row ")).collect();
    lines.join("\n")
}

/// The row is shown to its end, and as on the host.
fn same(row: u32) {
    let [host, seen] = &*SHOWN;
    let (expected, shown) = (part(host, row), part(seen, row));
    assert!(expected.ends_with("end: exit 0"), "on the host: {expected}");
    assert_eq!(shown, expected, "{}", seen.complaints());
}

/// Row 1 (CVE-2014-9322): the IRETQ to user mode faults after GS was exchanged.
#[test]
fn a_return_with_selectors_and_addresses_that_cannot_be_is_a_sigsegv() {
    same(1);
}

/// Row 2 (CVE-2014-9090): a fault of the IRETQ for its stack segment is no double fault.
#[test]
fn a_return_with_a_stack_segment_that_is_not_there_is_a_sigsegv() {
    same(2);
}

/// Row 3 (CVE-2012-0217): SYSRET to an address that is not canonical faults in the kernel, on the user's stack.
#[test]
fn a_call_at_the_end_of_the_users_half_returns_to_a_sigsegv() {
    same(3);
}

/// Row 7: an IRETQ to a stack segment of 16 bits shows bits of the kernel's stack pointer, so there is no such segment.
#[test]
fn no_stack_segment_but_the_flat_one_is_taken() {
    same(7);
}

/// Row 28 (CVE-2024-26603): a frame says that its state is small, and XRSTOR faults for ever behind it.
#[test]
fn a_small_state_at_the_end_of_a_mapping_ends_in_a_sigsegv() {
    same(28);
}

/// Row 29 (CVE-2017-15537): a state that cannot be restored leaves the registers of another process in place.
#[test]
fn a_state_that_cannot_be_restored_leaves_the_initial_one() {
    same(29);
}

/// Row 30: a frame that cannot be written takes the floating-point registers with it.
#[test]
fn a_frame_that_fails_loses_no_register() {
    same(30);
}

/// Row 31: a frame runs over the end of the alternate stack.
#[test]
fn a_frame_never_goes_beyond_its_alternate_stack() {
    same(31);
}

/// Row 32 (CVE-2009-2847, CVE-2013-2141): padding shows what was on the kernel's stack.
#[test]
fn no_padding_of_a_frame_or_siginfo_has_anything_of_the_kernels() {
    same(32);
}

/// Row 33 (CVE-2011-1182): a siginfo pretends to come from the kernel or from kill(2).
#[test]
fn nobody_else_gets_a_siginfo_with_a_code_of_the_kernels() {
    same(33);
}

/// Row 34: a signal from elsewhere gets its frame first, and the one of the fault shows a handler's address in place of its own.
#[test]
fn the_frame_of_a_fault_shows_where_it_was_whatever_else_comes() {
    same(34);
}

/// Row 35: a process that was killed runs a handler once more.
#[test]
fn no_handler_runs_after_sigkill() {
    same(35);
}

/// Row 36: CR2 is read after a fault inside the fault has changed it.
#[test]
fn each_frame_shows_the_address_of_its_own_fault() {
    same(36);
}

/// Row 39 (CVE-2018-10124): kill(2) negates the least integer.
#[test]
fn there_is_no_process_group_of_the_least_number() {
    same(39);
}
