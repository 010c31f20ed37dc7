//! The entries of /proc/PID, and texts of those that need nothing else.

use core::fmt::{self, Write};

use crate::fs::inode::FileType;
use crate::fs::text::Text;
use crate::task::Process;
use crate::task::rlimit::{INFINITY, Resource};

/// Entries of /proc/PID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Exe,
    Cwd,
    Root,
    Fd,
    Task,
    Maps,
    Stat,
    Statm,
    Status,
    Cmdline,
    Environ,
    Comm,
    Mounts,
    Limits,
    OomScore,
    OomScoreAdj,
    Smaps,
    SmapsRollup,
    Pagemap,
    Mem,
}

impl Entry {
    pub(super) const ALL: [(Entry, &'static str, FileType); 20] = [
        (Entry::Exe, "exe", FileType::Symlink),
        (Entry::Cwd, "cwd", FileType::Symlink),
        (Entry::Root, "root", FileType::Symlink),
        (Entry::Fd, "fd", FileType::Directory),
        (Entry::Task, "task", FileType::Directory),
        (Entry::Maps, "maps", FileType::Regular),
        (Entry::Stat, "stat", FileType::Regular),
        (Entry::Statm, "statm", FileType::Regular),
        (Entry::Status, "status", FileType::Regular),
        (Entry::Cmdline, "cmdline", FileType::Regular),
        (Entry::Environ, "environ", FileType::Regular),
        (Entry::Comm, "comm", FileType::Regular),
        (Entry::Mounts, "mounts", FileType::Regular),
        (Entry::Limits, "limits", FileType::Regular),
        (Entry::OomScore, "oom_score", FileType::Regular),
        (Entry::OomScoreAdj, "oom_score_adj", FileType::Regular),
        (Entry::Smaps, "smaps", FileType::Regular),
        (Entry::SmapsRollup, "smaps_rollup", FileType::Regular),
        (Entry::Pagemap, "pagemap", FileType::Regular),
        (Entry::Mem, "mem", FileType::Regular),
    ];

    /// Permission bits.
    pub(super) fn mode(self) -> u32 {
        match self {
            Entry::Exe | Entry::Cwd | Entry::Root => 0o777,
            Entry::Fd | Entry::Task => 0o555,
            Entry::OomScoreAdj | Entry::Comm => 0o644,
            Entry::Environ | Entry::Pagemap => 0o400,
            Entry::Mem => 0o600,
            _ => 0o444,
        }
    }

    /// Whether something can be written to it.
    pub(super) fn is_writable(self) -> bool {
        matches!(self, Entry::OomScoreAdj | Entry::Mem | Entry::Comm)
    }
}

pub(super) fn mounts(text: &mut Text) -> fmt::Result {
    text.write_str(
        "/dev/vda / ext4 rw,relatime 0 0\nproc /proc proc rw,relatime 0 0\ndevtmpfs /dev devtmpfs rw,relatime 0 0\n\
         tmpfs /tmp tmpfs rw,relatime 0 0\ntmpfs /dev/shm tmpfs rw,relatime 0 0\n",
    )
}

pub(super) fn limits(process: &Process, text: &mut Text) -> fmt::Result {
    writeln!(
        text,
        "{:<25} {:<20} {:<20} {:<10}",
        "Limit", "Soft Limit", "Hard Limit", "Units"
    )?;
    for (resource, name, unit) in [
        (Resource::Cpu, "Max cpu time", "seconds"),
        (Resource::FileSize, "Max file size", "bytes"),
        (Resource::Data, "Max data size", "bytes"),
        (Resource::Stack, "Max stack size", "bytes"),
        (Resource::Core, "Max core file size", "bytes"),
        (Resource::Processes, "Max processes", "processes"),
        (Resource::Files, "Max open files", "files"),
        (Resource::AddressSpace, "Max address space", "bytes"),
    ] {
        write!(text, "{name:<26}")?;
        let limit = process
            .rlimits
            .get(resource as usize)
            .map_err(|_| fmt::Error)?;
        for value in [limit.soft, limit.hard] {
            if value == INFINITY {
                write!(text, "{:<21}", "unlimited")?;
            } else {
                write!(text, "{value:<21}")?;
            }
        }
        writeln!(text, "{unit:<10}")?;
    }
    Ok(())
}
