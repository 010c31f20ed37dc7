//! The operations, under the names by which the program reports them.

/// One operation and what is known of it beforehand.
#[derive(Debug)]
pub struct Operation {
    pub name: &'static str,
    /// What it is, in few words.
    pub what: &'static str,
    /// Instructions that it cannot do without, by reasoning: something to aim at.
    pub floor: Option<u64>,
}

const fn operation(name: &'static str, what: &'static str, floor: u64) -> Operation {
    Operation {
        name,
        what,
        floor: if floor == 0 { None } else { Some(floor) },
    }
}

/// All of them, in the order of the table.
pub static ALL: [Operation; 32] = [
    operation("getpid", "getpid", 60),
    operation("sched_yield", "sched_yield, alone", 150),
    operation("anon-read", "anonymous read fault (zero page)", 250),
    operation("anon-write", "anonymous write fault", 800),
    operation("write-after-read", "write after read fault", 900),
    operation("cow-break", "COW break after fork", 900),
    operation("cow-reuse", "COW reuse after the child's exit", 300),
    operation("touch-64m", "first touch of 64 MiB, total", 0),
    operation("mmap-munmap", "mmap + munmap of one page, untouched", 600),
    operation(
        "mmap-touch-64",
        "mmap, touch 64 pages, munmap, total",
        60_000,
    ),
    operation("madvise", "madvise(DONTNEED), per page of 64", 150),
    operation(
        "mprotect-pair",
        "mprotect flip of a page in the middle, pair",
        1500,
    ),
    operation("sigaction", "sigaction", 120),
    operation("sigprocmask", "sigprocmask", 100),
    operation("signal", "kill(self) to handler and sigreturn", 900),
    operation("signal-altstack", "the same on an altstack", 900),
    operation("segv-repair", "SEGV, handler mprotects, returns", 1800),
    operation(
        "segv-entry",
        "SEGV: fault to handler's first instruction",
        700,
    ),
    operation("pipe", "pipe write + read, same process", 400),
    operation(
        "pipe-ping-pong",
        "pipe ping-pong of two processes, round trip",
        2000,
    ),
    operation("fork", "fork + exit + wait, small process", 15_000),
    operation("fork-16m", "fork + exit + wait, 16 MiB touched", 100_000),
    operation("exec", "fork + exec + exit + wait", 40_000),
    operation(
        "exec-2m",
        "the same, a program of 2 MiB that reads all of it",
        0,
    ),
    operation(
        "file-read",
        "file fault, page cache warm, 64 KiB apart",
        500,
    ),
    operation("file-write-shared", "shared file write fault", 500),
    operation("file-write-private", "private file write fault", 1000),
    operation(
        "uffd-copy",
        "userfaultfd missing fault, COPY, round trip",
        3000,
    ),
    operation(
        "uffd-signal",
        "signal to a thread in a userfaultfd fault, to handler",
        1200,
    ),
    operation(
        "disk-signal",
        "signal to a thread in a disk fault, to handler",
        1200,
    ),
    operation("thread", "thread create + join", 0),
    operation(
        "futex-ping-pong",
        "futex ping-pong of two threads, round trip",
        0,
    ),
];
