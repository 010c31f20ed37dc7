//! userfaultfd(2): page faults that user code resolves.
//!
//! A [`Context`] is what a descriptor of userfaultfd refers to. Areas are registered with it; a fault in one that finds no page, or a
//! write to a page that it protects, waits at its address until a handler fills the page or lets the write through ([`fault`]).
//! What is waited for belongs to the page: whoever stops waiting undoes nothing, faults again, and leaves a new message.
//!
//! Protection is kept in the page table, for pages that are there as a flag, and for others as a mark that the page gets when it comes.
//! A context whose last descriptor was closed is released: areas that still name it behave as if they were not registered.
//!
//! Locks: `mmap_lock` (read side for filling and protecting, write side for registering), then PAGE, PAGE_TABLE or ADDRESSED. Nothing
//! is allocated from the heap by a fault. Events (fork, mremap, unmap), minor faults, poisoned pages and moved ones are not there.

pub mod fault;
mod fill;
mod protect;
mod register;
#[cfg(all(test, not(target_os = "none")))]
mod tests;

use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bitflags::bitflags;
use linux_raw_sys::general as abi;

use super::space::Mm;
use crate::errno::{Errno, Result};
use crate::sched::addressed::AddressedQueue;
use crate::sched::{Interrupted, Sleep, WaitQueue};
pub use fill::Fill;

bitflags! {
    /// Features of the handshake, with Linux's values.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u64 {
        const PAGEFAULT_FLAG_WP = abi::UFFD_FEATURE_PAGEFAULT_FLAG_WP as u64;
        const MISSING_SHMEM = abi::UFFD_FEATURE_MISSING_SHMEM as u64;
        /// Faults are SIGBUS and leave no message.
        const SIGBUS = abi::UFFD_FEATURE_SIGBUS as u64;
        /// Messages name the thread.
        const THREAD_ID = abi::UFFD_FEATURE_THREAD_ID as u64;
        /// Messages have the address that was accessed, not its page's.
        const EXACT_ADDRESS = abi::UFFD_FEATURE_EXACT_ADDRESS as u64;
        const WP_HUGETLBFS_SHMEM = abi::UFFD_FEATURE_WP_HUGETLBFS_SHMEM as u64;
        /// Anonymous pages that are not there can be protected too.
        const WP_UNPOPULATED = abi::UFFD_FEATURE_WP_UNPOPULATED as u64;
    }
}

/// The handshake has been made: set in the word of features, where it is none of them.
const INITIALIZED: u64 = 1 << 31;

/// What a fault tells its handler: `struct uffd_msg` of the event UFFD_EVENT_PAGEFAULT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// UFFD_PAGEFAULT_FLAG_*.
    pub flags: u64,
    pub address: u64,
    /// 0 without [`Features::THREAD_ID`].
    pub thread: u32,
}

/// One userfaultfd: an address space whose faults it takes, what was agreed in the handshake, and who waits.
pub struct Context {
    mm: Weak<Mm>,
    /// Faults of the kernel on behalf of user code are refused.
    user_mode_only: bool,
    /// 0 before the handshake.
    features: AtomicU64,
    released: AtomicBool,
    faults: AddressedQueue<Message>,
    readers: WaitQueue,
    watcher: Arc<dyn Watcher>,
}

/// Who is told of messages beside those who wait in read(2).
pub trait Watcher: Send + Sync {
    /// There is a message. No spin lock is held.
    fn message_left(&self);
}

impl Context {
    /// For faults in `mm`. `ENOMEM`.
    pub fn new(
        mm: &Arc<Mm>,
        user_mode_only: bool,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Arc<Context>> {
        Ok(Arc::try_new(Context {
            mm: Arc::downgrade(mm),
            user_mode_only,
            features: AtomicU64::new(0),
            released: AtomicBool::new(false),
            faults: AddressedQueue::new(),
            readers: WaitQueue::new(),
            watcher,
        })?)
    }

    /// The handshake, which is made once. `EINVAL`: it was made before.
    pub fn agree(&self, features: Features) -> Result {
        let word = features.bits() | INITIALIZED;
        self.features
            .compare_exchange(0, word, Ordering::Release, Ordering::Relaxed)
            .map(|_| ())
            .map_err(|_| Errno::EINVAL)
    }

    /// Whether the handshake was made.
    pub fn is_initialized(&self) -> bool {
        self.features.load(Ordering::Acquire) != 0
    }

    fn has(&self, feature: Features) -> bool {
        self.features.load(Ordering::Relaxed) & feature.bits() != 0
    }

    fn is_released(&self) -> bool {
        self.released.load(Ordering::SeqCst)
    }

    /// The address space. `ESRCH` if its last process has ended.
    fn mm(&self) -> Result<Arc<Mm>> {
        self.mm.upgrade().ok_or(Errno::ESRCH)
    }

    /// The oldest message that nobody has read.
    pub fn read(&self) -> Option<Message> {
        self.faults.read()
    }

    /// The same, waiting for it.
    pub fn wait_for_message(&self) -> core::result::Result<Message, Interrupted> {
        self.readers
            .wait_until(Sleep::Interruptible, || self.faults.read())
    }

    pub fn has_message(&self) -> bool {
        self.faults.has_unread()
    }

    /// Lets the waiters of a range try again.
    pub fn wake(&self, start: usize, len: usize) {
        self.faults.wake(start..start.saturating_add(len));
    }

    /// UFFDIO_WAKE. `EINVAL` for a range that [`Context::register`] would not take.
    pub fn wake_range(&self, start: usize, len: usize) -> Result {
        register::checked_range(start, len)?;
        self.wake(start, len);
        Ok(())
    }
}
