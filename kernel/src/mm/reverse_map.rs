//! The reverse map of a file: which areas of which address spaces map its pages (Linux's `i_mmap`).
//!
//! An interval tree over page indexes: a treap in one array, as in [`super::gaps`], whose nodes know the highest page below them. Putting an
//! area in, taking it out and finding those that hold a page are O(log n). Every [`Vma`](super::vma::Vma) with a file behind it owns an
//! [`Entry`] from its beginning, which has room in the array, so that changing areas needs no memory.
//!
//! Order of equal ranges: the area that was entered first comes first. So a walk meets a parent before the child that fork(2) made
//! of it, and fork, which enters the child's area before it copies translations, cannot carry any past a walk.
//!
//! Lock rank: REVERSE_MAP, over a whole walk; page tables are locked inside it. Whoever moves translations between two entered areas
//! holds it too ([`Entry::lock`]).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use super::addr::{PAGE_SHIFT, VirtAddr};
use super::page_cache::Mapping;
use super::translations::Translations;
use super::vma::VmFlags;
use crate::errno::{Errno, OutOfMemory, Result};
use crate::sync::{SpinLock, SpinLockGuard, rank};

const NONE: u32 = u32::MAX;

/// A part of an address space that maps the pages `first..=last` of a file.
#[derive(Clone)]
pub struct Area {
    pub translations: Arc<Translations>,
    pub start: VirtAddr,
    pub first: u64,
    pub last: u64,
    pub flags: VmFlags,
}

impl Area {
    /// The addresses of the pages `first..=last`, of which the area holds at least one.
    fn range(&self, first: u64, last: u64) -> Option<(VirtAddr, VirtAddr)> {
        let at = |page: u64| {
            let offset = usize::try_from(page - self.first).ok()? << PAGE_SHIFT;
            VirtAddr::new(self.start.get().checked_add(offset)?)
        };
        at(first.max(self.first)).zip(at(last.min(self.last) + 1))
    }

    /// Whether writing through the area reaches the file, now or after mprotect(2).
    fn may_write(&self) -> bool {
        self.flags.contains(VmFlags::SHARED | VmFlags::MAYWRITE)
    }
}

struct Node {
    /// `None`: not in use.
    area: Option<Area>,
    first: u64,
    last: u64,
    /// Orders areas with the same first page.
    serial: u64,
    priority: u32,
    parent: u32,
    left: u32,
    right: u32,
    /// Of the node and all below it.
    highest: u64,
}

/// The areas of one file. See the module.
pub struct Tree {
    nodes: Vec<Node>,
    /// Nodes not in use, chained by `left`.
    free: u32,
    root: u32,
    /// Entries there are, each of which may need a node.
    entries: usize,
    serial: u64,
    random: u32,
    /// Areas through which the file can be written, or [`SEALED`].
    writers: u32,
}

/// No area may be entered any more through which the file can be written.
const SEALED: u32 = u32::MAX;

pub struct ReverseMap(SpinLock<Tree>);

impl ReverseMap {
    pub fn new() -> ReverseMap {
        ReverseMap(SpinLock::new(rank::REVERSE_MAP, Tree::new()))
    }

    /// Removes the translations of the pages `first..=last` from all address spaces; private copies only if `copies` says so.
    pub fn zap(&self, first: u64, last: u64, copies: bool) {
        self.for_each(first, last, &mut |area| {
            if let Some((start, end)) = area.range(first, last) {
                if copies {
                    area.translations.zap_contents(start, end);
                } else {
                    area.translations.zap_cached(start, end);
                }
            }
        });
    }

    /// Takes the permission to write the pages `first..=last` from all who share them.
    pub fn protect(&self, first: u64, last: u64) {
        self.for_each(first, last, &mut |area| {
            let shared = area.flags.contains(VmFlags::SHARED);
            if let Some((start, end)) = area.range(first, last).filter(|_| shared) {
                area.translations.write_protect(start, end);
            }
        });
    }

    /// Calls `f` with each area that maps one of the pages `first..=last`.
    pub fn for_each(&self, first: u64, last: u64, f: &mut dyn FnMut(&Area)) {
        let tree = self.0.lock();
        tree.visit(tree.root, first, last, f);
    }

    /// Calls `f` with the address of the page `index` in each area that maps it.
    pub fn for_each_at(&self, index: u64, f: &mut dyn FnMut(&Area, VirtAddr)) {
        self.for_each(index, index, &mut |area| {
            if let Some((start, _)) = area.range(index, index) {
                f(area, start);
            }
        });
    }

    /// From now on no area is entered through which the file can be written. `EBUSY` if there is one.
    pub fn seal(&self) -> Result {
        let mut tree = self.0.lock();
        match tree.writers {
            0 | SEALED => tree.writers = SEALED,
            _ => return Err(Errno::EBUSY),
        }
        Ok(())
    }
}

impl Default for ReverseMap {
    fn default() -> Self {
        ReverseMap::new()
    }
}

/// Keeps a file from being sealed while an area through which it can be written is being made.
pub struct Writer(Arc<Mapping>);

impl Writer {
    /// `EPERM` if the file is sealed.
    pub fn new(mapping: &Arc<Mapping>) -> Result<Writer> {
        let mut tree = mapping.areas().0.lock();
        if tree.writers == SEALED {
            return Err(Errno::EPERM);
        }
        tree.writers += 1;
        drop(tree);
        Ok(Writer(mapping.clone()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.areas().0.lock().writers -= 1;
    }
}

/// Room for one area in a file's reverse map, and the area if it was entered. It leaves when this is dropped.
pub struct Entry {
    mapping: Arc<Mapping>,
    node: AtomicU32,
}

impl Entry {
    pub fn new(mapping: &Arc<Mapping>) -> core::result::Result<Entry, OutOfMemory> {
        mapping.areas().0.lock().reserve()?;
        Ok(Entry {
            mapping: mapping.clone(),
            node: AtomicU32::new(NONE),
        })
    }

    /// Enters an area; once.
    pub fn enter(&self, area: Area) {
        let mut tree = self.mapping.areas().0.lock();
        debug_assert_eq!(self.node.load(Ordering::Relaxed), NONE, "entered twice");
        self.node.store(tree.insert(area), Ordering::Relaxed);
    }

    /// Takes the area out again, if it was entered.
    pub fn leave(&self) {
        let mut tree = self.mapping.areas().0.lock();
        let node = self.node.swap(NONE, Ordering::Relaxed);
        let area = (node != NONE).then(|| tree.remove(node));
        drop(tree);
        // May be the last to know its address space.
        drop(area);
    }

    /// Keeps everybody from walking over the file's areas.
    pub fn lock(&self) -> SpinLockGuard<'_, Tree> {
        self.mapping.areas().0.lock()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let node = *self.node.get_mut();
        let mut tree = self.mapping.areas().0.lock();
        let area = (node != NONE).then(|| tree.remove(node));
        tree.entries -= 1;
        let unused = (tree.entries == 0).then(|| tree.clear());
        drop(tree);
        // The area may be the last to know its address space.
        drop((area, unused));
    }
}

impl Tree {
    fn new() -> Tree {
        Tree {
            nodes: Vec::new(),
            free: NONE,
            root: NONE,
            entries: 0,
            serial: 0,
            random: crate::arch::machine::random_u64() as u32 | 1,
            writers: 0,
        }
    }

    fn reserve(&mut self) -> core::result::Result<(), OutOfMemory> {
        let missing = (self.entries + 1).saturating_sub(self.nodes.len());
        self.nodes.try_reserve(missing).map_err(|_| OutOfMemory)?;
        self.entries += 1;
        Ok(())
    }

    /// Gives the array up.
    fn clear(&mut self) -> Vec<Node> {
        (self.root, self.free) = (NONE, NONE);
        core::mem::take(&mut self.nodes)
    }

    fn insert(&mut self, area: Area) -> u32 {
        if area.may_write() {
            debug_assert_ne!(self.writers, SEALED);
            self.writers += 1;
        }
        // Xorshift: never 0.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.serial += 1;
        let (priority, first, last) = (self.random, area.first, area.last);
        let new = self.take_slot(Node {
            first,
            last,
            highest: last,
            area: Some(area),
            serial: self.serial,
            priority,
            parent: NONE,
            left: NONE,
            right: NONE,
        });
        // Down to where its priority belongs: what is there comes below it.
        let (mut parent, mut tree) = (NONE, self.root);
        while let Some(node) = self.nodes.get_mut(tree as usize)
            && node.priority >= priority
        {
            node.highest = node.highest.max(last);
            parent = tree;
            // Of equal ones it is the last.
            tree = if first < node.first {
                node.left
            } else {
                node.right
            };
        }
        if tree != NONE {
            let (left, right) = self.split(tree, (first, self.serial));
            self.set_left(new, left);
            self.set_right(new, right);
            self.update(new);
        }
        self.put_below(parent, first, new);
        new
    }

    /// Makes `tree` the child of `parent` on the side of the page `first`, of areas entered later than `parent`.
    fn put_below(&mut self, parent: u32, first: u64, tree: u32) {
        match self.nodes.get(parent as usize) {
            None => self.root = tree,
            Some(node) if first < node.first => self.nodes[parent as usize].left = tree,
            Some(_) => self.nodes[parent as usize].right = tree,
        }
        self.set_parent(tree, parent);
    }

    fn set_parent(&mut self, tree: u32, parent: u32) {
        if let Some(node) = self.nodes.get_mut(tree as usize) {
            node.parent = parent;
        }
    }

    fn set_left(&mut self, tree: u32, left: u32) {
        self.nodes[tree as usize].left = left;
        self.set_parent(left, tree);
    }

    fn set_right(&mut self, tree: u32, right: u32) {
        self.nodes[tree as usize].right = right;
        self.set_parent(right, tree);
    }

    fn take_slot(&mut self, node: Node) -> u32 {
        if self.free == NONE {
            debug_assert!(self.nodes.len() < self.nodes.capacity(), "not reserved");
            self.nodes.push(node);
            return (self.nodes.len() - 1) as u32;
        }
        let slot = self.free;
        self.free = self.nodes[slot as usize].left;
        self.nodes[slot as usize] = node;
        slot
    }

    fn remove(&mut self, node: u32) -> Option<Area> {
        let &Node {
            parent,
            left,
            right,
            ..
        } = &self.nodes[node as usize];
        let rest = self.join(left, right);
        match self.nodes.get_mut(parent as usize) {
            None => self.root = rest,
            Some(above) if above.left == node => above.left = rest,
            Some(above) => above.right = rest,
        }
        self.set_parent(rest, parent);
        // Up to the first one for which nothing changes.
        let mut tree = parent;
        while tree != NONE && self.update(tree) {
            tree = self.nodes[tree as usize].parent;
        }
        let area = self.nodes[node as usize].area.take();
        self.nodes[node as usize].left = self.free;
        self.free = node;
        if area.as_ref().is_some_and(Area::may_write) {
            self.writers -= 1;
        }
        area
    }

    fn key(&self, tree: u32) -> (u64, u64) {
        let node = &self.nodes[tree as usize];
        (node.first, node.serial)
    }

    /// Parts a tree into the areas whose keys are below `at`, and the others.
    fn split(&mut self, tree: u32, at: (u64, u64)) -> (u32, u32) {
        if tree == NONE {
            return (NONE, NONE);
        }
        if self.key(tree) < at {
            let (low, high) = self.split(self.nodes[tree as usize].right, at);
            self.set_right(tree, low);
            self.update(tree);
            (tree, high)
        } else {
            let (low, high) = self.split(self.nodes[tree as usize].left, at);
            self.set_left(tree, high);
            self.update(tree);
            (low, tree)
        }
    }

    /// One tree of two, of which all keys in `low` are below those in `high`.
    fn join(&mut self, low: u32, high: u32) -> u32 {
        if low == NONE {
            return high;
        }
        if high == NONE {
            return low;
        }
        if self.nodes[low as usize].priority > self.nodes[high as usize].priority {
            let right = self.nodes[low as usize].right;
            let right = self.join(right, high);
            self.set_right(low, right);
            self.update(low);
            low
        } else {
            let left = self.nodes[high as usize].left;
            let left = self.join(low, left);
            self.set_left(high, left);
            self.update(high);
            high
        }
    }

    /// Works out again what a node knows of those below it; whether that has changed.
    fn update(&mut self, tree: u32) -> bool {
        let node = &self.nodes[tree as usize];
        let mut highest = node.last;
        for child in [node.left, node.right] {
            if let Some(child) = self.nodes.get(child as usize) {
                highest = highest.max(child.highest);
            }
        }
        let before = core::mem::replace(&mut self.nodes[tree as usize].highest, highest);
        before != highest
    }

    fn visit(&self, tree: u32, first: u64, last: u64, f: &mut dyn FnMut(&Area)) {
        let Some(node) = self.nodes.get(tree as usize) else {
            return;
        };
        if node.highest < first {
            return;
        }
        self.visit(node.left, first, last, f);
        if node.first > last {
            return;
        }
        if let Some(area) = node.area.as_ref().filter(|_| node.last >= first) {
            f(area);
        }
        self.visit(node.right, first, last, f);
    }
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;
    use crate::arch::PageTable;
    use crate::arch::sim::machine::run_test;

    fn area(translations: &Arc<Translations>, first: u64, last: u64) -> Area {
        Area {
            translations: translations.clone(),
            start: VirtAddr::new(0x10_0000).expect("a user address"),
            first,
            last,
            flags: VmFlags::SHARED,
        }
    }

    #[test]
    fn finds_what_a_look_at_every_area_finds() {
        run_test(|| {
            let translations = Arc::new(Translations::new(PageTable::new().expect("memory")));
            let mapping = Mapping::anonymous(0).expect("memory");
            let mut random = 1u64;
            let mut below = |bound: u64| {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) % bound
            };
            let mut entered: Vec<(Entry, u64, u64)> = Vec::new();
            for _ in 0..3_000 {
                if below(3) > 0 || entered.is_empty() {
                    let first = below(500);
                    let last = first + below(40);
                    let entry = Entry::new(&mapping).expect("memory");
                    entry.enter(area(&translations, first, last));
                    entered.push((entry, first, last));
                } else {
                    drop(entered.swap_remove(below(entered.len() as u64) as usize));
                }
                let first = below(540);
                let last = first + below(10);
                let mut found = Vec::new();
                mapping
                    .areas()
                    .for_each(first, last, &mut |area| found.push((area.first, area.last)));
                let mut naive: Vec<(u64, u64)> = entered
                    .iter()
                    .map(|&(_, first, last)| (first, last))
                    .filter(|area| area.0 <= last && area.1 >= first)
                    .collect();
                found.sort_unstable();
                naive.sort_unstable();
                assert_eq!(found, naive, "pages {first} to {last}");
            }
        });
    }

    #[test]
    fn of_equal_areas_the_first_one_entered_comes_first() {
        run_test(|| {
            let translations = Arc::new(Translations::new(PageTable::new().expect("memory")));
            let mapping = Mapping::anonymous(0).expect("memory");
            let entries: Vec<Entry> = (0..50)
                .map(|length| {
                    let entry = Entry::new(&mapping).expect("memory");
                    entry.enter(area(&translations, 7, 7 + length));
                    entry
                })
                .collect();
            let mut seen = Vec::new();
            mapping
                .areas()
                .for_each(7, 7, &mut |area| seen.push(area.last - 7));
            assert!(seen.is_sorted() && seen.len() == entries.len());
        });
    }

    #[test]
    fn a_writable_area_and_a_seal_exclude_each_other() {
        run_test(|| {
            let mapping = Mapping::anonymous(0).expect("memory");
            let writer = Writer::new(&mapping).expect("not sealed");
            assert_eq!(mapping.areas().seal(), Err(Errno::EBUSY));
            drop(writer);
            assert_eq!(mapping.areas().seal(), Ok(()));
            assert_eq!(mapping.areas().seal(), Ok(()));
            assert_eq!(Writer::new(&mapping).err(), Some(Errno::EPERM));
        });
    }
}
