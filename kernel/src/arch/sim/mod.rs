//! The architecture's contract as ordinary host code: a software MMU and one simulated CPU, for tests.
//!
//! Physical memory is a host allocation. Page tables are maps; the TLB keeps stale entries for ever, so that a missing flush
//! fails a test. Every kernel thread is a host thread, and a baton makes sure that only one of them runs: blocking,
//! switching and waking are the kernel's own code. Time stands still but for the clock's own reading, and jumps to the next
//! timer when nobody can run. [`machine::run_test`] is the way in.

mod frames;
pub mod irq;
pub mod machine;
mod mmu;
mod regs;
mod sigframe;
mod switch;
pub mod time;
mod uaccess;
pub mod vdso;

pub use frames::{copy_frame, frame_ptr, zero_frame};
pub use mmu::{Entry, PageTable};
pub use regs::{PtRegs, TrapInfo, with_all_registers};
pub use sigframe::{BadFrame, RestoredFrame, min_frame_size, restore_frame, setup_frame};
pub use switch::{ThreadState, current, enter_user, set_current, switch};
pub use uaccess::{
    UserFault, clear_user, compare_exchange_user, copy_from_user, copy_to_user, get_user, put_user,
    user_read, user_write,
};

/// As on x86-64 with four levels.
pub const USER_END: usize = (1 << 47) - 4096;
