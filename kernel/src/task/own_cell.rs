//! A reference that its owner reads without a lock and may exchange: a process's to its address space, a thread's to its open files.
//! Others may have one to the same object.
//!
//! The owner follows it on every fault and system call, so that must cost nothing; only the owner itself exchanges it, when no use of the
//! old reference is under way. Everybody else takes the lock and a copy of the reference.

use core::cell::UnsafeCell;

use crate::sync::{SpinLock, rank};

/// `P` is a counted reference.
pub struct OwnCell<P> {
    /// Held to exchange the reference, and by others to read it.
    lock: SpinLock<()>,
    reference: UnsafeCell<P>,
}

// SAFETY: the reference is written under the lock by its owner alone; the owner reads it without the lock, others with.
unsafe impl<P: Send + Sync> Sync for OwnCell<P> {}

impl<P: Clone> OwnCell<P> {
    pub const fn new(reference: P) -> OwnCell<P> {
        OwnCell {
            lock: SpinLock::new(rank::LEAF, ()),
            reference: UnsafeCell::new(reference),
        }
    }

    /// The reference, for its owner.
    ///
    /// # Safety
    /// The caller is the owner: a live thread of the process, or its switching CPU; or the thread itself. It keeps no borrow until the
    /// reference is exchanged.
    #[inline]
    pub unsafe fn own(&self) -> &P {
        // SAFETY: only the owner writes, and that is the caller.
        unsafe { &*self.reference.get() }
    }

    /// A copy of the reference for anybody.
    pub fn get(&self) -> P {
        let _held = self.lock.lock();
        // SAFETY: the lock excludes writers.
        unsafe { (*self.reference.get()).clone() }
    }

    /// Puts another reference in; the old one comes back.
    ///
    /// # Safety
    /// The caller is the owner: the only live thread of the process, or the thread itself. Nobody has a borrow from [`OwnCell::own`].
    pub unsafe fn replace(&self, reference: P) -> P {
        let _held = self.lock.lock();
        // SAFETY: the owner is not reading, and everybody else takes the lock.
        unsafe { core::mem::replace(&mut *self.reference.get(), reference) }
    }
}
