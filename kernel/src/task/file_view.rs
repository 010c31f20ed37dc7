//! What a thread sees of files: its descriptors, and where it stands in the tree. Each is an object of its own that threads and processes
//! share or not (`files_struct` and `fs_struct`; CLONE_FILES, CLONE_FS, unshare(2)).
//!
//! A thread reaches its own without a lock ([`OwnCell`]) and is the only one to exchange them. When it ends it gets those of the kernel,
//! which are empty; the last user of the old ones closes what is open.

use alloc::sync::Arc;
use core::ops::Range;

use spin::Once;

use super::Thread;
use super::own_cell::OwnCell;
use crate::errno::Result;
use crate::fs::{FileTable, FsContext};
use crate::sched;

/// A reference to each.
#[derive(Clone)]
pub struct FileView {
    pub files: Arc<FileTable>,
    pub fs: Arc<FsContext>,
}

static OF_KERNEL: Once<FileView> = Once::new();

impl FileView {
    /// No open file, and the root as working directory. `ENOMEM`.
    pub fn new() -> Result<FileView> {
        Ok(FileView {
            files: FileTable::new()?,
            fs: FsContext::new()?,
        })
    }

    /// Those of threads of the kernel and of threads that have ended, which nobody changes. `ENOMEM`, but only the first time.
    pub fn of_kernel() -> Result<FileView> {
        OF_KERNEL.try_call_once(FileView::new).cloned()
    }
}

/// A thread's cells with its references.
pub struct ViewCells {
    files: OwnCell<Arc<FileTable>>,
    fs: OwnCell<Arc<FsContext>>,
}

impl ViewCells {
    pub fn new(view: FileView) -> ViewCells {
        ViewCells {
            files: OwnCell::new(view.files),
            fs: OwnCell::new(view.fs),
        }
    }
}

/// For the thread itself, the current one. A borrow ends before the thread exchanges what it borrowed from, which only unshare(2),
/// close_range(2), execve(2) and its end do, at places where they have none.
impl Thread {
    /// The open files.
    #[inline]
    pub fn files(&self) -> &FileTable {
        self.own_files()
    }

    /// Working directory and umask.
    #[inline]
    pub fn fs(&self) -> &FsContext {
        self.own_fs()
    }

    #[inline]
    fn own_files(&self) -> &Arc<FileTable> {
        self.assert_current();
        // SAFETY: the caller is the thread itself, as just asserted in debug builds; the callers go through `current()`.
        unsafe { self.view.files.own() }
    }

    #[inline]
    fn own_fs(&self) -> &Arc<FsContext> {
        self.assert_current();
        // SAFETY: as in `own_files`.
        unsafe { self.view.fs.own() }
    }

    /// Other open files from now on; the old ones come back.
    pub fn set_files(&self, files: Arc<FileTable>) -> Arc<FileTable> {
        self.assert_current();
        // SAFETY: the caller is the thread itself, and has no borrow, as `impl Thread` promises.
        unsafe { self.view.files.replace(files) }
    }

    fn set_fs(&self, fs: Arc<FsContext>) -> Arc<FsContext> {
        self.assert_current();
        // SAFETY: as in `set_files`.
        unsafe { self.view.fs.replace(fs) }
    }

    #[inline]
    fn assert_current(&self) {
        debug_assert!(core::ptr::eq(self, &*sched::current()));
    }

    /// What a child or a new thread gets: the same, or copies. `ENOMEM`.
    pub(super) fn view_for_child(&self, share_files: bool, share_fs: bool) -> Result<FileView> {
        Ok(FileView {
            files: match share_files {
                true => self.own_files().clone(),
                false => self.files().fork()?,
            },
            fs: match share_fs {
                true => self.own_fs().clone(),
                false => self.fs().fork()?,
            },
        })
    }

    /// A copy of the open files, without those of the descriptors `except`; `None` if nobody else uses them. `ENOMEM`.
    pub fn copy_of_shared_files(&self, except: Range<usize>) -> Result<Option<Arc<FileTable>>> {
        match Arc::strong_count(self.own_files()) {
            1 => Ok(None),
            _ => self.files().fork_except(except).map(Some),
        }
    }

    /// Makes the open files the thread's own, without those of the descriptors `except`. Nothing if they are. `ENOMEM`.
    pub fn unshare_files(&self, except: Range<usize>) -> Result {
        if let Some(copy) = self.copy_of_shared_files(except)? {
            drop(self.set_files(copy));
        }
        Ok(())
    }

    /// Makes working directory and umask the thread's own. Nothing if they are. `ENOMEM`.
    pub fn unshare_fs(&self) -> Result {
        if Arc::strong_count(self.own_fs()) > 1 {
            let copy = self.fs().fork()?;
            drop(self.set_fs(copy));
        }
        Ok(())
    }

    /// The thread ends, and has no files any more.
    pub(super) fn give_up_files(&self) {
        if let Ok(FileView { files, fs }) = FileView::of_kernel() {
            drop(self.set_files(files));
            drop(self.set_fs(fs));
        }
    }

    /// Another thread's open files.
    pub fn files_of_other(&self) -> Arc<FileTable> {
        self.view.files.get()
    }

    /// Another thread's working directory and umask.
    pub fn fs_of_other(&self) -> Arc<FsContext> {
        self.view.fs.get()
    }
}
