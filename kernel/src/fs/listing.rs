//! Listing a directory: `.` and `..` in front of what the file system has.

use super::inode::{DirEntry, EntrySink, FileType, InodeRef, Place};
use crate::errno::{Errno, Result};

/// Hands entries on from `pos`: 0 is `.`, 1 is `..`, and the file system's own follow. `ENOENT` if the directory was removed.
pub fn list(dir: &InodeRef, pos: u64, sink: &mut EntrySink<'_>) -> Result {
    let parent = match dir.place()? {
        Place::In(parent, _) => parent,
        Place::Removed(_) => return Err(Errno::ENOENT),
        Place::Root | Place::Nowhere(_) => dir.clone(),
    };
    if pos == 0 {
        let own = DirEntry {
            name: b".",
            ino: dir.stat().ino,
            file_type: FileType::Directory,
            next: 1,
        };
        if !sink(own) {
            return Ok(());
        }
    }
    if pos <= 1 {
        let above = DirEntry {
            name: b"..",
            ino: parent.stat().ino,
            file_type: FileType::Directory,
            next: 2,
        };
        if !sink(above) {
            return Ok(());
        }
    }
    dir.read_dir(pos.max(2), sink)
}
