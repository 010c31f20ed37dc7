//! Mappings made to be faulted on: every access is volatile and checked against the mapping's length, nothing else. The memory behind
//! it may be missing or forbidden, which then raises the signal that the program wants to see.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::sys::mman::{
    MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, mprotect, munmap,
};

/// Bytes in a page.
pub const PAGE: usize = 4096;

/// Readable and writable.
pub const RW: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);

/// A mapping, unmapped when dropped.
pub struct Region {
    base: NonNull<u8>,
    len: usize,
}

impl Region {
    /// Private anonymous memory of `len` bytes, without huge pages where the kernel knows them, so that one touch is one page.
    pub fn anonymous(len: usize, prot: ProtFlags) -> io::Result<Self> {
        Self::map_anonymous(len, prot, MapFlags::MAP_PRIVATE)
    }

    /// As [`Region::anonymous`], with no claim that all of it could ever be backed (`MAP_NORESERVE`).
    pub fn unreserved(len: usize) -> io::Result<Self> {
        Self::map_anonymous(len, RW, MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE)
    }

    /// Anonymous memory that children share.
    pub fn shared(len: usize) -> io::Result<Self> {
        Self::map_anonymous(len, RW, MapFlags::MAP_SHARED)
    }

    fn map_anonymous(len: usize, prot: ProtFlags, flags: MapFlags) -> io::Result<Self> {
        // SAFETY: a new mapping at an address that the kernel chooses overlaps nothing.
        let base = unsafe { mmap_anonymous(None, nonzero(len)?, prot, flags)? }.cast();
        // SAFETY: advice on our own new mapping. A kernel without huge pages refuses it, and then it is not needed.
        let _ = unsafe { madvise(base.cast(), len, MmapAdvise::MADV_NOHUGEPAGE) };
        Ok(Self { base, len })
    }

    /// `len` bytes of private anonymous memory at `address` if nothing is mapped there.
    pub fn at(address: usize, len: usize, prot: ProtFlags) -> io::Result<Self> {
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED_NOREPLACE;
        let wanted = NonZeroUsize::new(address);
        // SAFETY: MAP_FIXED_NOREPLACE never takes memory that is already mapped.
        let base = unsafe { mmap_anonymous(wanted, nonzero(len)?, prot, flags)? }.cast();
        Ok(Self { base, len })
    }

    /// `len` bytes of a file from `offset` on (a multiple of [`PAGE`]); the length may reach past the file's end.
    pub fn file(
        file: impl AsFd,
        offset: usize,
        len: usize,
        prot: ProtFlags,
        flags: MapFlags,
    ) -> io::Result<Self> {
        let offset = i64::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: a new mapping at an address that the kernel chooses overlaps nothing.
        let base = unsafe { mmap(None, nonzero(len)?, prot, flags, file, offset)? }.cast();
        Ok(Self { base, len })
    }

    /// First address.
    pub fn addr(&self) -> usize {
        self.base.as_ptr() as usize
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the mapping has no bytes (it never does).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Pointer to the byte at `offset`.
    pub fn ptr(&self, offset: usize) -> *mut u8 {
        self.checked(offset, 1)
    }

    /// Reads one byte.
    pub fn read(&self, offset: usize) -> u8 {
        // SAFETY: inside the mapping; memory that is missing raises a signal, which is this type's purpose.
        unsafe { self.checked(offset, 1).read_volatile() }
    }

    /// Writes one byte.
    pub fn write(&self, offset: usize, value: u8) {
        // SAFETY: as in `read`; nothing holds a reference into the mapping.
        unsafe { self.checked(offset, 1).write_volatile(value) }
    }

    /// Reads eight bytes, at any alignment.
    pub fn read_u64(&self, offset: usize) -> u64 {
        let from = self.checked(offset, 8);
        u64::from_le_bytes(std::array::from_fn(|i| {
            // SAFETY: `checked` covers all eight bytes.
            unsafe { from.add(i).read_volatile() }
        }))
    }

    /// Writes eight bytes, at any alignment.
    pub fn write_u64(&self, offset: usize, value: u64) {
        let to = self.checked(offset, 8);
        for (i, byte) in value.to_le_bytes().into_iter().enumerate() {
            // SAFETY: `checked` covers all eight bytes, and nothing holds a reference into the mapping.
            unsafe { to.add(i).write_volatile(byte) };
        }
    }

    /// An atomic in the mapping, for memory that several processes or a handler use. `offset` is a multiple of 8.
    pub fn atomic(&self, offset: usize) -> &AtomicU64 {
        assert_eq!(offset % 8, 0);
        // SAFETY: aligned, inside the mapping, which lives as long as `self`, and any bits are a valid u64.
        unsafe { AtomicU64::from_ptr(self.checked(offset, 8).cast()) }
    }

    /// Copies `len` bytes out.
    pub fn bytes(&self, offset: usize, len: usize) -> Vec<u8> {
        (offset..offset + len).map(|at| self.read(at)).collect()
    }

    /// Changes the protection of whole pages.
    pub fn protect(&self, offset: usize, len: usize, prot: ProtFlags) -> io::Result<()> {
        let start = NonNull::new(self.checked(offset, len)).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: the range is ours. Making it inaccessible is harmless: every access to it is volatile and expects signals.
        unsafe { mprotect(start.cast(), len, prot) }?;
        Ok(())
    }

    fn checked(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len),
            "access outside the mapping"
        );
        // SAFETY: inside the mapping, just checked.
        unsafe { self.base.as_ptr().add(offset) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: our mapping, and no reference into it outlives `self`.
        let _ = unsafe { munmap(self.base.cast(), self.len) };
    }
}

fn nonzero(len: usize) -> io::Result<NonZeroUsize> {
    NonZeroUsize::new(len).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// The page that `address` lies in.
pub const fn page_of(address: usize) -> usize {
    address & !(PAGE - 1)
}

/// Resident pages of this process, by the second field of /proc/self/statm (proc_pid_statm(5)).
pub fn resident_pages() -> io::Result<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let field = statm
        .split_whitespace()
        .nth(1)
        .and_then(|field| field.parse().ok());
    field.ok_or_else(|| io::Error::other("statm: no resident field"))
}

/// FNV-1a, 64 bits, over a stream of bytes.
pub fn checksum(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
