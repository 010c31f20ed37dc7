//! The demos: what each shows and what it needs beside its binary in `/bin`.

use std::ffi::OsString;
use std::path::Path;

use anyhow::Result;

use crate::rootfs::Tree;

/// How much longer a read of the slow file takes, in milliseconds. A demo's alarm goes off well within it.
const SLOW: &str = "/slow:300";

/// A file that the host tool makes for a demo: the same bytes every time.
#[derive(Debug, Clone, Copy)]
pub struct DemoFile {
    /// Absolute path in the guest.
    pub path: &'static str,
    /// Size in bytes.
    pub size: usize,
    /// The environment variable that names it to the program.
    pub variable: &'static str,
}

impl DemoFile {
    /// The contents: pseudo-random bytes (splitmix64 of the position), so that no two pages are alike.
    pub fn contents(&self) -> Vec<u8> {
        let words = (0..self.size.div_ceil(8) as u64).map(splitmix64);
        let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        bytes.truncate(self.size);
        bytes
    }
}

fn splitmix64(position: u64) -> u64 {
    let mut z = (position + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const PATTERN: DemoFile = DemoFile {
    path: "/data/pattern",
    // The last page is not full: what lies behind the end of the file is a fact to show.
    size: (1 << 20) + 1234,
    variable: "FAULTLINE_FILE",
};
const SLOW_DATA: DemoFile = DemoFile {
    path: "/slow/data",
    size: 1 << 20,
    variable: "FAULTLINE_SLOW_FILE",
};

/// All files that demos use; every demo's root file system has them all.
pub const FILES: [DemoFile; 2] = [PATTERN, SLOW_DATA];

/// One demo.
#[derive(Debug, Clone, Copy)]
pub struct Demo {
    /// Its name, also that of its program in `/bin`.
    pub name: &'static str,
    /// What it shows, in one line.
    pub shows: &'static str,
    /// The file that it reads.
    pub file: Option<DemoFile>,
    /// Its `slow` record.
    pub slow: Option<&'static str>,
    /// The memory of its machine, whatever the options say.
    pub memory: Option<&'static str>,
}

impl Demo {
    const fn plain(name: &'static str, shows: &'static str) -> Self {
        Self {
            name,
            shows,
            file: None,
            slow: None,
            memory: None,
        }
    }

    const fn on_slow_disk(name: &'static str, shows: &'static str) -> Self {
        Self {
            name,
            shows,
            file: Some(SLOW_DATA),
            slow: Some(SLOW),
            memory: None,
        }
    }

    /// The demo of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        DEMOS.iter().find(|demo| demo.name == name)
    }

    /// The path of its program in the guest.
    pub fn program(&self) -> String {
        format!("/bin/{}", self.name)
    }

    /// What its environment has beyond the default one. Paths are those of the guest with `root` in front: empty for
    /// the guest itself, a folder that holds [`FILES`] for a run on the host's Linux.
    pub fn env(&self, root: &str) -> Vec<OsString> {
        let file = self
            .file
            .map(|file| format!("{}={root}{}", file.variable, file.path));
        let slow = self
            .slow
            .and_then(|slow| slow.split_once(':'))
            .map(|(_, ms)| format!("FAULTLINE_SLOW_MS={ms}"));
        file.into_iter().chain(slow).map(OsString::from).collect()
    }
}

/// In the order in which they are run.
pub const DEMOS: [Demo; 28] = [
    Demo::plain(
        "demand-zero",
        "pages of a mapping far larger than memory appear when they are touched",
    ),
    Demo {
        name: "file-backed",
        shows: "a mapped file is read from the disk page by page",
        file: Some(PATTERN),
        slow: None,
        memory: None,
    },
    Demo::plain(
        "shared-memory",
        "what one process stores another sees, and what is cut off is gone for both",
    ),
    Demo::plain(
        "cow-fork",
        "parent and child share pages after fork until one of them writes",
    ),
    Demo::plain(
        "snapshot",
        "a child sums what memory was at fork while the parent goes on writing",
    ),
    Demo::plain(
        "mremap-grow",
        "an array grows and moves without a copy: its pages go with it",
    ),
    Demo::plain(
        "guard-pages",
        "an overrun hits a guard page, and the handler says which and recovers",
    ),
    Demo {
        name: "oom",
        shows: "what takes more memory than there is is ended, and nobody else notices",
        file: None,
        slow: None,
        memory: Some("64M"),
    },
    Demo::plain(
        "segv-repair",
        "a SIGSEGV handler makes the page writable and the access succeeds",
    ),
    Demo::plain(
        "segv-codes",
        "each kind of bad access arrives with its own siginfo",
    ),
    Demo::plain(
        "stack-growth",
        "the stack grows on demand, down to its limit",
    ),
    Demo::plain(
        "stack-overflow",
        "an overflow is caught on the alternate stack, in the guard gap",
    ),
    Demo::plain(
        "nested-signals",
        "handlers interrupt each other and return in order",
    ),
    Demo::plain(
        "handler-on-lazy-stack",
        "a signal frame lands on lazy, shared, file and userfaultfd pages, or nowhere",
    ),
    Demo::plain(
        "sigreturn-attacks",
        "a handler spoils the frame that it returns by, and hurts only itself",
    ),
    Demo::plain(
        "signal-order",
        "which of many pending signals is taken first, and whose handler runs first",
    ),
    Demo::plain(
        "sigqueue-rt",
        "real-time signals queue in order, each with its value, up to a limit",
    ),
    Demo::on_slow_disk(
        "interrupted-fault",
        "a signal is handled while a page fault waits for the disk",
    ),
    Demo::on_slow_disk(
        "killed-in-fault",
        "a fatal signal ends a read(2) that faults on a slow disk, another one waits",
    ),
    Demo::plain(
        "preemption",
        "spinning processes share the CPU, and a timer still fires",
    ),
    Demo::plain(
        "restart",
        "which blocking calls go on after a signal, and which end with EINTR",
    ),
    Demo::plain(
        "timers",
        "rings that nobody took are counted, and CPU time has timers of its own",
    ),
    Demo {
        name: "userfaultfd-lazy",
        shows: "a handler thread fills memory from a file when it is touched",
        file: Some(PATTERN),
        slow: None,
        memory: None,
    },
    Demo::plain(
        "userfaultfd-interrupted",
        "a signal comes while a fault waits for a handler in user space",
    ),
    Demo::plain(
        "write-tracking",
        "userfaultfd and mprotect find the pages that are written to",
    ),
    Demo::plain(
        "thread-directed",
        "a signal for one thread, for any, and for the one that waits",
    ),
    Demo::plain(
        "job-control",
        "keys and groups stop, continue and end a job on a terminal",
    ),
    Demo::plain("cancellation", "a thread is ended wherever it waits"),
];

/// The guest's root file system for demos: `base` with [`FILES`].
pub fn add_files(base: &mut Tree) -> Result<()> {
    FILES
        .iter()
        .try_for_each(|file| base.bytes(Path::new(file.path), file.contents(), 0o644))
}

/// Whether a demo's output says that all its assertions held: its last line is `PASS`.
pub fn has_passed(stdout: &[u8]) -> bool {
    let text = String::from_utf8_lossy(stdout);
    text.lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .is_some_and(|line| line.trim() == "PASS")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        let names: HashSet<_> = DEMOS.iter().map(|demo| demo.name).collect();
        assert_eq!(names.len(), DEMOS.len());
        assert!(DEMOS.iter().all(|demo| Demo::find(demo.name).is_some()));
        assert!(Demo::find("no-such-demo").is_none());
    }

    #[test]
    fn only_a_last_line_pass_is_a_pass() {
        assert!(has_passed(b"1. step\nPASS\n"));
        assert!(has_passed(b"PASS\n\n"));
        for output in ["", "FAIL\n", "PASS\nFAIL\n", "BYPASS\n", "PASS\nmore\n"] {
            assert!(!has_passed(output.as_bytes()), "{output:?}");
        }
    }

    #[test]
    fn no_two_pages_of_a_file_are_alike() {
        for file in FILES {
            let contents = file.contents();
            assert_eq!(contents.len(), file.size);
            let pages: HashSet<&[u8]> = contents.chunks(4096).collect();
            assert_eq!(pages.len(), file.size.div_ceil(4096));
        }
    }

    #[test]
    fn environment_names_the_file_and_the_delay() {
        let demo = Demo::find("interrupted-fault").unwrap();
        assert_eq!(
            demo.env(""),
            ["FAULTLINE_SLOW_FILE=/slow/data", "FAULTLINE_SLOW_MS=300"]
        );
        assert_eq!(demo.env("/host")[0], "FAULTLINE_SLOW_FILE=/host/slow/data");
        assert!(Demo::find("cow-fork").unwrap().env("").is_empty());
    }
}
