//! Listing a directory: `.` and `..` in front of what the file system has.

use super::inode::{DirEntry, EntrySink, FileType, InodeRef};
use super::path;
use crate::errno::Result;

/// Hands entries on from `pos`: 0 is `.`, 1 is `..`, and the file system's own follow.
pub fn list(dir: &InodeRef, pos: u64, sink: &mut EntrySink<'_>) -> Result {
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
        let parent = path::parent_of(dir).unwrap_or_else(|_| dir.clone());
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
