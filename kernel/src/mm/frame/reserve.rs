//! What is kept free for whom.

use core::sync::atomic::{AtomicUsize, Ordering};

use super::free_frames;

/// Frames that only the kernel may take, so that its heap outlives the exhaustion of user memory.
pub const RESERVE: usize = 1024;

/// At least the frames that one fault takes: a page of a file and six nodes of its index, a private copy, and three page tables.
const ONE_FAULT: usize = 16;

/// Frames for allocations that cannot fail, see [`NoFail`].
pub const LAST_RESERVE: usize = 256;

/// For whom memory is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// User pages, page cache, and what each process needs to exist: fails while only [`RESERVE`] frames are left.
    User,
    /// The kernel's own needs, which may fail: leaves [`LAST_RESERVE`].
    Kernel,
    /// What must not fail.
    Critical,
}

impl Purpose {
    /// Frames that have to stay free.
    pub(super) fn leaves(self) -> usize {
        match self {
            Purpose::User => RESERVE,
            Purpose::Kernel if NO_FAIL.load(Ordering::Relaxed) == 0 => LAST_RESERVE,
            Purpose::Kernel | Purpose::Critical => 0,
        }
    }
}

/// Sections now being run that must not fail.
static NO_FAIL: AtomicUsize = AtomicUsize::new(0);

/// While it lives, the kernel may use the last reserve too: for code of others that takes memory from the heap without a way to fail.
/// Such code runs one thread at a time, behind a sleeping lock, and gives back what it took, so the reserve is enough.
pub struct NoFail(());

impl NoFail {
    pub fn new() -> NoFail {
        NO_FAIL.fetch_add(1, Ordering::Relaxed);
        NoFail(())
    }
}

impl Default for NoFail {
    fn default() -> Self {
        NoFail::new()
    }
}

impl Drop for NoFail {
    fn drop(&mut self) {
        NO_FAIL.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether there is user memory for whatever one fault may need: so that who has failed and finds it true does not fail again for the
/// same reason.
pub fn user_memory_left() -> bool {
    free_frames() >= RESERVE + ONE_FAULT
}
