//! Robust futexes: those that a thread still owns when it ends are marked, and a waiter is told (`Documentation/locking/robust-futexes`
//! in Linux).
//!
//! The list is the user's and may be anything: the walk is bounded, and an address that is bad ends it.

use core::sync::atomic::Ordering;

use linux_raw_sys::general::{FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS};

use super::{Thread, futex};
use crate::arch;
use crate::mm::uaccess::UserPtr;
use crate::sched;
use crate::task::thread::flag;

/// Length of `struct robust_list_head`: the first entry's address, the distance from an entry to its word, the entry of a lock operation
/// in progress.
pub const HEAD_SIZE: usize = 24;

/// Entries that are looked at (`ROBUST_LIST_LIMIT`).
const LIMIT: usize = 2048;

/// An entry's address; its lowest bit says that the futex inherits priorities.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry(usize);

impl Entry {
    fn address(self) -> usize {
        self.0 & !1
    }

    fn inherits_priority(self) -> bool {
        self.0 & 1 != 0
    }

    fn next(self) -> Option<Entry> {
        UserPtr::<usize>::new(self.address()).read().ok().map(Entry)
    }
}

/// Gives up all robust futexes of the current thread, and forgets the list. May sleep on user memory, where a fatal signal ends it.
pub(super) fn release_all(thread: &Thread) {
    let head = thread.robust_list.swap(0, Ordering::Relaxed) as usize;
    if head == 0 {
        return;
    }
    let Ok([first, distance, pending]) = UserPtr::<[usize; 3]>::new(head).read() else {
        return;
    };
    let word_of = |entry: Entry| entry.address().wrapping_add(distance);
    let pending = Entry(pending);
    let mut entry = Entry(first);
    for _ in 0..LIMIT {
        if entry.address() == head {
            break;
        }
        // The link is read first: a waiter that is woken may take the entry out of memory.
        let next = entry.next();
        if entry.address() != pending.address()
            && release(thread, word_of(entry), entry.inherits_priority(), false).is_none()
        {
            return;
        }
        let Some(next) = next else { return };
        entry = next;
        if thread.has_flag(flag::NEED_RESCHED) {
            sched::yield_now();
        }
    }
    if pending.address() != 0 {
        release(thread, word_of(pending), pending.inherits_priority(), true);
    }
}

/// Marks one futex if the thread owns it, and wakes a waiter. `None`: the word cannot be had.
fn release(thread: &Thread, word: usize, inherits_priority: bool, pending: bool) -> Option<()> {
    let mut value = word
        .is_multiple_of(4)
        .then(|| UserPtr::<u32>::new(word).read().ok())
        .flatten()?;
    // An unlock that had come as far as the store may not have woken anybody.
    if pending && !inherits_priority && value == 0 {
        let _ = futex::wake(word, true, 1, futex::ANY);
        return Some(());
    }
    loop {
        if value & FUTEX_TID_MASK != thread.tid() {
            return Some(());
        }
        let marked = value & FUTEX_WAITERS | FUTEX_OWNER_DIED;
        let found = arch::compare_exchange_user(word, value, marked)?;
        if found == value {
            break;
        }
        value = found;
    }
    if !inherits_priority && value & FUTEX_WAITERS != 0 {
        let _ = futex::wake(word, true, 1, futex::ANY);
    }
    Some(())
}
