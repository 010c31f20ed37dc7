//! The locks that are held, in one tree, and who waits for whom.
//!
//! A change of the tree needs no memory while it is locked: what it could need is had before ([`Spare`]).

use alloc::boxed::Box;
use core::sync::atomic::{AtomicUsize, Ordering};

use intrusive_collections::{Bound, KeyAdapter, RBTree, RBTreeAtomicLink, intrusive_adapter};

use super::{MAX_CHAIN, Owner, Request};
use crate::errno::{Errno, Result};
use crate::fs::check_memory;
use crate::sched::keyed::Key;

/// Where a lock stands in the tree: file, first byte, owner.
pub(super) type Place = ((u64, u64), u64, Owner);

pub(super) struct Lock {
    link: RBTreeAtomicLink,
    key: Key,
    pub(super) held: Request,
}

intrusive_adapter!(pub(super) ByPlace = Box<Lock>: Lock { link => RBTreeAtomicLink });

impl<'a> KeyAdapter<'a> for ByPlace {
    type Key = Place;
    fn get_key(&self, lock: &'a Lock) -> Place {
        (file_of(lock.key), lock.held.start, lock.held.owner)
    }
}

/// A process that waits: whom for.
pub(super) struct Waiting {
    link: RBTreeAtomicLink,
    owner: Owner,
    /// Tells apart the threads of one owner.
    id: u64,
    pub(super) blocker: Owner,
}

impl Waiting {
    /// `ENOLCK` for want of memory.
    pub(super) fn new(owner: Owner, id: u64, blocker: Owner) -> Result<Box<Waiting>> {
        let waiting = Box::try_new(Waiting {
            link: RBTreeAtomicLink::new(),
            owner,
            id,
            blocker,
        });
        waiting.map_err(|_| Errno::ENOLCK)
    }
}

intrusive_adapter!(pub(super) ByOwner = Box<Waiting>: Waiting { link => RBTreeAtomicLink });

impl<'a> KeyAdapter<'a> for ByOwner {
    type Key = (Owner, u64);
    fn get_key(&self, waiting: &'a Waiting) -> (Owner, u64) {
        (waiting.owner, waiting.id)
    }
}

pub(super) struct Table {
    pub(super) locks: RBTree<ByPlace>,
    pub(super) waiting: RBTree<ByOwner>,
}

/// How many locks belong to processes: none is the usual case when a descriptor is closed.
pub(super) static HELD_BY_PROCESSES: AtomicUsize = AtomicUsize::new(0);

pub(super) fn file_of(key: Key) -> (u64, u64) {
    (key.object, key.place)
}

/// Room for what one change of the tree can need, had before the lock is taken.
pub(super) struct Spare([Option<Box<Lock>>; 3]);

impl Spare {
    /// `ENOLCK` for want of memory.
    pub(super) fn new(key: Key, request: &Request) -> Result<Spare> {
        check_memory().map_err(|_| Errno::ENOLCK)?;
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

    /// For a change that only takes away whole locks.
    pub(super) fn none() -> Spare {
        Spare([const { None }; 3])
    }
}

impl Table {
    pub(super) const fn new() -> Table {
        Table {
            locks: RBTree::new(ByPlace::NEW),
            waiting: RBTree::new(ByOwner::NEW),
        }
    }

    /// The first lock on a file that is in the way of `request`, and how many locks there are on the file.
    pub(super) fn conflict(&self, key: Key, request: &Request) -> (Option<Request>, usize) {
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
    pub(super) fn put(&mut self, key: Key, request: &Request, lock: bool, spare: &mut Spare) {
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
    pub(super) fn is_deadlock(&self, owner: Owner, blocker: Owner) -> bool {
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

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::fs::lock::{KEY_KIND, LAST};

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
            Fresh(Table::new())
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
            let waiting = Waiting::new(Owner::Process(owner), 9, Owner::Process(blocker));
            table.0.waiting.insert(waiting.expect("memory"));
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
