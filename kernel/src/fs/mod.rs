//! Files: one tree of names over several file systems, open files, pipes and devices.
//!
//! The root is the ext4 disk, with changes that live in memory ([`ext4`]); `/tmp` and `/dev/shm` are memory ([`tmpfs`]), `/dev` and `/proc` are made by the
//! kernel. [`inode::Inode`] is what they have in common. [`path`] walks the tree, [`file::File`] is an open file, [`table::FileTable`] a
//! process's descriptors.
//!
//! Locks: sleeping ones (the disk, changes of a tmpfs) outside spin locks of rank FILES, of which none is held together with
//! another. No lock is held over access to user memory but a pipe's, with faults turned off.

pub mod console;
pub mod context;
pub mod dev;
pub mod epoll;
pub mod eventfd;
pub mod ext4;
pub mod file;
pub mod fixed;
pub mod generated;
pub mod inode;
pub mod io;
mod listing;
pub mod lock;
#[cfg(all(test, target_os = "none"))]
mod machine_tests;
pub mod null;
pub mod open;
pub mod path;
pub mod permission;
pub mod pidfd;
pub mod pipe;
pub mod poll;
pub mod proc;
pub mod pty;
mod regular;
pub mod ring;
pub mod signalfd;
pub mod socket;
pub mod stream;
pub mod table;
pub mod terminal;
#[cfg(all(test, not(target_os = "none")))]
pub mod testing;
pub mod text;
pub mod timerfd;
pub mod tmpfs;
pub mod userfaultfd;

use alloc::boxed::Box;

use linux_raw_sys::general as abi;
use spin::Once;

pub use context::FsContext;
pub use file::File;
pub use open::open_exec;
pub use table::FileTable;

use crate::config::Config;
use crate::drivers::block;
use crate::drivers::console::Output;
use crate::errno::{Errno, Result};
use crate::mm::frame;
use crate::sched::current;
use inode::{Access, FileSystem, InodeRef};

/// The mounted tree.
struct Tree {
    root: InodeRef,
    /// The terminal, as stdout and as stderr.
    terminal: [InodeRef; 2],
}

static TREE: Once<Tree> = Once::new();

/// Mounts the first disk as root, and everything else below it. Once, at bring-up, from a thread. `EIO`, `EINVAL`, `ENODEV`.
pub fn mount_root() -> Result {
    mount(Box::new(block::Reader))
}

/// The same with the file system that `reader` reads.
pub fn mount(reader: Box<dyn ext4_view::Ext4Read + Send>) -> Result {
    let ext4 = ext4::mount(reader)?;
    let root: InodeRef = ext4.clone();
    let dev = dev::mount(&root)?;
    ext4.mount_on("dev", dev.dir)?;
    ext4.mount_on("proc", proc::mount(&root)?)?;
    ext4.mount_on(
        "tmp",
        tmpfs::TmpFs::mount(FileSystem::Tmp, root.clone(), b"tmp", 0o1777)?,
    )?;
    TREE.call_once(|| Tree {
        root,
        terminal: dev.terminal,
    });
    Ok(())
}

/// Whether the kernel's own memory lasts: user programs can ask for files, pipes and names without end, but must leave enough for
/// what cannot fail. `ENOMEM`.
pub fn check_memory() -> Result {
    if frame::free_frames() > frame::RESERVE / 2 {
        Ok(())
    } else {
        Err(Errno::ENOMEM)
    }
}

fn tree() -> Result<&'static Tree> {
    TREE.get().ok_or(Errno::ENOENT)
}

/// The root directory. `ENOENT` before it is mounted.
pub fn root() -> Result<InodeRef> {
    tree().map(|tree| tree.root.clone())
}

/// Opens descriptors 0, 1 and 2 of the current process, which has none yet: the terminal, /dev/null or pipes, as the configuration says.
pub fn open_standard_files(config: &Config) -> Result {
    let [stdout, stderr] = &tree()?.terminal;
    for (fd, is_terminal) in config.tty.into_iter().enumerate() {
        let output = if fd == 2 {
            Output::Stderr
        } else {
            Output::Stdout
        };
        let is_null = config.null[fd];
        let inode = match (is_terminal, output) {
            (false, _) if is_null => dev::null()?,
            (false, _) => console::pipe(fd as u64 + 1, output)?,
            (true, Output::Stdout) => stdout.clone(),
            (true, Output::Stderr) => stderr.clone(),
        };
        let (access, flags) = match (is_terminal, fd) {
            (true, _) => (
                Access {
                    read: true,
                    write: true,
                },
                abi::O_RDWR | abi::O_LARGEFILE,
            ),
            (false, 0) => (
                Access {
                    read: true,
                    write: false,
                },
                abi::O_RDONLY,
            ),
            (false, _) => (
                Access {
                    read: false,
                    write: true,
                },
                abi::O_WRONLY,
            ),
        };
        // Which every file has that was opened by its name.
        let flags = if is_null {
            flags | abi::O_LARGEFILE
        } else {
            flags
        };
        let opened = inode.open(access, false)?;
        current()
            .files()
            .insert(File::new(inode, opened, flags)?, 0, 1024, false)?;
    }
    if config.tty.contains(&true) {
        terminal::console().give_to(&current().process);
    }
    Ok(())
}
