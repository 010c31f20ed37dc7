//! Where the bytes of a read go and those of a write come from: user memory in one or more pieces, or the kernel's own.
//!
//! A [`Dst`] or [`Src`] is a cursor: every copy moves it on by what was really copied, so that partial results need no
//! bookkeeping elsewhere. Copies to user memory may fault and sleep: no lock is held then, unless `NoFault` is, and a short copy is
//! then followed by `fault_in` outside the lock.

use crate::errno::{Errno, Result};
use crate::mm::PAGE_SIZE;
use crate::mm::frame::Frame;
use crate::mm::page_cache;
use crate::mm::uaccess;

/// Most bytes one call moves (`read(2)`).
pub const MAX_RW_COUNT: usize = 0x7fff_f000;

/// Most pieces of one vector (`IOV_MAX`).
pub const IOV_MAX: usize = 1024;

/// One piece of user memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoVec {
    pub base: usize,
    pub len: usize,
}

/// A cursor over pieces of user memory.
#[derive(Clone)]
pub struct UserPieces<'a> {
    /// What is left of the piece in turn.
    addr: usize,
    here: usize,
    /// The pieces behind it.
    rest: &'a [IoVec],
    /// Bytes of all together.
    left: usize,
}

impl<'a> UserPieces<'a> {
    fn new(pieces: &'a [IoVec]) -> Self {
        let total = pieces
            .iter()
            .fold(0usize, |sum, piece| sum.saturating_add(piece.len));
        UserPieces {
            addr: 0,
            here: 0,
            rest: pieces,
            left: total.min(MAX_RW_COUNT),
        }
    }

    fn one(addr: usize, len: usize) -> Self {
        UserPieces {
            addr,
            here: len,
            rest: &[],
            left: len.min(MAX_RW_COUNT),
        }
    }

    /// The next contiguous piece: address and length, at most `max` bytes. `None` at the end.
    #[inline]
    fn piece(&mut self, max: usize) -> Option<(usize, usize)> {
        while self.here == 0 {
            let (next, rest) = self.rest.split_first()?;
            (self.addr, self.here, self.rest) = (next.base, next.len, rest);
        }
        let len = self.here.min(self.left).min(max);
        (len > 0).then_some((self.addr, len))
    }

    #[inline]
    fn advance(&mut self, bytes: usize) {
        self.addr = self.addr.wrapping_add(bytes);
        self.here -= bytes;
        self.left -= bytes;
    }

    /// Whether the next `bytes` lie in the piece in turn, as they mostly do.
    #[inline]
    fn has_together(&self, bytes: usize) -> bool {
        bytes <= self.here && bytes <= self.left
    }

    /// Moves up to `max` bytes: `copy` gets the address, how many bytes are done and how many are asked for, and answers how many it
    /// moved. Stops at the first short copy. How many were moved in all.
    fn transfer(
        &mut self,
        max: usize,
        mut copy: impl FnMut(usize, usize, usize) -> usize,
    ) -> usize {
        let mut done = 0;
        while let Some((addr, len)) = self.piece(max - done) {
            let copied = copy(addr, done, len);
            self.advance(copied);
            done += copied;
            if copied < len || done == max {
                break;
            }
        }
        done
    }
}

/// The destination of a read.
pub enum Dst<'a> {
    User(UserPieces<'a>),
    /// What is still to be filled.
    Kernel(&'a mut [u8]),
}

impl<'a> Dst<'a> {
    pub fn user(pieces: &'a [IoVec]) -> Self {
        Dst::User(UserPieces::new(pieces))
    }

    /// One piece of user memory.
    #[inline]
    pub fn buffer(addr: usize, len: usize) -> Self {
        Dst::User(UserPieces::one(addr, len))
    }

    /// Bytes that still fit.
    pub fn left(&self) -> usize {
        match self {
            Dst::User(pieces) => pieces.left,
            Dst::Kernel(buf) => buf.len(),
        }
    }

    /// Lets at most `bytes` more fit.
    pub fn limit(&mut self, bytes: usize) {
        match self {
            Dst::User(pieces) => pieces.left = pieces.left.min(bytes),
            Dst::Kernel(buf) => {
                let len = buf.len().min(bytes);
                *buf = &mut core::mem::take(buf)[..len];
            }
        }
    }

    /// Copies `bytes` as far as they fit; how many were copied. Fewer than that means that user memory could not be written.
    #[inline(always)]
    pub fn put(&mut self, bytes: &[u8]) -> usize {
        if let Dst::User(pieces) = self
            && pieces.has_together(bytes.len())
        {
            let copied = uaccess::write_bytes_partly(pieces.addr, bytes);
            pieces.advance(copied);
            return copied;
        }
        self.put_pieces(bytes)
    }

    #[inline(never)]
    fn put_pieces(&mut self, bytes: &[u8]) -> usize {
        match self {
            Dst::User(pieces) => pieces.transfer(bytes.len(), |addr, done, len| {
                uaccess::write_bytes_partly(addr, &bytes[done..done + len])
            }),
            Dst::Kernel(buf) => {
                let len = buf.len().min(bytes.len());
                let (now, later) = core::mem::take(buf).split_at_mut(len);
                now.copy_from_slice(&bytes[..len]);
                *buf = later;
                len
            }
        }
    }

    /// Copies `len` bytes from `offset` of a page that is up to date, as [`Dst::put`].
    pub fn put_page(&mut self, page: &Frame, offset: usize, len: usize) -> usize {
        match self {
            Dst::User(pieces) => pieces.transfer(len, |addr, done, len| {
                page_cache::copy_page_to_user(page, offset + done, addr, len)
            }),
            Dst::Kernel(buf) => {
                let len = buf.len().min(len);
                let (now, later) = core::mem::take(buf).split_at_mut(len);
                page_cache::copy_from_page(page, offset, now);
                *buf = later;
                len
            }
        }
    }

    /// Writes `len` zeros, as [`Dst::put`].
    pub fn put_zeros(&mut self, len: usize) -> usize {
        match self {
            Dst::User(pieces) => {
                pieces.transfer(len, |addr, _, len| len - crate::arch::clear_user(addr, len))
            }
            Dst::Kernel(buf) => {
                let len = buf.len().min(len);
                let (now, later) = core::mem::take(buf).split_at_mut(len);
                now.fill(0);
                *buf = later;
                len
            }
        }
    }

    /// Makes the next byte's page writable, after a short copy under `NoFault`. `EFAULT`.
    pub fn fault_in(&mut self) -> Result {
        match self {
            Dst::User(pieces) => match pieces.piece(PAGE_SIZE) {
                Some((addr, _)) => uaccess::fault_in_writeable(addr),
                None => Ok(()),
            },
            Dst::Kernel(_) => Ok(()),
        }
    }
}

/// The origin of a write.
#[derive(Clone)]
pub enum Src<'a> {
    User(UserPieces<'a>),
    /// What is still to be taken.
    Kernel(&'a [u8]),
}

impl<'a> Src<'a> {
    pub fn user(pieces: &'a [IoVec]) -> Self {
        Src::User(UserPieces::new(pieces))
    }

    /// One piece of user memory.
    #[inline]
    pub fn buffer(addr: usize, len: usize) -> Self {
        Src::User(UserPieces::one(addr, len))
    }

    /// Bytes that are still there.
    pub fn left(&self) -> usize {
        match self {
            Src::User(pieces) => pieces.left,
            Src::Kernel(bytes) => bytes.len(),
        }
    }

    /// Leaves at most `bytes`.
    pub fn limit(&mut self, bytes: usize) {
        match self {
            Src::User(pieces) => pieces.left = pieces.left.min(bytes),
            Src::Kernel(rest) => *rest = &rest[..rest.len().min(bytes)],
        }
    }

    /// Fills `buf` as far as bytes are left; how many were copied. Fewer than that means that user memory could not be read.
    #[inline(always)]
    pub fn take(&mut self, buf: &mut [u8]) -> usize {
        if let Src::User(pieces) = self
            && pieces.has_together(buf.len())
        {
            let copied = uaccess::read_bytes_partly(pieces.addr, buf);
            pieces.advance(copied);
            return copied;
        }
        self.take_pieces(buf)
    }

    /// As [`Src::take`], but if `wanted` does not hold for the number of bytes that were copied, they are still to be taken.
    #[inline(always)]
    pub fn take_if(&mut self, buf: &mut [u8], wanted: impl FnOnce(usize) -> bool) -> usize {
        if let Src::User(pieces) = self
            && pieces.has_together(buf.len())
        {
            let copied = uaccess::read_bytes_partly(pieces.addr, buf);
            if wanted(copied) {
                pieces.advance(copied);
            }
            return copied;
        }
        let mut attempt = self.clone();
        let copied = attempt.take_pieces(buf);
        if wanted(copied) {
            *self = attempt;
        }
        copied
    }

    #[inline(never)]
    fn take_pieces(&mut self, buf: &mut [u8]) -> usize {
        match self {
            Src::User(pieces) => pieces.transfer(buf.len(), |addr, done, len| {
                uaccess::read_bytes_partly(addr, &mut buf[done..done + len])
            }),
            Src::Kernel(bytes) => {
                let len = buf.len().min(bytes.len());
                buf[..len].copy_from_slice(&bytes[..len]);
                *bytes = &bytes[len..];
                len
            }
        }
    }

    /// Copies `len` bytes to `offset` of a page of shared memory, as [`Src::take`].
    pub fn take_to_page(&mut self, page: &Frame, offset: usize, len: usize) -> usize {
        match self {
            Src::User(pieces) => pieces.transfer(len, |addr, done, len| {
                page_cache::copy_user_to_page(page, offset + done, addr, len)
            }),
            Src::Kernel(bytes) => {
                let len = bytes.len().min(len);
                page_cache::copy_to_page(page, offset, &bytes[..len]);
                *bytes = &bytes[len..];
                len
            }
        }
    }

    /// Passes over `len` bytes without looking at them.
    pub fn skip(&mut self, len: usize) -> usize {
        match self {
            Src::User(pieces) => pieces.transfer(len, |_, _, len| len),
            Src::Kernel(bytes) => {
                let len = bytes.len().min(len);
                *bytes = &bytes[len..];
                len
            }
        }
    }

    /// Makes the next byte's page readable, after a short copy under `NoFault`. `EFAULT`.
    pub fn fault_in(&mut self) -> Result {
        match self {
            Src::User(pieces) => match pieces.piece(PAGE_SIZE) {
                Some((addr, _)) => uaccess::fault_in_readable(addr),
                None => Ok(()),
            },
            Src::Kernel(_) => Ok(()),
        }
    }
}

/// What a call answers that has moved `done` bytes when `error` stopped it: the bytes, if there are any.
pub fn partial(done: usize, error: Errno) -> Result<usize> {
    if done > 0 { Ok(done) } else { Err(error) }
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    #[test]
    fn kernel_buffers_move_on() {
        let mut buf = [0u8; 8];
        let mut dst = Dst::Kernel(&mut buf);
        assert_eq!(dst.put(b"abc"), 3);
        dst.limit(4);
        assert_eq!(dst.put_zeros(1), 1);
        assert_eq!(dst.put(b"defghi"), 3);
        assert_eq!(dst.left(), 0);
        assert_eq!(&buf, b"abc\0def\0");
    }

    #[test]
    fn pieces_are_walked_in_order_and_empty_ones_skipped() {
        let pieces = [
            IoVec { base: 100, len: 2 },
            IoVec { base: 0, len: 0 },
            IoVec { base: 200, len: 5 },
        ];
        let mut cursor = UserPieces::new(&pieces);
        let mut seen = alloc::vec::Vec::new();
        let moved = cursor.transfer(6, |addr, done, len| {
            seen.push((addr, done, len));
            len
        });
        assert_eq!(moved, 6);
        assert_eq!(seen, [(100, 0, 2), (200, 2, 4)]);
        assert_eq!(cursor.piece(9), Some((204, 1)));
    }

    #[test]
    fn a_short_copy_stops_the_transfer() {
        let pieces = [IoVec { base: 100, len: 4 }, IoVec { base: 200, len: 4 }];
        let mut cursor = UserPieces::new(&pieces);
        assert_eq!(cursor.transfer(8, |_, _, len| len.min(3)), 3);
        assert_eq!(cursor.left, 5);
        assert_eq!(cursor.piece(9), Some((103, 1)));
    }

    #[test]
    fn the_total_is_capped() {
        let pieces = [
            IoVec {
                base: 0,
                len: usize::MAX,
            },
            IoVec {
                base: 0,
                len: usize::MAX,
            },
        ];
        assert_eq!(UserPieces::new(&pieces).left, MAX_RW_COUNT);
    }
}
