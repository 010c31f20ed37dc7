//! A mutex whose waiters sleep.
//!
//! Not held across access to user memory. Sleeping locks have no rank check of their own: they are outside all spin locks,
//! which `schedule` asserts.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

use super::{Sleep, WaitQueue};

pub struct SleepMutex<T> {
    locked: AtomicBool,
    waiters: WaitQueue,
    value: UnsafeCell<T>,
}

// SAFETY: the lock gives out one `&mut T` at a time.
unsafe impl<T: Send> Send for SleepMutex<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SleepMutex<T> {}

/// Access to a [`SleepMutex`]'s data.
#[must_use]
pub struct SleepMutexGuard<'a, T>(&'a SleepMutex<T>);

impl<T> SleepMutex<T> {
    pub const fn new(value: T) -> Self {
        SleepMutex {
            locked: AtomicBool::new(false),
            waiters: WaitQueue::new(),
            value: UnsafeCell::new(value),
        }
    }

    fn try_acquire(&self) -> Option<()> {
        self.locked
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .ok()
            .map(|_| ())
    }

    /// Waits for the lock, whatever signals come.
    pub fn lock(&self) -> SleepMutexGuard<'_, T> {
        let waited = self
            .waiters
            .wait_until(Sleep::Uninterruptible, || self.try_acquire());
        debug_assert!(waited.is_ok());
        SleepMutexGuard(self)
    }
}

impl<T> Drop for SleepMutexGuard<'_, T> {
    fn drop(&mut self) {
        self.0.locked.store(false, Ordering::Release);
        self.0.waiters.wake_one();
    }
}

impl<T> Deref for SleepMutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the guard is the lock.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for SleepMutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard is the lock.
        unsafe { &mut *self.0.value.get() }
    }
}
