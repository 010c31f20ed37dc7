//! The user's FPU, SSE and AVX registers, kept with XSAVE (SDM volume 1, chapter 13), or FXSAVE on CPUs without it.
//!
//! The kernel itself never touches them. They stay in the CPU across system calls, interrupts and kernel threads, and are saved
//! only when another thread needs them: `PerCpu::fpu_owner` says whose they are, and a thread that is switched to while they are
//! another's loads its own on the way to user mode (flag NEED_FPU).

use alloc::alloc::{Allocator, Global};
use core::alloc::Layout;
use core::arch::asm;
use core::arch::x86_64::__cpuid_count;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::thread::ThreadState;
use super::{features, percpu, uaccess};
use crate::errno::OutOfMemory;
use crate::mm::uaccess::NoFault;
use crate::sched::current;
use crate::task::thread::flag;

/// Size of the FXSAVE image, which begins every XSAVE area.
pub(super) const FXSAVE_SIZE: usize = 512;
/// Size of the header after it.
pub(super) const HEADER_SIZE: usize = 64;
/// Where software's part of the FXSAVE image begins, which the hardware leaves alone.
pub(super) const SW_OFFSET: usize = 464;
/// State components: x87 and SSE, which are always there.
pub(super) const FP_SSE: u64 = 0b11;
const AVX512: u64 = 0b111 << 5;
const WANTED: u64 = FP_SSE | 1 << 2 | AVX512;

const MXCSR_DEFAULT: u32 = 0x1f80;
const FCW_DEFAULT: u16 = 0x37f;
const FSW_OFFSET: usize = 2;
pub(super) const MXCSR_OFFSET: usize = 24;
const MXCSR_MASK_OFFSET: usize = 28;
/// What the mask is where the CPU does not say (SDM volume 1, 11.6.6).
const MXCSR_MASK_DEFAULT: u32 = 0xffbf;

static COMPONENTS: AtomicU64 = AtomicU64::new(0);
static SIZE: AtomicU32 = AtomicU32::new(FXSAVE_SIZE as u32);
static MXCSR_MASK: AtomicU32 = AtomicU32::new(MXCSR_MASK_DEFAULT);

/// Enables the state components that both CPU and kernel know. After `features::init` and the heap.
pub(super) fn init() -> Result<(), OutOfMemory> {
    if features::has_xsave() {
        let supported = u64::from(__cpuid_count(0xd, 0).eax) & WANTED;
        // AVX-512's components come together or not at all.
        let components = if supported & AVX512 == AVX512 {
            supported
        } else {
            supported & !AVX512
        };
        // SAFETY: CR4.OSXSAVE is set, the components are supported, and x87 is among them.
        unsafe {
            asm!("xsetbv", in("ecx") 0, in("eax") components as u32, in("edx") (components >> 32) as u32,
                options(nomem, nostack));
        }
        COMPONENTS.store(components, Ordering::Relaxed);
        SIZE.store(__cpuid_count(0xd, 0).ebx, Ordering::Relaxed);
    }
    let area = Area::new()?;
    // SAFETY: an area has room for an FXSAVE image and is aligned.
    unsafe { asm!("fxsave64 [{}]", in(reg) area.start.as_ptr(), options(nostack)) };
    let mask = u32::from_ne_bytes(area.read(MXCSR_MASK_OFFSET));
    if mask != 0 {
        MXCSR_MASK.store(mask, Ordering::Relaxed);
    }
    Ok(())
}

/// The components in use, as in XCR0; 0 without XSAVE.
pub(super) fn components() -> u64 {
    COMPONENTS.load(Ordering::Relaxed)
}

/// Bytes of a state area.
pub(super) fn size() -> usize {
    SIZE.load(Ordering::Relaxed) as usize
}

/// Bits of MXCSR that may be set; others fault when loaded.
pub(super) fn mxcsr_mask() -> u32 {
    MXCSR_MASK.load(Ordering::Relaxed)
}

/// The initial state as an image: no component is in use, so that nothing behind the header is read; MXCSR counts all the same.
#[repr(C, align(64))]
struct Initial([u8; FXSAVE_SIZE + HEADER_SIZE]);

static INITIAL: Initial = {
    let mut bytes = [0; FXSAVE_SIZE + HEADER_SIZE];
    [bytes[0], bytes[1]] = FCW_DEFAULT.to_le_bytes();
    let mxcsr = MXCSR_DEFAULT.to_le_bytes();
    (bytes[MXCSR_OFFSET], bytes[MXCSR_OFFSET + 1]) = (mxcsr[0], mxcsr[1]);
    Initial(bytes)
};

/// Brings `mask`, of the registers' components, into the initial state.
fn load_initial(mask: u64) {
    let image = &raw const INITIAL;
    // SAFETY: the image is a valid one, aligned, and all of it that is read.
    unsafe {
        match components() {
            0 => asm!("fxrstor64 [{}]", in(reg) image, options(nostack, readonly)),
            _ => {
                asm!("xrstor64 [{}]", in(reg) image, in("eax") mask as u32, in("edx") (mask >> 32) as u32,
                    options(nostack, readonly))
            }
        }
    }
}

/// MXCSR as it is.
fn mxcsr() -> u32 {
    let mut mxcsr = 0u32;
    // SAFETY: stores four bytes.
    unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut mxcsr, options(nostack)) };
    mxcsr
}

/// Memory for one thread's state.
pub(super) struct Area {
    start: NonNull<u8>,
}

// SAFETY: plain memory that its owner has alone.
unsafe impl Send for Area {}

impl Area {
    fn layout() -> Layout {
        Layout::from_size_align(size(), 64).expect("a size from the CPU")
    }

    /// The initial state.
    pub fn new() -> Result<Area, OutOfMemory> {
        let memory = Global.allocate_zeroed(Self::layout())?;
        let mut area = Area {
            start: memory.cast(),
        };
        area.reset();
        Ok(area)
    }

    /// The state that another area has.
    pub fn copy(&self) -> Result<Area, OutOfMemory> {
        let memory = Global.allocate(Self::layout())?.cast::<u8>();
        // SAFETY: both areas are `size()` bytes, the other one's initialised, and the new one is nobody else's.
        unsafe { memory.copy_from_nonoverlapping(self.start, size()) };
        Ok(Area { start: memory })
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the area is `size()` bytes of initialised memory.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), size()) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), size()) }
    }

    pub fn read<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut value = [0; N];
        value.copy_from_slice(&self.bytes()[at..at + N]);
        value
    }

    pub fn write(&mut self, at: usize, value: &[u8]) {
        self.bytes_mut()[at..at + value.len()].copy_from_slice(value);
    }

    /// Back to the initial state: an empty header means that for all components (SDM volume 1, 13.6); MXCSR is read all the same.
    pub fn reset(&mut self) {
        self.bytes_mut().fill(0);
        self.write(0, &FCW_DEFAULT.to_ne_bytes());
        self.write(MXCSR_OFFSET, &MXCSR_DEFAULT.to_ne_bytes());
    }

    /// Takes the registers in.
    fn save(&mut self) {
        let area = self.start.as_ptr();
        // SAFETY: the area is large enough for what is enabled, and aligned to 64.
        unsafe {
            match components() {
                0 => asm!("fxsave64 [{}]", in(reg) area, options(nostack)),
                _ => {
                    asm!("xsave64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack))
                }
            }
        }
    }

    /// Puts the contents into the registers. They are valid: saved by the CPU, or checked by `sigframe`.
    fn load(&self) {
        let area = self.start.as_ptr();
        // SAFETY: as in `save`; the contents do not fault, as said above.
        unsafe {
            match components() {
                0 => asm!("fxrstor64 [{}]", in(reg) area, options(nostack)),
                _ => {
                    asm!("xrstor64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack))
                }
            }
        }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with the same layout.
        unsafe { Global.deallocate(self.start, Self::layout()) };
    }
}

fn owner() -> *const ThreadState {
    // SAFETY: this CPU's own field; interrupt handlers do not use it, and the kernel is not preempted.
    unsafe { *percpu::this().fpu_owner.get() }
}

fn set_owner(state: *const ThreadState) {
    // SAFETY: as above.
    unsafe { *percpu::this().fpu_owner.get() = state };
}

/// The next thread is switched to: whether the registers are its own.
pub(super) fn switch_to(next: &crate::task::Thread) {
    if core::ptr::eq(owner(), &next.arch) {
        next.clear_flag(flag::NEED_FPU);
    } else {
        next.set_flag(flag::NEED_FPU);
    }
}

/// Loads the current thread's state if the registers are not its own. On the way to user mode, interrupts off.
pub(super) fn load_for_user() {
    let thread = current();
    if !thread.has_flag(flag::NEED_FPU) {
        return;
    }
    thread.clear_flag(flag::NEED_FPU);
    if take_registers(&thread.arch) {
        thread.arch.with_fpu(|area| area.load());
    }
}

/// Makes the registers those of the current thread, whose state this is, after whoever had them has saved what it had; false if they
/// are already. What is in them is the caller's business.
fn take_registers(state: &ThreadState) -> bool {
    let before = owner();
    if core::ptr::eq(before, state) {
        return false;
    }
    // SAFETY: an owner is alive: `forget` runs before a state goes. Nobody uses its area, as it is not the current thread.
    if let Some(before) = unsafe { before.as_ref() } {
        before.with_fpu(Area::save);
    }
    set_owner(state);
    true
}

/// Saves the current thread's registers right into user memory, as a signal frame has them; see [`uaccess::xsave_to_user`]. False if
/// that takes waiting for a page, or a page that is not there: then `with_current` gives what is to be copied out.
pub(super) fn save_to_user(to: usize, software: &[u64; 3], magic: u32) -> bool {
    load_for_user();
    let _no_wait = NoFault::new();
    uaccess::xsave_to_user(to, software, size(), magic)
}

/// Loads the current thread's registers right from the image of a signal frame, `wanted` of its components, and brings the others
/// into the initial state. False if that takes waiting, or the image is bad: the thread's state is the initial one then.
pub(super) fn load_from_user(from: usize, wanted: u64) -> bool {
    let thread = current();
    let wanted = wanted & components();
    let loaded = {
        let _no_wait = NoFault::new();
        take_registers(&thread.arch);
        thread.clear_flag(flag::NEED_FPU);
        // Not every CPU refuses reserved bits of MXCSR: QEMU's does not.
        uaccess::xrstor_from_user(from, wanted, size()) && mxcsr() & !mxcsr_mask() == 0
    };
    match (loaded, components() & !wanted) {
        (true, 0) => {}
        (true, others) => load_initial(others),
        (false, _) => load_initial(u64::MAX),
    }
    loaded
}

/// Brings the current thread's registers into the initial state.
pub(super) fn reset_current() {
    let thread = current();
    take_registers(&thread.arch);
    thread.clear_flag(flag::NEED_FPU);
    load_initial(u64::MAX);
}

/// Runs `f` on the current thread's state, brought up to date; the registers stay as they are.
pub(super) fn with_current<R>(f: impl FnOnce(&mut Area) -> R) -> R {
    let thread = current();
    thread.arch.with_fpu(|area| {
        if core::ptr::eq(owner(), &thread.arch) {
            area.save();
        }
        f(area)
    })
}

/// Replaces the current thread's state by what `f` makes of it; it is loaded on the way to user mode.
pub(super) fn replace_current<R>(f: impl FnOnce(&mut Area) -> R) -> R {
    let thread = current();
    if core::ptr::eq(owner(), &thread.arch) {
        set_owner(core::ptr::null());
    }
    thread.set_flag(flag::NEED_FPU);
    thread.arch.with_fpu(f)
}

/// A thread's state goes: its registers are nobody's.
pub(super) fn forget(state: &ThreadState) {
    if core::ptr::eq(owner(), state) {
        set_owner(core::ptr::null());
    }
}

/// Unmasked SSE exceptions that are flagged, in MXCSR's low bits.
pub(super) fn mxcsr_exceptions() -> u32 {
    let mxcsr = with_current(|area| u32::from_ne_bytes(area.read(MXCSR_OFFSET)));
    mxcsr & !(mxcsr >> 7) & 0x3f
}

/// Unmasked x87 exceptions that are flagged, in the status word's low bits.
pub(super) fn x87_exceptions() -> u32 {
    let (control, status) = with_current(|area| {
        (
            u16::from_ne_bytes(area.read(0)),
            u16::from_ne_bytes(area.read(FSW_OFFSET)),
        )
    });
    u32::from(status & !control & 0x3f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::in_user_process;

    const AVX: u64 = 1 << 2;

    /// Fills XMM3, or with AVX YMM3, from `value`.
    fn set_register(value: &[u8; 32]) {
        // SAFETY: no kernel code uses the vector registers, and the current thread owns them.
        unsafe {
            if components() & AVX != 0 {
                asm!("vmovups ymm3, [{}]", in(reg) value, options(nostack, readonly));
            } else {
                asm!("movups xmm3, [{}]", in(reg) value, options(nostack, readonly));
            }
        }
    }

    fn register() -> [u8; 32] {
        let mut value = [0; 32];
        // SAFETY: as above, and the buffer has room.
        unsafe {
            if components() & AVX != 0 {
                asm!("vmovups [{}], ymm3", in(reg) &mut value, options(nostack));
            } else {
                asm!("movups [{}], xmm3", in(reg) &mut value, options(nostack));
            }
        }
        value
    }

    fn pattern(seed: u8) -> [u8; 32] {
        let len = if components() & AVX != 0 { 32 } else { 16 };
        core::array::from_fn(|index| if index < len { index as u8 ^ seed } else { 0 })
    }

    #[test_case]
    fn an_area_keeps_all_of_a_register() {
        let (mut area, other) = (Area::new().unwrap(), Area::new().unwrap());
        set_register(&pattern(0x5a));
        area.save();
        set_register(&pattern(0xa5));
        area.load();
        assert_eq!(register(), pattern(0x5a));
        other.load();
        assert_eq!(register(), [0; 32], "a new area is the initial state");
    }

    /// A thread finds its registers again after another one has used them.
    fn registers_follow_the_thread() {
        let thread = current();
        load_for_user();
        assert!(core::ptr::eq(owner(), &thread.arch));
        set_register(&pattern(1));
        let mut other = Area::new().unwrap();
        with_current(|area| other.bytes_mut().copy_from_slice(area.bytes()));
        set_register(&pattern(2));
        assert_eq!(
            register(),
            pattern(2),
            "looking at the state changes no register"
        );
        other.load();
        assert_eq!(register(), pattern(1), "the copy was up to date");
        replace_current(Area::reset);
        assert!(owner().is_null() && thread.has_flag(flag::NEED_FPU));
        load_for_user();
        assert_eq!(register(), [0; 32], "the replaced state was loaded");
        assert!(!thread.has_flag(flag::NEED_FPU));
    }

    #[test_case]
    fn state_belongs_to_a_thread() {
        in_user_process(|| {
            // The first time the thread owns nothing yet.
            current().set_flag(flag::NEED_FPU);
            registers_follow_the_thread();
        });
    }
}
