//! Where an address space has room: the areas once more, in a tree that knows the largest gap in each of its parts.
//!
//! A treap in one array: nodes have random priorities, so the tree is as deep as a random one whatever addresses a program maps. A
//! node knows the lowest start and the highest end below it, and the largest gap between areas there; so the highest gap that is
//! large enough is found without looking at the areas, in O(log n).
//!
//! Protected by the `mmap_lock` of its owner. Memory is taken by [`Gaps::reserve`] alone.

use alloc::vec::Vec;

use crate::errno::OutOfMemory;

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Node {
    /// The area.
    start: usize,
    end: usize,
    /// Below `start` by what is kept free there.
    low: usize,
    priority: u32,
    left: u32,
    right: u32,
    /// Of the node and all below it.
    lowest: usize,
    highest: usize,
    largest_gap: usize,
}

/// The areas of an address space as ranges that do not overlap.
pub struct Gaps {
    nodes: Vec<Node>,
    /// Nodes not in use, chained by `left`.
    free: u32,
    free_count: usize,
    root: u32,
    random: u32,
}

impl Gaps {
    /// `seed`: what programs cannot guess.
    pub fn new(seed: u64) -> Gaps {
        Gaps {
            nodes: Vec::new(),
            free: NONE,
            free_count: 0,
            root: NONE,
            random: seed as u32 | 1,
        }
    }

    /// Makes sure that `count` more areas can be put in.
    pub fn reserve(&mut self, count: usize) -> Result<(), OutOfMemory> {
        let missing = count.saturating_sub(self.free_count);
        self.nodes.try_reserve(missing).map_err(|_| OutOfMemory)
    }

    /// Puts `start..end` in, which must not overlap another area, and below which `guard` bytes are not to be used. Room was reserved.
    pub fn insert(&mut self, start: usize, end: usize, guard: usize) {
        // Xorshift: never 0.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        let node = Node {
            start,
            end,
            low: start.saturating_sub(guard),
            priority: self.random,
            left: NONE,
            right: NONE,
            lowest: start.saturating_sub(guard),
            highest: end,
            largest_gap: 0,
        };
        let new = self.take_slot(node);
        let (low, high) = self.split(self.root, start);
        let low = self.join(low, new);
        self.root = self.join(low, high);
    }

    fn take_slot(&mut self, node: Node) -> u32 {
        if self.free == NONE {
            debug_assert!(self.nodes.len() < self.nodes.capacity(), "not reserved");
            self.nodes.push(node);
            return (self.nodes.len() - 1) as u32;
        }
        let slot = self.free;
        self.free = self.nodes[slot as usize].left;
        self.free_count -= 1;
        self.nodes[slot as usize] = node;
        slot
    }

    /// Takes the area out that begins at `start`.
    pub fn remove(&mut self, start: usize) {
        let (low, rest) = self.split(self.root, start);
        let (gone, high) = self.split(rest, start + 1);
        if gone != NONE {
            self.nodes[gone as usize].left = self.free;
            self.free = gone;
            self.free_count += 1;
        }
        self.root = self.join(low, high);
    }

    /// Parts a tree into the areas that begin below `at`, and the others.
    fn split(&mut self, tree: u32, at: usize) -> (u32, u32) {
        if tree == NONE {
            return (NONE, NONE);
        }
        let node = self.nodes[tree as usize];
        if node.start < at {
            let (low, high) = self.split(node.right, at);
            self.nodes[tree as usize].right = low;
            self.update(tree);
            (tree, high)
        } else {
            let (low, high) = self.split(node.left, at);
            self.nodes[tree as usize].left = high;
            self.update(tree);
            (low, tree)
        }
    }

    /// One tree of two, of which all areas in `low` lie below those in `high`.
    fn join(&mut self, low: u32, high: u32) -> u32 {
        if low == NONE {
            return high;
        }
        if high == NONE {
            return low;
        }
        if self.nodes[low as usize].priority > self.nodes[high as usize].priority {
            let right = self.nodes[low as usize].right;
            self.nodes[low as usize].right = self.join(right, high);
            self.update(low);
            low
        } else {
            let left = self.nodes[high as usize].left;
            self.nodes[high as usize].left = self.join(low, left);
            self.update(high);
            high
        }
    }

    /// Works out again what a node knows of those below it.
    fn update(&mut self, tree: u32) {
        let mut node = self.nodes[tree as usize];
        (node.lowest, node.highest, node.largest_gap) = (node.low, node.end, 0);
        if let Some(left) = self.get(node.left) {
            node.lowest = left.lowest;
            let gap = node.low.saturating_sub(left.highest);
            node.largest_gap = left.largest_gap.max(gap);
        }
        if let Some(right) = self.get(node.right) {
            node.highest = right.highest;
            let gap = right.lowest.saturating_sub(node.end);
            node.largest_gap = node.largest_gap.max(right.largest_gap).max(gap);
        }
        self.nodes[tree as usize] = node;
    }

    fn get(&self, tree: u32) -> Option<&Node> {
        self.nodes.get(tree as usize)
    }

    /// The highest place for `len` bytes (not 0) in `bottom..top`.
    pub fn highest(&self, len: usize, bottom: usize, top: usize) -> Option<usize> {
        self.highest_below(self.root, len, bottom, [top, top])
    }

    /// The same among the areas of one tree, whose first gap begins at `bottom`. Nothing may reach above `top`, and the last gap not
    /// above `last` either, where the next area begins.
    fn highest_below(
        &self,
        tree: u32,
        len: usize,
        bottom: usize,
        [top, last]: [usize; 2],
    ) -> Option<usize> {
        let last_end = top.min(last);
        let Some(node) = self.get(tree) else {
            let at = last_end.checked_sub(len)?;
            return (at >= bottom).then_some(at);
        };
        // Areas above `top` may make a part look roomier than it is; that is found out along one path only.
        let most = node
            .largest_gap
            .max(node.lowest.saturating_sub(bottom))
            .max(last_end.saturating_sub(node.highest));
        if most < len {
            return None;
        }
        let above = if node.end < top {
            self.highest_below(node.right, len, node.end.max(bottom), [top, last])
        } else {
            None
        };
        above.or_else(|| self.highest_below(node.left, len, bottom, [top, node.low]))
    }
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What [`Gaps::highest`] must find, by looking at everything.
    fn naive(
        areas: &BTreeMap<usize, (usize, usize)>,
        len: usize,
        bottom: usize,
        top: usize,
    ) -> Option<usize> {
        let mut last = top;
        for (&start, &(end, guard)) in areas.iter().rev() {
            if last
                .checked_sub(len)
                .is_some_and(|at| at >= end.max(bottom))
            {
                return Some(last - len);
            }
            // The guard belongs to the gap just below alone.
            last = top.min(start.saturating_sub(guard));
        }
        last.checked_sub(len).filter(|&at| at >= bottom)
    }

    #[test]
    fn finds_what_a_walk_over_all_areas_finds() {
        let mut random = 1u64;
        let mut below = |bound: usize| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % bound
        };
        let mut gaps = Gaps::new(7);
        let mut areas = BTreeMap::new();
        for _ in 0..20_000 {
            let (start, len) = (16 + below(4000), 1 + below(6));
            let free = areas
                .range(..start + len)
                .next_back()
                .is_none_or(|(_, &(end, _))| end <= start);
            if free {
                gaps.reserve(1).expect("memory");
                let guard = if below(8) == 0 { 30 } else { 0 };
                gaps.insert(start, start + len, guard);
                areas.insert(start, (start + len, guard));
            } else if let Some((&start, _)) = areas.range(start..).next() {
                gaps.remove(start);
                areas.remove(&start);
            }
            let (len, bottom, top) = (1 + below(40), below(64), 3000 + below(1200));
            assert_eq!(
                gaps.highest(len, bottom, top),
                naive(&areas, len, bottom, top),
                "{len} in {bottom}..{top}"
            );
        }
    }
}
