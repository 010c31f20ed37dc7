//! Where a process stands in the file tree: working directory and program file.
//!
//! Lock rank: FILES.

use alloc::sync::Arc;

use super::file::File;
use super::inode::{FileType, InodeRef};
use super::path::Start;
use super::permission::{Subject, Want};
use crate::errno::{Errno, Result};
use crate::sync::{SpinLock, rank};

/// Working directory and program of a process, shared by its threads.
pub struct FsContext(SpinLock<State>);

#[derive(Clone)]
struct State {
    /// `None`: the root.
    cwd: Option<InodeRef>,
    exe: Option<Arc<File>>,
}

impl FsContext {
    /// A context at the root, without a program.
    pub fn new() -> Result<FsContext> {
        Ok(FsContext(SpinLock::new(
            rank::FILES,
            State {
                cwd: None,
                exe: None,
            },
        )))
    }

    /// The same for a child.
    pub fn fork(&self) -> Result<FsContext> {
        let state = self.0.lock().clone();
        Ok(FsContext(SpinLock::new(rank::FILES, state)))
    }

    /// The working directory. `ENOENT` before a root file system is mounted.
    pub fn cwd(&self) -> Result<InodeRef> {
        let cwd = self.0.lock().cwd.clone();
        cwd.map_or_else(super::root, Ok)
    }

    /// `ENOTDIR`, `EACCES`.
    pub fn set_cwd(&self, dir: InodeRef) -> Result {
        if dir.file_type() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        Subject::current().may(&dir, Want::EXEC)?;
        let old = self.0.lock().cwd.replace(dir);
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

    /// The file that the process executes, for /proc/self/exe.
    pub fn exe(&self) -> Option<Arc<File>> {
        self.0.lock().exe.clone()
    }

    /// The process has ended.
    pub fn clear_exe(&self) {
        let old = self.0.lock().exe.take();
        drop(old);
    }

    pub fn set_exe(&self, exe: Arc<File>) {
        let old = self.0.lock().exe.replace(exe);
        drop(old);
    }
}
