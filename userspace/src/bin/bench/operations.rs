//! The operations, in the order in which they are reported.

use crate::{areas, calls, faults, files, pipes, processes, signals, threads, userfault};

/// One operation.
pub struct Operation {
    pub name: &'static str,
    /// Measures it into [`crate::measure::SAMPLES`].
    pub run: fn(),
    /// Whether it needs a file on a slow disk ([`crate::report::disk`]).
    pub needs_disk: bool,
}

const fn operation(name: &'static str, run: fn()) -> Operation {
    Operation {
        name,
        run,
        needs_disk: false,
    }
}

pub static ALL: [Operation; 32] = [
    operation("getpid", calls::getpid),
    operation("sched_yield", calls::sched_yield),
    operation("anon-read", faults::read),
    operation("anon-write", faults::write),
    operation("write-after-read", faults::write_after_read),
    operation("cow-break", faults::cow_break),
    operation("cow-reuse", faults::cow_reuse),
    operation("touch-64m", faults::touch_64m),
    operation("mmap-munmap", areas::map_and_unmap),
    operation("mmap-touch-64", areas::map_touch_unmap),
    operation("madvise", areas::forget),
    operation("mprotect-pair", areas::protect_pair),
    operation("sigaction", calls::sigaction),
    operation("sigprocmask", calls::sigprocmask),
    operation("signal", signals::kill_self),
    operation("signal-altstack", signals::kill_self_on_altstack),
    operation("segv-repair", signals::segv_repair),
    operation("segv-entry", signals::segv_entry),
    operation("pipe", pipes::write_and_read),
    operation("pipe-ping-pong", pipes::ping_pong),
    operation("fork", processes::fork),
    operation("fork-16m", processes::fork_16m),
    operation("exec", processes::exec),
    operation("exec-2m", processes::exec_2m),
    operation("file-read", files::read),
    operation("file-write-shared", files::write_shared),
    operation("file-write-private", files::write_private),
    operation("uffd-copy", userfault::copy),
    operation("uffd-signal", userfault::signal),
    Operation {
        name: "disk-signal",
        run: files::signal_in_disk_fault,
        needs_disk: true,
    },
    operation("thread", threads::create_and_join),
    operation("futex-ping-pong", threads::ping_pong),
];
