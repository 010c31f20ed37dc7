//! What is found of pseudo terminals in /dev: the multiplexer, the slaves in /dev/pts, and the terminal of one's own.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;

use super::Pair;
use super::numbers::{find, next_from};
use crate::errno::{Errno, Result};
use crate::fs::console;
use crate::fs::file::Opened;
use crate::fs::fixed::Node;
use crate::fs::inode::{
    Access, DirEntry, EntrySink, FileSystem, FileType, Inode, InodeRef, Place, Stat,
};
use crate::fs::terminal::{Device, Terminal};
use crate::fs::text::Text;
use crate::sched::current;

/// First inode number in /dev/pts, far from those of /dev.
const INODES: u64 = 1 << 32;
/// Inodes of /dev/pts itself.
const DIRECTORY_INODE: u64 = INODES - 1;

/// /dev/tty: whatever terminal controls the process that opens it.
struct OwnTerminal(Node);

impl Inode for OwnTerminal {
    fn stat(&self) -> Stat {
        self.0.stat
    }

    fn place(&self) -> Result<Place> {
        self.0.place()
    }

    /// `ENXIO` without a controlling terminal.
    fn open(&self, _access: Access, _nonblock: bool) -> Result<Opened> {
        let terminal = current().process.terminal().ok_or(Errno::ENXIO)?;
        match terminal.device {
            Device::Console => console::open_terminal(),
            Device::Pty(number) => find(number).ok_or(Errno::ENXIO)?.open_slave(),
        }
    }
}

/// /dev/tty, 5:0.
pub fn own_terminal(ino: u64, parent: InodeRef) -> Result<InodeRef> {
    let stat = Stat {
        rdev: (5, 0),
        ..Stat::new(FileSystem::Dev, ino, FileType::CharDevice, 0o666)
    };
    Ok(Arc::try_new(OwnTerminal(Node::new(stat, parent, b"tty")?))?)
}

/// /dev/ptmx: opening it makes a pair.
struct Multiplexer(Node);

impl Inode for Multiplexer {
    fn stat(&self) -> Stat {
        self.0.stat
    }

    fn place(&self) -> Result<Place> {
        self.0.place()
    }

    fn open(&self, _access: Access, _nonblock: bool) -> Result<Opened> {
        Pair::new()?.open_master()
    }
}

/// /dev/ptmx, 5:2.
pub fn multiplexer(ino: u64, parent: InodeRef) -> Result<InodeRef> {
    let stat = Stat {
        rdev: (5, 2),
        ..Stat::new(FileSystem::Dev, ino, FileType::CharDevice, 0o666)
    };
    Ok(Arc::try_new(Multiplexer(Node::new(
        stat, parent, b"ptmx",
    )?))?)
}

/// A slave in /dev/pts, 136:N.
struct SlaveInode {
    pair: Arc<Pair>,
    directory: InodeRef,
}

static DIRECTORY: spin::Once<InodeRef> = spin::Once::new();

pub(super) fn slave_inode(pair: Arc<Pair>) -> Result<InodeRef> {
    let directory = DIRECTORY.get().ok_or(Errno::ENOENT)?.clone();
    Ok(Arc::try_new(SlaveInode { pair, directory })?)
}

fn name_of(number: u32) -> Result<Vec<u8>> {
    let mut text = Text::new();
    write!(text, "{number}").map_err(|_| Errno::ENOMEM)?;
    text.finish()
}

impl Inode for SlaveInode {
    fn stat(&self) -> Stat {
        let number = self.pair.number.get();
        Stat {
            rdev: (136 + number / 256, number % 256),
            uid: self.pair.owner,
            gid: 5,
            ..Stat::new(
                FileSystem::Dev,
                INODES + u64::from(number),
                FileType::CharDevice,
                0o620,
            )
        }
    }

    fn place(&self) -> Result<Place> {
        Ok(Place::In(
            self.directory.clone(),
            name_of(self.pair.number.get())?,
        ))
    }

    fn open(&self, _access: Access, _nonblock: bool) -> Result<Opened> {
        self.pair.open_slave()
    }

    fn terminal(&self) -> Option<&Arc<Terminal>> {
        Some(&self.pair.terminal)
    }
}

/// /dev/pts.
struct Slaves(Node);

impl Inode for Slaves {
    fn stat(&self) -> Stat {
        self.0.stat
    }

    fn place(&self) -> Result<Place> {
        self.0.place()
    }

    fn open(&self, _access: Access, _nonblock: bool) -> Result<Opened> {
        Ok(Opened::Directory)
    }

    fn lookup(&self, name: &[u8]) -> Result<InodeRef> {
        let number = core::str::from_utf8(name)
            .ok()
            .filter(|name| !name.starts_with('0') || *name == "0")
            .and_then(|name| name.parse().ok())
            .ok_or(Errno::ENOENT)?;
        slave_inode(find(number).ok_or(Errno::ENOENT)?)
    }

    fn read_dir(&self, pos: u64, sink: &mut EntrySink<'_>) -> Result {
        let mut from = pos.saturating_sub(2) as usize;
        while let Some(n) = next_from(from) {
            from = n + 1;
            let name = name_of(n as u32)?;
            let entry = DirEntry {
                name: &name,
                ino: INODES + n as u64,
                file_type: FileType::CharDevice,
                next: n as u64 + 3,
            };
            if !sink(entry) {
                break;
            }
        }
        Ok(())
    }
}

/// /dev/pts, once.
pub fn directory(parent: InodeRef) -> Result<InodeRef> {
    let stat = Stat::new(FileSystem::Dev, DIRECTORY_INODE, FileType::Directory, 0o755);
    let directory: InodeRef = Arc::try_new(Slaves(Node::new(stat, parent, b"pts")?))?;
    DIRECTORY.call_once(|| directory.clone());
    Ok(directory)
}
