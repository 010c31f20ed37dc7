//! Every demo does in the guest what it does on the host's Linux: the same status and the same lines, but for those that say
//! themselves that they may differ.

use std::ffi::OsString;
use std::fs;
use std::sync::{LazyLock, Mutex, PoisonError};

use boot::demos::{DEMOS, Demo, FILES};
use tempfile::TempDir;
use tests::{guest, oracle, programs};

/// The demos' files on the host.
static FILES_HERE: LazyLock<TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for file in FILES {
        let path = dir.path().join(file.path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("it has a folder")).expect("makes the folder");
        fs::write(path, file.contents()).expect("writes the file");
    }
    dir
});

/// Demos that measure time run alone, so that one does not disturb the other.
static ALONE: Mutex<()> = Mutex::new(());

fn same_as_on_linux(name: &str) {
    let demo = Demo::find(name).expect("boot knows the demo");
    let root = FILES_HERE.path().to_str().expect("the path is text");
    // Nothing slows the host's disk down.
    let is_for_host =
        |variable: &OsString| !variable.to_string_lossy().starts_with("FAULTLINE_SLOW_MS=");
    let env: Vec<OsString> = demo.env(root).into_iter().filter(is_for_host).collect();
    let expected = oracle::run(programs::userspace(name), &[], &env, b"");
    let seen = guest::demo(name);
    oracle::assert_same_report(name, &seen, &expected);
}

/// One test for each demo, so that each has a line of its own; the list is checked against the tool's.
macro_rules! demos {
    ($($function:ident $name:literal,)*) => {
        $(
            #[test]
            fn $function() {
                let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
                same_as_on_linux($name);
            }
        )*

        #[test]
        fn every_demo_is_tested() {
            let tested = [$($name),*];
            let known: Vec<&str> = DEMOS.iter().map(|demo| demo.name).collect();
            assert_eq!(tested.as_slice(), known.as_slice());
        }
    };
}

demos! {
    demand_zero "demand-zero",
    file_backed "file-backed",
    shared_memory "shared-memory",
    cow_fork "cow-fork",
    snapshot "snapshot",
    mremap_grow "mremap-grow",
    guard_pages "guard-pages",
    oom "oom",
    segv_repair "segv-repair",
    segv_codes "segv-codes",
    stack_growth "stack-growth",
    stack_overflow "stack-overflow",
    nested_signals "nested-signals",
    handler_on_lazy_stack "handler-on-lazy-stack",
    sigreturn_attacks "sigreturn-attacks",
    signal_order "signal-order",
    sigqueue_rt "sigqueue-rt",
    interrupted_fault "interrupted-fault",
    killed_in_fault "killed-in-fault",
    preemption "preemption",
    restart "restart",
    timers "timers",
    userfaultfd_lazy "userfaultfd-lazy",
    userfaultfd_interrupted "userfaultfd-interrupted",
    write_tracking "write-tracking",
    thread_directed "thread-directed",
    job_control "job-control",
    cancellation "cancellation",
}

#[test]
fn slow_disk_is_checked_in_the_guest() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for name in ["interrupted-fault", "killed-in-fault"] {
        let report = guest::demo(name).text();
        let made = report
            .lines()
            .filter(|line| line.starts_with("~  ok: "))
            .count();
        assert!(
            made >= 3,
            "{name} made {made} of the checks that need a slow disk:\n{report}"
        );
    }
}
