//! The entries of a directory in memory: by name for lookup, by position for getdents64(2).
//!
//! A position, once given to an entry, stays its own, so that a listing goes on rightly while entries come and go. All operations
//! are O(log n); memory is taken one entry at a time and may run out.

use alloc::boxed::Box;
use alloc::sync::Arc;
use intrusive_collections::{Bound, KeyAdapter, RBTree, RBTreeAtomicLink, intrusive_adapter};

use crate::errno::Result;

/// One entry.
pub struct Entry<T> {
    by_name: RBTreeAtomicLink,
    by_position: RBTreeAtomicLink,
    pub name: Box<[u8]>,
    pub position: u64,
    pub value: T,
}

intrusive_adapter!(ByName<T> = Arc<Entry<T>>: Entry<T> { by_name => RBTreeAtomicLink });
intrusive_adapter!(ByPosition<T> = Arc<Entry<T>>: Entry<T> { by_position => RBTreeAtomicLink });

impl<'a, T: 'a> KeyAdapter<'a> for ByName<T> {
    type Key = &'a [u8];
    fn get_key(&self, entry: &'a Entry<T>) -> &'a [u8] {
        &entry.name
    }
}

impl<'a, T: 'a> KeyAdapter<'a> for ByPosition<T> {
    type Key = u64;
    fn get_key(&self, entry: &'a Entry<T>) -> u64 {
        entry.position
    }
}

impl<T> Entry<T> {
    /// An entry for [`Index::add`]. `ENOMEM`.
    pub fn new(name: &[u8], value: T) -> Result<Arc<Entry<T>>> {
        Ok(Arc::try_new(Entry {
            by_name: RBTreeAtomicLink::new(),
            by_position: RBTreeAtomicLink::new(),
            name: copy_name(name)?,
            position: 0,
            value,
        })?)
    }
}

/// Entries of one directory. Not synchronised.
pub struct Index<T> {
    names: RBTree<ByName<T>>,
    positions: RBTree<ByPosition<T>>,
    next: u64,
}

impl<T: Clone + 'static> Index<T> {
    /// `first`: the position of the first entry.
    pub const fn new(first: u64) -> Index<T> {
        Index {
            names: RBTree::new(ByName::NEW),
            positions: RBTree::new(ByPosition::NEW),
            next: first,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    pub fn get(&self, name: &[u8]) -> Option<T> {
        self.names.find(name).get().map(|entry| entry.value.clone())
    }

    /// Adds an entry whose name is not there yet. `ENOMEM`.
    pub fn insert(&mut self, name: &[u8], value: T) -> Result {
        self.add(Entry::new(name, value)?);
        Ok(())
    }

    /// Adds a prepared entry whose name is not there yet; nobody else has a reference of it.
    pub fn add(&mut self, mut entry: Arc<Entry<T>>) {
        debug_assert!(self.names.find(&entry.name[..]).is_null());
        if let Some(fresh) = Arc::get_mut(&mut entry) {
            fresh.position = self.next;
        }
        self.next += 1;
        self.positions.insert(entry.clone());
        self.names.insert(entry);
    }

    /// Puts a prepared entry in the place of the one with its name, which is there and comes back.
    pub fn replace(&mut self, mut entry: Arc<Entry<T>>) -> Option<Arc<Entry<T>>> {
        let old = self.remove(&entry.name)?;
        if let Some(fresh) = Arc::get_mut(&mut entry) {
            fresh.position = old.position;
        }
        self.positions.insert(entry.clone());
        self.names.insert(entry);
        Some(old)
    }

    /// Removes an entry. What it held is dropped by the caller, outside of locks.
    pub fn remove(&mut self, name: &[u8]) -> Option<Arc<Entry<T>>> {
        let entry = self.names.find_mut(name).remove()?;
        self.positions.find_mut(&entry.position).remove();
        Some(entry)
    }

    /// The first entry at `position` or after it.
    pub fn at_or_after(&self, position: u64) -> Option<Arc<Entry<T>>> {
        self.positions
            .lower_bound(Bound::Included(&position))
            .clone_pointer()
    }
}

impl<T> Drop for Index<T> {
    fn drop(&mut self) {
        self.names.clear();
        self.positions.clear();
    }
}

/// A name in memory of its own. `ENOMEM`.
pub fn copy_name(name: &[u8]) -> Result<Box<[u8]>> {
    let mut copy = alloc::vec::Vec::new();
    copy.try_reserve_exact(name.len())?;
    copy.extend_from_slice(name);
    Ok(copy.into_boxed_slice())
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    #[test]
    fn listing_survives_changes() {
        let mut index = Index::new(2);
        for (value, name) in [b"c", b"a", b"b"].into_iter().enumerate() {
            index.insert(name, value).unwrap();
        }
        let first = index.at_or_after(2).unwrap();
        assert_eq!((&first.name[..], first.value), (&b"c"[..], 0));
        index.remove(b"c").unwrap();
        index.remove(b"a").unwrap();
        index.insert(b"c", 9).unwrap();
        let second = index.at_or_after(first.position + 1).unwrap();
        assert_eq!(&second.name[..], b"b");
        let third = index.at_or_after(second.position + 1).unwrap();
        assert_eq!((&third.name[..], third.value), (&b"c"[..], 9));
        assert!(index.at_or_after(third.position + 1).is_none());
    }

    #[test]
    fn lookup_and_removal_by_name() {
        let mut index = Index::new(2);
        assert!(index.is_empty());
        index.insert(b"x", 1).unwrap();
        assert_eq!(index.get(b"x"), Some(1));
        assert_eq!(index.get(b"y"), None);
        assert!(index.remove(b"y").is_none());
        assert_eq!(index.remove(b"x").unwrap().value, 1);
        assert!(index.is_empty());
    }
}
