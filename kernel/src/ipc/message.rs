//! The bytes of a message, on their way from one process to another.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Deref;

use super::memory::Charge;
use crate::errno::Result;
use crate::mm::uaccess;

/// What a message says.
pub(super) struct Bytes {
    bytes: Box<[u8]>,
    _charge: Charge,
}

impl Bytes {
    /// Copies `len` bytes from user memory. `EFAULT`, `ENOMEM`.
    pub fn read(addr: usize, len: usize) -> Result<Bytes> {
        let charge = Charge::new(len)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len)?;
        bytes.resize(len, 0);
        uaccess::read_bytes(addr, &mut bytes)?;
        Ok(Bytes {
            bytes: bytes.into_boxed_slice(),
            _charge: charge,
        })
    }
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}
