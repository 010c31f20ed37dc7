//! Lock ranks, outermost first, and the check that they are respected.
//!
//! Spin locks are never held across a context switch, so a CPU's held ranks are one bit set; `sched` asserts that it is
//! empty when it switches. Sleeping locks are counted per thread. Two locks of one rank are never held together.

#[cfg(all(debug_assertions, target_os = "none"))]
use core::sync::atomic::AtomicU32;
#[cfg(all(debug_assertions, target_os = "none"))]
use core::sync::atomic::Ordering;

/// A lock's place in the order; smaller is further out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(u8);

pub const PROCESS_TABLE: Rank = Rank(2);
/// A process's children.
pub const FAMILY: Rank = Rank(3);
/// File tables, open files, directories, pipes.
pub const FILES: Rank = Rank(4);
/// The files that an epoll instance watches, and the items that watch a file.
pub const EPOLL_ITEMS: Rank = Rank(5);
/// The POSIX timers of a process.
pub const POSIX_TIMERS: Rank = Rank(7);
/// A file's reverse map: the areas that map it.
pub const REVERSE_MAP: Rank = Rank(7);
/// The objects of one kind of interprocess communication, and what belongs to a message queue.
pub const IPC: Rank = Rank(9);
/// What belongs to one segment of shared memory.
pub const SEGMENT: Rank = Rank(10);
/// The list of all mappings of files.
pub const MAPPINGS: Rank = Rank(9);
/// Page cache trees and the state of a page.
pub const PAGE: Rank = Rank(10);
/// A bucket of futex waiters, and the second one of calls that work on two.
pub const FUTEX: Rank = Rank(11);
pub const PAGE_TABLE: Rank = Rank(12);
/// The second of two page tables, which is the child's in fork.
pub const PAGE_TABLE_SECOND: Rank = Rank(13);
pub const FUTEX_SECOND: Rank = Rank(13);
/// Waiters at addresses: userfaultfds.
pub const ADDRESSED: Rank = Rank(13);
/// A process's signal state and its list of threads.
pub const SIGNAL: Rank = Rank(14);
/// A thread's signal state.
pub const THREAD_SIGNAL: Rank = Rank(15);
/// The state of one interval timer.
pub const INTERVAL_TIMER: Rank = Rank(16);
/// Those who want to be told when a file becomes ready.
pub const POLL_QUEUE: Rank = Rank(17);
/// A wait queue's list.
pub const WAIT_QUEUE: Rank = Rank(18);
/// Timer queue.
pub const TIMER: Rank = Rank(19);
pub const RUN_QUEUE: Rank = Rank(20);
/// What is ready in an epoll instance.
pub const EPOLL_READY: Rank = Rank(21);
/// Drivers' own state.
pub const DEVICE: Rank = Rank(22);
/// Locks under which nothing else is taken but memory.
pub const LEAF: Rank = Rank(24);
/// Kernel heap and kernel mappings.
pub const HEAP: Rank = Rank(26);
/// Kernel page tables.
pub const KERNEL_MAP: Rank = Rank(27);
/// Frame allocator.
pub const FRAMES: Rank = Rank(28);

/// Ranks of the spin locks that this CPU holds, one bit each.
#[cfg(all(debug_assertions, target_os = "none"))]
static HELD: AtomicU32 = AtomicU32::new(0);

/// Notes that a spin lock of `rank` is being taken. Panics in debug builds if the order is broken.
#[inline]
#[track_caller]
pub(super) fn acquire(rank: Rank) {
    #[cfg(all(debug_assertions, target_os = "none"))]
    {
        let held = HELD.fetch_or(1 << rank.0, Ordering::Relaxed);
        assert!(
            held >> rank.0 == 0,
            "lock of {rank:?} taken while holding ranks {held:#x} (one bit each)"
        );
    }
    let _ = rank;
    #[cfg(not(target_os = "none"))]
    crate::arch::sim::irq::step();
}

/// Notes that a spin lock of `rank` was released.
#[inline]
pub(super) fn release(rank: Rank) {
    #[cfg(all(debug_assertions, target_os = "none"))]
    HELD.fetch_and(!(1 << rank.0), Ordering::Relaxed);
    let _ = rank;
    #[cfg(not(target_os = "none"))]
    crate::arch::sim::irq::step();
}

/// The locks of an interrupted context, put aside while an interrupt handler runs.
#[must_use]
pub struct Interrupted {
    #[cfg(all(debug_assertions, target_os = "none"))]
    held: u32,
}

/// An interrupt handler begins: it may take any [`super::IrqLock`], as the interrupted context cannot hold one.
#[inline]
pub fn begin_interrupt() -> Interrupted {
    Interrupted {
        #[cfg(all(debug_assertions, target_os = "none"))]
        held: HELD.swap(0, Ordering::Relaxed),
    }
}

/// The handler ends; it has let go of all locks.
#[inline]
#[track_caller]
pub fn end_interrupt(interrupted: Interrupted) {
    assert_none_held();
    #[cfg(all(debug_assertions, target_os = "none"))]
    HELD.store(interrupted.held, Ordering::Relaxed);
    let _ = interrupted;
}

/// Asserts in debug builds that this CPU holds no spin lock, as before every sleep.
#[inline]
#[track_caller]
pub fn assert_none_held() {
    #[cfg(all(debug_assertions, target_os = "none"))]
    {
        let held = HELD.load(Ordering::Relaxed);
        assert!(held == 0, "sleeping with spin locks held: {held:#x}");
    }
}
