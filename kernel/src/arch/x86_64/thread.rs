//! What x86-64 keeps in every thread, and the switch between two of them.

use core::arch::naked_asm;
use core::cell::{Cell, UnsafeCell};

use super::fpu::{self, Area};
use super::regs::{PT_REGS_SIZE, PtRegs, TrapInfo};
use super::segments::Segments;
use super::stack::{self, KernelStack};
use super::{entry, gdt, percpu, segments};
use crate::errno::OutOfMemory;
use crate::task::Thread;

/// Kernel stack, saved context and the registers that are not on the stack.
pub struct ThreadState {
    stack: KernelStack,
    /// The stack pointer while the thread does not run.
    sp: Cell<usize>,
    /// User threads only.
    fpu: UnsafeCell<Option<Area>>,
    segments: Segments,
    trap: Cell<TrapInfo>,
}

// SAFETY: everything but the stack is touched only by the thread itself, or by its CPU while it switches.
unsafe impl Sync for ThreadState {}
// SAFETY: nothing in it belongs to a particular CPU.
unsafe impl Send for ThreadState {}

/// Registers that `switch_stacks` keeps on the stack, and its return address.
const SWITCH_FRAME: usize = 7 * 8;

impl ThreadState {
    /// A thread that stays in the kernel.
    pub fn new_kernel() -> Result<ThreadState, OutOfMemory> {
        Self::with(&PtRegs::kernel(), None)
    }

    /// A thread that goes to user mode with `regs`.
    pub fn new_user(regs: &PtRegs) -> Result<ThreadState, OutOfMemory> {
        Self::with(regs, Some(Area::new()?))
    }

    /// A thread that goes to user mode with `regs`, and otherwise as the current thread, `parent`.
    pub fn fork_from(parent: &ThreadState, regs: &PtRegs) -> Result<ThreadState, OutOfMemory> {
        let fpu = fpu::with_current(|own| own.copy())?;
        let mut child = Self::with(regs, Some(fpu))?;
        child.segments = Segments::of_current();
        child.trap.set(parent.trap.get());
        Ok(child)
    }

    fn with(regs: &PtRegs, fpu: Option<Area>) -> Result<ThreadState, OutOfMemory> {
        let stack = KernelStack::new()?;
        let regs_at = stack.top() - PT_REGS_SIZE;
        let sp = regs_at - SWITCH_FRAME;
        // SAFETY: both places lie on the new stack, which nobody uses yet, and are aligned.
        unsafe {
            (regs_at as *mut PtRegs).write(*regs);
            (sp as *mut [usize; 7]).write([
                0,
                0,
                0,
                0,
                0,
                0,
                entry::thread_entry as *const () as usize,
            ]);
        }
        Ok(ThreadState {
            stack,
            sp: Cell::new(sp),
            fpu: UnsafeCell::new(fpu),
            segments: Segments::default(),
            trap: Cell::new(TrapInfo::default()),
        })
    }

    /// Before the thread's first run.
    pub fn set_initial_fs_base(&mut self, base: usize) {
        self.segments.set_initial_fs_base(base);
    }

    /// The current thread begins another program.
    pub fn reset_for_exec(&self) {
        fpu::replace_current(Area::reset);
        segments::reset_current();
        self.trap.set(TrapInfo::default());
    }

    /// Frees what is kept of threads that are gone: stacks; how many frames.
    pub fn free_spares() -> usize {
        stack::free_spares()
    }

    /// The current thread's FS base.
    pub fn fs_base(&self) -> usize {
        segments::current_fs_base()
    }

    /// Sets the current thread's FS base, a user address.
    pub fn set_fs_base(&self, base: usize) {
        segments::set_current_fs_base(base);
    }

    /// The current thread's GS base.
    pub fn gs_base(&self) -> usize {
        segments::current_gs_base()
    }

    /// Sets the current thread's GS base, a user address.
    pub fn set_gs_base(&self, base: usize) {
        segments::set_current_gs_base(base);
    }

    pub fn set_trap(&self, trap: TrapInfo) {
        self.trap.set(trap);
    }

    pub fn trap(&self) -> TrapInfo {
        self.trap.get()
    }

    /// The same in its place, for the thread itself.
    pub(super) fn trap_ptr(&self) -> *const TrapInfo {
        self.trap.as_ptr()
    }

    /// Runs `f` on the FPU state of a user thread.
    pub(super) fn with_fpu<R>(&self, f: impl FnOnce(&mut Area) -> R) -> R {
        // SAFETY: only the thread itself, or the CPU on whose registers its state was left, comes here, and `f` does not come here again
        // for the same thread.
        let fpu = unsafe { &mut *self.fpu.get() };
        f(fpu.as_mut().expect("a user thread"))
    }
}

impl Drop for ThreadState {
    fn drop(&mut self) {
        fpu::forget(self);
    }
}

/// Switches from `prev` to `next`; returns when `prev` is switched to again.
///
/// # Safety
/// `prev` runs on this CPU, `next` does not run anywhere, interrupts are off, and both stay alive until the other side has gone on.
pub unsafe fn switch(prev: &Thread, next: &Thread) {
    let (from, to) = (&prev.arch, &next.arch);
    let top = to.stack.top();
    gdt::set_kernel_stack(top);
    // SAFETY: this CPU's own field, and interrupts are off.
    unsafe { *percpu::this().kernel_sp.get() = top };
    fpu::switch_to(next);
    from.segments.switch_to(&to.segments);
    // SAFETY: `sp` of a thread that does not run is where `switch_stacks` or `with` left it.
    unsafe { switch_stacks(from.sp.as_ptr(), to.sp.get()) };
}

/// Saves the registers that a call keeps, and goes on where the other stack was left.
#[unsafe(naked)]
unsafe extern "C" fn switch_stacks(save_sp: *mut usize, sp: usize) {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rdi], rsp",
        "mov rsp, rsi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
    );
}

/// Leaves the kernel for user mode with `regs`, through the common exit path; the current stack is used anew.
///
/// # Safety
/// The current thread is a user thread, interrupts are off, and nothing on the stack is needed any more.
pub unsafe fn enter_user(regs: &PtRegs) -> ! {
    let thread = crate::sched::current();
    let place = (thread.arch.stack.top() - PT_REGS_SIZE) as *mut PtRegs;
    let copy = *regs;
    // SAFETY: the place is at the bottom of the thread's stack, kept free for these registers since the stack was made.
    unsafe {
        place.write(copy);
        entry::jump_to_user(place)
    }
}
