//! The root file system: ext4 on the first disk, by the crate `ext4-view`, below a file system in memory that takes all changes.
//!
//! The disk is never written. What is changed lives in memory as long as the machine runs ([`super::tmpfs::lower`]).
//!
//! The crate's types share counted references that are not for several threads, so all of them live in one sleeping mutex ([`Disk`])
//! and never leave it.
//!
//! Inode numbers are made from paths, as the crate does not tell the real ones; two hard links on the disk are two files here, each with one
//! link. Links that are made here are links.
//!
//! Locks: `disk` (sleeps, is held while the device works), inside `TmpFs::changes`.

mod disk;
#[cfg(all(test, target_os = "none"))]
mod tests;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use ext4_view::Ext4Read;

use super::inode::{FileSystem, Stat};
use super::tmpfs::index::copy_name;
use super::tmpfs::lower::{Listed, Lower};
use super::tmpfs::{Node, TmpFs};
use crate::config;
use crate::errno::{Errno, Result};
use crate::mm::PAGE_SIZE;
use crate::mm::page_cache::Backing;
use crate::sched::{SleepMutex, SleepMutexGuard};
use crate::sync::{SpinLock, rank};
use disk::Disk;

/// A disk with a file system.
struct Ext4Fs(Arc<SleepMutex<Disk>>);

/// Mounts the file system that `reader` reads; returns its root. `EIO`, `EINVAL` if it is none.
pub fn mount(reader: Box<dyn Ext4Read + Send>) -> Result<Arc<Node>> {
    let disk = Arc::try_new(SleepMutex::new(Disk::load(reader)?))?;
    TmpFs::over(FileSystem::Ext4, Arc::try_new(Ext4Fs(disk))?)
}

/// The disk, for one call. The crate takes memory as if there were no end of it, so there must be some. `ENOMEM`.
fn lock(disk: &SleepMutex<Disk>) -> Result<SleepMutexGuard<'_, Disk>> {
    super::check_memory()?;
    Ok(disk.lock())
}

impl Lower for Ext4Fs {
    fn stat(&self, path: &[u8]) -> Result<Stat> {
        lock(&self.0)?.stat(path)
    }

    fn list(&self, path: &[u8]) -> Result<Vec<Listed>> {
        lock(&self.0)?.list(path)
    }

    fn read_link(&self, path: &[u8]) -> Result<Vec<u8>> {
        lock(&self.0)?.read_link(path)
    }

    fn contents(&self, path: &[u8], ino: u64) -> Result<Box<dyn Backing>> {
        let fail = config::get().fail.as_ref().filter(|fail| fail.covers(path));
        let delay_ns = config::get()
            .slow
            .as_ref()
            .filter(|slow| slow.covers(path))
            .map_or(0, |slow| slow.delay_ns);
        Ok(Box::try_new(Contents {
            disk: self.0.clone(),
            path: copy_name(path)?,
            ino,
            delay_ns,
            failures: fail.map(|fail| Failures::new(fail.reads)),
        })?)
    }
}

/// A file's contents on the disk.
struct Contents {
    disk: Arc<SleepMutex<Disk>>,
    path: Box<[u8]>,
    ino: u64,
    delay_ns: u64,
    failures: Option<Failures>,
}

/// Reads that fail on purpose.
struct Failures {
    /// How many of the first reads of each page.
    reads: u32,
    /// How often each page was read. The readers' own.
    done: SpinLock<Vec<u32>>,
}

impl Failures {
    fn new(reads: u32) -> Failures {
        Failures {
            reads,
            done: SpinLock::new(rank::LEAF, Vec::new()),
        }
    }

    /// A page is read. `EIO` if that shall fail.
    fn check(&self, index: u64) -> Result {
        let mut done = self.done.lock();
        let index = index as usize;
        if index >= done.len() {
            let missing = index + 1 - done.len();
            done.try_reserve(missing)?;
            done.resize(index + 1, 0);
        }
        if done[index] < self.reads {
            done[index] += 1;
            return Err(Errno::EIO);
        }
        Ok(())
    }
}

impl Backing for Contents {
    fn read_page(&self, index: u64, page: &mut [u8; PAGE_SIZE]) -> Result {
        if let Some(failures) = &self.failures {
            failures.check(index)?;
        }
        lock(&self.disk)?.read_page(&self.path, self.ino, index, page)
    }

    fn delay_ns(&self) -> u64 {
        self.delay_ns
    }

    fn fails(&self) -> bool {
        self.failures.is_some()
    }
}
