//! What /proc tells about the whole machine.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU64, Ordering};

use crate::arch::{machine, time};
use crate::fs::text::{Maker, Text};
use crate::ipc::semaphore::{SEMMNI, SEMMNS, SEMMSL, SEMOPM};
use crate::mm::frame::{self, FrameKind};
use crate::mm::reclaim;
use crate::task::{oom, table};
use crate::trace;

pub const OSTYPE: &str = "Linux";
/// The Linux whose system calls are spoken; programs refuse to start when they find it too old.
pub const RELEASE: &str = "6.1.0-faultline";
pub const VERSION: &str = concat!("#1 Faultline ", env!("CARGO_PKG_VERSION"));
pub const HOSTNAME: &str = "faultline";

/// Files in /proc itself.
pub const FILES: &[(&str, Maker)] = &[
    ("cmdline", |text| writeln!(text)),
    ("cpuinfo", cpuinfo),
    ("devices", |text| {
        write!(
            text,
            "Character devices:\n  1 mem\n  5 /dev/tty\n\nBlock devices:\n254 virtblk\n"
        )
    }),
    ("filesystems", |text| {
        write!(
            text,
            "nodev\tproc\nnodev\ttmpfs\nnodev\tdevtmpfs\nnodev\tpipefs\n\text4\n"
        )
    }),
    ("loadavg", |text| {
        writeln!(
            text,
            "0.00 0.00 0.00 1/{} {}",
            table::count().max(1),
            table::last_id()
        )
    }),
    ("meminfo", meminfo),
    ("vmstat", vmstat),
    ("stat", stat),
    ("uptime", uptime),
    ("version", |text| {
        writeln!(text, "{OSTYPE} version {RELEASE} ({VERSION})")
    }),
    ("swaps", |text| {
        writeln!(text, "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority")
    }),
];

/// Directories of /proc/sys with their files.
pub const SYS: &[(&str, &[(&str, Maker)])] = &[
    (
        "kernel",
        &[
            ("osrelease", |text| writeln!(text, "{RELEASE}")),
            ("ostype", |text| writeln!(text, "{OSTYPE}")),
            ("hostname", |text| writeln!(text, "{HOSTNAME}")),
            ("version", |text| writeln!(text, "{VERSION}")),
            ("pid_max", |text| writeln!(text, "{}", table::PID_MAX)),
            ("ngroups_max", |text| writeln!(text, "65536")),
            ("sem", |text| {
                writeln!(text, "{SEMMSL}\t{SEMMNS}\t{SEMOPM}\t{SEMMNI}")
            }),
            ("randomize_va_space", |text| writeln!(text, "0")),
        ],
    ),
    (
        "vm",
        &[
            ("overcommit_memory", |text| writeln!(text, "0")),
            ("max_map_count", |text| {
                writeln!(text, "{}", crate::mm::space::MAX_MAP_COUNT)
            }),
            ("mmap_min_addr", |text| {
                writeln!(text, "{}", crate::mm::space::MMAP_MIN_ADDR)
            }),
        ],
    ),
    (
        "fs",
        &[
            ("pipe-max-size", |text| {
                writeln!(text, "{}", crate::fs::pipe::MAX_CAPACITY)
            }),
            ("nr_open", |text| {
                writeln!(text, "{}", crate::fs::table::MAX_FILES)
            }),
            ("file-max", |text| {
                writeln!(text, "{}", crate::fs::file::max_open_files())
            }),
        ],
    ),
];

/// Files of /proc/sys/kernel/random.
pub const RANDOM: &[(&str, Maker)] = &[
    ("boot_id", boot_id),
    ("uuid", |text| {
        uuid(text, [machine::random_u64(), machine::random_u64()])
    }),
    ("entropy_avail", |text| writeln!(text, "256")),
    ("poolsize", |text| writeln!(text, "256")),
];

fn cpuinfo(text: &mut Text) -> fmt::Result {
    write!(
        text,
        "processor\t: 0\ncpu cores\t: 1\nsiblings\t: 1\naddress sizes\t: 40 bits physical, 48 bits virtual\n\n"
    )
}

/// Frames as `man 5 proc_meminfo` tells them; what this kernel does not have is 0.
fn meminfo(text: &mut Text) -> fmt::Result {
    let used = frame::used_frames;
    let (total, free) = (frame::total_frames(), frame::free_frames());
    let (files, shared) = (used(FrameKind::File), used(FrameKind::SharedMemory));
    let anonymous = used(FrameKind::Anonymous);
    // Clean pages of files can be had at any time.
    let available = free.saturating_sub(frame::RESERVE) + files;
    for (name, frames) in [
        ("MemTotal", total),
        ("MemFree", free),
        ("MemAvailable", available),
        ("Buffers", 0),
        ("Cached", files + shared),
        ("SwapCached", 0),
        ("Active", 0),
        ("Inactive", anonymous + files + shared),
        ("Unevictable", 0),
        ("Mlocked", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", anonymous),
        ("Shmem", shared),
        ("KReclaimable", 0),
        ("Slab", used(FrameKind::Kernel)),
        ("SReclaimable", 0),
        ("SUnreclaim", used(FrameKind::Kernel)),
        ("KernelStack", used(FrameKind::KernelStack)),
        ("PageTables", used(FrameKind::PageTable)),
        ("CommitLimit", total / 2),
        ("HugePages_Total", 0),
    ] {
        if name == "HugePages_Total" {
            writeln!(text, "HugePages_Total:       0\nHugePages_Free:        0")?;
            continue;
        }
        writeln!(
            text,
            "{name}:{:>width$} kB",
            frames * 4,
            width = 23 - name.len()
        )?;
    }
    writeln!(text, "Hugepagesize:       2048 kB")
}

/// What is known of Linux's counters: numbers of pages now, and of events since boot.
fn vmstat(text: &mut Text) -> fmt::Result {
    let used = |kind| frame::used_frames(kind) as u64;
    let (taken, given_back) = frame::turnover();
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (minor, major) = (count(&trace::FAULTS_MINOR), count(&trace::FAULTS_MAJOR));
    for (name, value) in [
        ("nr_free_pages", frame::free_frames() as u64),
        ("nr_anon_pages", used(FrameKind::Anonymous)),
        (
            "nr_file_pages",
            used(FrameKind::File) + used(FrameKind::SharedMemory),
        ),
        ("nr_shmem", used(FrameKind::SharedMemory)),
        ("nr_page_table_pages", used(FrameKind::PageTable)),
        // In KiB, as on Linux.
        ("nr_kernel_stack", used(FrameKind::KernelStack) * 4),
        ("nr_slab_unreclaimable", used(FrameKind::Kernel)),
        ("nr_dirty", 0),
        ("nr_writeback", 0),
        ("pgalloc_normal", taken),
        ("pgfree", given_back),
        ("pgfault", minor + major),
        ("pgmajfault", major),
        ("pgsteal_direct", count(&reclaim::RECLAIMED)),
        ("oom_kill", count(&oom::KILLS)),
    ] {
        writeln!(text, "{name} {value}")?;
    }
    Ok(())
}

/// CPU time in clock ticks of 1/100 s, of all processes, and what is left of the time since boot.
fn stat(text: &mut Text) -> fmt::Result {
    let up = time::now_ns() / 10_000_000;
    let (mut busy, mut last, mut running) = (0, 0, 0);
    while let Some(process) = table::next_above(last) {
        last = process.pid;
        busy += process.cpu_time_ns() / 10_000_000;
        running += u64::from(process.events.lock().exited.is_none());
    }
    let idle = up.saturating_sub(busy);
    writeln!(text, "cpu  {busy} 0 0 {idle} 0 0 0 0 0 0")?;
    writeln!(text, "cpu0 {busy} 0 0 {idle} 0 0 0 0 0 0")?;
    writeln!(
        text,
        "intr 0\nctxt 0\nbtime {}",
        time::wall_clock_offset_ns() / 1_000_000_000
    )?;
    writeln!(
        text,
        "processes {last}\nprocs_running {running}\nprocs_blocked 0"
    )
}

fn uptime(text: &mut Text) -> fmt::Result {
    let hundredths = time::now_ns() / 10_000_000;
    writeln!(
        text,
        "{0}.{1:02} {0}.{1:02}",
        hundredths / 100,
        hundredths % 100
    )
}

fn boot_id(text: &mut Text) -> fmt::Result {
    static ID: spin::Once<[u64; 2]> = spin::Once::new();
    uuid(
        text,
        *ID.call_once(|| [machine::random_u64(), machine::random_u64()]),
    )
}

/// A random UUID (RFC 4122, version 4).
fn uuid(text: &mut Text, random: [u64; 2]) -> fmt::Result {
    let high = random[0] & !0xf000 | 0x4000;
    let low = random[1] & !(3 << 62) | 2 << 62;
    writeln!(
        text,
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}
