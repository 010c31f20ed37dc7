//! Seals of files in memory (`fcntl(2)`, `memfd_create(2)`): what can never be done to the file any more.
//!
//! Seals are only ever added. A write that has begun counts as a writer in the file's reverse map, so that none goes on behind
//! F_SEAL_WRITE.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use linux_raw_sys::general as abi;

use super::{Content, Node};
use crate::errno::{Errno, Result};
use crate::fs::inode::FileSystem;
use crate::mm::page_cache::Mapping;
use crate::mm::reverse_map::Writer;

const WRITE: u32 = abi::F_SEAL_WRITE | abi::F_SEAL_FUTURE_WRITE;
const ALL: u32 =
    abi::F_SEAL_SEAL | abi::F_SEAL_SHRINK | abi::F_SEAL_GROW | WRITE | abi::F_SEAL_EXEC;

/// The bits of a mode that F_SEAL_EXEC keeps as they are.
const EXECUTABLE: u32 = 0o111;

/// A file's seals.
pub(super) struct Seals(AtomicU32);

impl Seals {
    /// Those of every file but memfds: none may be added.
    pub(super) fn closed() -> Seals {
        Seals::new(abi::F_SEAL_SEAL)
    }

    pub(super) fn new(seals: u32) -> Seals {
        Seals(AtomicU32::new(seals))
    }

    fn any(&self, seals: u32) -> bool {
        self.0.load(Ordering::Relaxed) & seals != 0
    }

    /// Whether the size may become `new`. `EPERM`.
    pub(super) fn check_size(&self, old: u64, new: u64) -> Result {
        let refused =
            new < old && self.any(abi::F_SEAL_SHRINK) || new > old && self.any(abi::F_SEAL_GROW);
        if refused { Err(Errno::EPERM) } else { Ok(()) }
    }

    /// Whether contents may change. `EPERM`.
    pub(super) fn check_write(&self) -> Result {
        if self.any(WRITE) {
            Err(Errno::EPERM)
        } else {
            Ok(())
        }
    }

    /// Whether the mode may become `new`. `EPERM`.
    pub(super) fn check_mode(&self, old: u32, new: u32) -> Result {
        if (old ^ new) & EXECUTABLE != 0 && self.any(abi::F_SEAL_EXEC) {
            Err(Errno::EPERM)
        } else {
            Ok(())
        }
    }
}

impl Node {
    fn sealable(&self) -> Result<&Arc<Mapping>> {
        match &self.content {
            Content::File(pages) if self.fs.kind != FileSystem::Ext4 => Ok(pages),
            _ => Err(Errno::EINVAL),
        }
    }

    /// F_GET_SEALS. `EINVAL` for files that have none.
    pub fn seals(&self) -> Result<u32> {
        self.sealable()?;
        Ok(self.seals.0.load(Ordering::Relaxed))
    }

    /// F_ADD_SEALS on a file that is open for writing. `EINVAL`, `EPERM`, `EBUSY` if F_SEAL_WRITE finds somebody who can write.
    pub fn add_seals(&self, mut seals: u32) -> Result {
        if seals & !ALL != 0 {
            return Err(Errno::EINVAL);
        }
        let pages = self.sealable()?;
        if self.seals.any(abi::F_SEAL_SEAL) {
            return Err(Errno::EPERM);
        }
        if seals & abi::F_SEAL_EXEC != 0 && self.state.lock().mode & EXECUTABLE != 0 {
            seals |= WRITE | abi::F_SEAL_SHRINK | abi::F_SEAL_GROW;
        }
        if seals & abi::F_SEAL_WRITE != 0 && !self.seals.any(abi::F_SEAL_WRITE) {
            pages.seal()?;
        }
        self.seals.0.fetch_or(seals, Ordering::Relaxed);
        Ok(())
    }

    /// Keeps a file that can be sealed from being sealed against the write that is going on. `EPERM` if it is.
    pub(super) fn begin_write(&self) -> Result<Option<Writer>> {
        self.seals.check_write()?;
        if self.fs.kind != FileSystem::Anonymous {
            return Ok(None);
        }
        Ok(Some(Writer::new(self.sealable()?)?))
    }

    /// Whether a shared mapping with or without the permission to write may be made: `EPERM`, or whether it may ever become writable.
    pub fn may_map_shared(&self, writable: bool) -> Result<bool> {
        match self.seals.check_write() {
            Err(error) if writable => Err(error),
            outcome => Ok(outcome.is_ok()),
        }
    }
}
