//! The contract: everything generic code may ask of an architecture, on one page.
//!
//! One implementation is picked at compile time and must offer exactly the names re-exported here, with the meaning and
//! the signatures given in the comments. `x86_64` is the hardware; `sim` is the same contract as ordinary host code (a
//! software MMU and simulated CPUs), so that everything generic is tested without a machine. Neither knows policy.
//!
//! In the other direction an architecture calls generic code at these places only: [`crate::mm::fault::handle_page_fault`],
//! [`crate::syscall::CALLS`] and [`crate::syscall::CALLS_WITH_REGISTERS`], [`crate::signal::force`], [`crate::task::exit_to_user_mode`],
//! [`crate::task::thread_start`], [`crate::sched::timer_tick`], and the interrupt handlers registered with [`irq::register`].

#[cfg(not(target_os = "none"))]
pub mod sim;
#[cfg(target_os = "none")]
pub mod x86_64;

#[cfg(not(target_os = "none"))]
use sim as imp;
#[cfg(target_os = "none")]
use x86_64 as imp;

/// The registers of the interrupted context, as saved on the kernel stack by the entry code.
///
/// `fn user_mode(&self) -> bool` (from the saved CS) · `fn ip(&self) -> usize` · `fn sp(&self) -> usize`
/// · `fn frame_top(&self) -> usize` (below which a signal frame may be written)
/// · `fn syscall_nr(&self) -> Option<usize>` (None: not entered by a system call) · `fn syscall_args(&self) -> [usize; 6]`
/// · `fn set_ip(&mut self, usize)` · `fn set_sp(&mut self, usize)` · `fn return_value(&self) -> usize` · `fn set_return_value(&mut self, usize)`
/// · `fn forget_syscall(&mut self)` (so that no restart is made) · `fn restart_syscall(&mut self, nr: Option<usize>)` (goes
/// back to the call instruction, with the original number, or with `nr` in its place)
/// · `fn new_user(entry: usize, sp: usize) -> Self` (all other registers zero, interrupts on)
/// · `fn kernel() -> Self` (a context in kernel mode, for faults that are made by hand).
pub use imp::PtRegs;

/// `unsafe extern "C" fn with_all_registers(&mut PtRegs)`: stands in [`crate::syscall::CALLS`] for calls that need all registers, and
/// calls what [`crate::syscall::CALLS_WITH_REGISTERS`] has for the number. The others find number and arguments in their places, and
/// may change the return value; the rest is in place when work is done before user mode goes on.
pub use imp::with_all_registers;

/// What the architecture keeps in every thread: kernel stack, saved context, FPU state, FS base, values of the last
/// synchronous trap. It is the field `Thread::arch`.
///
/// `fn new_kernel() -> Result<Self, OutOfMemory>`: a kernel stack whose first switch calls [`crate::task::thread_start`].
/// · `fn new_user(regs: &PtRegs) -> Result<Self, OutOfMemory>`: the same, with `regs` at the place from which the stack's
/// user registers are loaded, and an initial FPU state.
/// · `fn fork_from(parent: &ThreadState, regs: &PtRegs) -> Result<Self, OutOfMemory>`: as `new_user`, with the FPU state, FS
/// and GS base of `parent`, which must be the current thread. · `fn set_initial_fs_base(&mut self, usize)`: before the first run
/// · `fn reset_for_exec(&self)` (current thread: initial FPU state, FS and GS base 0)
/// · `fn fs_base(&self) -> usize`, `fn set_fs_base(&self, usize)`, likewise `gs_base` (current thread; canonical user address)
/// · `fn free_spares() -> usize`: frees what is kept of threads that are gone, under the lock of nobody; how many frames
/// · `fn user_regs(&self) -> *mut PtRegs`: where the user registers lie on the kernel stack
/// · `fn set_trap(&self, TrapInfo)`, `fn trap(&self) -> TrapInfo`: sticky values of the last synchronous trap.
pub use imp::ThreadState;

/// Switches the CPU from one thread to another. Called by `sched` only, interrupts off, run queue lock released.
///
/// `unsafe fn switch(prev: &Thread, next: &Thread)`: saves and loads stack, FPU ownership, FS/GS base, kernel stack of the next
/// entry. Returns when `prev` is switched to again. The address space is switched by `sched` with
/// [`PageTable::activate`] before.
///
/// `unsafe fn set_current(*const Thread)`, `fn current() -> *const Thread` (null before the scheduler starts): this CPU's
/// thread. `unsafe fn enter_user(regs: &PtRegs) -> !`: leaves the kernel stack for user mode through the common exit path.
pub use imp::{current, enter_user, set_current, switch};

/// A user address space's translations, and the only way to edit them. It owns its table frames and one reference of each
/// frame that it maps (but for `PteFlags::SPECIAL`).
///
/// The lower half is the user's; the kernel's half is shared by all. Not synchronised by itself: the owner (`Mm`) holds it in a
/// lock of rank [`crate::sync::rank::PAGE_TABLE`]. No method allocates from the heap.
///
/// `fn new() -> Result<Self, OutOfMemory>`
/// · `fn get(&self, VirtAddr) -> Option<Pte>`: the translation of the page holding the address
/// · `fn map(&mut self, VirtAddr, Frame, PteFlags) -> Result<(), (NotMapped, Frame)>`: fills an entry, if it is empty
/// · `fn map_special(&mut self, VirtAddr, FrameNumber, PteFlags) -> Result<(), NotMapped>`: the same for a frame that
/// the table shall not own (the zero page)
/// · `fn fill_empty(&mut self, VirtAddr, pages: usize, PteFlags, &mut impl FnMut(usize) -> Option<Frame>) -> u64`: asks for a frame for
/// each empty entry of the range, by its number there, and puts it in; how many were filled: not all if there is no memory for tables
/// · `fn entry(&mut self, VirtAddr) -> Result<Option<Entry<'_>>, OutOfMemory>`: the present entry of the page holding the address, to be changed:
/// `fn pte(&self) -> Pte`, `fn set_flags(self, PteFlags) -> TlbFlush` (its permissions), `fn replace(self, Frame, PteFlags) ->
/// (Option<Frame>, TlbFlush)` (the frame that was owned comes back)
/// · `fn zap_range(&mut self, start, end, &mut KindCounts)`: removes all entries, and gives the frames up after the flush, which it
/// counts; cost proportional to what is mapped and to the tables
/// · `fn unmap_range_if(&mut self, start, end, &mut impl FnMut(Pte) -> bool, &mut impl FnMut(VirtAddr, Pte, Option<Frame>))`: removes
/// those that the first closure wants, and hands their frames to the second after the flush
/// · `fn visit_some(&self, start, end, &mut impl FnMut(VirtAddr, Pte, u32)) -> Option<VirtAddr>`: shows the present entries of a bounded
/// part of the range, with the number of address spaces that have each (`fn sharers(&self, VirtAddr) -> u32`), and where to go on; `None` when there are no more
/// · `fn protect_range(&mut self, start, end, impl FnMut(VirtAddr, Pte) -> PteFlags)`, visits present entries, one of a shared table perhaps twice,
/// flushes
/// · `fn move_range(&mut self, start, end, to) -> Result<(), OutOfMemory>`: moves the entries of a range to one where there are none
/// and that does not overlap it; flushes; nothing is changed on failure
/// · `fn copy_range(&mut self, child: &mut PageTable, start, end, alone: &Range<usize>, &mut KindCounts) ->
/// Result<(), OutOfMemory>`: fork: the child has each present page, too; both sides lose WRITE.
/// Flushes the parent. Counts the frames that the child has now, also on failure (special entries are copied, too, and not counted). In the
/// addresses `alone` lies nothing but this range, which is private memory: both may have the same tables there.
/// · `fn has_shared(&self) -> bool`: whether they ever had. A page table is given what is then shared when something is to be changed, which can
/// fail: `fn own_range(&mut self, start, end) -> Result<(), OutOfMemory>` comes before `protect_range` and whatever else changes
/// entries, but for `entry`, the filling ones and `move_range`, which can fail themselves; `fn own_edges(&mut self, start, end)
/// -> Result<(), OutOfMemory>` before `zap_range` of a part of an area
/// The child's entries are not protected for userfaultfd, nor are those that `move_range` has moved.
/// · `fn is_marked(&self, VirtAddr) -> bool`, `fn mark_missing(&mut self, start, end) -> Result<(), OutOfMemory>` (every page of the range
/// that is not there; cost proportional to the range), `fn unmark(&mut self, start, end)`: marks of pages that are not there. `map`
/// and `map_special` take the mark and protect the page with UFFD_WP, without WRITE; `zap_range` takes marks away, `unmap_range_if`
/// leaves them and turns UFFD_WP into one; `get` and the
/// other range operations do not see them
/// · `fn table_frames(&self) -> u64`: frames that the tables take · `fn activate(&self)`: this CPU uses the space from now on
/// · `fn deactivate()`: the kernel's own tables
/// · Drop frees the tables; the owner has unmapped everything before.
///
/// `TlbFlush` is a stale translation that must be dropped: `fn flush(self)` now, or `fn leave_to_faults(self)` where only permissions were
/// added. Forgetting it is a compile warning.
pub use imp::{Entry, PageTable};

/// The first address that is not a user address: 2^47 - 4096.
pub use imp::USER_END;

/// User memory, touched only here. Each returns how many bytes were *not* done; it never panics. A fault inside takes the
/// ordinary path and ends at the exception table if it cannot be resolved. Addresses are checked against `USER_END`. May sleep
/// unless `crate::mm::uaccess::NoFault` is held.
///
/// `unsafe fn copy_from_user(dst: *mut u8, src: usize, len: usize) -> usize` · `unsafe fn copy_to_user(dst: usize, src: *const
/// u8, len: usize) -> usize` · `unsafe fn get_user(dst: *mut u8, src: usize, size: usize) -> bool` and `put_user`: an object, whose size is
/// known when the caller is compiled; whether it was copied whole · `fn clear_user(dst: usize, len: usize) -> usize` · `fn compare_exchange_user(address: usize, expected:
/// u32, new: u32) -> Option<u32>`: atomic; what was found, `None` for a bad or unaligned address.
pub use imp::{
    clear_user, compare_exchange_user, copy_from_user, copy_to_user, get_user, put_user,
};

/// Memory of frames, through the direct map: `fn frame_ptr(FrameNumber) -> *mut u8` · `fn zero_frame(FrameNumber)` · `fn
/// copy_frame(src: FrameNumber, dst: FrameNumber)` (the caller owns what is written).
pub use imp::{copy_frame, frame_ptr, zero_frame};

/// Signal frames. `fn setup_frame(regs: &mut PtRegs, frame: &crate::signal::FrameRequest) -> Result<(), BadFrame>`: writes the
/// frame to user memory and points `regs` at the handler; nothing of `regs` is changed on failure.
/// `fn restore_frame(regs: &mut PtRegs) -> Result<RestoredFrame, BadFrame>`: reads it back, for rt_sigreturn; takes nothing
/// dangerous. `RestoredFrame { mask: SigSet, altstack: AltStack }`. `fn min_frame_size() -> usize`: AT_MINSIGSTKSZ.
pub use imp::{RestoredFrame, min_frame_size, restore_frame, setup_frame};

/// Interrupts of this CPU. `fn save() -> Flags` (disables, returns the old state) · `fn restore(Flags)` · `fn enable()` ·
/// `fn wait() -> bool`: sleeps until an interrupt; called with interrupts off, returns with them off again
/// after they were taken; false if nothing can ever happen any more (never on hardware) · `fn register(line: u8, handler: fn())`: a device's handler, called with interrupts off; also unmasks the line
/// · `fn interrupted_user() -> bool`: in a handler, whether the interrupt came in user mode.
pub use imp::irq;

/// Clocks. `fn now_ns() -> u64`: monotonic nanoseconds since boot · `fn wall_clock_offset_ns() -> u64`: what added to it gives the
/// time since 1970 · `fn set_wall_clock_offset_ns(u64)` · `fn set_timer(deadline_ns: u64)`: one call of `sched::timer_tick` at that
/// time, or earlier if it is far away, in place of the one asked for before; called with interrupts off · `fn work_counts() -> u64`:
/// counts of the CPU's own counter since the kernel's first instruction, without those in which it waited for an interrupt.
pub use imp::time;

/// The code with which user programs read the clocks without a system call: `fn image() -> Result<Vec<u8>, OutOfMemory>`, at most a page,
/// which expects the clocks' data in the page before it wherever it is mapped · `fn set_data_frame(FrameNumber)`: keeps that data in the
/// frame from now on, for good; once.
pub use imp::vdso;

/// The machine: `fn exit(Exit) -> !` · `fn random_u64() -> u64` (seeded by the configuration or hardware) · `fn control(fmt::Arguments)`:
/// writes one control record · serial ports of the console: `fn stdout_write(&[u8])`, `fn stderr_write(&[u8])`,
/// `fn stdin_read() -> Option<u8>` (raw, not decoded), `const STDIN_IRQ: u8`, `fn stdin_interrupt(on: bool)`
/// · `fn config_bytes() -> Option<Vec<u8>>`: the fw_cfg item.
pub use imp::machine;

/// How the machine ends; see docs/machine-protocol.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Exit {
    Done = 0x10,
    Panic = 0x11,
    #[cfg_attr(not(test), allow(dead_code, reason = "the kernel's own tests end so"))]
    TestsFailed = 0x12,
    BringUpFailed = 0x13,
}

/// PCI configuration space, on machines that have it: `fn read(bus, device, function, offset) -> u32` · `fn write(.., value)`.
#[cfg(target_os = "none")]
pub use imp::pci;

/// For kernel memory management on hardware: `fn map_kernel_page(address, Frame) -> Result<(), OutOfMemory>` · `fn unmap_kernel_page(address)
/// -> Option<Frame>` · `fn map_device(phys: u64, size: usize) -> Result<NonNull<u8>, OutOfMemory>`: a device's registers, uncached, for good.
#[cfg(target_os = "none")]
pub use imp::{map_device, map_kernel_page, unmap_kernel_page};
