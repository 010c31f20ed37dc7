//! The objects of one kind: by number for those who use them, by key for those who look for them (`ipc/util.c`).
//!
//! A number is a place in the table and, above it, how often the places were gone through: so a number of a removed object does not soon
//! mean another one. Places are given in turn. Finding, putting in and taking out are O(log n), and a free place is found in at most
//! [`WORDS`] steps.
//!
//! [`Objects`] is a table with its lock (rank IPC), and has what the calls of all kinds do alike. What is taken out of a table is dropped
//! when that is not locked any more.

use alloc::sync::Arc;
use core::ops::Deref;
use core::sync::atomic::{AtomicI32, Ordering};

use intrusive_collections::{Bound, KeyAdapter, RBTree, RBTreeAtomicLink, intrusive_adapter};

use super::abi;
use super::permission::{self, Permission};
use crate::errno::{Errno, Result};
use crate::sync::{SpinLock, SpinLockGuard, rank};

/// Bits of a number that are the place (`ipcmni_seq_shift`).
const PLACE_BITS: u32 = 15;
/// Most objects of one kind, whatever the settings say.
pub const PLACES: usize = 1 << PLACE_BITS;
const WORDS: usize = PLACES / 64;
/// Fewer places than these are never gone through in turn (`ipc_min_cycle`).
const LEAST_CYCLE: usize = 64;

/// An object with its number and its key.
pub struct Object<T> {
    /// Set before anybody else sees the object.
    id: u32,
    /// [`abi::IPC_PRIVATE`] if it is found by no key. Changed with the table locked.
    key: AtomicI32,
    by_place: RBTreeAtomicLink,
    by_key: RBTreeAtomicLink,
    value: T,
}

intrusive_adapter!(ByPlace<T> = Arc<Object<T>>: Object<T> { by_place => RBTreeAtomicLink });
intrusive_adapter!(ByKey<T> = Arc<Object<T>>: Object<T> { by_key => RBTreeAtomicLink });

impl<'a, T: 'a> KeyAdapter<'a> for ByPlace<T> {
    type Key = usize;
    fn get_key(&self, object: &'a Object<T>) -> usize {
        object.place()
    }
}

impl<'a, T: 'a> KeyAdapter<'a> for ByKey<T> {
    type Key = i32;
    fn get_key(&self, object: &'a Object<T>) -> i32 {
        object.key()
    }
}

impl<T> Deref for Object<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Object<T> {
    /// One that is in no table yet. `ENOMEM`.
    pub fn new(key: i32, value: T) -> Result<Arc<Object<T>>> {
        Ok(Arc::try_new(Object {
            id: 0,
            key: AtomicI32::new(key),
            by_place: RBTreeAtomicLink::new(),
            by_key: RBTreeAtomicLink::new(),
            value,
        })?)
    }

    pub fn id(&self) -> u32 {
        self.id
    }

    pub fn key(&self) -> i32 {
        self.key.load(Ordering::Relaxed)
    }

    /// Where it stands in the table.
    pub fn place(&self) -> usize {
        self.id as usize % PLACES
    }

    /// How often the places had been gone through when it was made.
    pub fn sequence(&self) -> u32 {
        self.id >> PLACE_BITS
    }
}

/// The objects of one kind.
pub struct Table<T> {
    places: RBTree<ByPlace<T>>,
    keys: RBTree<ByKey<T>>,
    /// Bit set: the place is taken.
    taken: [u64; WORDS],
    count: usize,
    /// The place after the one that was given last, and that one.
    next: usize,
    last: Option<usize>,
    sequence: u32,
}

impl<T: 'static> Default for Table<T> {
    fn default() -> Self {
        Table::new()
    }
}

impl<T: 'static> Table<T> {
    pub const fn new() -> Table<T> {
        Table {
            places: RBTree::new(ByPlace::NEW),
            keys: RBTree::new(ByKey::NEW),
            taken: [0; WORDS],
            count: 0,
            next: 0,
            last: None,
            sequence: 0,
        }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// The highest place that is taken; 0 without any.
    pub fn highest_place(&self) -> usize {
        self.places.back().get().map_or(0, Object::place)
    }

    /// The object with this number. `EINVAL`.
    pub fn get(&self, id: i32) -> Result<Arc<Object<T>>> {
        let object = self.at(id)?;
        if object.id == id as u32 {
            Ok(object)
        } else {
            Err(Errno::EINVAL)
        }
    }

    /// The object at the place that is a part of this number. `EINVAL`.
    pub fn at(&self, id: i32) -> Result<Arc<Object<T>>> {
        let id = usize::try_from(id).map_err(|_| Errno::EINVAL)?;
        let found = self.places.find(&(id % PLACES));
        found.clone_pointer().ok_or(Errno::EINVAL)
    }

    /// The first object at `place` or after it.
    pub fn at_or_after(&self, place: usize) -> Option<Arc<Object<T>>> {
        self.places
            .lower_bound(Bound::Included(&place))
            .clone_pointer()
    }

    pub fn find_key(&self, key: i32) -> Option<Arc<Object<T>>> {
        self.keys.find(&key).clone_pointer()
    }

    /// Puts a new object in, which nobody else knows yet and whose key nobody has. `ENOSPC` if there are `most` already.
    pub fn insert(&mut self, object: &mut Arc<Object<T>>, most: usize) -> Result<u32> {
        if self.count >= most.min(PLACES) {
            return Err(Errno::ENOSPC);
        }
        let place = self.choose_place().ok_or(Errno::ENOSPC)?;
        if self.last.is_some_and(|last| place <= last) {
            self.sequence = (self.sequence + 1) % (i32::MAX as u32 >> PLACE_BITS);
        }
        self.last = Some(place);
        self.next = place + 1;
        let id = self.sequence << PLACE_BITS | place as u32;
        Arc::get_mut(object).ok_or(Errno::EINVAL)?.id = id;
        self.taken[place / 64] |= 1 << (place % 64);
        self.count += 1;
        self.places.insert(object.clone());
        if object.key() != abi::IPC_PRIVATE {
            self.keys.insert(object.clone());
        }
        Ok(id)
    }

    fn choose_place(&self) -> Option<usize> {
        let end = (self.count * 3 / 2).clamp(LEAST_CYCLE, PLACES);
        self.free_place(self.next, end)
            .or_else(|| self.free_place(0, end))
    }

    /// The lowest free place in `from..end`.
    fn free_place(&self, from: usize, end: usize) -> Option<usize> {
        let mut at = from;
        while at < end {
            let free = !self.taken[at / 64] >> (at % 64);
            if free != 0 {
                let place = at + free.trailing_zeros() as usize;
                return (place < end).then_some(place);
            }
            at = (at / 64 + 1) * 64;
        }
        None
    }

    /// Takes an object out, which the caller drops after unlocking; `None` if it is not in the table any more.
    pub fn remove(&mut self, object: &Object<T>) -> Option<Arc<Object<T>>> {
        let place = object.place();
        let mut found = self.places.find_mut(&place);
        if !found.get().is_some_and(|its| core::ptr::eq(its, object)) {
            return None;
        }
        let removed = found.remove();
        drop(self.take_key(object));
        self.taken[place / 64] &= !(1 << (place % 64));
        self.count -= 1;
        removed
    }

    /// From now on nobody finds the object by its key.
    pub fn forget_key(&mut self, object: &Object<T>) {
        // Others have references of it: this one is not the last.
        drop(self.take_key(object));
        object.key.store(abi::IPC_PRIVATE, Ordering::Relaxed);
    }

    fn take_key(&mut self, object: &Object<T>) -> Option<Arc<Object<T>>> {
        match object.key() {
            abi::IPC_PRIVATE => None,
            key => self.keys.find_mut(&key).remove(),
        }
    }

    /// What shmget(2) and its like do: the object with this key, or [`None`] if a new one is to be made. `ENOENT`, `EEXIST`.
    pub fn look_up(&self, key: i32, flags: u32) -> Result<Option<Arc<Object<T>>>> {
        if key == abi::IPC_PRIVATE {
            return Ok(None);
        }
        let found = self.find_key(key);
        if found.is_none() && flags & abi::IPC_CREAT == 0 {
            return Err(Errno::ENOENT);
        }
        let only_new = abi::IPC_CREAT | abi::IPC_EXCL;
        if found.is_some() && flags & only_new == only_new {
            return Err(Errno::EEXIST);
        }
        Ok(found)
    }
}

/// What the objects of every kind have: someone's permission, and what is told of them.
pub trait Kind: Sized + 'static {
    type Status;

    fn permission(&self) -> Permission;
    fn status(object: &Object<Self>) -> Self::Status;
}

/// A table and its lock.
pub struct Objects<T>(SpinLock<Table<T>>);

impl<T: Kind> Default for Objects<T> {
    fn default() -> Self {
        Objects::new()
    }
}

impl<T: Kind> Objects<T> {
    pub const fn new() -> Objects<T> {
        Objects(SpinLock::new(rank::IPC, Table::new()))
    }

    pub fn lock(&self) -> SpinLockGuard<'_, Table<T>> {
        self.0.lock()
    }

    /// The object with this number. `EINVAL`.
    pub fn find(&self, id: i32) -> Result<Arc<Object<T>>> {
        self.lock().get(id)
    }

    /// What shmget(2) and its like do: the number of the object with this key, if `check` allows it, or of a new one, if there are fewer
    /// than `most`.
    pub fn get(
        &self,
        key: i32,
        flags: u32,
        most: usize,
        make: impl FnOnce() -> Result<T>,
        check: impl Fn(&T) -> Result,
    ) -> Result<u32> {
        let checked = |found: Arc<Object<T>>| check(&found).map(|()| found.id());
        let found = self.lock().look_up(key, flags)?;
        if let Some(found) = found {
            return checked(found);
        }
        let mut object = Object::new(key, make()?)?;
        let mut table = self.lock();
        // Somebody else may have made it meanwhile.
        let other = match table.look_up(key, flags) {
            Ok(None) => return table.insert(&mut object, most),
            Ok(Some(found)) => Ok(found),
            Err(error) => Err(error),
        };
        drop(table);
        other.and_then(checked)
    }

    /// The status of the object `id`, which the current process may read. `EINVAL`, `EACCES`.
    pub fn status(&self, id: i32) -> Result<T::Status> {
        let object = self.find(id)?;
        object.permission().check(permission::READ)?;
        Ok(T::status(&object))
    }

    /// The same for the object at a place, whoever may read it if `any`.
    pub fn status_at(&self, place: i32, any: bool) -> Result<T::Status> {
        let object = self.lock().at(place)?;
        if !any {
            object.permission().check(permission::READ)?;
        }
        Ok(T::status(&object))
    }

    /// The first object at `place` or after it, and the place after that one.
    pub fn next(&self, place: usize) -> Option<(T::Status, usize)> {
        let object = self.lock().at_or_after(place)?;
        Some((T::status(&object), object.place() + 1))
    }

    /// The highest place that is taken; 0 without any.
    pub fn highest_place(&self) -> usize {
        self.lock().highest_place()
    }
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    fn add(table: &mut Table<()>, key: i32) -> u32 {
        let mut object = Object::new(key, ()).expect("memory");
        table.insert(&mut object, PLACES).expect("a place")
    }

    #[test]
    fn numbers_do_not_come_again_soon() {
        let mut table = Table::new();
        assert_eq!(add(&mut table, 0), 0);
        let mut before = 0;
        for _ in 0..1000 {
            let id = add(&mut table, 0);
            let object = table.get(id as i32).expect("it is there");
            assert!(id > before, "{id} after {before}");
            table.remove(&object).expect("it was there");
            assert_eq!(table.get(id as i32).err(), Some(Errno::EINVAL));
            before = id;
        }
        assert_eq!((table.count(), table.highest_place()), (1, 0));
    }

    #[test]
    fn every_place_can_be_taken_and_no_more() {
        let mut table = Table::new();
        for n in 0..PLACES {
            add(&mut table, n as i32);
        }
        let mut more = Object::new(0, ()).expect("memory");
        assert_eq!(table.insert(&mut more, usize::MAX), Err(Errno::ENOSPC));
        let object = table.find_key(77).expect("its key");
        table.remove(&object).expect("it was there");
        assert!(table.find_key(77).is_none());
        assert_eq!(add(&mut table, 77) as usize % PLACES, 77);
        assert_eq!(add_beyond(&mut table, 5), Err(Errno::ENOSPC));
    }

    fn add_beyond(table: &mut Table<()>, most: usize) -> Result<u32> {
        table.insert(&mut Object::new(0, ()).expect("memory"), most)
    }

    #[test]
    fn a_key_leads_to_one_object_until_it_is_forgotten() {
        let mut table = Table::new();
        let id = add(&mut table, 9);
        let found = table.look_up(9, 0).expect("no error").expect("an object");
        assert_eq!(found.id(), id);
        let only_new = abi::IPC_CREAT | abi::IPC_EXCL;
        assert_eq!(table.look_up(9, only_new).err(), Some(Errno::EEXIST));
        table.forget_key(&found);
        assert_eq!(table.look_up(9, 0).err(), Some(Errno::ENOENT));
        assert!(table.look_up(9, only_new).expect("no error").is_none());
        assert!(table.remove(&found).is_some());
        assert!(table.remove(&found).is_none());
    }
}
