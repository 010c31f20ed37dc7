//! The x86-64 hardware under QEMU's PC machine: everything that knows a register, a page-table bit or an instruction.
//!
//! Offers the names of `arch::mod` and nothing else. SDM stands for Intel's Software Developer's Manual, APM for AMD's.

mod apic;
mod backtrace;
pub mod boot;
pub mod crash;
mod entry;
mod exception;
mod features;
mod fpu;
mod gdt;
mod idt;
pub mod irq;
mod kernel_pages;
pub mod machine;
mod objects;
mod page_fault;
mod page_table;
mod panic;
pub mod pci;
mod percpu;
mod pic;
mod regs;
mod segments;
mod serial;
mod sigframe;
mod stack;
mod thread;
pub mod time;
mod uaccess;
pub mod vdso;

pub use entry::with_all_registers;
pub use kernel_pages::{
    copy_frame, frame_ptr, map_device, map_kernel_page, unmap_kernel_page, zero_frame,
};
pub use objects::{get_user, put_user};
pub use page_table::{Entry, PageTable};
pub use percpu::{current, set_current};
pub use regs::PtRegs;
pub use sigframe::{RestoredFrame, min_frame_size, restore_frame, setup_frame};
pub use thread::{ThreadState, enter_user, switch};
pub use uaccess::{clear_user, compare_exchange_user, copy_from_user, copy_to_user};

/// The first address that is not a user address: the last page of the lower half is kept free, so that a SYSCALL
/// instruction at its end cannot make SYSRET return to a non-canonical address.
pub const USER_END: usize = (1 << 47) - 4096;
