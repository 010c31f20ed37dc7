//! The numbers of pairs, and the pairs by number. A new pair gets the lowest free number, which is found in two steps.
//!
//! Lock rank: FILES.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use super::Pair;
use crate::errno::{Errno, Result};
use crate::sync::{SpinLock, rank};

const WORD: usize = u64::BITS as usize;
/// Most pairs, `/proc/sys/kernel/pty/max`: as many as a word of words has bits.
#[cfg(test)]
const MAX: usize = WORD * WORD;

struct Numbers {
    /// Bit set: the number is taken.
    taken: [u64; WORD],
    /// Bit set: so are all numbers of that word.
    full: u64,
    pairs: Vec<Weak<Pair>>,
}

static NUMBERS: SpinLock<Numbers> = SpinLock::new(
    rank::FILES,
    Numbers {
        taken: [0; WORD],
        full: 0,
        pairs: Vec::new(),
    },
);

impl Numbers {
    /// Takes the lowest free number, which there is a place for then. `ENOSPC`, `ENOMEM`.
    fn take(&mut self) -> Result<usize> {
        let word = self.full.trailing_ones() as usize;
        let taken = self.taken.get_mut(word).ok_or(Errno::ENOSPC)?;
        let bit = taken.trailing_ones() as usize;
        let number = word * WORD + bit;
        if number >= self.pairs.len() {
            self.pairs.try_reserve(1)?;
            // The numbers below are taken, and each has got its place.
            self.pairs.push(Weak::new());
        }
        *taken |= 1 << bit;
        if *taken == u64::MAX {
            self.full |= 1 << word;
        }
        Ok(number)
    }

    fn give_back(&mut self, number: usize) {
        let (word, bit) = (number / WORD, number % WORD);
        self.taken[word] &= !(1 << bit);
        self.full &= !(1 << word);
    }

    /// The lowest number from `from` on that is taken.
    fn taken_from(&self, from: usize) -> Option<usize> {
        let mut wanted = u64::MAX << (from % WORD);
        for word in from / WORD..WORD {
            let found = self.taken[word] & wanted;
            if found != 0 {
                return Some(word * WORD + found.trailing_zeros() as usize);
            }
            wanted = u64::MAX;
        }
        None
    }
}

/// A pair's number, free again when it is dropped.
pub(super) struct Number(usize);

impl Number {
    /// `ENOSPC`, `ENOMEM`.
    pub(super) fn new() -> Result<Number> {
        NUMBERS.lock().take().map(Number)
    }

    pub(super) fn get(&self) -> u32 {
        self.0 as u32
    }

    /// From now on the number leads to the pair.
    pub(super) fn lead_to(&self, pair: &Arc<Pair>) {
        if let Some(place) = NUMBERS.lock().pairs.get_mut(self.0) {
            *place = Arc::downgrade(pair);
        }
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        let mut numbers = NUMBERS.lock();
        numbers.give_back(self.0);
        if let Some(place) = numbers.pairs.get_mut(self.0) {
            *place = Weak::new();
        }
    }
}

/// The pair with this number, while its master is open.
pub(super) fn find(number: u32) -> Option<Arc<Pair>> {
    let pair = NUMBERS.lock().pairs.get(number as usize)?.upgrade()?;
    let lives = pair.state.lock().masters > 0;
    lives.then_some(pair)
}

/// The lowest number from `from` on that a pair with an open master has.
pub(super) fn next_from(mut from: usize) -> Option<usize> {
    loop {
        let number = NUMBERS.lock().taken_from(from)?;
        if find(number as u32).is_some() {
            return Some(number);
        }
        from = number + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg_attr(not(target_os = "none"), test)]
    #[cfg_attr(target_os = "none", test_case)]
    fn the_lowest_free_number_comes_first_and_there_is_an_end() {
        let mut numbers = Numbers {
            taken: [0; WORD],
            full: 0,
            pairs: Vec::new(),
        };
        for number in 0..MAX {
            assert_eq!(numbers.take(), Ok(number));
        }
        assert_eq!(numbers.take(), Err(Errno::ENOSPC));
        for number in [MAX - 1, 64, 63] {
            numbers.give_back(number);
        }
        assert_eq!(numbers.taken_from(62), Some(62));
        assert_eq!(numbers.taken_from(63), Some(65));
        assert_eq!(numbers.taken_from(MAX - 1), None);
        for number in [63, 64, MAX - 1] {
            assert_eq!(numbers.take(), Ok(number));
        }
        assert_eq!(numbers.take(), Err(Errno::ENOSPC));
    }
}
