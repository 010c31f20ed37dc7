//! User memory, as the rest of the kernel sees it: claims that a checked copy turns into data.
//!
//! Everything goes through the exception table, so a bad pointer is `EFAULT` and nothing else. A copy may fault, and so may
//! sleep: no spin lock and no sleeping lock may be held, unless [`NoFault`] turns faults into `EFAULT` at once.

use alloc::vec::Vec;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::sync::atomic::Ordering;

use super::addr::PAGE_SIZE;
use crate::arch;
use crate::errno::{Errno, Result};
use crate::sched::current;

/// Types that may be copied to and from user memory byte by byte.
///
/// # Safety
/// Every bit pattern is a value, and there is no padding (which would leak kernel memory).
pub unsafe trait Pod: Copy + 'static {}

macro_rules! pod {
    ($($t:ty)*) => { $(
        // SAFETY: integers and arrays of them have no padding and no invalid values.
        unsafe impl Pod for $t {}
    )* };
}

pod! { u8 i8 u16 i16 u32 i32 u64 i64 usize isize }

// SAFETY: an array of such values has no padding between them.
unsafe impl<T: Pod, const N: usize> Pod for [T; N] {}

/// A user address that is claimed to hold a `T`.
#[derive(Clone, Copy)]
pub struct UserPtr<T> {
    addr: usize,
    of: PhantomData<T>,
}

impl<T: Pod> UserPtr<T> {
    pub const fn new(addr: usize) -> Self {
        UserPtr {
            addr,
            of: PhantomData,
        }
    }

    /// `None` for NULL, where a call takes that to mean absence.
    pub fn optional(addr: usize) -> Option<Self> {
        (addr != 0).then_some(Self::new(addr))
    }

    /// The `n`th element of an array that starts here.
    pub fn at(self, n: usize) -> Self {
        Self::new(self.addr.wrapping_add(n.wrapping_mul(size_of::<T>())))
    }

    /// Copies the value in. `EFAULT`.
    #[inline]
    pub fn read(self) -> Result<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: `value` has room for the bytes of a T.
        let whole = unsafe { arch::get_user(value.as_mut_ptr().cast(), self.addr, size_of::<T>()) };
        if !whole {
            return Err(Errno::EFAULT);
        }
        // SAFETY: all bytes were written, and any bytes are a T.
        Ok(unsafe { value.assume_init() })
    }

    /// Copies the value out. `EFAULT`; a part may have been written then.
    #[inline]
    pub fn write(self, value: T) -> Result {
        // SAFETY: `value` is readable and without padding.
        let whole = unsafe { arch::put_user(self.addr, (&raw const value).cast(), size_of::<T>()) };
        if whole { Ok(()) } else { Err(Errno::EFAULT) }
    }
}

/// Copies bytes in; `EFAULT` unless all of them could be read.
pub fn read_bytes(addr: usize, buf: &mut [u8]) -> Result {
    if read_bytes_partly(addr, buf) == buf.len() {
        Ok(())
    } else {
        Err(Errno::EFAULT)
    }
}

/// Copies bytes in; how many could be read.
pub fn read_bytes_partly(addr: usize, buf: &mut [u8]) -> usize {
    // SAFETY: `buf` has room for its own length.
    let missing = unsafe { arch::copy_from_user(buf.as_mut_ptr(), addr, buf.len()) };
    buf.len() - missing
}

/// Copies bytes out; `EFAULT` unless all of them could be written.
pub fn write_bytes(addr: usize, bytes: &[u8]) -> Result {
    if write_bytes_partly(addr, bytes) == bytes.len() {
        Ok(())
    } else {
        Err(Errno::EFAULT)
    }
}

/// Copies bytes out; how many could be written.
pub fn write_bytes_partly(addr: usize, bytes: &[u8]) -> usize {
    // SAFETY: `bytes` is readable.
    let missing = unsafe { arch::copy_to_user(addr, bytes.as_ptr(), bytes.len()) };
    bytes.len() - missing
}

/// Writes zeros. `EFAULT`.
pub fn clear(addr: usize, len: usize) -> Result {
    if arch::clear_user(addr, len) == 0 {
        Ok(())
    } else {
        Err(Errno::EFAULT)
    }
}

/// Copies a NUL-terminated string in, without its NUL. `too_long` if there is no NUL in the first `max` bytes; `EFAULT`; `ENOMEM`.
pub fn read_string(addr: usize, max: usize, too_long: Errno) -> Result<Vec<u8>> {
    let mut string = Vec::new();
    while string.len() < max {
        let at = addr.wrapping_add(string.len());
        let part = (PAGE_SIZE - at % PAGE_SIZE)
            .min(256)
            .min(max - string.len());
        let mut chunk = [0u8; 256];
        let got = read_bytes_partly(at, &mut chunk[..part]);
        let end = chunk[..got].iter().position(|&byte| byte == 0);
        let text = &chunk[..end.unwrap_or(got)];
        string.try_reserve(text.len())?;
        string.extend_from_slice(text);
        if end.is_some() {
            return Ok(string);
        }
        if got < part {
            return Err(Errno::EFAULT);
        }
    }
    Err(too_long)
}

/// While it lives, faults of the current thread on user addresses end at the exception table at once: nothing sleeps, so a spin
/// lock may be held. Use it with [`fault_in_writeable`] or [`fault_in_readable`] outside the lock, and make progress each round.
pub struct NoFault(());

impl NoFault {
    pub fn new() -> NoFault {
        count_no_fault(1);
        NoFault(())
    }
}

/// Only the thread itself changes the count, so that takes no locked instruction.
#[inline]
fn count_no_fault(change: i32) {
    let thread = current();
    let count = thread.pagefault_disabled.load(Ordering::Relaxed);
    thread
        .pagefault_disabled
        .store(count.wrapping_add_signed(change), Ordering::Relaxed);
}

impl Default for NoFault {
    fn default() -> Self {
        NoFault::new()
    }
}

impl Drop for NoFault {
    fn drop(&mut self) {
        count_no_fault(-1);
    }
}

/// Makes the page that holds `addr` present for reading. `EFAULT`.
pub fn fault_in_readable(addr: usize) -> Result {
    UserPtr::<u8>::new(addr).read().map(|_| ())
}

/// Makes the page that holds `addr` present and writable, without changing it. `EFAULT`.
pub fn fault_in_writeable(addr: usize) -> Result {
    super::fault::fault_in(addr, super::fault::Access::Write)
}
