//! The names of message queues: one flat directory that is mounted nowhere, in which everybody may make queues.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use linux_raw_sys::general as abi;
use spin::Once;

use super::{Queue, Size};
use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::fs::file::Opened;
use crate::fs::inode::{
    Access, FileSystem, FileType, Inode, InodeRef, NAME_MAX, Place, Stat, Time,
};
use crate::fs::permission::{Subject, Want};
use crate::fs::tmpfs::index::{Entry, Index};
use crate::sync::{SpinLock, rank};

const ROOT: u64 = 1;

static NEXT_INO: AtomicU64 = AtomicU64::new(ROOT + 1);

/// Lock rank: IPC.
static NAMES: SpinLock<Index<Arc<Queue>>> = SpinLock::new(rank::IPC, Index::new(2));

pub(super) fn next_ino() -> u64 {
    NEXT_INO.fetch_add(1, Ordering::Relaxed)
}

/// The directory's own inode.
struct Root;

/// The directory. `ENOMEM`.
pub(super) fn inode() -> Result<InodeRef> {
    static INODE: Once<Arc<Root>> = Once::new();
    Ok(INODE.try_call_once(|| Arc::try_new(Root))?.clone())
}

impl Inode for Root {
    fn stat(&self) -> Stat {
        Stat::new(
            FileSystem::MessageQueues,
            ROOT,
            FileType::Directory,
            abi::S_ISVTX | 0o777,
        )
    }

    fn place(&self) -> Result<Place> {
        Ok(Place::Root)
    }

    fn open(&self, _access: Access, _nonblock: bool) -> Result<Opened> {
        Err(Errno::EACCES)
    }
}

/// Whether a name may be asked for. `EACCES`, `ENAMETOOLONG`.
fn check_name(name: &[u8]) -> Result {
    if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') {
        return Err(Errno::EACCES);
    }
    match name.len() > NAME_MAX {
        true => Err(Errno::ENAMETOOLONG),
        false => Ok(()),
    }
}

/// mq_open(2): a queue's name without its slash, the flags of open(2), and for a new queue the mode, without the umask, and the size.
/// `EACCES`, `ENAMETOOLONG`, `ENOENT`, `EEXIST`, `EINVAL`, `EMFILE`, `ENOSPC`, `ENFILE`, `ENOMEM`.
pub fn open(name: &[u8], flags: u32, mode: u32, size: Option<Size>) -> Result<Arc<File>> {
    check_name(name)?;
    let flags = flags & !abi::O_PATH;
    let access = flags & abi::O_ACCMODE;
    let queue = loop {
        if let Some(queue) = find(name) {
            check_open(&queue, flags)?;
            break queue;
        }
        if flags & abi::O_CREAT == 0 {
            return Err(Errno::ENOENT);
        }
        if let Some(queue) = make(name, mode, size)? {
            break queue;
        }
    };
    let access = Access {
        read: access != abi::O_WRONLY,
        write: access != abi::O_RDONLY,
    };
    let opened = queue.open(access, false)?;
    File::new(queue, opened, flags)
}

/// Whether the current process may open a queue that was there before. `EEXIST`, `EINVAL`, `EACCES`.
fn check_open(queue: &Arc<Queue>, flags: u32) -> Result {
    let only_new = abi::O_CREAT | abi::O_EXCL;
    if flags & only_new == only_new {
        return Err(Errno::EEXIST);
    }
    let want = match flags & abi::O_ACCMODE {
        abi::O_RDONLY => Want::READ,
        abi::O_WRONLY => Want::WRITE,
        abi::O_RDWR => Want::READ | Want::WRITE,
        _ => return Err(Errno::EINVAL),
    };
    Subject::current().may_with(&queue.stat(), want)
}

fn find(name: &[u8]) -> Option<Arc<Queue>> {
    NAMES.lock().get(name)
}

/// A new queue. `None` if somebody else has made one just now.
fn make(name: &[u8], mode: u32, size: Option<Size>) -> Result<Option<Arc<Queue>>> {
    let queue = Queue::new(name, mode, size)?;
    let entry = Entry::new(name, queue.clone())?;
    let mut names = NAMES.lock();
    if names.get(name).is_some() {
        return Ok(None);
    }
    names.add(entry);
    Ok(Some(queue))
}

/// mq_unlink(2): takes the name away; the queue goes with its last open file. `EACCES`, `ENAMETOOLONG`, `ENOENT`, `EPERM`.
pub fn unlink(name: &[u8]) -> Result {
    check_name(name)?;
    let queue = find(name).ok_or(Errno::ENOENT)?;
    let inode: InodeRef = queue.clone();
    Subject::current().may_remove_from(&self::inode()?, &inode)?;
    let mut names = NAMES.lock();
    let same = names
        .get(name)
        .is_some_and(|found| Arc::ptr_eq(&found, &queue));
    let removed = if same { names.remove(name) } else { None };
    drop(names);
    drop(removed.ok_or(Errno::ENOENT)?);
    let now = Time::now();
    let mut attributes = queue.attributes.lock();
    attributes.removed = true;
    attributes.times[2] = now;
    Ok(())
}

/// A name as the calls get it. `ENOENT` for an empty one.
pub fn name_given(name: Vec<u8>) -> Result<Vec<u8>> {
    match name.is_empty() {
        true => Err(Errno::ENOENT),
        false => Ok(name),
    }
}
