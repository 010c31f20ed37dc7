//! A reader-writer lock whose waiters sleep: `mmap_lock`.
//!
//! The uncontended case is one atomic operation each way. A waiting writer keeps new readers out, so that a stream of
//! faults cannot starve mmap(2).

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};

use super::{Interrupted, Sleep, WaitQueue};

const WRITER: u32 = 1 << 31;
/// A writer waits, or waiters must be woken on release.
const CONTENDED: u32 = 1 << 30;
const READERS: u32 = CONTENDED - 1;

pub struct RwSleepLock<T> {
    /// Readers in the low bits, and the two flags.
    state: AtomicU32,
    waiters: WaitQueue,
    value: UnsafeCell<T>,
}

// SAFETY: the lock gives out either shared references or one exclusive one.
unsafe impl<T: Send> Send for RwSleepLock<T> {}
// SAFETY: as above; shared references need T: Sync.
unsafe impl<T: Send + Sync> Sync for RwSleepLock<T> {}

/// Shared access.
#[must_use]
pub struct RwSleepReadGuard<'a, T>(&'a RwSleepLock<T>);

/// Exclusive access.
#[must_use]
pub struct RwSleepWriteGuard<'a, T>(&'a RwSleepLock<T>);

impl<T> RwSleepLock<T> {
    pub const fn new(value: T) -> Self {
        RwSleepLock {
            state: AtomicU32::new(0),
            waiters: WaitQueue::new(),
            value: UnsafeCell::new(value),
        }
    }

    /// Shared access if it is free for the taking.
    #[inline]
    pub fn try_read(&self) -> Option<RwSleepReadGuard<'_, T>> {
        let mut state = self.state.load(Ordering::Relaxed);
        while state & (WRITER | CONTENDED) == 0 {
            match self.state.compare_exchange_weak(
                state,
                state + 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(RwSleepReadGuard(self)),
                Err(seen) => state = seen,
            }
        }
        None
    }

    /// Waits for shared access; a signal of the kind ends the wait.
    #[inline]
    pub fn read(&self, sleep: Sleep) -> Result<RwSleepReadGuard<'_, T>, Interrupted> {
        match self.try_read() {
            Some(guard) => Ok(guard),
            None => self.read_slow(sleep),
        }
    }

    #[cold]
    fn read_slow(&self, sleep: Sleep) -> Result<RwSleepReadGuard<'_, T>, Interrupted> {
        self.waiters
            .wait_until(sleep, || self.acquire_or_mark(|| self.try_read()))
    }

    /// Tries until it succeeds or has left the mark that makes the holder wake the waiters.
    fn acquire_or_mark<R>(&self, acquire: impl Fn() -> Option<R>) -> Option<R> {
        loop {
            if let Some(acquired) = acquire() {
                return Some(acquired);
            }
            let state = self.state.load(Ordering::Relaxed);
            let held = state & (WRITER | READERS) != 0;
            let marked = state & CONTENDED != 0
                || self
                    .state
                    .compare_exchange(
                        state,
                        state | CONTENDED,
                        Ordering::Relaxed,
                        Ordering::Relaxed,
                    )
                    .is_ok();
            if held && marked {
                return None;
            }
            if !held {
                // Free but marked: whoever released it is about to take the mark away, or nobody is left to.
                self.state.fetch_and(!CONTENDED, Ordering::Relaxed);
            }
        }
    }

    fn try_acquire_write(&self) -> Option<()> {
        let mut state = self.state.load(Ordering::Relaxed);
        while state & (WRITER | READERS) == 0 {
            match self.state.compare_exchange_weak(
                state,
                WRITER,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(()),
                Err(seen) => state = seen,
            }
        }
        None
    }

    /// Waits for exclusive access; a signal of the kind ends the wait.
    pub fn write(&self, sleep: Sleep) -> Result<RwSleepWriteGuard<'_, T>, Interrupted> {
        let waited = self
            .waiters
            .wait_until(sleep, || self.acquire_or_mark(|| self.try_acquire_write()));
        if waited.is_err() {
            // Whoever was kept out by this waiter's mark must look again.
            self.state.fetch_and(!CONTENDED, Ordering::Relaxed);
            self.waiters.wake_all();
        }
        waited?;
        Ok(RwSleepWriteGuard(self))
    }

    #[inline]
    fn release(&self, held: u32) {
        let before = self.state.fetch_sub(held, Ordering::Release);
        if before & CONTENDED != 0 && (before - held) & (WRITER | READERS) == 0 {
            self.wake_waiters();
        }
    }

    #[cold]
    fn wake_waiters(&self) {
        self.state.fetch_and(!CONTENDED, Ordering::Relaxed);
        self.waiters.wake_all();
    }

    /// The data, without locking: nobody else can have it.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T> Drop for RwSleepReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.0.release(1);
    }
}

impl<T> Drop for RwSleepWriteGuard<'_, T> {
    fn drop(&mut self) {
        self.0.release(WRITER);
    }
}

impl<T> Deref for RwSleepReadGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard is shared access.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> Deref for RwSleepWriteGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the guard is exclusive access.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for RwSleepWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard is exclusive access.
        unsafe { &mut *self.0.value.get() }
    }
}
