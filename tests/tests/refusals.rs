//! What the host tool refuses before anything boots.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tests::programs::Compiled;
use tests::{guest, run};

/// `boot exec PROGRAM` must refuse before anything is built or booted: one sentence, status 2.
fn refuses(program: &Path, words: &[&str]) {
    let start = Instant::now();
    let seen = run::run(
        guest::boot().arg("exec").arg(program),
        b"",
        Duration::from_secs(30),
    );
    let said = seen.complaints();
    assert_eq!(seen.status, 2, "{said}");
    assert_eq!(said.lines().count(), 1, "one sentence: {said}");
    assert!(
        words.iter().all(|word| said.contains(word)),
        "{words:?} in: {said}"
    );
    assert!(
        said.contains(&program.display().to_string()),
        "it names the program: {said}"
    );
    assert!(seen.stdout.is_empty());
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "nothing was booted"
    );
}

#[test]
fn programs_that_cannot_run_are_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = |name: &str, contents: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, contents).expect("writes");
        path
    };
    refuses(&dir.path().join("missing"), &["No such file"]);
    refuses(dir.path(), &["not a regular file"]);
    refuses(&file("text", b"#!/bin/sh\necho hi\n"), &["not an ELF file"]);
    refuses(&file("empty", b""), &["not an ELF file"]);
    refuses(
        Compiled::new("hello", &[]).path(),
        &["dynamically linked", "-static"],
    );

    let program = Compiled::fixed("hello");
    let mut foreign = fs::read(program.path()).expect("reads");
    // e_machine, AArch64 (elf(5)).
    foreign[18..20].copy_from_slice(&183u16.to_le_bytes());
    refuses(&file("foreign", &foreign), &["another machine"]);
    let mut narrow = fs::read(program.path()).expect("reads");
    // EI_CLASS, 32 bits.
    narrow[4] = 1;
    refuses(&file("narrow", &narrow), &["64-bit"]);
}

#[test]
fn bad_usage_is_status_2() {
    for args in [
        &["demo", "no-such-demo"][..],
        &["exec"],
        &["--no-such-option"],
        &["exec", "--env", "X", "/bin/true"],
    ] {
        let seen = run::run(guest::boot().args(args), b"", Duration::from_secs(30));
        assert_eq!(seen.status, 2, "{args:?}: {}", seen.complaints());
    }
}

#[test]
fn list_names_the_demos() {
    let seen = run::run(guest::boot().arg("list"), b"", Duration::from_secs(30));
    assert_eq!(seen.status, 0);
    for demo in boot::demos::DEMOS {
        assert!(
            seen.text().contains(demo.name),
            "{} in:\n{}",
            demo.name,
            seen.text()
        );
    }
}
