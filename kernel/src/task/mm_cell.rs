//! A process's reference to its address space, replaced only by exec and taken away at exit. Other processes may have one to the same.
//!
//! The process's own threads reach it without a lock on every fault and system call: only the last live thread of a process
//! replaces or drops it, so none of them can see it go. Everybody else takes the lock and a reference.

use alloc::sync::Arc;
use core::cell::UnsafeCell;

use crate::mm::Mm;
use crate::sync::{SpinLock, rank};

pub struct MmCell {
    /// Held to change the pointer, and by other processes to read it.
    lock: SpinLock<()>,
    mm: UnsafeCell<Option<Arc<Mm>>>,
}

// SAFETY: the pointer is written under the lock by the process's last live thread; its own threads read it without the lock, others with.
unsafe impl Sync for MmCell {}

impl MmCell {
    pub const fn new(mm: Option<Arc<Mm>>) -> MmCell {
        MmCell {
            lock: SpinLock::new(rank::LEAF, ()),
            mm: UnsafeCell::new(mm),
        }
    }

    /// The address space, for the process's own threads.
    ///
    /// # Safety
    /// The caller is a live thread of the process, or its switching CPU, and keeps no reference across exec or exit.
    #[inline]
    pub unsafe fn own(&self) -> Option<&Mm> {
        // SAFETY: only a thread of the process that is its last one writes, and the caller is a thread of it.
        unsafe { (*self.mm.get()).as_deref() }
    }

    /// A reference for anybody.
    pub fn get(&self) -> Option<Arc<Mm>> {
        let _held = self.lock.lock();
        // SAFETY: the lock excludes writers.
        unsafe { (*self.mm.get()).clone() }
    }

    /// Puts another address space in; the old one comes back.
    ///
    /// # Safety
    /// The caller is the only live thread of the process and holds no reference from [`MmCell::own`].
    pub unsafe fn replace(&self, mm: Option<Arc<Mm>>) -> Option<Arc<Mm>> {
        let _held = self.lock.lock();
        // SAFETY: no other thread of the process is alive, and everybody else takes the lock.
        unsafe { core::mem::replace(&mut *self.mm.get(), mm) }
    }
}
