//! The index of a file's pages: a radix tree whose nodes are frames of 512 entries.
//!
//! Lookup and insertion cost the height of the tree (at most six levels for any file offset) and take memory only from the
//! frame allocator. An entry is 0 for nothing, or the frame number plus one, and owns a reference of the frame.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::arch;
use crate::errno::OutOfMemory;
use crate::mm::frame::{Frame, FrameNumber, Purpose};

/// Pages in all trees.
static INDEXED: AtomicU64 = AtomicU64::new(0);

/// Pages in the indexes of all files.
pub fn indexed_pages() -> usize {
    INDEXED.load(Ordering::Relaxed) as usize
}

const BITS: u32 = 9;
const ENTRIES: usize = 1 << BITS;

/// One node: a frame used as a table.
struct Node(Frame);

impl Node {
    fn new() -> Result<Node, OutOfMemory> {
        Frame::alloc_zeroed(Purpose::User).map(Node)
    }

    fn entry(&mut self, slot: usize) -> &mut u64 {
        debug_assert!(slot < ENTRIES);
        // SAFETY: the node's frame is owned by the tree alone, which is borrowed mutably through `self`; the slot is below 512.
        unsafe {
            &mut *arch::frame_ptr(self.0.number())
                .cast::<u64>()
                .add(slot % ENTRIES)
        }
    }
}

fn encode(frame: Frame) -> u64 {
    frame.into_raw().0 as u64 + 1
}

fn number_in(entry: u64) -> Option<FrameNumber> {
    entry
        .checked_sub(1)
        .map(|number| FrameNumber(number as u32))
}

/// Takes over the reference in an entry, leaving nothing.
fn take(entry: &mut u64) -> Option<Frame> {
    let number = number_in(core::mem::take(entry))?;
    // SAFETY: the entry owned a reference by `encode`, and it was just cleared.
    Some(unsafe { Frame::from_raw(number) })
}

/// Runs `f` on the child node in `entry`, which is not empty and keeps its reference.
fn with_child<R>(entry: &mut u64, f: impl FnOnce(&mut Node) -> R) -> R {
    let mut node = Node(take(entry).expect("an inner entry"));
    let result = f(&mut node);
    *entry = encode(node.0);
    result
}

/// What becomes of a page that [`FrameTree::sweep`] shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sweep {
    Keep,
    Drop,
    /// Keep it, and end here.
    Stop,
}

/// Entries of pages whose indexes follow each other.
pub struct Run<'tree>(&'tree [u64]);

impl Run<'_> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The page of the `n`th entry; the tree keeps its reference.
    #[inline]
    pub fn get(&self, n: usize) -> Option<FrameNumber> {
        number_in(*self.0.get(n)?)
    }
}

/// A map from page index to frame.
pub struct FrameTree {
    root: u64,
    /// Levels of nodes; 0: the root entry is the page at index 0.
    height: u32,
    /// Pages.
    count: u64,
}

impl FrameTree {
    pub const fn new() -> FrameTree {
        FrameTree {
            root: 0,
            height: 0,
            count: 0,
        }
    }

    /// Pages that are there.
    pub fn count(&self) -> u64 {
        self.count
    }

    fn covers(&self, index: u64) -> bool {
        index.checked_shr(self.height * BITS).unwrap_or(0) == 0
    }

    /// The page at `index`; the tree keeps its reference.
    pub fn get(&self, index: u64) -> Option<FrameNumber> {
        if !self.covers(index) {
            return None;
        }
        let mut number = number_in(self.root)?;
        for level in (0..self.height).rev() {
            let slot = (index >> (level * BITS)) as usize % ENTRIES;
            // SAFETY: inner entries are the tree's own nodes, and nobody changes them while `self` is borrowed; the slot is below
            // 512.
            number = number_in(unsafe { *arch::frame_ptr(number).cast::<u64>().add(slot) })?;
        }
        Some(number)
    }

    /// The entries from `index` on, at most `count` (not 0), that lie together: how many indexes these are, and what is there, which is
    /// nothing or an entry for each.
    pub fn run(&self, index: u64, count: usize) -> (usize, Run<'_>) {
        if self.height == 0 {
            let is_root = index == 0 && self.root != 0;
            return (
                1,
                Run(&core::slice::from_ref(&self.root)[..usize::from(is_root)]),
            );
        }
        let slot = index as usize % ENTRIES;
        let len = count.min(ENTRIES - slot);
        let mut number = self.covers(index).then(|| number_in(self.root)).flatten();
        for level in (1..self.height).rev() {
            let slot = (index >> (level * BITS)) as usize % ENTRIES;
            number = number.and_then(|node| {
                // SAFETY: as in `get`.
                number_in(unsafe { *arch::frame_ptr(node).cast::<u64>().add(slot) })
            });
        }
        let entries: &[u64] = match number {
            // SAFETY: as in `get`; `len` entries from the slot on are in the node.
            Some(leaf) => unsafe {
                core::slice::from_raw_parts(arch::frame_ptr(leaf).cast::<u64>().add(slot), len)
            },
            None => &[],
        };
        (len, Run(entries))
    }

    /// Puts a page where there is none.
    pub fn insert(&mut self, index: u64, page: Frame) -> Result<(), OutOfMemory> {
        while !self.covers(index) {
            if self.root != 0 {
                let mut node = Node::new()?;
                *node.entry(0) = core::mem::take(&mut self.root);
                self.root = encode(node.0);
            }
            self.height += 1;
        }
        insert_below(&mut self.root, self.height, index, page)?;
        self.count += 1;
        INDEXED.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Takes the page at `index` out. Nodes stay for the next one.
    pub fn remove(&mut self, index: u64) -> Option<Frame> {
        if !self.covers(index) || self.root == 0 {
            return None;
        }
        let removed = remove_below(&mut self.root, self.height, index);
        let gone = u64::from(removed.is_some());
        self.count -= gone;
        INDEXED.fetch_sub(gone, Ordering::Relaxed);
        removed
    }

    /// Shows `f` the pages from index `first` on and does what it says; the index of the page at which it stopped, `None` if it
    /// came to the end. Nodes that became empty go too.
    pub fn sweep(
        &mut self,
        first: u64,
        mut f: impl FnMut(u64, FrameNumber) -> Sweep,
    ) -> Option<u64> {
        let mut dropped = 0;
        let stopped = sweep_below(&mut self.root, self.height, 0, first, &mut |index, page| {
            let fate = f(index, page);
            dropped += u64::from(fate == Sweep::Drop);
            fate
        });
        self.count -= dropped;
        INDEXED.fetch_sub(dropped, Ordering::Relaxed);
        stopped
    }
}

impl Default for FrameTree {
    fn default() -> Self {
        FrameTree::new()
    }
}

impl Drop for FrameTree {
    fn drop(&mut self) {
        self.sweep(0, |_, _| Sweep::Drop);
        // All pages and inner nodes are gone but the root node, if there is one.
        drop(take(&mut self.root));
    }
}

fn insert_below(entry: &mut u64, height: u32, index: u64, page: Frame) -> Result<(), OutOfMemory> {
    if height == 0 {
        debug_assert_eq!(*entry, 0, "page {index} is there already");
        drop(take(entry));
        *entry = encode(page);
        return Ok(());
    }
    if *entry == 0 {
        *entry = encode(Node::new()?.0);
    }
    let slot = (index >> ((height - 1) * BITS)) as usize % ENTRIES;
    with_child(entry, |node| {
        insert_below(node.entry(slot), height - 1, index, page)
    })
}

fn remove_below(entry: &mut u64, height: u32, index: u64) -> Option<Frame> {
    if height == 0 || *entry == 0 {
        return take(entry);
    }
    let slot = (index >> ((height - 1) * BITS)) as usize % ENTRIES;
    with_child(entry, |node| {
        remove_below(node.entry(slot), height - 1, index)
    })
}

/// `base`: the index of the first page below `entry`.
fn sweep_below(
    entry: &mut u64,
    height: u32,
    base: u64,
    first: u64,
    f: &mut dyn FnMut(u64, FrameNumber) -> Sweep,
) -> Option<u64> {
    let number = number_in(*entry)?;
    if height == 0 {
        if base < first {
            return None;
        }
        match f(base, number) {
            Sweep::Keep => return None,
            Sweep::Stop => return Some(base),
            Sweep::Drop => drop(take(entry)),
        }
        return None;
    }
    let shift = (height - 1) * BITS;
    let (stopped, empty) = with_child(entry, |node| {
        let stopped = (0..ENTRIES).find_map(|slot| {
            let base = base | (slot as u64).checked_shl(shift).unwrap_or(0);
            let ends_before = base < first && (first - base).checked_shr(shift).unwrap_or(0) != 0;
            if ends_before {
                return None;
            }
            sweep_below(node.entry(slot), height - 1, base, first, f)
        });
        (
            stopped,
            stopped.is_none() && (0..ENTRIES).all(|slot| *node.entry(slot) == 0),
        )
    });
    if empty {
        drop(take(entry));
    }
    stopped
}
