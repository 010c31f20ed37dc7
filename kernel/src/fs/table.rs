//! File descriptors: a table of open files that one or more threads use (`files_struct`).
//!
//! A vector of slots with a two-level bitmap of the free ones, so that the lowest free descriptor is found in constant time.
//! Files are closed after the lock is released: closing may take other locks of the same rank. The table's last user closes all.
//!
//! Lock rank: FILES.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use super::file::File;
use super::lock::{self, Owner};
use crate::errno::{Errno, Result};
use crate::ipc::posix_queue;
use crate::sync::{SpinLock, rank};

/// Most descriptors in a table, whatever the limit: the reach of the bitmap.
pub const MAX_FILES: usize = WORDS * 64;

const WORDS: usize = 64;

struct Slot {
    file: Arc<File>,
    close_on_exec: bool,
}

/// Which descriptors are in use.
struct Bitmap {
    /// Bit n: word n has a free bit.
    words_with_free: u64,
    /// Bit set: in use. Words that are missing at the end have none: most tables are small, and copied by each fork.
    used: Vec<u64>,
}

impl Bitmap {
    const fn new() -> Bitmap {
        Bitmap {
            words_with_free: !0,
            used: Vec::new(),
        }
    }

    fn word(&self, word: usize) -> u64 {
        self.used.get(word).copied().unwrap_or(0)
    }

    /// The lowest free descriptor that is `from` or greater.
    fn first_free(&self, from: usize) -> Option<usize> {
        let (word, bit) = (from / 64, from % 64);
        if word >= WORDS {
            return None;
        }
        let here = !self.word(word) & (!0 << bit);
        if here != 0 {
            return Some(word * 64 + here.trailing_zeros() as usize);
        }
        let later = self.words_with_free & (!0u64).checked_shl(word as u32 + 1).unwrap_or(0);
        if later == 0 {
            return None;
        }
        let word = later.trailing_zeros() as usize;
        Some(word * 64 + (!self.word(word)).trailing_zeros() as usize)
    }

    /// Makes sure that `fd` can be set. `ENOMEM`.
    fn reserve(&mut self, fd: usize) -> Result {
        let words = fd / 64 + 1;
        if words > self.used.len() {
            self.used.try_reserve(words - self.used.len())?;
            self.used.resize(words, 0);
        }
        Ok(())
    }

    /// Notes whether `fd`, for which there is room, is in use.
    fn set(&mut self, fd: usize, used: bool) {
        let (word, bit) = (fd / 64, 1u64 << (fd % 64));
        if used {
            self.used[word] |= bit;
        } else {
            self.used[word] &= !bit;
        }
        if self.used[word] == !0 {
            self.words_with_free &= !(1 << word);
        } else {
            self.words_with_free |= 1 << word;
        }
    }

    fn copy(&self) -> Result<Bitmap> {
        let mut used = Vec::new();
        used.try_reserve_exact(self.used.len())?;
        used.extend_from_slice(&self.used);
        Ok(Bitmap { used, ..*self })
    }
}

struct Slots {
    slots: Vec<Option<Slot>>,
    bitmap: Bitmap,
}

/// The descriptors of all who share them: the threads of a process, as a rule.
pub struct FileTable(SpinLock<Slots>);

impl FileTable {
    /// No open file. `ENOMEM`.
    pub fn new() -> Result<Arc<FileTable>> {
        Self::with(Slots {
            slots: Vec::new(),
            bitmap: Bitmap::new(),
        })
    }

    fn with(slots: Slots) -> Result<Arc<FileTable>> {
        let table = FileTable(SpinLock::new(rank::FILES, slots));
        Ok(Arc::try_new(table)?)
    }

    /// Descriptors that there is room for, in steps of 64 as on Linux.
    pub fn size(&self) -> usize {
        self.0.lock().slots.len().next_multiple_of(64).max(64)
    }

    /// The file of a descriptor. `EBADF`.
    pub fn get(&self, fd: i32) -> Result<Arc<File>> {
        let table = self.0.lock();
        let slot = usize::try_from(fd)
            .ok()
            .and_then(|fd| table.slots.get(fd)?.as_ref());
        slot.map(|slot| slot.file.clone()).ok_or(Errno::EBADF)
    }

    /// Gives a file the lowest free descriptor that is `from` or greater and below `limit`. `EMFILE`, `ENOMEM`; `EINVAL` if `from` is not
    /// below the limit.
    pub fn insert(
        &self,
        file: Arc<File>,
        from: u32,
        limit: u64,
        close_on_exec: bool,
    ) -> Result<u32> {
        let limit = (MAX_FILES as u64).min(limit) as usize;
        if from as usize >= limit && from != 0 {
            return Err(Errno::EINVAL);
        }
        let mut table = self.0.lock();
        let fd = table
            .bitmap
            .first_free(from as usize)
            .filter(|&fd| fd < limit)
            .ok_or(Errno::EMFILE)?;
        table.put(
            fd,
            Slot {
                file,
                close_on_exec,
            },
        )?;
        Ok(fd as u32)
    }

    /// Gives a file the descriptor `fd`; what that was before is closed (dup2(2)). `EBADF` if `fd` is not below `limit`.
    pub fn replace(&self, file: Arc<File>, fd: u32, limit: u64, close_on_exec: bool) -> Result {
        if u64::from(fd) >= limit.min(MAX_FILES as u64) {
            return Err(Errno::EBADF);
        }
        let old = self.0.lock().put(
            fd as usize,
            Slot {
                file,
                close_on_exec,
            },
        )?;
        self.closed(old);
        Ok(())
    }

    /// Takes a descriptor out; the file is closed when the caller drops it. `EBADF`.
    pub fn remove(&self, fd: i32) -> Result<Arc<File>> {
        let fd = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        let slot = self.0.lock().take(fd).ok_or(Errno::EBADF)?;
        self.release_locks(&slot.file);
        Ok(slot.file)
    }

    /// As the owner of record locks, which go with the first descriptor of the file that is closed.
    pub fn as_lock_owner(&self) -> Owner {
        Owner::Process(core::ptr::from_ref(self).addr())
    }

    fn release_locks(&self, file: &File) {
        lock::closed_by_process(&file.inode, self.as_lock_owner());
        posix_queue::closed_by_process(file);
    }

    /// Closes what was taken out, with the table's lock released.
    fn closed(&self, slot: Option<Slot>) {
        if let Some(slot) = slot {
            self.release_locks(&slot.file);
        }
    }

    /// close_range(2) without CLOSE_RANGE_CLOEXEC.
    pub fn remove_range(&self, first: u32, last: u32) {
        let end = self.0.lock().slots.len();
        for fd in first as usize..=(last as usize).min(end.saturating_sub(1)) {
            let slot = self.0.lock().take(fd);
            self.closed(slot);
        }
    }

    /// close_range(2) with CLOSE_RANGE_CLOEXEC.
    pub fn set_range_close_on_exec(&self, first: u32, last: u32) {
        let mut table = self.0.lock();
        let slots = table
            .slots
            .iter_mut()
            .skip(first as usize)
            .take((last - first) as usize + 1);
        slots.flatten().for_each(|slot| slot.close_on_exec = true);
    }

    /// FD_CLOEXEC of a descriptor. `EBADF`.
    pub fn close_on_exec_flag(&self, fd: u32) -> Result<bool> {
        let table = self.0.lock();
        let slot = table.slots.get(fd as usize).and_then(Option::as_ref);
        slot.map(|slot| slot.close_on_exec).ok_or(Errno::EBADF)
    }

    pub fn set_close_on_exec_flag(&self, fd: u32, on: bool) -> Result {
        let mut table = self.0.lock();
        let slot = table
            .slots
            .get_mut(fd as usize)
            .and_then(Option::as_mut)
            .ok_or(Errno::EBADF)?;
        slot.close_on_exec = on;
        Ok(())
    }

    /// The first descriptor in use that is `from` or greater.
    pub fn next_in_use(&self, from: u32) -> Option<u32> {
        let table = self.0.lock();
        let found = table
            .slots
            .iter()
            .skip(from as usize)
            .position(Option::is_some)?;
        Some(from + found as u32)
    }

    /// A copy that refers to the same open files. `ENOMEM`.
    pub fn fork(&self) -> Result<Arc<FileTable>> {
        let table = self.0.lock();
        let mut slots = Vec::new();
        slots.try_reserve_exact(table.slots.len())?;
        let copy = |slot: &Slot| Slot {
            file: slot.file.clone(),
            close_on_exec: slot.close_on_exec,
        };
        slots.extend(table.slots.iter().map(|slot| slot.as_ref().map(copy)));
        let bitmap = table.bitmap.copy()?;
        drop(table);
        Self::with(Slots { slots, bitmap })
    }

    /// The same without the descriptors in `except`. `ENOMEM`.
    pub fn fork_except(&self, except: Range<usize>) -> Result<Arc<FileTable>> {
        let copy = self.fork()?;
        let end = copy.0.lock().slots.len();
        for fd in except.start..except.end.min(end) {
            // It may be the last reference: not under the lock.
            let file = copy.0.lock().take(fd);
            drop(file);
        }
        Ok(copy)
    }

    /// Closes what exec shall close.
    pub fn close_on_exec(&self) {
        self.close_where(|slot| slot.close_on_exec);
    }

    fn close_where(&self, closing: impl Fn(&Slot) -> bool) {
        let end = self.0.lock().slots.len();
        for fd in 0..end {
            let mut table = self.0.lock();
            let slot = match table.slots.get(fd) {
                Some(Some(slot)) if closing(slot) => table.take(fd),
                _ => None,
            };
            drop(table);
            self.closed(slot);
        }
    }
}

impl Drop for FileTable {
    fn drop(&mut self) {
        self.close_where(|_| true);
    }
}

impl Slots {
    fn put(&mut self, fd: usize, slot: Slot) -> Result<Option<Slot>> {
        if fd >= self.slots.len() {
            self.slots.try_reserve(fd + 1 - self.slots.len())?;
            self.slots.resize_with(fd + 1, || None);
        }
        self.bitmap.reserve(fd)?;
        self.bitmap.set(fd, true);
        Ok(self.slots[fd].replace(slot))
    }

    fn take(&mut self, fd: usize) -> Option<Slot> {
        let slot = self.slots.get_mut(fd)?.take()?;
        self.bitmap.set(fd, false);
        Some(slot)
    }
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;
    use crate::arch::sim::machine::run_test;
    use crate::fs::{file::Opened, null};

    fn file() -> Arc<File> {
        File::new(null::inode().unwrap(), Opened::Directory, 0).unwrap()
    }

    fn insert(table: &FileTable, from: u32) -> Result<u32> {
        table.insert(file(), from, 1024, false)
    }

    #[test]
    fn lowest_free_descriptor() {
        run_test(|| {
            let table = FileTable::new().unwrap();
            for expected in 0..130 {
                assert_eq!(insert(&table, 0), Ok(expected));
            }
            for fd in [5, 64, 129] {
                drop(table.remove(fd).unwrap());
            }
            assert_eq!(insert(&table, 0), Ok(5));
            assert_eq!(insert(&table, 10), Ok(64));
            assert_eq!(insert(&table, 500), Ok(500));
            assert_eq!(insert(&table, 0), Ok(129));
            assert_eq!(insert(&table, 0), Ok(130));
        });
    }

    #[test]
    fn limits() {
        run_test(|| {
            let table = FileTable::new().unwrap();
            assert_eq!(table.insert(file(), 0, 2, false), Ok(0));
            assert_eq!(table.insert(file(), 0, 2, false), Ok(1));
            assert_eq!(table.insert(file(), 0, 2, false), Err(Errno::EMFILE));
            assert_eq!(table.insert(file(), 2, 2, false), Err(Errno::EINVAL));
            assert_eq!(table.replace(file(), 2, 2, false), Err(Errno::EBADF));
            let (full, one) = (FileTable::new().unwrap(), file());
            for _ in 0..MAX_FILES {
                full.insert(one.clone(), 0, u64::MAX, false).unwrap();
            }
            assert_eq!(full.insert(file(), 0, u64::MAX, false), Err(Errno::EMFILE));
            full.remove(MAX_FILES as i32 - 1).unwrap();
            assert_eq!(
                full.insert(file(), 3, u64::MAX, false),
                Ok(MAX_FILES as u32 - 1)
            );
        });
    }

    #[test]
    fn close_on_exec_and_fork() {
        run_test(|| {
            let table = FileTable::new().unwrap();
            insert(&table, 0).unwrap();
            table.insert(file(), 0, 1024, true).unwrap();
            let child = table.fork().unwrap();
            assert!(Arc::ptr_eq(&child.get(1).unwrap(), &table.get(1).unwrap()));
            child.close_on_exec();
            assert_eq!(child.get(1).map(|_| ()), Err(Errno::EBADF));
            assert!(table.close_on_exec_flag(1).unwrap());
            assert_eq!(insert(&child, 0), Ok(1));
            table.remove_range(0, u32::MAX);
            assert_eq!(table.next_in_use(0), None);
            assert_eq!(child.next_in_use(1), Some(1));
            insert(&child, 0).unwrap();
            let part = child.fork_except(1..usize::MAX).unwrap();
            assert_eq!((part.next_in_use(0), part.next_in_use(1)), (Some(0), None));
            let last = child.get(1).unwrap();
            assert_eq!(Arc::strong_count(&last), 2);
            drop(child);
            assert_eq!(Arc::strong_count(&last), 1);
        });
    }
}
