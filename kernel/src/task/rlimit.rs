//! Resource limits (`getrlimit(2)`).

use core::sync::atomic::{AtomicU64, Ordering};

use linux_raw_sys::general as abi;

use crate::errno::{Errno, Result};
use crate::sync::{IrqLock, rank};

/// Resources that have a limit; the value is the number in the system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Resource {
    Cpu = abi::RLIMIT_CPU as usize,
    FileSize = abi::RLIMIT_FSIZE as usize,
    Data = abi::RLIMIT_DATA as usize,
    Stack = abi::RLIMIT_STACK as usize,
    Core = abi::RLIMIT_CORE as usize,
    Rss = abi::RLIMIT_RSS as usize,
    Processes = abi::RLIMIT_NPROC as usize,
    Files = abi::RLIMIT_NOFILE as usize,
    LockedMemory = abi::RLIMIT_MEMLOCK as usize,
    AddressSpace = abi::RLIMIT_AS as usize,
    #[allow(dead_code, reason = "what sets it counts nothing")]
    Locks = abi::RLIMIT_LOCKS as usize,
    PendingSignals = abi::RLIMIT_SIGPENDING as usize,
    MessageQueue = abi::RLIMIT_MSGQUEUE as usize,
    Nice = abi::RLIMIT_NICE as usize,
    RealtimePriority = abi::RLIMIT_RTPRIO as usize,
    #[allow(dead_code, reason = "what sets it counts nothing")]
    RealtimeTime = abi::RLIMIT_RTTIME as usize,
}

const COUNT: usize = 16;
pub const INFINITY: u64 = !0;

/// A soft and a hard limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub soft: u64,
    pub hard: u64,
}

impl Limit {
    const fn both(value: u64) -> Limit {
        Limit {
            soft: value,
            hard: value,
        }
    }
}

/// One limit as it is kept.
struct Cell {
    soft: AtomicU64,
    hard: AtomicU64,
}

impl Cell {
    const fn new(limit: Limit) -> Cell {
        Cell {
            soft: AtomicU64::new(limit.soft),
            hard: AtomicU64::new(limit.hard),
        }
    }

    fn get(&self) -> Limit {
        Limit {
            soft: self.soft.load(Ordering::Relaxed),
            hard: self.hard.load(Ordering::Relaxed),
        }
    }
}

/// A process's limits. The clock tick looks at them too.
pub struct Rlimits {
    /// Held to change a limit, and to read both of its values.
    lock: IrqLock<()>,
    limits: [Cell; COUNT],
}

impl Rlimits {
    /// What the first process starts with, as on Linux after boot.
    pub fn initial() -> Rlimits {
        let mut limits = [Limit::both(INFINITY); COUNT];
        limits[Resource::Stack as usize] = Limit {
            soft: 8 << 20,
            hard: INFINITY,
        };
        limits[Resource::Core as usize] = Limit {
            soft: 0,
            hard: INFINITY,
        };
        limits[Resource::Files as usize] = Limit {
            soft: 1024,
            hard: 4096,
        };
        limits[Resource::LockedMemory as usize] = Limit::both(8 << 20);
        limits[Resource::Processes as usize] = Limit::both(super::table::max_threads() as u64 / 2);
        limits[Resource::PendingSignals as usize] = Limit::both(4096);
        limits[Resource::MessageQueue as usize] = Limit::both(819_200);
        limits[Resource::Nice as usize] = Limit::both(0);
        limits[Resource::RealtimePriority as usize] = Limit::both(0);
        Rlimits::with(|n| limits[n])
    }

    fn with(limit: impl Fn(usize) -> Limit) -> Rlimits {
        Rlimits {
            lock: IrqLock::new(rank::LEAF, ()),
            limits: core::array::from_fn(|n| Cell::new(limit(n))),
        }
    }

    pub fn fork(&self) -> Rlimits {
        let _held = self.lock.lock();
        Rlimits::with(|n| self.limits[n].get())
    }

    #[inline]
    pub fn soft(&self, resource: Resource) -> u64 {
        self.limits[resource as usize].soft.load(Ordering::Relaxed)
    }

    /// `EINVAL` if there is no such resource.
    pub fn get(&self, resource: usize) -> Result<Limit> {
        let _held = self.lock.lock();
        self.limits
            .get(resource)
            .map(Cell::get)
            .ok_or(Errno::EINVAL)
    }

    /// `EINVAL` for no such resource, or a soft limit above the hard one.
    pub fn set(&self, resource: usize, limit: Limit) -> Result {
        if limit.soft > limit.hard {
            return Err(Errno::EINVAL);
        }
        let _held = self.lock.lock();
        let cell = self.limits.get(resource).ok_or(Errno::EINVAL)?;
        cell.soft.store(limit.soft, Ordering::Relaxed);
        cell.hard.store(limit.hard, Ordering::Relaxed);
        Ok(())
    }
}
