//! /dev: null, zero, full, random, urandom, tty, ptmx, pts, console, userfaultfd, links to the standard files, and shm.

use alloc::sync::Arc;
use core::fmt::Write;

use spin::Once;

use super::console;
use super::fixed::{Directory, Link, ino_below};
use super::inode::{FileSystem, FileType, InodeRef};
use super::null::{self, Device};
use super::pty;
use super::text::Maker;
use super::tmpfs::TmpFs;
use super::userfaultfd;
use crate::drivers::console::Output;
use crate::errno::{Errno, Result};

const ROOT: u64 = 1;

static DIRECTORY: Once<Arc<Directory>> = Once::new();

/// The device of these numbers. `ENXIO` if there is none.
pub fn find(file_type: FileType, device: (u32, u32)) -> Result<InodeRef> {
    let is_it = |inode: &InodeRef| inode.file_type() == file_type && inode.stat().rdev == device;
    let directory = DIRECTORY.get().ok_or(Errno::ENXIO)?;
    directory.find(is_it).ok_or(Errno::ENXIO)
}

/// /dev/null.
pub fn null() -> Result<InodeRef> {
    find(FileType::CharDevice, (1, 3))
}

/// What [`mount`] made.
pub struct Dev {
    pub dir: Arc<Directory>,
    /// The first program's terminal, for each of its outputs.
    pub terminal: [InodeRef; 2],
}

/// Builds the directory.
pub fn mount(root: &InodeRef) -> Result<Dev> {
    let dir = Directory::new(FileSystem::Dev, ROOT, 0o755, root.clone(), b"dev")?;
    let parent: InodeRef = dir.clone();
    let mut next = 0;
    let mut ino = || {
        next += 1;
        ino_below(ROOT, next)
    };
    for device in Device::ALL {
        dir.add(device.name(), null::device(device, ino(), parent.clone())?)?;
    }
    let tty = pty::own_terminal(ino(), parent.clone())?;
    let stdout = console::terminal("console", 1, ino(), parent.clone(), Output::Stdout)?;
    let stderr = console::terminal(
        "console",
        1,
        stdout.stat().ino,
        parent.clone(),
        Output::Stderr,
    )?;
    dir.add("tty", tty)?;
    dir.add("ptmx", pty::multiplexer(ino(), parent.clone())?)?;
    dir.add("pts", pty::directory(parent.clone())?)?;
    dir.add("console", stdout.clone())?;
    dir.add("userfaultfd", userfaultfd::device(ino(), parent.clone())?)?;
    let links: [(&'static str, Maker); 4] = [
        ("fd", |text| text.write_str("/proc/self/fd")),
        ("stdin", |text| text.write_str("/proc/self/fd/0")),
        ("stdout", |text| text.write_str("/proc/self/fd/1")),
        ("stderr", |text| text.write_str("/proc/self/fd/2")),
    ];
    for (name, target) in links {
        dir.add(
            name,
            Link::new(
                FileSystem::Dev,
                ino(),
                parent.clone(),
                name.as_bytes(),
                target,
            )?,
        )?;
    }
    dir.add(
        "shm",
        TmpFs::mount(FileSystem::Shm, parent, b"shm", 0o1777)?,
    )?;
    DIRECTORY.call_once(|| dir.clone());
    Ok(Dev {
        dir,
        terminal: [stdout, stderr],
    })
}
