//! Instances that watch each other: not in a circle, and not too many one within the other.

use core::sync::atomic::{AtomicU64, Ordering};

use super::{Instance, instance_of};
use crate::errno::{Errno, Result};
use crate::sched::SleepMutex;

/// How many instances deep they may watch each other, the outermost included.
const MAX_DEPTH: usize = 5;

/// Held while instances come to watch each other, so that they do not do so in a circle.
pub(super) static NESTING: SleepMutex<()> = SleepMutex::new(());
/// Numbers the searches for circles, so that each looks at an instance once. Changed under [`NESTING`].
static SEARCH: AtomicU64 = AtomicU64::new(0);

impl Instance {
    /// `ELOOP` if `inner` watches this instance, or there were too many one within the other. `ENOMEM`.
    pub(super) fn check_nesting(&self, inner: &Instance) -> Result {
        let search = SEARCH.fetch_add(1, Ordering::Relaxed) + 1;
        let levels = inner.levels_below(self, search)? + self.levels_above(search)?;
        if levels > MAX_DEPTH {
            return Err(Errno::ELOOP);
        }
        Ok(())
    }

    /// How many levels there are from this instance downwards, itself included, as there is no circle. `ELOOP` if `outer` is among them.
    fn levels_below(&self, outer: &Instance, search: u64) -> Result<usize> {
        if core::ptr::eq(self, outer) {
            return Err(Errno::ELOOP);
        }
        if self.below.0.load(Ordering::Relaxed) == search {
            return Ok(self.below.1.load(Ordering::Relaxed));
        }
        let mut levels = 0;
        if self.nested.load(Ordering::Relaxed) > 0 {
            let mut after = None;
            while let Some(item) = self.next_item(after) {
                after = Some(item.key);
                let file = item.file.upgrade();
                if let Some(inner) = file.as_ref().and_then(instance_of) {
                    levels = levels.max(inner.levels_below(outer, search)?);
                }
            }
        }
        self.below.1.store(levels + 1, Ordering::Relaxed);
        self.below.0.store(search, Ordering::Relaxed);
        Ok(levels + 1)
    }

    /// How many levels there are from this instance upwards, itself included. `ENOMEM`.
    fn levels_above(&self, search: u64) -> Result<usize> {
        if self.above.0.load(Ordering::Relaxed) == search {
            return Ok(self.above.1.load(Ordering::Relaxed));
        }
        let mut levels = 0;
        for outer in self.watchers.instances()? {
            levels = levels.max(outer.levels_above(search)?);
        }
        self.above.1.store(levels + 1, Ordering::Relaxed);
        self.above.0.store(search, Ordering::Relaxed);
        Ok(levels + 1)
    }
}
