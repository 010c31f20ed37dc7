//! /proc: what programs ask the kernel about itself and about processes (`proc(5)`), as far as there are real figures.
//!
//! Texts are made when a file is read. `/proc/PID` exists for every process in the table; what needs the process's own memory
//! (cmdline, environ, auxv) is empty for others than the reader.

mod descriptor;
mod entry;
mod ipc;
mod maps;
mod memory;
mod process;
mod status;
mod subject;
mod system;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use super::file::Opened;
use super::fixed::{self, Directory, Link, TextFile, ino_below};
use super::inode::{
    Access, DirEntry, EntrySink, FileSystem, FileType, Inode, InodeRef, Place, Stat,
};
use super::text::{Maker, Text};
use crate::errno::{Errno, Result};
use crate::ipc::settings::{KERNEL, MESSAGE_QUEUES};
use crate::sched::current;
use crate::task::table;
use process::ProcessDir;

pub use memory::open_space;
pub use system::{HOSTNAME, OSTYPE, RELEASE, VERSION};

const ROOT: u64 = 1;
/// Positions of processes in a listing of /proc come after the fixed entries.
const FIRST_PROCESS: u64 = 1 << 16;

/// The directory /proc: fixed entries and one for each process.
struct Root {
    node: fixed::Node,
    /// The fixed entries, whose parent is the real root of /proc.
    fixed: Arc<Directory>,
}

/// Builds the directory.
pub fn mount(parent: &InodeRef) -> Result<InodeRef> {
    let fixed = Directory::new(FileSystem::Proc, ROOT, 0o555, parent.clone(), b"proc")?;
    let above: InodeRef = fixed.clone();
    let mut next = 0;
    for (name, text) in system::FILES {
        next += 1;
        fixed.add(
            name,
            TextFile::new(
                FileSystem::Proc,
                ino_below(ROOT, next),
                above.clone(),
                name.as_bytes(),
                *text,
            )?,
        )?;
    }
    let links: [(&'static str, Maker); 3] = [
        ("self", |text| write!(text, "{}", current().process.pid)),
        ("thread-self", |text| {
            write!(text, "{0}/task/{1}", current().process.pid, current().tid())
        }),
        ("mounts", |text| text.write_str("self/mounts")),
    ];
    for (name, target) in links {
        next += 1;
        fixed.add(
            name,
            Link::new(
                FileSystem::Proc,
                ino_below(ROOT, next),
                above.clone(),
                name.as_bytes(),
                target,
            )?,
        )?;
    }
    fixed.add("sys", sys(above.clone(), ino_below(ROOT, next + 1))?)?;
    fixed.add("sysvipc", ipc::directory(above, ino_below(ROOT, next + 2))?)?;
    let node = fixed::Node::new(
        Stat::new(FileSystem::Proc, ROOT, FileType::Directory, 0o555),
        parent.clone(),
        b"proc",
    )?;
    Ok(Arc::try_new(Root { node, fixed })?)
}

/// /proc/sys: `kernel/...`, `vm/...`, `fs/...`.
fn sys(proc: InodeRef, ino: u64) -> Result<InodeRef> {
    let sys = Directory::new(FileSystem::Proc, ino, 0o555, proc, b"sys")?;
    let mut n = 0;
    for (name, files) in system::SYS {
        n += 1;
        let ino = ino_below(ino, n);
        let dir = Directory::new(FileSystem::Proc, ino, 0o555, sys.clone(), name.as_bytes())?;
        for (n, (name, text)) in files.iter().enumerate() {
            let ino = ino_below(ino, n as u64);
            dir.add(
                name,
                TextFile::new(FileSystem::Proc, ino, dir.clone(), name.as_bytes(), *text)?,
            )?;
        }
        if *name == "kernel" {
            let ino = ino_below(ino, files.len() as u64);
            ipc::add_settings(&dir, ino, KERNEL)?;
            let random = Directory::new(FileSystem::Proc, ino, 0o555, dir.clone(), b"random")?;
            for (n, (name, text)) in system::RANDOM.iter().enumerate() {
                let ino = ino_below(ino, n as u64);
                random.add(
                    name,
                    TextFile::new(
                        FileSystem::Proc,
                        ino,
                        random.clone(),
                        name.as_bytes(),
                        *text,
                    )?,
                )?;
            }
            dir.add("random", random)?;
        }
        if *name == "fs" {
            let ino = ino_below(ino, files.len() as u64);
            let queues = Directory::new(FileSystem::Proc, ino, 0o555, dir.clone(), b"mqueue")?;
            ipc::add_settings(&queues, ino, MESSAGE_QUEUES)?;
            dir.add("mqueue", queues)?;
        }
        sys.add(name, dir)?;
    }
    Ok(sys)
}

impl Inode for Root {
    fn stat(&self) -> Stat {
        self.node.stat
    }

    fn place(&self) -> Result<Place> {
        self.node.place()
    }

    fn open(&self, _access: Access, _nonblock: bool) -> Result<Opened> {
        Ok(Opened::Directory)
    }

    fn lookup(&self, name: &[u8]) -> Result<InodeRef> {
        match parse_number(name) {
            Some(pid) => {
                let process = table::find(pid).ok_or(Errno::ENOENT)?;
                Ok(Arc::try_new(ProcessDir::new(process, self.fixed.clone()))?)
            }
            None => self.fixed.lookup(name),
        }
    }

    fn read_dir(&self, pos: u64, sink: &mut EntrySink<'_>) -> Result {
        if pos < FIRST_PROCESS {
            let mut full = false;
            self.fixed.read_dir(pos, &mut |entry| {
                full = !sink(entry);
                !full
            })?;
            if full {
                return Ok(());
            }
        }
        let mut above = pos.saturating_sub(FIRST_PROCESS).min(u64::from(u32::MAX)) as u32;
        while let Some(process) = table::next_above(above) {
            above = process.pid;
            let mut name = Text::new();
            write!(name, "{above}").map_err(|_| Errno::ENOMEM)?;
            let entry = DirEntry {
                name: &name.into_bytes(),
                ino: process::ino_of(above),
                file_type: FileType::Directory,
                next: FIRST_PROCESS + u64::from(above),
            };
            if !sink(entry) {
                break;
            }
        }
        Ok(())
    }
}

/// A decimal number without leading zeros.
fn parse_number(name: &[u8]) -> Option<u32> {
    if name.len() > 1 && name[0] == b'0' || name[0] == b'+' {
        return None;
    }
    core::str::from_utf8(name).ok()?.parse().ok()
}

/// A finished text.
fn finished(text: Text, outcome: fmt::Result) -> Result<Vec<u8>> {
    outcome.map_err(|_| Errno::ENOMEM)?;
    text.finish()
}
