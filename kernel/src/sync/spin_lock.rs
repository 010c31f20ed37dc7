//! The two spin locks: `SpinLock`, and `IrqLock` for data that an interrupt handler takes too.
//!
//! Both wrap `spin::Mutex`. The kernel is not preempted inside itself, so a `SpinLock` holder is only ever interrupted, never
//! switched away; nobody sleeps while holding one.

use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};

use super::rank::{self, Rank};
use crate::arch::irq;

/// A spin lock for data that no interrupt handler touches.
pub struct SpinLock<T> {
    rank: Rank,
    inner: spin::mutex::SpinMutex<T>,
}

/// Access to a [`SpinLock`]'s data.
#[must_use]
pub struct SpinLockGuard<'a, T> {
    rank: Rank,
    inner: spin::mutex::SpinMutexGuard<'a, T>,
}

impl<T> SpinLock<T> {
    pub const fn new(rank: Rank, value: T) -> Self {
        SpinLock {
            rank,
            inner: spin::mutex::SpinMutex::new(value),
        }
    }

    /// Waits for the lock. Not from interrupt handlers; locks of this or a greater rank must not be held.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> SpinLockGuard<'_, T> {
        rank::acquire(self.rank);
        SpinLockGuard {
            rank: self.rank,
            inner: self.inner.lock(),
        }
    }

    /// As [`SpinLock::lock`], while another lock of the same kind is held: `rank` is greater than that one's, and the caller takes the
    /// two in an order that is the same for everybody.
    #[inline]
    #[track_caller]
    pub fn lock_nested(&self, rank: Rank) -> SpinLockGuard<'_, T> {
        rank::acquire(rank);
        SpinLockGuard {
            rank,
            inner: self.inner.lock(),
        }
    }

    /// The data, without locking: nobody else can have it.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }
}

impl<T> Drop for SpinLockGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        rank::release(self.rank);
    }
}

impl<T> Deref for SpinLockGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for SpinLockGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

/// A spin lock held with interrupts off.
pub struct IrqLock<T> {
    rank: Rank,
    inner: spin::mutex::SpinMutex<T>,
}

/// Access to an [`IrqLock`]'s data; interrupts return to their former state when it goes.
#[must_use]
pub struct IrqLockGuard<'a, T> {
    rank: Rank,
    inner: ManuallyDrop<spin::mutex::SpinMutexGuard<'a, T>>,
    flags: irq::Flags,
}

impl<T> IrqLock<T> {
    pub const fn new(rank: Rank, value: T) -> Self {
        IrqLock {
            rank,
            inner: spin::mutex::SpinMutex::new(value),
        }
    }

    /// Turns interrupts off and waits for the lock. Locks of this or a greater rank must not be held.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> IrqLockGuard<'_, T> {
        let flags = irq::save();
        rank::acquire(self.rank);
        IrqLockGuard {
            rank: self.rank,
            inner: ManuallyDrop::new(self.inner.lock()),
            flags,
        }
    }

    /// As [`IrqLock::lock`], where interrupts are known to be on: in a system call, or in work on the way to user mode, with no other
    /// such lock held.
    #[inline]
    #[track_caller]
    pub fn lock_irq(&self) -> IrqLockGuard<'_, T> {
        let flags = irq::disable();
        rank::acquire(self.rank);
        IrqLockGuard {
            rank: self.rank,
            inner: ManuallyDrop::new(self.inner.lock()),
            flags,
        }
    }

    /// As [`IrqLock::lock`], where interrupts are off already and stay so until it is released.
    #[inline]
    #[track_caller]
    pub fn lock_irq_off(&self) -> InnerGuard<'_, T> {
        #[cfg(target_os = "none")]
        debug_assert!(!irq::enabled(), "interrupts are on");
        rank::acquire(self.rank);
        InnerGuard {
            rank: self.rank,
            inner: self.inner.lock(),
        }
    }

    /// As [`IrqLock::lock`], where `_outer` keeps interrupts off; it is held longer than this one.
    #[inline]
    #[track_caller]
    pub fn lock_inside<U>(&self, _outer: &IrqLockGuard<'_, U>) -> InnerGuard<'_, T> {
        rank::acquire(self.rank);
        InnerGuard {
            rank: self.rank,
            inner: self.inner.lock(),
        }
    }

    /// As [`IrqLock::lock`], while another lock of the same kind is held: `rank` is greater than that one's, and the caller takes the
    /// two in an order that is the same for everybody.
    #[inline]
    #[track_caller]
    pub fn lock_nested(&self, rank: Rank) -> IrqLockGuard<'_, T> {
        let flags = irq::save();
        rank::acquire(rank);
        IrqLockGuard {
            rank,
            inner: ManuallyDrop::new(self.inner.lock()),
            flags,
        }
    }
}

/// Access to the data of an [`IrqLock`] that was taken with interrupts off, as by another one, which goes after it.
#[must_use]
pub struct InnerGuard<'a, T> {
    rank: Rank,
    inner: spin::mutex::SpinMutexGuard<'a, T>,
}

impl<T> Drop for InnerGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        rank::release(self.rank);
        #[cfg(target_os = "none")]
        debug_assert!(!irq::enabled(), "interrupts came back first");
    }
}

impl<T> Deref for InnerGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for InnerGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T> Drop for IrqLockGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the guard is dropped once, here; the lock must be free before interrupts come back.
        unsafe { ManuallyDrop::drop(&mut self.inner) };
        rank::release(self.rank);
        irq::restore(self.flags);
    }
}

impl<T> Deref for IrqLockGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for IrqLockGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}
