//! Memory: frames, address spaces, the fault path, the page cache, and access to user memory.
//!
//! Nothing here knows an architecture: page tables, user copies and the direct map are reached through `crate::arch`.
//! Lock order: `mmap_lock` > PAGE > PAGE_TABLE > FRAMES.

pub mod addr;
pub mod fault;
pub mod frame;
#[cfg(target_os = "none")]
pub mod heap;
pub mod map;
pub mod page_cache;
pub mod pte;
pub mod space;
pub mod stack;
pub mod uaccess;
pub mod vma;

pub use addr::{PAGE_SHIFT, PAGE_SIZE, VirtAddr};
pub use space::Mm;
pub use vma::{VmFlags, Vma};
