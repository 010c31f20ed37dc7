//! Getting memory back: kernel stacks that wait for new threads, and clean pages of the page cache.
//!
//! All mappings of files stand in one list, over which a hand goes round: each visit looks at a bounded number of one file's
//! pages, goes on there the next time, and gives a page that was looked up since the last visit a second chance. So the cost of
//! a page that is freed is that of the pages passed on the way, and no call starts at the beginning again.
//!
//! Called with no lock held, from threads that may sleep. Lock rank: MAPPINGS, for the list.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use super::frame;
use super::page_cache::Mapping;
use crate::arch::ThreadState;
use crate::errno::OutOfMemory;
use crate::sync::{SpinLock, rank};

/// Pages that are freed at a time, so that not every fault has to come here.
const BATCH: usize = 64;

struct Registry {
    mappings: Vec<Weak<Mapping>>,
    hand: usize,
}

static REGISTRY: SpinLock<Registry> = SpinLock::new(
    rank::MAPPINGS,
    Registry {
        mappings: Vec::new(),
        hand: 0,
    },
);

impl Registry {
    /// The mapping under the hand, which moves on. Mappings that are gone leave the list.
    fn next(&mut self) -> Option<Arc<Mapping>> {
        loop {
            if self.hand >= self.mappings.len() {
                self.hand = 0;
            }
            let mapping = self.mappings.get(self.hand)?.upgrade();
            if mapping.is_some() {
                self.hand += 1;
                return mapping;
            }
            self.mappings.swap_remove(self.hand);
        }
    }
}

/// Enters a file's mapping. `ENOMEM` as [`OutOfMemory`].
pub(super) fn register(mapping: &Arc<Mapping>) -> Result<(), OutOfMemory> {
    let mut registry = REGISTRY.lock();
    if registry.mappings.len() == registry.mappings.capacity() {
        registry
            .mappings
            .retain(|mapping| mapping.strong_count() > 0);
        registry.hand = 0;
    }
    registry.mappings.try_reserve(1).map_err(|_| OutOfMemory)?;
    registry.mappings.push(Arc::downgrade(mapping));
    Ok(())
}

/// Pages of the page cache that were ever freed.
pub static RECLAIMED: AtomicU64 = AtomicU64::new(0);

/// Frees some pages; how many. 0 only after every page of the page cache was looked at twice.
pub fn reclaim() -> usize {
    let spares = ThreadState::free_spares();
    if spares > 0 {
        return spares;
    }
    // Each mapping is passed three times: the rest from the hand on, and then two whole rounds.
    let mut passes = 3 * REGISTRY.lock().mappings.len();
    let mut freed = 0;
    while passes > 0 && freed < BATCH {
        let Some(mapping) = REGISTRY.lock().next() else {
            break;
        };
        loop {
            let (pages, at_end) = mapping.reclaim(BATCH - freed);
            freed += pages;
            if at_end || freed >= BATCH {
                break;
            }
        }
        passes -= 1;
    }
    RECLAIMED.fetch_add(freed as u64, Ordering::Relaxed);
    freed
}

/// Frames that files may still take for what is nowhere but in memory: they leave a quarter of it to programs. What can be read again
/// from the disk is not counted as free.
pub fn room_for_files() -> usize {
    frame::free_frames().saturating_sub(frame::total_frames() / 4)
}

/// Whether there is room for one more page of that kind, if need be after some that can be read again have gone.
pub fn make_room_for_files() -> bool {
    while room_for_files() == 0 {
        if reclaim() == 0 {
            return false;
        }
    }
    true
}

/// Runs `f`, again after memory was freed if it ran out of user memory.
pub fn retry<T, E: From<OutOfMemory> + PartialEq>(
    mut f: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    loop {
        match f() {
            Err(error) if error == OutOfMemory.into() && !frame::user_memory_left() => {
                if reclaim() == 0 {
                    return Err(error);
                }
            }
            result => return result,
        }
    }
}
