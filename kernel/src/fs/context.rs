//! Where a thread stands in the file tree, and the umask (`fs_struct`).
//!
//! Lock rank: FILES.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use super::inode::{FileType, InodeRef};
use super::path::Start;
use super::permission::{Subject, Want};
use crate::errno::{Errno, Result};
use crate::sync::{SpinLock, rank};

/// Working directory and umask of all who share them: the threads of a process, as a rule.
pub struct FsContext {
    /// `None`: the root.
    cwd: SpinLock<Option<InodeRef>>,
    umask: AtomicU32,
}

impl FsContext {
    /// A context at the root. `ENOMEM`.
    pub fn new() -> Result<Arc<FsContext>> {
        Self::with(None, 0o022)
    }

    fn with(cwd: Option<InodeRef>, umask: u32) -> Result<Arc<FsContext>> {
        Ok(Arc::try_new(FsContext {
            cwd: SpinLock::new(rank::FILES, cwd),
            umask: AtomicU32::new(umask),
        })?)
    }

    /// A copy, for a child. `ENOMEM`.
    pub fn fork(&self) -> Result<Arc<FsContext>> {
        let cwd = self.cwd.lock().clone();
        Self::with(cwd, self.umask())
    }

    /// Permission bits that new files do not get.
    pub fn umask(&self) -> u32 {
        self.umask.load(Ordering::Relaxed)
    }

    /// umask(2); the old one comes back.
    pub fn set_umask(&self, mask: u32) -> u32 {
        self.umask.swap(mask & 0o777, Ordering::Relaxed)
    }

    /// The working directory. `ENOENT` before a root file system is mounted.
    pub fn cwd(&self) -> Result<InodeRef> {
        let cwd = self.cwd.lock().clone();
        cwd.map_or_else(super::root, Ok)
    }

    /// `ENOTDIR`, `EACCES`.
    pub fn set_cwd(&self, dir: InodeRef) -> Result {
        if dir.file_type() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        Subject::current().may(&dir, Want::EXEC)?;
        let old = self.cwd.lock().replace(dir);
        drop(old);
        Ok(())
    }

    /// chdir(2). `ENOENT`, `ENOTDIR`, ...
    pub fn change_directory(&self, path: &[u8]) -> Result {
        self.set_cwd(super::path::resolve(&self.start()?, path, true)?)
    }

    /// Where path resolution starts.
    pub fn start(&self) -> Result<Start> {
        Ok(Start {
            root: super::root()?,
            at: self.cwd()?,
            subject: Subject::current(),
        })
    }
}
