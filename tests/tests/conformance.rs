//! `boot conformance` with a small suite of its own: both sides, their surroundings, the comparison and the exit status.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::guest;
use tests::run::{self, Finished};

fn conformance(args: &[&str]) -> Finished {
    let suite = boot::workspace::root().join("tests/suite");
    let mut command: Command = guest::boot();
    command
        .arg("conformance")
        .arg("--suite")
        .arg(suite)
        .args(args);
    run::run(&mut command, b"", guest::LIMIT + Duration::from_secs(30))
}

/// Whether programs can be run in namespaces of their own on this machine; says so if not.
fn has_namespaces() -> bool {
    let can = Command::new("unshare")
        .args(["--map-root-user", "--pid", "--fork", "--mount", "true"])
        .output();
    let can = can.is_ok_and(|output| output.status.success());
    if !can {
        eprintln!(
            "skipped: this machine has no namespaces for ordinary users (unshare --map-root-user fails)"
        );
    }
    can
}

#[test]
fn what_passes_only_on_linux_is_listed_and_is_the_status() {
    if !has_namespaces() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let json = dir.path().join("results.json");
    let seen = conformance(&["--json", json.to_str().expect("text"), "--limit", "20"]);
    assert_eq!(seen.status, 1, "{}\n{}", seen.text(), seen.complaints());
    let results = read(&json);
    let programs = results["programs"].as_array().expect("a list");
    let of = |name: &str| {
        programs
            .iter()
            .find(|program| program["name"] == name)
            .unwrap_or_else(|| panic!("{name} is not in {results:#}"))
    };
    assert_eq!(programs.len(), 3, "{results:#}");
    for name in ["mmap/1-1", "mmap/2-1"] {
        for side in ["linux", "here"] {
            assert_eq!(
                of(name)[side]["passes"],
                true,
                "{name} on {side}: {results:#}"
            );
        }
    }
    let differs = of("kill/1-1");
    assert_eq!(
        (&differs["linux"]["passes"], &differs["here"]["result"]),
        (&true.into(), &"fail".into())
    );
    assert_eq!(differs["here"]["output"], "this is the guest");
    assert_eq!(differs["here"]["tries"], 3);
    assert_eq!(results["unbuilt"][0]["name"], "kill/2-1");
    assert!(seen.text().contains("this is the guest"), "{}", seen.text());
}

#[test]
fn a_list_and_a_wrong_name_run_nothing() {
    let list = conformance(&["--list", "--filter", "kill/"]);
    assert_eq!(list.status, 0, "{}", list.complaints());
    assert!(
        list.text().contains("1-1 2-1") && !list.text().contains("mmap"),
        "{}",
        list.text()
    );
    let wrong = conformance(&["--filter", "no-such-program"]);
    assert_ne!(wrong.status, 0);
    assert!(
        wrong.complaints().contains("no such program"),
        "{}",
        wrong.complaints()
    );
}

fn read(file: &Path) -> Value {
    let text = std::fs::read_to_string(file).expect("results are written");
    serde_json::from_str(&text).expect("they are JSON")
}
