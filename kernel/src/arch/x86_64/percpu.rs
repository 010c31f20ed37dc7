//! What each CPU keeps for itself, found through the GS base while in the kernel.
//!
//! Entry code reaches the fields by their offsets, so the structure is `repr(C)`.

use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, Ordering};

use x86_64::VirtAddr;
use x86_64::registers::model_specific::{GsBase, KernelGsBase};

use super::thread::ThreadState;
use crate::task::Thread;

#[repr(C)]
pub(super) struct PerCpu {
    /// Where SYSCALL entry keeps the user's stack pointer for a moment.
    pub user_sp: UnsafeCell<usize>,
    /// Top of the current thread's kernel stack.
    pub kernel_sp: UnsafeCell<usize>,
    pub current: UnsafeCell<*const Thread>,
    /// The thread whose FPU state is in the registers.
    pub fpu_owner: UnsafeCell<*const ThreadState>,
    /// Root of the address space in use.
    pub root: UnsafeCell<u64>,
}

// SAFETY: each CPU touches only its own, with interrupts off or from code that interrupts do not run.
unsafe impl Sync for PerCpu {}

static BOOT_CPU: PerCpu = PerCpu {
    user_sp: UnsafeCell::new(0),
    kernel_sp: UnsafeCell::new(0),
    current: UnsafeCell::new(core::ptr::null()),
    fpu_owner: UnsafeCell::new(core::ptr::null()),
    root: UnsafeCell::new(0),
};

pub(super) const USER_SP: usize = offset_of!(PerCpu, user_sp);
pub(super) const KERNEL_SP: usize = offset_of!(PerCpu, kernel_sp);
pub(super) const CURRENT: usize = offset_of!(PerCpu, current);

static READY: AtomicBool = AtomicBool::new(false);

/// Points this CPU's GS base at its data; the user's GS base is 0 until a thread sets it.
pub(super) fn init() {
    GsBase::write(VirtAddr::from_ptr(&BOOT_CPU));
    KernelGsBase::write(VirtAddr::zero());
    READY.store(true, Ordering::Relaxed);
}

/// Whether [`init`] has run: reports of early panics ask.
pub(super) fn is_ready() -> bool {
    READY.load(Ordering::Relaxed)
}

/// This CPU's data. One CPU is started, so there is no need to go through GS here.
pub(super) fn this() -> &'static PerCpu {
    &BOOT_CPU
}

/// The thread that this CPU runs; null before the scheduler starts.
#[inline]
pub fn current() -> *const Thread {
    let thread;
    // SAFETY: in the kernel, GS points at this CPU's data (entry code sees to it), and the field is only written by this CPU.
    unsafe {
        core::arch::asm!("mov {}, gs:[{}]", out(reg) thread, const CURRENT, options(nostack, preserves_flags, readonly));
    }
    thread
}

/// Sets the thread that this CPU runs.
///
/// # Safety
/// Interrupts are off, and `thread` stays alive while it is the current one.
pub unsafe fn set_current(thread: *const Thread) {
    // SAFETY: this CPU's own field; the caller keeps interrupts off.
    unsafe { *this().current.get() = thread };
}
