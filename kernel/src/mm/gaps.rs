//! Where an address space has room: what its areas cover, in a tree that knows the largest gap in each of its parts.
//!
//! The ranges in the tree are not the areas: only what all of them cover together counts. So an area that is split, or joined with
//! one beside it, changes nothing here, and one that begins where another ends makes that one's range longer.
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

/// What the areas of an address space cover, as ranges that do not overlap.
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

    /// The same, with no room for more.
    pub fn copy(&self) -> Result<Gaps, OutOfMemory> {
        let mut nodes = Vec::new();
        nodes
            .try_reserve_exact(self.nodes.len())
            .map_err(|_| OutOfMemory)?;
        nodes.extend_from_slice(&self.nodes);
        Ok(Gaps { nodes, ..*self })
    }

    /// Makes sure that `count` more areas can be put in.
    pub fn reserve(&mut self, count: usize) -> Result<(), OutOfMemory> {
        let missing = count.saturating_sub(self.free_count);
        self.nodes.try_reserve(missing).map_err(|_| OutOfMemory)
    }

    /// Puts `start..end` in, which must not overlap another area, and below which `guard` bytes are not to be used. Room was reserved.
    pub fn insert(&mut self, start: usize, end: usize, guard: usize) {
        let low = start.saturating_sub(guard);
        let (below, above) = self.around(start);
        // What is kept free below a range stays with it: a guarded one is no other's upper part.
        let below = below.filter(|below| below.end == start && guard == 0);
        let above = above.filter(|above| above.start == end && above.low == end);
        match (below.map(|node| node.start), above) {
            (Some(first), above) => {
                let last = above.map_or(end, |above| above.end);
                if above.is_some() {
                    self.root = self.remove_from(self.root, end);
                }
                self.change(self.root, first, &mut |node| node.end = last);
            }
            (None, Some(_)) => {
                self.change(self.root, end, &mut |node| {
                    (node.start, node.low) = (start, low)
                });
            }
            (None, None) => self.insert_new(start, end, low),
        }
    }

    fn insert_new(&mut self, start: usize, end: usize, low: usize) {
        // Xorshift: never 0.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        let node = Node {
            start,
            end,
            low,
            priority: self.random,
            left: NONE,
            right: NONE,
            lowest: low,
            highest: end,
            largest_gap: 0,
        };
        let new = self.take_slot(node);
        self.root = self.insert_into(self.root, new);
    }

    /// Changes the range that begins at `start`, and which keeps its place among the others.
    fn change(&mut self, tree: u32, start: usize, f: &mut impl FnMut(&mut Node)) {
        let Some(node) = self.nodes.get_mut(tree as usize) else {
            debug_assert!(false, "a range that is not in");
            return;
        };
        if node.start == start {
            f(node);
        } else {
            let child = if node.start < start {
                node.right
            } else {
                node.left
            };
            self.change(child, start, f);
        }
        self.update(tree);
    }

    /// The last range that begins at or below `at`, and the first that begins above.
    fn around(&self, at: usize) -> (Option<&Node>, Option<&Node>) {
        let (mut tree, mut below, mut above) = (self.root, None, None);
        while let Some(node) = self.get(tree) {
            if node.start <= at {
                below = Some(node);
                tree = node.right;
            } else {
                above = Some(node);
                tree = node.left;
            }
        }
        (below, above)
    }

    /// Puts a node into a tree: where its priority belongs, what was there comes below it.
    fn insert_into(&mut self, tree: u32, new: u32) -> u32 {
        if tree == NONE {
            return new;
        }
        let start = self.nodes[new as usize].start;
        let node = &self.nodes[tree as usize];
        if self.nodes[new as usize].priority > node.priority {
            let (low, high) = self.split(tree, start);
            let node = &mut self.nodes[new as usize];
            (node.left, node.right) = (low, high);
            self.update(new);
            return new;
        }
        if node.start < start {
            let right = self.insert_into(node.right, new);
            self.nodes[tree as usize].right = right;
        } else {
            let left = self.insert_into(node.left, new);
            self.nodes[tree as usize].left = left;
        }
        self.update(tree);
        tree
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

    /// Takes `start..end` out, all of which is in; what reaches across its ends stays there. Room for one more was reserved.
    pub fn remove(&mut self, start: usize, end: usize) {
        let mut at = start;
        while at < end {
            let holding = self.around(at).0.filter(|node| at < node.end);
            let Some(&Node {
                start: first,
                end: last,
                ..
            }) = holding
            else {
                debug_assert!(false, "a range that is not in");
                return;
            };
            match (first < start, last > end) {
                (false, false) => self.root = self.remove_from(self.root, first),
                (false, true) => {
                    self.change(self.root, first, &mut |node| {
                        (node.start, node.low) = (end, end)
                    });
                }
                (true, is_longer) => {
                    self.change(self.root, first, &mut |node| node.end = start);
                    if is_longer {
                        self.insert_new(end, last, end);
                    }
                }
            }
            at = last;
        }
    }

    /// Takes the range out of a tree that begins at `start`.
    fn remove_from(&mut self, tree: u32, start: usize) -> u32 {
        let Some(&Node {
            start: first,
            left,
            right,
            ..
        }) = self.get(tree)
        else {
            return NONE;
        };
        if first == start {
            let rest = self.join(left, right);
            self.nodes[tree as usize].left = self.free;
            self.free = tree;
            self.free_count += 1;
            return rest;
        }
        if first < start {
            self.nodes[tree as usize].right = self.remove_from(right, start);
        } else {
            self.nodes[tree as usize].left = self.remove_from(left, start);
        }
        self.update(tree);
        tree
    }

    /// Parts a tree into the areas that begin below `at`, and the others.
    fn split(&mut self, tree: u32, at: usize) -> (u32, u32) {
        if tree == NONE {
            return (NONE, NONE);
        }
        let Node {
            start, left, right, ..
        } = self.nodes[tree as usize];
        if start < at {
            let (low, high) = self.split(right, at);
            self.nodes[tree as usize].right = low;
            self.update(tree);
            (tree, high)
        } else {
            let (low, high) = self.split(left, at);
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
        let node = &self.nodes[tree as usize];
        let (mut lowest, mut highest, mut largest) = (node.low, node.end, 0);
        if let Some(left) = self.get(node.left) {
            lowest = left.lowest;
            largest = left.largest_gap.max(node.low.saturating_sub(left.highest));
        }
        if let Some(right) = self.get(node.right) {
            highest = right.highest;
            let gap = right.lowest.saturating_sub(node.end);
            largest = largest.max(right.largest_gap).max(gap);
        }
        let node = &mut self.nodes[tree as usize];
        (node.lowest, node.highest, node.largest_gap) = (lowest, highest, largest);
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
            } else if let Some((&start, &(end, guard))) = areas.range(start..).next() {
                areas.remove(&start);
                // Cut in the middle here, and thus no more one area there.
                if guard == 0 && end - start > 2 && below(2) == 0 {
                    gaps.reserve(1).expect("memory");
                    gaps.remove(start + 1, end - 1);
                    areas.insert(start, (start + 1, 0));
                    areas.insert(end - 1, (end, 0));
                    continue;
                }
                // With the one above it, if that touches it.
                let mut last = end;
                if let Some(&(above, 0)) = areas.get(&end) {
                    areas.remove(&end);
                    last = above;
                }
                gaps.remove(start, last);
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
