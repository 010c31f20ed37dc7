//! Open files: what open(2) makes and file descriptors, after dup and fork several of them, refer to.
//!
//! The position is taken and moved on in one step before the bytes are copied, and moved back by what could not be copied: two readers
//! of one open file never get the same bytes, and no lock is held over user memory.
//!
//! Lock rank: FILES (the position).

mod opened;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use linux_raw_sys::general as abi;

use super::epoll::FileItems;
use super::inode::{Access, EntrySink, FileType, InodeRef};
use super::io::{Dst, Src};
use super::lock::{self, Owner};
use super::poll::PollQueue;
use super::stream::{PollEvents, Stream};
use super::tmpfs::usage::Usage;
use super::{path, regular, tmpfs};
use crate::errno::{Errno, Result};
use crate::mm::page_cache::Mapping;
use crate::mm::vma::MappedFile;
use crate::sync::{SpinLock, rank};
use opened::OpenFile;
pub use opened::{Opened, Positioned, max_open_files};

/// Status flags that fcntl(F_SETFL) can change.
const CHANGEABLE: u32 =
    abi::O_APPEND | abi::O_NONBLOCK | abi::FASYNC | abi::O_DIRECT | abi::O_NOATIME;

/// Flags that F_GETFL shows: those that do not end with the opening.
const SHOWN: u32 = abi::O_ACCMODE
    | CHANGEABLE
    | abi::O_LARGEFILE
    | abi::O_DSYNC
    | abi::O_SYNC
    | abi::O_DIRECTORY
    | abi::O_NOFOLLOW;

/// The same for files that are only places.
const PATH_FLAGS: u32 = abi::O_PATH | abi::O_DIRECTORY | abi::O_NOFOLLOW;

/// An open file description.
pub struct File {
    pub inode: InodeRef,
    opened: Opened,
    access: Access,
    flags: AtomicU32,
    /// Bytes, or a directory's position.
    position: SpinLock<u64>,
    /// The items of epoll instances that watch it.
    pub(super) epoll_items: FileItems,
    /// Whether it has had locks of its own.
    locked: AtomicBool,
    _usage: Option<Usage>,
    _count: OpenFile,
}

impl File {
    /// `flags`: those of open(2), as far as they matter afterwards.
    pub fn new(inode: InodeRef, opened: Opened, flags: u32) -> Result<Arc<File>> {
        File::with_usage(inode, opened, flags, None)
    }

    /// The same with what it keeps others from doing.
    pub fn with_usage(
        inode: InodeRef,
        opened: Opened,
        flags: u32,
        usage: Option<Usage>,
    ) -> Result<Arc<File>> {
        super::check_memory()?;
        let count = OpenFile::new()?;
        let access = access_of(flags);
        let flags = if flags & abi::O_PATH != 0 {
            flags & PATH_FLAGS
        } else {
            flags & SHOWN
        };
        let position = SpinLock::new(rank::FILES, 0);
        Ok(Arc::try_new(File {
            inode,
            opened,
            access,
            flags: AtomicU32::new(flags),
            position,
            epoll_items: FileItems::new(),
            locked: AtomicBool::new(false),
            _usage: usage,
            _count: count,
        })?)
    }

    /// Whether the file was opened for reading.
    pub fn readable(&self) -> bool {
        self.access.read
    }

    /// Whether the file was opened for writing.
    pub fn writable(&self) -> bool {
        self.access.write
    }

    pub fn is_path_only(&self) -> bool {
        matches!(self.opened, Opened::Path)
    }

    /// The flags as F_GETFL shows them.
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// F_SETFL.
    pub fn set_flags(&self, flags: u32) {
        let fixed = self.flags() & !CHANGEABLE;
        self.flags
            .store(fixed | flags & CHANGEABLE, Ordering::Relaxed);
    }

    /// FIONBIO.
    pub fn set_nonblock(&self, on: bool) {
        if on {
            self.flags.fetch_or(abi::O_NONBLOCK, Ordering::Relaxed);
        } else {
            self.flags.fetch_and(!abi::O_NONBLOCK, Ordering::Relaxed);
        }
    }

    fn nonblock(&self) -> bool {
        self.flags() & abi::O_NONBLOCK != 0
    }

    /// A regular file's pages, for mmap(2) and exec. `None`: cannot be mapped.
    pub fn mapping(&self) -> Option<Arc<Mapping>> {
        match &self.opened {
            Opened::Regular(pages, _) => Some(pages.clone()),
            _ => None,
        }
    }

    pub fn stream(&self) -> Option<&dyn Stream> {
        match &self.opened {
            Opened::Stream(stream) => Some(&**stream),
            _ => None,
        }
    }

    pub fn positioned(&self) -> Option<&dyn Positioned> {
        match &self.opened {
            Opened::Positioned(contents) => Some(&**contents),
            _ => None,
        }
    }

    /// The path by which the file is found now.
    pub fn path(&self) -> Result<Vec<u8>> {
        path::path_of(&self.inode)
    }

    /// read(2) at the file's position.
    #[inline]
    pub fn read(&self, dst: &mut Dst<'_>) -> Result<usize> {
        self.check_readable()?;
        match &self.opened {
            Opened::Stream(stream) => stream.read(dst, self.nonblock()),
            _ => self.read_by_position(dst),
        }
    }

    #[inline(never)]
    fn read_by_position(&self, dst: &mut Dst<'_>) -> Result<usize> {
        match &self.opened {
            Opened::Stream(stream) => stream.read(dst, self.nonblock()),
            Opened::Regular(pages, _) => {
                self.accessed(dst);
                self.advancing(dst, pages.size(), |at, dst| regular::read(pages, at, dst))
            }
            Opened::Positioned(bytes) => {
                self.advancing(dst, u64::MAX, |at, dst| bytes.read_at(at, dst))
            }
            Opened::Directory => Err(Errno::EISDIR),
            Opened::Path => Err(Errno::EBADF),
        }
    }

    /// Whether a stream takes pread(2) and pwrite(2), whose offset it does not heed: a device does, which was opened by its name.
    fn takes_offset(&self, stream: &dyn Stream) -> bool {
        stream.seekable() && self.flags() & abi::O_LARGEFILE != 0
    }

    /// pread(2).
    pub fn read_at(&self, offset: u64, dst: &mut Dst<'_>) -> Result<usize> {
        self.check_readable()?;
        match &self.opened {
            Opened::Stream(stream) if self.takes_offset(&**stream) => {
                stream.read(dst, self.nonblock())
            }
            Opened::Stream(_) => Err(Errno::ESPIPE),
            Opened::Regular(pages, _) => {
                self.accessed(dst);
                dst.limit(pages.size().saturating_sub(offset).min(usize::MAX as u64) as usize);
                regular::read(pages, offset, dst)
            }
            Opened::Positioned(bytes) => bytes.read_at(offset, dst),
            Opened::Directory => Err(Errno::EISDIR),
            Opened::Path => Err(Errno::EBADF),
        }
    }

    /// Notes that a regular file is read, unless for nothing.
    fn accessed(&self, dst: &Dst<'_>) {
        if dst.left() > 0 && self.flags() & abi::O_NOATIME == 0 {
            self.inode.accessed();
        }
    }

    /// The file in memory behind a regular file.
    pub fn node(&self) -> Option<&Arc<tmpfs::Node>> {
        match &self.opened {
            Opened::Regular(_, node) => node.as_ref(),
            _ => None,
        }
    }

    fn check_readable(&self) -> Result {
        if self.readable() {
            Ok(())
        } else {
            Err(Errno::EBADF)
        }
    }

    /// Reads at the position, which is moved on first and corrected afterwards.
    fn advancing(
        &self,
        dst: &mut Dst<'_>,
        size: u64,
        read: impl FnOnce(u64, &mut Dst<'_>) -> Result<usize>,
    ) -> Result<usize> {
        let mut position = self.position.lock();
        let start = *position;
        let len = size.saturating_sub(start).min(dst.left() as u64);
        *position = start + len;
        drop(position);
        dst.limit(len as usize);
        let outcome = read(start, dst);
        self.correct(start, len, *outcome.as_ref().unwrap_or(&0) as u64);
        outcome
    }

    /// Moves the position back to what was really done, unless somebody else has moved it meanwhile.
    fn correct(&self, start: u64, planned: u64, done: u64) {
        if done < planned {
            let mut position = self.position.lock();
            if *position == start + planned {
                *position = start + done;
            }
        }
    }

    /// write(2) at the file's position, or at the end with O_APPEND.
    #[inline]
    pub fn write(&self, src: &mut Src<'_>) -> Result<usize> {
        self.check_writable()?;
        match &self.opened {
            Opened::Stream(stream) => stream.write(src, self.nonblock()),
            _ => self.write_by_position(src),
        }
    }

    #[inline(never)]
    fn write_by_position(&self, src: &mut Src<'_>) -> Result<usize> {
        match &self.opened {
            Opened::Stream(stream) => stream.write(src, self.nonblock()),
            Opened::Regular(_, Some(node)) if self.flags() & abi::O_APPEND != 0 => {
                let (start, done) = node.append(src)?;
                *self.position.lock() = start + done as u64;
                Ok(done)
            }
            Opened::Regular(_, Some(node)) => {
                let mut position = self.position.lock();
                let start = *position;
                let len = (src.left() as u64).min(tmpfs::MAX_FILE_SIZE.saturating_sub(start));
                *position = start + len;
                drop(position);
                let outcome = node.write_at(start, src);
                self.correct(start, len, *outcome.as_ref().unwrap_or(&0) as u64);
                outcome
            }
            Opened::Positioned(bytes) => {
                let start = *self.position.lock();
                let done = bytes.write_at(start, src)?;
                *self.position.lock() = start + done as u64;
                Ok(done)
            }
            Opened::Regular(_, None) => Err(Errno::EINVAL),
            Opened::Directory => Err(Errno::EISDIR),
            Opened::Path => Err(Errno::EBADF),
        }
    }

    /// pwrite(2). As on Linux, O_APPEND wins over the offset.
    pub fn write_at(&self, offset: u64, src: &mut Src<'_>) -> Result<usize> {
        self.check_writable()?;
        match &self.opened {
            Opened::Stream(stream) if self.takes_offset(&**stream) => {
                stream.write(src, self.nonblock())
            }
            Opened::Stream(_) => Err(Errno::ESPIPE),
            Opened::Regular(_, Some(node)) if self.flags() & abi::O_APPEND != 0 => {
                Ok(node.append(src)?.1)
            }
            Opened::Regular(_, Some(node)) => node.write_at(offset, src),
            Opened::Positioned(bytes) => bytes.write_at(offset, src),
            Opened::Regular(_, None) => Err(Errno::EINVAL),
            Opened::Directory => Err(Errno::EISDIR),
            Opened::Path => Err(Errno::EBADF),
        }
    }

    fn check_writable(&self) -> Result {
        if self.writable() {
            Ok(())
        } else {
            Err(Errno::EBADF)
        }
    }

    /// Where the next read or write begins.
    pub fn position(&self) -> u64 {
        *self.position.lock()
    }

    /// lseek(2). `ESPIPE`, `EINVAL`, `ENXIO`.
    pub fn seek(&self, offset: i64, whence: u32) -> Result<u64> {
        let size = match &self.opened {
            Opened::Regular(pages, _) => pages.size(),
            Opened::Positioned(_) if whence > abi::SEEK_CUR => return Err(Errno::EINVAL),
            Opened::Positioned(_) => 0,
            Opened::Directory => i64::MAX as u64,
            Opened::Stream(stream) if stream.seekable() => return Ok(0),
            Opened::Stream(_) => return Err(Errno::ESPIPE),
            Opened::Path => return Err(Errno::EBADF),
        };
        let mut position = self.position.lock();
        let base = match whence {
            abi::SEEK_SET => 0,
            abi::SEEK_CUR => *position,
            abi::SEEK_END => size,
            abi::SEEK_DATA | abi::SEEK_HOLE => {
                let at = u64::try_from(offset)
                    .ok()
                    .filter(|&at| at < size)
                    .ok_or(Errno::ENXIO)?;
                drop(position);
                let found = self.seek_content(at, whence == abi::SEEK_DATA, size)?;
                *self.position.lock() = found;
                return Ok(found);
            }
            _ => return Err(Errno::EINVAL),
        };
        let target = i64::try_from(base)
            .ok()
            .and_then(|base| base.checked_add(offset))
            .ok_or(Errno::EOVERFLOW)?;
        *position = u64::try_from(target).map_err(|_| Errno::EINVAL)?;
        Ok(*position)
    }

    /// SEEK_DATA and SEEK_HOLE. What is not a regular file has no holes; there is one at the end of every file.
    fn seek_content(&self, at: u64, data: bool, size: u64) -> Result<u64> {
        let found = match &self.opened {
            Opened::Regular(pages, _) => pages.seek(at, data, size),
            _ => data.then_some(at),
        };
        match found {
            Some(found) => Ok(found),
            None if data => Err(Errno::ENXIO),
            None => Ok(size),
        }
    }

    /// Hands the directory's entries on from the file's position. The position moves behind the last one that was taken.
    pub fn read_dir(&self, sink: &mut EntrySink<'_>) -> Result {
        if !matches!(self.opened, Opened::Directory) {
            return Err(Errno::ENOTDIR);
        }
        let start = *self.position.lock();
        let mut reached = start;
        let outcome = super::listing::list(&self.inode, start, &mut |entry| {
            let next = entry.next;
            let taken = sink(entry);
            if taken {
                reached = next;
            }
            taken
        });
        *self.position.lock() = reached;
        outcome
    }

    pub fn poll(&self) -> PollEvents {
        match &self.opened {
            Opened::Stream(stream) => stream.poll_as(self.nonblock()),
            Opened::Positioned(contents) => contents.poll(),
            Opened::Path => PollEvents::NVAL,
            _ => PollEvents::READABLE | PollEvents::WRITABLE,
        }
    }

    /// Those who want to be told when the file becomes ready. `None`: it always is, and cannot be watched with epoll(7).
    pub fn poll_queue(&self) -> Option<&PollQueue> {
        match &self.opened {
            Opened::Stream(stream) => stream.poll_queue(),
            Opened::Positioned(contents) => Some(contents.poll_queue()),
            Opened::Regular(..) | Opened::Directory | Opened::Path => None,
        }
    }

    /// Bytes between the position and the end, for FIONREAD on regular files.
    pub fn bytes_left(&self) -> Option<u64> {
        match &self.opened {
            Opened::Regular(pages, _) => Some(pages.size().saturating_sub(*self.position.lock())),
            _ => None,
        }
    }

    /// Sets a regular file's size. `EINVAL` unless it is open for writing.
    pub fn truncate(&self, size: u64) -> Result {
        match &self.opened {
            Opened::Regular(_, Some(_)) if self.writable() => self.inode.truncate(size),
            Opened::Path => Err(Errno::EBADF),
            _ => Err(Errno::EINVAL),
        }
    }

    pub fn is_directory(&self) -> bool {
        self.inode.file_type() == FileType::Directory
    }
}

impl File {
    /// As the owner of locks: by flock(2), or record locks of its own. They go with it.
    pub fn as_lock_owner(&self, flock: bool) -> Owner {
        self.locked.store(true, Ordering::Relaxed);
        let address = core::ptr::from_ref(self).addr();
        if flock {
            Owner::Flock(address)
        } else {
            Owner::Description(address)
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if self.locked.load(Ordering::Relaxed) {
            let key = lock::key_of(&self.inode);
            lock::unlock_all(key, self.as_lock_owner(true));
            lock::unlock_all(key, self.as_lock_owner(false));
        }
        let (queue, nested) = match &self.opened {
            Opened::Stream(stream) => (stream.poll_queue(), stream.epoll().is_some()),
            Opened::Positioned(contents) => (Some(contents.poll_queue()), false),
            _ => (None, false),
        };
        self.epoll_items.close(queue, nested);
    }
}

fn access_of(flags: u32) -> Access {
    let mode = flags & abi::O_ACCMODE;
    let path_only = flags & abi::O_PATH != 0;
    Access {
        read: !path_only && (mode == abi::O_RDONLY || mode == abi::O_RDWR),
        write: !path_only && (mode == abi::O_WRONLY || mode == abi::O_RDWR),
    }
}

impl MappedFile for File {
    fn id(&self) -> (u64, u64) {
        let stat = self.inode.stat();
        let (major, minor) = stat.fs.device();
        ((major as u64) << 8 | minor as u64, stat.ino)
    }

    fn written(&self) {
        self.inode.written();
    }

    fn punch_hole(&self, start: u64, len: u64) -> Result {
        let node = self.inode.as_tmpfs().ok_or(Errno::EOPNOTSUPP)?;
        node.punch(start, start + len)
    }

    fn write_path(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let path = self.path().map_err(|_| fmt::Error)?;
        for chunk in path.utf8_chunks() {
            out.write_str(chunk.valid())?;
            for byte in chunk.invalid() {
                write!(out, "\\{byte:03o}")?;
            }
        }
        Ok(())
    }
}
