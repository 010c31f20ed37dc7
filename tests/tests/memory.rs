//! Memory: every call as on the host, and what happens when there is none left.

use tests::programs::{Compiled, userspace};
use tests::{guest, oracle};

#[test]
fn memory_calls_answer_as_on_the_host() {
    oracle::assert_same(Compiled::fixed("mm_calls").path(), &[], b"");
}

#[test]
fn a_small_machine_survives_hogs_and_a_fork_bomb() {
    let program = Compiled::fixed("mm_oom");
    let seen = guest::exec_with(&["--memory", "64M"], program.path(), &[], b"");
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

/// Each takes all there is of one thing, and ends, and it is there again; a bystander computes right all the while.
#[test]
fn a_small_machine_survives_a_hog_of_each_kind() {
    let hogs = [
        "reading",
        "page tables",
        "shared",
        "files",
        "pipes",
        "areas",
        "threads",
        "signals",
        "opened",
        "locked",
        "names",
        "segment",
        "attachments",
        "messages",
        "objects",
        "forked",
        "fork bomb",
    ];
    let program = Compiled::fixed("mm_hogs");
    let options = ["--memory", "64M", "--timeout", "60"];
    let seen = guest::exec_with(&options, program.path(), &[], b"");
    let text = seen.text();
    for hog in hogs {
        let line = format!("{hog}: ended 1, memory is back 1");
        let has = text.lines().any(|its| its == line);
        assert!(has, "{hog}\n{text}{}", seen.complaints());
    }
    // At first, again, and after all the others.
    let ends = text.matches("memory: ended 1, memory is back 1\n").count();
    assert_eq!((seen.status, ends), (0, 3), "{text}");
    assert!(text.ends_with("the bystander ended with 0\n"), "{text}");
}

#[test]
fn limits_and_edges_are_those_of_the_host() {
    oracle::assert_same(Compiled::fixed("mm_limits").path(), &[], b"");
}

/// As many areas as a process may have, in bounded time.
#[test]
fn sixty_thousand_areas_stay_usable() {
    oracle::assert_same(Compiled::fixed("mm_areas").path(), &[], b"");
}

/// Growth, splits, joins and moves against readers and writers: fault-path.md, rows 15, 16 and 18.
#[test]
fn threads_that_change_the_areas_see_only_their_own_bytes() {
    let seen = guest::exec(userspace("area-storm"), &["2"]);
    assert_eq!(seen.status, 0, "{}{}", seen.text(), seen.complaints());
    assert_eq!(seen.text().lines().last(), Some("PASS"));
}

/// 2,000 sequences of 50 random steps each, in one boot; a difference is shown by its seed, and step by step.
#[test]
fn random_memory_calls_answer_as_on_the_host() {
    let program = userspace("mm-fuzz");
    let mut args = vec!["1", "2000", "50"];
    if !host_is_at_least(6, 17) {
        // Other areas were joined there, and mremap(2) moved only one.
        args.push("old");
    }
    oracle::assert_same_seeds(program, &args);
}

/// Forks, and changes of memory that fills page tables, whose entries are then shared: 150 sequences of 60 random steps in each of several
/// processes.
#[test]
fn processes_that_forked_with_full_page_tables_stay_apart() {
    oracle::assert_same_seeds(Compiled::fixed("fork_fuzz").path(), &["1", "150", "60"]);
}

/// What the C program `cow` prints for one of its parts, as on the host.
fn cow(part: &str) {
    oracle::assert_same(Compiled::fixed("cow").path(), &[part], b"");
}

/// Row 8 of the known bugs (CVE-2016-5195).
#[test]
fn a_forced_write_against_madv_dontneed_leaves_the_file_unchanged() {
    cow("forced");
}

/// Row 10 of the known bugs (CVE-2022-2590): a page that is marked as written is not for that a copy of one's own.
#[test]
fn a_page_filled_by_a_handler_does_not_let_a_forced_write_through() {
    cow("filled");
}

/// Row 12 of the known bugs: vmsplice and fork, reuse of shared pages.
#[test]
fn three_processes_stay_isolated_in_every_order_of_writes() {
    cow("matrix");
}

#[test]
fn memory_of_other_processes_is_reached_as_on_the_host() {
    cow("remote");
}

#[test]
fn segments_of_shared_memory_answer_as_on_the_host() {
    let old: &[&str] = if host_is_at_least(6, 17) {
        &[]
    } else {
        &["old"]
    };
    oracle::assert_same(Compiled::fixed("shared_memory").path(), old, b"");
}

/// Segments, semaphores and messages: 400 sequences of 100 random steps each, in one boot.
#[test]
fn random_calls_on_what_is_shared_answer_as_on_the_host() {
    // Other areas were joined before, and moved.
    if host_is_at_least(6, 17) {
        oracle::assert_same_seeds(Compiled::fixed("ipc_fuzz").path(), &["1", "400", "100"]);
    }
}

#[test]
fn proc_tells_the_same_figures_as_on_the_host() {
    oracle::assert_same(Compiled::fixed("figures").path(), &[], b"");
}

/// Whether the host's kernel is that version or a later one.
fn host_is_at_least(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a Linux host");
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= (major, minor)
}
