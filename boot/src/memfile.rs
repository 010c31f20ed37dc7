//! Files that exist only in memory (memfd_create(2)): they have no name, so nothing is left behind however the
//! process ends. A child that inherits the descriptor opens one as `/proc/self/fd/N`.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use anyhow::{Context, Result};
use rustix::fs::{MemfdFlags, memfd_create};

/// An empty file in memory, closed on exec until [`crate::session`] hands it to a child.
pub fn create(name: &str) -> Result<File> {
    let fd = memfd_create(name, MemfdFlags::CLOEXEC).context("cannot make a file in memory")?;
    Ok(File::from(fd))
}

/// A file in memory that holds `bytes`.
pub fn with_bytes(name: &str, bytes: &[u8]) -> Result<File> {
    let mut file = create(name)?;
    file.write_all(bytes)
        .context("cannot fill a file in memory")?;
    Ok(file)
}

/// The path under which a child that inherited `file` opens it.
pub fn path_in_child(file: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
