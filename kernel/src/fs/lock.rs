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

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use intrusive_collections::{Bound, KeyAdapter, RBTree, RBTreeAtomicLink, intrusive_adapter};

use super::inode::InodeRef;
use crate::errno::{Errno, Result};
use crate::sched::keyed::{self, Key};
use crate::sync::{SpinLock, rank};

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

/// Where a lock stands in the tree: file, first byte, owner.
type Place = ((u64, u64), u64, Owner);

struct Lock {
    link: RBTreeAtomicLink,
    key: Key,
    held: Request,
}

intrusive_adapter!(ByPlace = Box<Lock>: Lock { link => RBTreeAtomicLink });

impl<'a> KeyAdapter<'a> for ByPlace {
    type Key = Place;
    fn get_key(&self, lock: &'a Lock) -> Place {
        (file_of(lock.key), lock.held.start, lock.held.owner)
    }
}

/// A process that waits: whom for.
struct Waiting {
    link: RBTreeAtomicLink,
    owner: Owner,
    /// Tells apart the threads of one owner.
    id: u64,
    blocker: Owner,
}

intrusive_adapter!(ByOwner = Box<Waiting>: Waiting { link => RBTreeAtomicLink });

impl<'a> KeyAdapter<'a> for ByOwner {
    type Key = (Owner, u64);
    fn get_key(&self, waiting: &'a Waiting) -> (Owner, u64) {
        (waiting.owner, waiting.id)
    }
}

struct Table {
    locks: RBTree<ByPlace>,
    waiting: RBTree<ByOwner>,
}

static TABLE: SpinLock<Table> = SpinLock::new(
    rank::LEAF,
    Table {
        locks: RBTree::new(ByPlace::NEW),
        waiting: RBTree::new(ByOwner::NEW),
    },
);

/// How many locks belong to processes: none is the usual case when a descriptor is closed.
static HELD_BY_PROCESSES: AtomicUsize = AtomicUsize::new(0);

fn file_of(key: Key) -> (u64, u64) {
    (key.object, key.place)
}

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

/// Room for what one change of the tree can need, had before the lock is taken.
struct Spare([Option<Box<Lock>>; 3]);

impl Spare {
    /// `ENOLCK` for want of memory.
    fn new(key: Key, request: &Request) -> Result<Spare> {
        super::check_memory().map_err(|_| Errno::ENOLCK)?;
        let lock = || -> Result<Option<Box<Lock>>> {
            let lock = Box::try_new(Lock {
                link: RBTreeAtomicLink::new(),
                key,
                held: *request,
            });
            Ok(Some(lock.map_err(|_| Errno::ENOLCK)?))
        };
        Ok(Spare([lock()?, lock()?, lock()?]))
    }
}

impl Table {
    /// The first lock on a file that is in the way of `request`, and how many locks there are on the file.
    fn conflict(&self, key: Key, request: &Request) -> (Option<Request>, usize) {
        let (mut found, mut count) = (None, 0);
        let from = (file_of(key), 0, Owner::Process(0));
        let mut cursor = self.locks.lower_bound(Bound::Included(&from));
        while let Some(lock) = cursor.get().filter(|lock| lock.key == key) {
            if found.is_none() && request.conflicts(&lock.held) {
                found = Some(lock.held);
            }
            count += 1;
            cursor.move_next();
        }
        (found, count)
    }

    /// Gives the request's owner that lock and no other in its range; without `lock`, none. What it holds beside the range stays.
    fn put(&mut self, key: Key, request: &Request, lock: bool, spare: &mut Spare) {
        let (mut new, mut rest) = (*request, [None; 2]);
        let from = (file_of(key), 0, Owner::Process(0));
        let mut cursor = self.locks.lower_bound_mut(Bound::Included(&from));
        while let Some(found) = cursor.get().filter(|found| found.key == key) {
            let held = found.held;
            let own = held.owner == request.owner;
            let joins = lock
                && held.write == request.write
                && held.start <= new.last.saturating_add(1)
                && new.start <= held.last.saturating_add(1);
            if own && joins {
                new.start = new.start.min(held.start);
                new.last = new.last.max(held.last);
            } else if own && held.overlaps(request.start, request.last) {
                if held.start < request.start {
                    let last = request.start - 1;
                    rest[0] = Some(Request { last, ..held });
                }
                if held.last > request.last {
                    let start = request.last + 1;
                    rest[1] = Some(Request { start, ..held });
                }
            } else {
                cursor.move_next();
                continue;
            }
            drop(cursor.remove());
            count_process_lock(held.owner, false);
        }
        for held in rest.into_iter().chain([lock.then_some(new)]).flatten() {
            if let Some(mut lock) = spare.0.iter_mut().find_map(Option::take) {
                lock.held = held;
                self.locks.insert(lock);
                count_process_lock(held.owner, true);
            }
        }
    }

    /// Whether `blocker` waits, maybe over others, for `owner`.
    fn is_deadlock(&self, owner: Owner, blocker: Owner) -> bool {
        let mut at = blocker;
        for _ in 0..MAX_CHAIN {
            if at == owner {
                return true;
            }
            let first = self.waiting.lower_bound(Bound::Included(&(at, 0)));
            match first.get().filter(|waiting| waiting.owner == at) {
                Some(waiting) => at = waiting.blocker,
                None => return false,
            }
        }
        false
    }
}

fn count_process_lock(owner: Owner, more: bool) {
    if let Owner::Process(_) = owner {
        if more {
            HELD_BY_PROCESSES.fetch_add(1, Ordering::Relaxed);
        } else {
            HELD_BY_PROCESSES.fetch_sub(1, Ordering::Relaxed);
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
        let waiting = Box::try_new(Waiting {
            link: RBTreeAtomicLink::new(),
            owner: request.owner,
            id,
            blocker: request.owner,
        });
        let mut waiting = Some(waiting.map_err(|_| Errno::ENOLCK)?);
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
    TABLE
        .lock()
        .put(key, &request, false, &mut Spare([const { None }; 3]));
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

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    const KEY: Key = Key {
        object: 77,
        place: KEY_KIND,
    };

    fn request(owner: usize, start: u64, last: u64, write: bool) -> Request {
        Request {
            owner: Owner::Process(owner),
            start,
            last,
            write,
            pid: owner as i32,
        }
    }

    /// A table of its own, so that tests do not see each other's locks.
    struct Fresh(Table);

    impl Fresh {
        fn new() -> Fresh {
            Fresh(Table {
                locks: RBTree::new(ByPlace::NEW),
                waiting: RBTree::new(ByOwner::NEW),
            })
        }

        fn put(&mut self, request: &Request, lock: bool) {
            let spare = [(); 3].map(|()| {
                Some(Box::new(Lock {
                    link: RBTreeAtomicLink::new(),
                    key: KEY,
                    held: *request,
                }))
            });
            self.0.put(KEY, request, lock, &mut Spare(spare));
        }

        fn held(&self) -> Vec<(u64, u64, bool)> {
            let held = self.0.locks.iter().map(|lock| lock.held);
            held.map(|held| (held.start, held.last, held.write))
                .collect()
        }
    }

    #[test]
    fn neighbours_of_one_kind_join_and_others_are_cut() {
        let mut table = Fresh::new();
        table.put(&request(1, 0, 9, false), true);
        table.put(&request(1, 10, 19, false), true);
        assert_eq!(table.held(), [(0, 19, false)]);
        table.put(&request(1, 5, 7, true), true);
        assert_eq!(table.held(), [(0, 4, false), (5, 7, true), (8, 19, false)]);
        table.put(&request(1, 3, 10, false), false);
        assert_eq!(table.held(), [(0, 2, false), (11, 19, false)]);
        table.put(&request(1, 0, LAST, true), true);
        assert_eq!(table.held(), [(0, LAST, true)]);
        table.put(&request(1, 0, LAST, true), false);
        assert!(table.held().is_empty());
    }

    #[test]
    fn readers_share_and_writers_do_not() {
        let mut table = Fresh::new();
        table.put(&request(1, 10, 19, false), true);
        let conflict = |table: &Fresh, request: &Request| {
            table.0.conflict(KEY, request).0.map(|held| held.pid)
        };
        assert_eq!(conflict(&table, &request(2, 0, 15, false)), None);
        assert_eq!(conflict(&table, &request(2, 0, 15, true)), Some(1));
        assert_eq!(conflict(&table, &request(2, 0, 9, true)), None);
        assert_eq!(conflict(&table, &request(1, 0, LAST, true)), None);
        let flock = Request {
            owner: Owner::Flock(3),
            ..request(3, 0, LAST, true)
        };
        assert_eq!(
            conflict(&table, &flock),
            None,
            "flock does not see record locks"
        );
    }

    #[test]
    fn a_circle_of_waiters_is_a_deadlock() {
        let mut table = Fresh::new();
        for (owner, blocker) in [(2, 3), (3, 1)] {
            table.0.waiting.insert(Box::new(Waiting {
                link: RBTreeAtomicLink::new(),
                owner: Owner::Process(owner),
                id: 9,
                blocker: Owner::Process(blocker),
            }));
        }
        assert!(table.0.is_deadlock(Owner::Process(1), Owner::Process(2)));
        assert!(!table.0.is_deadlock(Owner::Process(4), Owner::Process(2)));
    }

    /// Random changes against a map from each byte to its lock.
    #[test]
    fn a_model_of_bytes_agrees() {
        const BYTES: usize = 24;
        let mut table = Fresh::new();
        let mut model = [[None::<bool>; BYTES]; 3];
        let mut seed = 1u64;
        let mut random = |below: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..5_000 {
            let owner = random(3) as usize;
            let start = random(BYTES as u64);
            let last = start + random(BYTES as u64 - start);
            let (write, lock) = (random(2) == 0, random(3) > 0);
            let request = request(owner, start, last, write);
            let range = start as usize..=last as usize;
            let expected = (0..3).filter(|&other| other != owner).any(|other| {
                model[other][range.clone()]
                    .iter()
                    .flatten()
                    .any(|&held| held || write)
            });
            assert_eq!(table.0.conflict(KEY, &request).0.is_some(), expected);
            if expected && lock {
                continue;
            }
            table.put(&request, lock);
            model[owner][range].fill(lock.then_some(write));
            let mut seen = [[None::<bool>; BYTES]; 3];
            for lock in table.0.locks.iter() {
                let Owner::Process(owner) = lock.held.owner else {
                    panic!("only processes")
                };
                seen[owner][lock.held.start as usize..=lock.held.last as usize]
                    .fill(Some(lock.held.write));
            }
            assert_eq!(seen, model);
        }
    }
}
