//! Whether all memory of processes has come back once there are none: looked at when the machine ends, after every program that it ran.
//!
//! Invariant: without a process there is no private page and no page table, and every page of a file or of shared memory is in the index of
//! its file, which has the only reference to it, or being read. A frame too many, or one too few, is a reference that somebody forgot or gave
//! back twice, and a bug of the kernel.

use super::frame::{FrameKind, references, used_frames};
use super::page_cache::{indexed_pages, reader};
use crate::task::table;

/// Panics if memory is missing. Processes that still have memory are a reason to look at nothing.
pub fn check_all_is_back() {
    if someone_has_memory() {
        return;
    }
    let (private, tables) = (
        used_frames(FrameKind::Anonymous),
        used_frames(FrameKind::PageTable),
    );
    assert!(
        private == 0 && tables == 0,
        "memory leak: no process is left, but {private} private pages and {tables} page tables are"
    );
    let files = used_frames(FrameKind::File) + used_frames(FrameKind::SharedMemory);
    let (indexed, being_read) = (indexed_pages(), reader::being_read());
    assert!(
        (indexed..=indexed + being_read).contains(&files),
        "memory leak: no process is left, and {files} pages of files, but {indexed} in their indexes and {being_read} being read"
    );
    let held = references(FrameKind::File) + references(FrameKind::SharedMemory);
    assert!(
        being_read > 0 || held == files,
        "memory leak: no process is left, but {files} pages of files have {held} references"
    );
}

/// Whether any process has an address space. Only the machine's end has the time to ask all.
fn someone_has_memory() -> bool {
    let mut pid = 0;
    while let Some(process) = table::next_above(pid) {
        if process.mm().is_some() {
            return true;
        }
        pid = process.pid;
    }
    false
}
