//! Numbers from 0 to [`END`], which things take and give back, and what is kept for each: a table of two levels.
//!
//! Finding a number's entry is two steps, however many are taken. Numbers are given in turn, and a search for a free one looks at a
//! block of them in one step. A block is allocated when the first of its numbers is taken, and freed with the last one; but the block
//! that the last number came from stays, as the next one comes from it too.
//!
//! The owner locks it.

use alloc::boxed::Box;

use crate::errno::{Errno, Result};

/// The first number that there is not.
pub const END: u32 = 32768;
/// Where the search goes on after the highest number (`RESERVED_PIDS`).
const AGAIN: u32 = 300;

/// Numbers in a block.
const SIZE: usize = u32::BITS as usize;
const BLOCKS: usize = END as usize / SIZE;
/// Blocks that a word of [`Numbers::present`] tells of.
const WORD: usize = u64::BITS as usize;

struct Block<T> {
    /// Bit set: the number is taken.
    taken: u32,
    entries: [T; SIZE],
}

/// The numbers that are taken, each with a `T`, which is the default one when it is taken and has to be again when it is given back.
pub struct Numbers<T> {
    blocks: [Option<Box<Block<T>>>; BLOCKS],
    /// Bit set: the block is there.
    present: [u64; BLOCKS / WORD],
    /// The number that was given last in turn.
    last: u32,
}

/// Block of a number, and place in it.
#[inline]
fn split(number: u32) -> (usize, usize) {
    (number as usize / SIZE, number as usize % SIZE)
}

impl<T: Default> Numbers<T> {
    /// Nothing is taken, and the first number given in turn is the one after `last`.
    pub const fn new(last: u32) -> Numbers<T> {
        Numbers {
            blocks: [const { None }; BLOCKS],
            present: [0; BLOCKS / WORD],
            last,
        }
    }

    /// The entry of a number; of one that is not taken there may be one too, the default.
    #[inline]
    pub fn get(&self, number: u32) -> Option<&T> {
        let (block, place) = split(number);
        Some(&self.blocks.get(block)?.as_ref()?.entries[place])
    }

    #[inline]
    pub fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let (block, place) = split(number);
        Some(&mut self.blocks.get_mut(block)?.as_mut()?.entries[place])
    }

    /// The number that was given last in turn.
    pub fn last(&self) -> u32 {
        self.last
    }

    /// Takes the next free number. `EAGAIN` if there is none, `ENOMEM`.
    pub fn take_next(&mut self) -> Result<u32> {
        let number = self
            .first_free(self.last + 1)
            .or_else(|| self.first_free(AGAIN))
            .ok_or(Errno::EAGAIN)?;
        self.mark_taken(number)?;
        let (before, after) = (split(self.last).0, split(number).0);
        self.last = number;
        if before != after {
            self.free_if_empty(before);
        }
        Ok(number)
    }

    /// Takes this number. `EEXIST`, `EINVAL`, `ENOMEM`.
    pub fn take(&mut self, number: u32) -> Result {
        if number >= END {
            return Err(Errno::EINVAL);
        }
        if self.is_taken(number) {
            return Err(Errno::EEXIST);
        }
        self.mark_taken(number)
    }

    /// Gives a number back, whose entry is the default one again. One that is not taken stays so.
    #[inline]
    pub fn give_back(&mut self, number: u32) {
        let (index, place) = split(number);
        let Some(Some(block)) = self.blocks.get_mut(index) else {
            return;
        };
        block.taken &= !(1 << place);
        if block.taken == 0 && index != split(self.last).0 {
            self.free_if_empty(index);
        }
    }

    /// The lowest number above `number` that is taken, and its entry.
    pub fn next_above(&self, number: u32) -> Option<(u32, &T)> {
        let (mut index, mut place) = split(number.checked_add(1)?);
        while let Some(found) = self.present_from(index) {
            if found != index {
                place = 0;
            }
            let block = self.blocks[found].as_ref()?;
            let taken = block.taken & u32::MAX << place;
            if taken != 0 {
                let place = taken.trailing_zeros();
                let number = (found * SIZE) as u32 + place;
                return Some((number, &block.entries[place as usize]));
            }
            (index, place) = (found + 1, 0);
        }
        None
    }

    fn is_taken(&self, number: u32) -> bool {
        let (index, place) = split(number);
        let block = self.blocks[index].as_ref();
        block.is_some_and(|block| block.taken & 1 << place != 0)
    }

    /// The lowest free number from `from` on.
    #[inline]
    fn first_free(&self, from: u32) -> Option<u32> {
        let (mut index, mut place) = split(from);
        while index < BLOCKS {
            let taken = self.blocks[index].as_ref().map_or(0, |block| block.taken);
            let free = !taken & u32::MAX << place;
            if free != 0 {
                return Some((index * SIZE) as u32 + free.trailing_zeros());
            }
            (index, place) = (index + 1, 0);
        }
        None
    }

    #[inline]
    fn mark_taken(&mut self, number: u32) -> Result {
        let (index, place) = split(number);
        if self.blocks[index].is_none() {
            self.add_block(index)?;
        }
        if let Some(block) = self.blocks[index].as_mut() {
            block.taken |= 1 << place;
        }
        Ok(())
    }

    #[cold]
    fn add_block(&mut self, index: usize) -> Result {
        self.blocks[index] = Some(Box::try_new(Block {
            taken: 0,
            entries: core::array::from_fn(|_| T::default()),
        })?);
        self.present[index / WORD] |= 1 << (index % WORD);
        Ok(())
    }

    #[cold]
    fn free_if_empty(&mut self, index: usize) {
        if self.blocks[index].as_ref().is_some_and(|it| it.taken == 0) {
            self.blocks[index] = None;
            self.present[index / WORD] &= !(1 << (index % WORD));
        }
    }

    /// The first block from `index` on that is there.
    fn present_from(&self, index: usize) -> Option<usize> {
        let mut wanted = u64::MAX << (index % WORD);
        for word in index / WORD..BLOCKS / WORD {
            let found = self.present[word] & wanted;
            if found != 0 {
                return Some(word * WORD + found.trailing_zeros() as usize);
            }
            wanted = u64::MAX;
        }
        None
    }

    #[cfg(test)]
    fn nr_blocks(&self) -> usize {
        let there = self.blocks.iter().filter(|block| block.is_some()).count();
        let marked: u32 = self.present.iter().map(|word| word.count_ones()).sum();
        assert_eq!(there, marked as usize);
        there
    }
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn all(numbers: &Numbers<u32>) -> Vec<u32> {
        let (mut found, mut at) = (Vec::new(), 0);
        while let Some((number, entry)) = numbers.next_above(at) {
            assert_eq!(*entry, number);
            found.push(number);
            at = number;
        }
        found
    }

    #[test]
    fn numbers_come_in_turn_and_begin_again_after_the_highest() {
        let mut numbers: Numbers<()> = Numbers::new(1);
        for expected in 2..END {
            assert_eq!(numbers.take_next(), Ok(expected));
            if expected % 3 != 0 {
                numbers.give_back(expected);
            }
        }
        // 300 is taken, and so is every third.
        assert_eq!(numbers.take_next(), Ok(301));
        assert_eq!(numbers.take_next(), Ok(302));
        assert_eq!(numbers.take_next(), Ok(304));
    }

    #[test]
    fn all_numbers_can_be_taken_and_no_more() {
        let mut numbers: Numbers<()> = Numbers::new(1);
        for _ in 2..END {
            numbers.take_next().expect("a number");
        }
        assert_eq!(numbers.take_next(), Err(Errno::EAGAIN));
        assert_eq!(numbers.take(777), Err(Errno::EEXIST));
        assert_eq!(numbers.take(END), Err(Errno::EINVAL));
        numbers.give_back(777);
        assert_eq!(numbers.take_next(), Ok(777));
        // Those below are not given in turn again.
        numbers.give_back(20);
        assert_eq!(numbers.take_next(), Err(Errno::EAGAIN));
        assert_eq!(numbers.take(20), Ok(()));
    }

    #[test]
    fn blocks_go_when_they_are_empty_but_for_the_last_one() {
        let mut numbers: Numbers<()> = Numbers::new(1);
        for _ in 0..1000 {
            let number = numbers.take_next().expect("a number");
            assert_eq!(numbers.nr_blocks(), 1);
            numbers.give_back(number);
        }
        assert_eq!(numbers.nr_blocks(), 1);
        assert_eq!(numbers.take(30_000), Ok(()));
        assert_eq!(numbers.nr_blocks(), 2);
        numbers.give_back(30_000);
        assert_eq!(numbers.nr_blocks(), 1);
        assert!(numbers.get(30_000).is_none());
        assert!(numbers.next_above(0).is_none());
        assert!(numbers.next_above(u32::MAX).is_none());
    }

    proptest! {
        #[test]
        fn what_is_taken_is_found_in_order(
            steps in prop::collection::vec((0..3u8, 1..END), 1..300),
        ) {
            let mut numbers: Numbers<u32> = Numbers::new(1);
            let mut model = BTreeSet::new();
            for (what, number) in steps {
                let taken = match what {
                    0 => numbers.take_next().ok(),
                    1 => {
                        let taken = numbers.take(number);
                        prop_assert_eq!(taken.is_err(), model.contains(&number));
                        taken.ok().map(|()| number)
                    }
                    _ => {
                        // The next one of those that are taken.
                        let found = model.range(number..).next().copied();
                        prop_assert_eq!(numbers.next_above(number - 1).map(|it| it.0), found);
                        if let Some(found) = found {
                            *numbers.get_mut(found).expect("an entry") = 0;
                            numbers.give_back(found);
                            model.remove(&found);
                        }
                        None
                    }
                };
                if let Some(number) = taken {
                    let entry = numbers.get_mut(number).expect("an entry");
                    prop_assert_eq!(*entry, 0);
                    *entry = number;
                    prop_assert!(model.insert(number));
                }
            }
            prop_assert_eq!(all(&numbers), model.iter().copied().collect::<Vec<_>>());
            let blocks: BTreeSet<_> = model
                .iter()
                .copied()
                .chain((numbers.last() > 1).then(|| numbers.last()))
                .map(|number| split(number).0)
                .collect();
            prop_assert_eq!(numbers.nr_blocks(), blocks.len());
        }
    }
}
