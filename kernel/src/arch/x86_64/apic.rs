//! The local interrupt controller: this CPU's one-shot timer (SDM volume 3, chapter 12).
//!
//! The timer counts down once and interrupts, and nothing comes before it is set again. Device interrupts still come from the 8259A
//! controllers, through LINT0.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use x86_64::registers::model_specific::Msr;

use super::features;
use crate::arch::map_device;
use crate::errno::OutOfMemory;

/// The timer's vector, above those of the lines.
pub(super) const TIMER_VECTOR: u8 = 0xef;
/// Interrupts that went away before they were taken; no end is signalled for them.
pub(super) const SPURIOUS_VECTOR: u32 = 0xff;

/// IA32_APIC_BASE: physical address, and how the registers are reached.
const BASE_MSR: u32 = 0x1b;
const ENABLE: u64 = 1 << 11;
const X2APIC: u64 = 1 << 10;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Where the registers are as model-specific ones, a sixteenth of their offset further.
const X2APIC_MSRS: u32 = 0x800;

/// Offsets of registers, bytes.
mod register {
    pub const TASK_PRIORITY: u32 = 0x80;
    pub const END_OF_INTERRUPT: u32 = 0xb0;
    pub const SPURIOUS: u32 = 0xf0;
    pub const TIMER: u32 = 0x320;
    pub const LINT0: u32 = 0x350;
    pub const LINT1: u32 = 0x360;
    pub const INITIAL_COUNT: u32 = 0x380;
    pub const CURRENT_COUNT: u32 = 0x390;
    pub const DIVIDE: u32 = 0x3e0;
}

const SOFTWARE_ENABLE: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
/// Delivery modes of LINT0 and LINT1, as in virtual wire mode.
const EXTERNAL: u32 = 0b111 << 8;
const NMI: u32 = 0b100 << 8;
const DIVIDE_BY_16: u32 = 0b0011;

/// The mapped registers; null: they are model-specific ones.
static REGISTERS: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());

/// Counts per nanosecond, times 2^32.
static COUNTS_PER_NS: AtomicU64 = AtomicU64::new(0);

fn msr(offset: u32) -> Msr {
    Msr::new(X2APIC_MSRS + offset / 16)
}

fn write(offset: u32, value: u32) {
    match NonNull::new(REGISTERS.load(Ordering::Relaxed)) {
        // SAFETY: the pointer is to the mapped registers, and the offset is one of them.
        Some(registers) => unsafe {
            registers
                .byte_add(offset as usize)
                .cast::<u32>()
                .write_volatile(value);
        },
        // SAFETY: the controller is in x2APIC mode, and the offset is one of its registers.
        None => unsafe { msr(offset).write(u64::from(value)) },
    }
}

fn read(offset: u32) -> u32 {
    match NonNull::new(REGISTERS.load(Ordering::Relaxed)) {
        // SAFETY: as in `write`.
        Some(registers) => unsafe {
            registers
                .byte_add(offset as usize)
                .cast::<u32>()
                .read_volatile()
        },
        // SAFETY: as in `write`.
        None => unsafe { msr(offset).read() as u32 },
    }
}

/// Turns the controller on, with the timer stopped. Once, interrupts off.
pub(super) fn init() -> Result<(), OutOfMemory> {
    let mut base = Msr::new(BASE_MSR);
    // SAFETY: the register exists on every CPU with a local controller.
    let mut value = unsafe { base.read() } | ENABLE;
    if features::has_x2apic() {
        value |= X2APIC;
    } else {
        let registers = map_device(value & ADDRESS, 4096)?;
        REGISTERS.store(registers.as_ptr(), Ordering::Relaxed);
    }
    // SAFETY: turns the controller on, in a mode that the CPU has, where it is.
    unsafe { base.write(value) };
    write(register::TASK_PRIORITY, 0);
    write(register::LINT0, EXTERNAL);
    write(register::LINT1, NMI);
    write(register::DIVIDE, DIVIDE_BY_16);
    write(register::TIMER, MASKED | u32::from(TIMER_VECTOR));
    write(register::SPURIOUS, SOFTWARE_ENABLE | SPURIOUS_VECTOR);
    Ok(())
}

/// Starts counting without an interrupt, for calibration.
pub(super) fn start_counting() {
    write(register::INITIAL_COUNT, u32::MAX);
}

/// Ends what [`start_counting`] began, `ns` ago. From now on the timer may interrupt.
pub(super) fn calibrate(ns: u64) {
    let counts = u64::from(u32::MAX - read(register::CURRENT_COUNT));
    COUNTS_PER_NS.store((counts << 32) / ns.max(1), Ordering::Relaxed);
    write(register::INITIAL_COUNT, 0);
    write(register::TIMER, u32::from(TIMER_VECTOR));
}

/// Lets the timer interrupt once, not before `ns` from now unless that is further away than it can count (about a minute).
pub(super) fn interrupt_in(ns: u64) {
    let counts = (u128::from(ns) * u128::from(COUNTS_PER_NS.load(Ordering::Relaxed))) >> 32;
    // One more, as the fraction was dropped; zero would stop it.
    let counts = u32::try_from(counts + 1).unwrap_or(u32::MAX);
    write(register::INITIAL_COUNT, counts);
}

/// Acknowledges the timer's interrupt.
pub(super) fn end_of_interrupt() {
    write(register::END_OF_INTERRUPT, 0);
}
