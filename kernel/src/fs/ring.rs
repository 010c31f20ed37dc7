//! A queue of bytes in pages: a pipe's contents.
//!
//! Pages are taken when bytes come and given back as they are read, but for one that stays for the next bytes. All pipes together may hold a quarter of the memory; beyond that a
//! queue takes more only while it is empty, so that every pipe can still move something.

use alloc::collections::VecDeque;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::errno::{Errno, Result};
use crate::mm::PAGE_SIZE;
use crate::mm::frame;
use crate::mm::page_buffer::PageBuffer;

/// Pages in all rings.
static PAGES: AtomicUsize = AtomicUsize::new(0);

/// A page that is counted.
struct Page(PageBuffer);

impl Page {
    fn new() -> Result<Page> {
        let page = Page(PageBuffer::new()?);
        PAGES.fetch_add(1, Ordering::Relaxed);
        Ok(page)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        PAGES.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A queue of bytes.
pub struct Ring {
    pages: VecDeque<Page>,
    /// Where the oldest byte is in the first page.
    first: usize,
    len: usize,
    capacity: usize,
}

impl Ring {
    /// An empty queue for `capacity` bytes, at least a page.
    pub const fn new(capacity: usize) -> Ring {
        Ring {
            pages: VecDeque::new(),
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

    /// `EBUSY` if more than `capacity` bytes are in the queue.
    pub fn set_capacity(&mut self, capacity: usize) -> Result {
        if self.len > capacity {
            return Err(Errno::EBUSY);
        }
        self.capacity = capacity;
        Ok(())
    }

    /// Takes memory for up to `wanted` more bytes, at most [`Ring::room`]; for how many there is some. `ENOMEM` if there is none at all
    /// and the queue is empty.
    #[inline]
    pub fn reserve(&mut self, wanted: usize) -> Result<usize> {
        debug_assert!(wanted <= self.room());
        let space = self.pages.len() * PAGE_SIZE - self.first - self.len;
        match space >= wanted {
            true => Ok(wanted),
            false => self.reserve_more(wanted, space),
        }
    }

    /// The same where there is memory for `space` bytes, and that is less.
    #[inline(never)]
    fn reserve_more(&mut self, wanted: usize, mut space: usize) -> Result<usize> {
        while space < wanted {
            let many = PAGES.load(Ordering::Relaxed) > frame::total_frames() / 4;
            // Two pages hold any atomic write, wherever it begins.
            if many && (self.len > 0 || self.pages.len() >= 2) {
                break;
            }
            let page = self
                .pages
                .try_reserve(1)
                .map_err(Errno::from)
                .and_then(|()| Page::new());
            match page {
                Ok(page) => self.pages.push_back(page),
                Err(_) if self.len > 0 || space > 0 => break,
                Err(error) => return Err(error),
            }
            space += PAGE_SIZE;
        }
        Ok(space.min(wanted))
    }

    /// The oldest bytes, as many as lie together; empty only if the queue is.
    pub fn readable(&self) -> &[u8] {
        let end = (self.first + self.len).min(PAGE_SIZE);
        self.pages
            .front()
            .map_or(&[], |page| &page.0.bytes()[self.first..end])
    }

    /// Drops the oldest `bytes`.
    #[inline]
    pub fn consume(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.len);
        self.len -= bytes;
        self.first += bytes;
        if self.len == 0 {
            self.first = 0;
        }
        // Mostly there is but one page, which stays.
        if self.pages.len() > 1 {
            self.give_back_pages();
        }
    }

    /// Gives back the pages that nothing is in any more, but for the last.
    #[inline(never)]
    fn give_back_pages(&mut self) {
        if self.len == 0 {
            self.pages.truncate(1);
        } else if self.first >= PAGE_SIZE {
            self.pages.drain(..self.first / PAGE_SIZE);
            self.first %= PAGE_SIZE;
        }
    }

    /// Reserved memory `ahead` bytes behind the newest byte, at most `max` bytes of it that lie together.
    pub fn writable(&mut self, ahead: usize, max: usize) -> &mut [u8] {
        let at = self.first + self.len + ahead;
        let start = at % PAGE_SIZE;
        let end = (start + max).min(PAGE_SIZE);
        match self.pages.get_mut(at / PAGE_SIZE) {
            Some(page) => &mut page.0.bytes_mut()[start..end],
            None => &mut [],
        }
    }

    /// The next `bytes` after the newest one, filled through [`Ring::writable`], become contents.
    pub fn commit(&mut self, bytes: usize) {
        self.len += bytes;
        debug_assert!(self.first + self.len <= self.pages.len() * PAGE_SIZE);
    }

    /// Empties the queue and gives its memory back.
    pub fn clear(&mut self) {
        self.pages = VecDeque::new();
        self.first = 0;
        self.len = 0;
    }
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;
    use crate::arch::sim::machine::run_test;

    fn push(ring: &mut Ring, bytes: &[u8]) {
        assert_eq!(ring.reserve(bytes.len()), Ok(bytes.len()));
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
        run_test(|| {
            let mut random = 0x9e37_79b9_7f4a_7c15_u64;
            let mut next = |below: usize| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random as usize % below
            };
            let before = frame::free_frames();
            let mut ring = Ring::new(16384);
            let mut model = VecDeque::new();
            for step in 0..20_000 {
                match next(20) {
                    0..9 => {
                        let len = next(3000).min(ring.room());
                        let bytes: Vec<u8> = (0..len).map(|i| (i + step) as u8).collect();
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
                assert!(before - frame::free_frames() <= ring.len().div_ceil(PAGE_SIZE) + 1);
            }
            ring.clear();
            assert_eq!(frame::free_frames(), before);
        });
    }

    #[test]
    fn uncommitted_bytes_are_not_seen() {
        run_test(|| {
            let mut ring = Ring::new(4096);
            assert_eq!(ring.reserve(3), Ok(3));
            ring.writable(0, 3).copy_from_slice(b"abc");
            assert!(ring.is_empty() && ring.readable().is_empty());
            push(&mut ring, b"xy");
            assert_eq!(ring.readable(), b"xy");
        });
    }
}
