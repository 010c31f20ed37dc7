//! Memory: frames, address spaces, the fault path, the page cache, and access to user memory.
//!
//! Nothing here knows an architecture: page tables, user copies and the direct map are reached through `crate::arch`.
//! Lock order: `mmap_lock` > REVERSE_MAP > MAPPINGS > PAGE > PAGE_TABLE > FRAMES.

pub mod addr;
pub mod advice;
pub mod anon;
mod attach;
pub mod fault;
pub mod frame;
mod gaps;
#[cfg(target_os = "none")]
pub mod heap;
pub mod leak;
pub mod limits;
mod lock;
pub mod map;
mod merge;
pub mod page_buffer;
pub mod page_cache;
pub mod pte;
mod query;
pub mod reclaim;
pub mod remap;
pub mod remote;
pub mod reverse_map;
pub mod rss;
#[cfg(target_os = "none")]
mod slab;
pub mod space;
pub mod stack;
#[cfg(all(test, not(target_os = "none")))]
mod tests;
mod translations;
pub mod uaccess;
pub mod userfault;
pub mod vma;
#[cfg(target_os = "none")]
mod vmalloc;

pub use addr::{PAGE_SHIFT, PAGE_SIZE, VirtAddr, page_align_down, page_align_up};
pub use space::Mm;
pub use vma::{VmFlags, Vma};
