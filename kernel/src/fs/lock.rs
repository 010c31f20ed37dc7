//! Locks on files: record locks of processes and of open file descriptions (`fcntl_locking(2)`), and flock(2).
//!
//! All locks stand in one tree, ordered by file and place. A file has at most [`MAX_LOCKS`] (then `ENOLCK`), which bounds every look at one
//! file's. Record locks belong to a process's file table, and go with the first descriptor of the file that it closes; the others
//! belong to an open file and go with it. Who must wait sleeps under the file's key ([`keyed`]): whoever unlocks changes the tree first and
//! wakes then, so no wake-up is lost.
//!
//! A request that would wait for somebody who waits, maybe over others, for its own locks is a deadlock (`EDEADLK`); as on Linux only record
//! locks of processes are looked at, ten owners far.
//!
//! Lock rank: LEAF, taken inside a bucket of waiters (FUTEX).

mod table;

use core::sync::atomic::{AtomicU64, Ordering};

use super::inode::InodeRef;
use crate::errno::{Errno, Result};
use crate::sched::keyed::{self, Key};
use crate::sync::{SpinLock, rank};
use table::{HELD_BY_PROCESSES, Spare, Table, Waiting, file_of};

/// Most locks on one file.
pub const MAX_LOCKS: usize = 1024;
/// The last byte of the longest file.
pub const LAST: u64 = i64::MAX as u64;
/// How many owners are looked at for a deadlock.
const MAX_CHAIN: usize = 10;

/// The low bits of a key's place: no futex has them.
const KEY_KIND: u64 = 3;

/// Who holds a lock: an address that stays its own as long as the lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A file table; record locks.
    Process(usize),
    /// An open file; its record locks.
    Description(usize),
    /// An open file; flock(2). These do not see the others.
    Flock(usize),
}

impl Owner {
    fn is_flock(self) -> bool {
        matches!(self, Owner::Flock(_))
    }
}

/// What is asked for, or held: bytes `start..=last` of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub owner: Owner,
    pub start: u64,
    pub last: u64,
    pub write: bool,
    /// For F_GETLK; -1 for an open file's.
    pub pid: i32,
}

impl Request {
    /// Whether the two cannot be held together.
    fn conflicts(&self, other: &Request) -> bool {
        self.owner != other.owner
            && self.owner.is_flock() == other.owner.is_flock()
            && (self.write || other.write)
            && self.overlaps(other.start, other.last)
    }

    fn overlaps(&self, start: u64, last: u64) -> bool {
        self.start <= last && start <= self.last
    }
}

static TABLE: SpinLock<Table> = SpinLock::new(rank::LEAF, Table::new());

/// The key under which a file's locks stand. A regular file is its contents, by whichever name and inode it was reached.
pub fn key_of(inode: &InodeRef) -> Key {
    match inode.mapping() {
        Some(mapping) => Key {
            object: mapping.id(),
            place: KEY_KIND,
        },
        None => {
            let stat = inode.stat();
            Key {
                object: stat.ino,
                place: (stat.fs as u64 + 1) << 8 | KEY_KIND,
            }
        }
    }
}

/// Whether the owner holds a lock of the other kind on the first byte of the request's range.
pub fn holds_other_kind(key: Key, request: &Request) -> bool {
    let place = (file_of(key), request.start, request.owner);
    let table = TABLE.lock();
    let held = table.locks.find(&place);
    held.get()
        .is_some_and(|lock| lock.held.write != request.write)
}

/// The lock that is in the way of `request` (F_GETLK).
pub fn blocking(key: Key, request: &Request) -> Option<Request> {
    TABLE.lock().conflict(key, request).0
}

/// Takes a lock, without waiting. `EAGAIN` if another one is in the way, `ENOLCK`.
pub fn try_lock(key: Key, request: &Request) -> Result {
    let mut spare = Spare::new(key, request)?;
    let mut table = TABLE.lock();
    let outcome = attempt(&mut table, key, request, &mut spare);
    drop(table);
    match outcome {
        Ok(()) => {
            // What was a lock for writing may now be one for reading.
            wake(key);
            Ok(())
        }
        Err(Blocked::By(_)) => Err(Errno::EAGAIN),
        Err(Blocked::Full) => Err(Errno::ENOLCK),
    }
}

enum Blocked {
    By(Owner),
    Full,
}

fn attempt(
    table: &mut Table,
    key: Key,
    request: &Request,
    spare: &mut Spare,
) -> core::result::Result<(), Blocked> {
    match table.conflict(key, request) {
        (Some(other), _) => Err(Blocked::By(other.owner)),
        (None, count) if count + 2 > MAX_LOCKS => Err(Blocked::Full),
        (None, _) => {
            table.put(key, request, true, spare);
            Ok(())
        }
    }
}

/// Takes a lock, when nothing is in the way any more. `EDEADLK`, `ENOLCK`, `ERESTARTSYS` for a signal.
pub fn lock(key: Key, request: &Request) -> Result {
    static NEXT_ID: AtomicU64 = AtomicU64::new(0);
    let mut spare = Spare::new(key, request)?;
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    loop {
        let mut waiting = Some(Waiting::new(request.owner, id, request.owner)?);
        let waited = keyed::wait(key, !0, None, || {
            let mut table = TABLE.lock();
            let blocker = match attempt(&mut table, key, request, &mut spare) {
                Ok(()) => return Err(Ok(())),
                Err(Blocked::Full) => return Err(Err(Errno::ENOLCK)),
                Err(Blocked::By(blocker)) => blocker,
            };
            if let (Owner::Process(_), Some(mut waiting)) = (request.owner, waiting.take()) {
                if table.is_deadlock(request.owner, blocker) {
                    return Err(Err(Errno::EDEADLK));
                }
                waiting.blocker = blocker;
                table.waiting.insert(waiting);
            }
            Ok(())
        });
        let noted = TABLE.lock().waiting.find_mut(&(request.owner, id)).remove();
        drop(noted);
        match waited {
            Err(done) => {
                wake(key);
                return done;
            }
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Errno::ERESTARTSYS),
        }
    }
}

/// Gives up what the owner holds in the range of `request`. `ENOLCK` if the rest needs memory that is not there.
pub fn unlock(key: Key, request: &Request) -> Result {
    let mut spare = Spare::new(key, request)?;
    TABLE.lock().put(key, request, false, &mut spare);
    wake(key);
    Ok(())
}

/// Gives up everything that `owner` holds on a file. Needs no memory.
pub fn unlock_all(key: Key, owner: Owner) {
    let request = Request {
        owner,
        start: 0,
        last: LAST,
        write: false,
        pid: 0,
    };
    TABLE.lock().put(key, &request, false, &mut Spare::none());
    wake(key);
}

/// A process has closed a descriptor of the file: its record locks go, whatever other descriptors it has.
pub fn closed_by_process(inode: &InodeRef, table: Owner) {
    if HELD_BY_PROCESSES.load(Ordering::Relaxed) > 0 {
        unlock_all(key_of(inode), table);
    }
}

fn wake(key: Key) {
    keyed::wake(key, usize::MAX, !0);
}
