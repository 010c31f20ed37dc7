//! A ring of bytes that grows up to a capacity: a pipe's contents.

use alloc::vec::Vec;

use crate::errno::{Errno, Result};

/// Smallest memory that a ring takes, bytes.
const MIN_MEMORY: usize = 4096;

/// A queue of bytes. Memory is taken when first needed and doubled until the capacity is reached.
pub struct Ring {
    /// All of it initialised; its length is the memory of the ring.
    memory: Vec<u8>,
    first: usize,
    len: usize,
    capacity: usize,
}

impl Ring {
    pub const fn new(capacity: usize) -> Ring {
        Ring {
            memory: Vec::new(),
            first: 0,
            len: 0,
            capacity,
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that still fit.
    pub fn room(&self) -> usize {
        self.capacity - self.len
    }

    /// `EBUSY` if more than `capacity` bytes are in the ring.
    pub fn set_capacity(&mut self, capacity: usize) -> Result {
        if self.len > capacity {
            return Err(Errno::EBUSY);
        }
        if self.memory.len() > capacity {
            self.move_to(capacity)?;
        }
        self.capacity = capacity;
        Ok(())
    }

    /// Makes sure that there is memory for `more` bytes, at most [`Ring::room`]. `ENOMEM`.
    pub fn reserve(&mut self, more: usize) -> Result {
        let needed = self.len + more;
        debug_assert!(needed <= self.capacity);
        if needed <= self.memory.len() {
            return Ok(());
        }
        self.move_to(
            needed
                .next_power_of_two()
                .max(MIN_MEMORY)
                .min(self.capacity),
        )
    }

    /// Goes over to `size` bytes of new memory.
    fn move_to(&mut self, size: usize) -> Result {
        let mut memory = Vec::new();
        memory.try_reserve_exact(size)?;
        let (head, tail) = self.parts();
        memory.extend_from_slice(head);
        memory.extend_from_slice(tail);
        memory.resize(size, 0);
        self.memory = memory;
        self.first = 0;
        Ok(())
    }

    /// The contents in order, in two pieces.
    fn parts(&self) -> (&[u8], &[u8]) {
        let end = self.first + self.len;
        if end <= self.memory.len() {
            (&self.memory[self.first..end], &[])
        } else {
            (
                &self.memory[self.first..],
                &self.memory[..end - self.memory.len()],
            )
        }
    }

    /// The oldest bytes, as many as lie together; empty only if the ring is.
    pub fn readable(&self) -> &[u8] {
        self.parts().0
    }

    /// Drops the oldest `bytes`.
    pub fn consume(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.len);
        self.len -= bytes;
        self.first = if self.len == 0 {
            0
        } else {
            (self.first + bytes) % self.memory.len()
        };
    }

    /// Reserved memory `ahead` bytes behind the newest byte, at most `max` bytes of it that lie together.
    pub fn writable(&mut self, ahead: usize, max: usize) -> &mut [u8] {
        let size = self.memory.len();
        debug_assert!(self.len + ahead < size);
        let start = (self.first + self.len + ahead) % size;
        let end = (start + max.min(size - self.len - ahead)).min(size);
        &mut self.memory[start..end]
    }

    /// The next `bytes` after the newest one, filled through [`Ring::writable`], become contents.
    pub fn commit(&mut self, bytes: usize) {
        debug_assert!(self.len + bytes <= self.memory.len());
        self.len += bytes;
    }

    /// Empties the ring and hands its memory to the caller, to be freed outside of locks.
    pub fn take_memory(&mut self) -> Vec<u8> {
        self.first = 0;
        self.len = 0;
        core::mem::take(&mut self.memory)
    }
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    fn push(ring: &mut Ring, bytes: &[u8]) {
        ring.reserve(bytes.len()).unwrap();
        let mut done = 0;
        while done < bytes.len() {
            let space = ring.writable(done, bytes.len() - done);
            let part = space.len();
            space.copy_from_slice(&bytes[done..done + part]);
            done += part;
        }
        ring.commit(done);
    }

    /// Random pushes, pops and changes of capacity against a VecDeque.
    #[test]
    fn behaves_like_a_queue() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as usize % below
        };
        let mut ring = Ring::new(16384);
        let mut model = VecDeque::new();
        for step in 0..20_000 {
            match next(20) {
                0..9 => {
                    let bytes: Vec<u8> = (0..next(3000).min(ring.room()))
                        .map(|i| (i + step) as u8)
                        .collect();
                    push(&mut ring, &bytes);
                    model.extend(bytes);
                }
                9..19 => {
                    let bytes = ring.readable();
                    let len = next(3000).min(bytes.len());
                    let expected: Vec<u8> = model.drain(..len).collect();
                    assert_eq!(bytes[..len], expected);
                    ring.consume(len);
                }
                _ => {
                    let capacity = 4096 << next(4);
                    let outcome = ring.set_capacity(capacity);
                    assert_eq!(outcome.is_err(), model.len() > capacity);
                }
            }
            assert_eq!(ring.len(), model.len());
        }
    }

    #[test]
    fn uncommitted_bytes_are_not_seen() {
        let mut ring = Ring::new(4096);
        ring.reserve(3).unwrap();
        ring.writable(0, 3).copy_from_slice(b"abc");
        assert!(ring.is_empty() && ring.readable().is_empty());
        push(&mut ring, b"xy");
        assert_eq!(ring.readable(), b"xy");
    }
}
