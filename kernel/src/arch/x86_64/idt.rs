//! The interrupt descriptor table: all 256 vectors lead to the stubs of `entry`.

use core::cell::UnsafeCell;

use x86_64::instructions::tables::lidt;
use x86_64::structures::DescriptorTablePointer;
use x86_64::{PrivilegeLevel, VirtAddr};

use super::entry::{STUB_SIZE, stubs_start};
use super::gdt::{IST_DEBUG, IST_DOUBLE_FAULT, IST_MACHINE_CHECK, IST_NMI, KERNEL_CS};

/// Exception vectors (SDM volume 3, table 6-1).
pub(super) mod vector {
    pub const DIVIDE: usize = 0;
    pub const DEBUG: usize = 1;
    pub const NMI: usize = 2;
    pub const BREAKPOINT: usize = 3;
    pub const OVERFLOW: usize = 4;
    pub const INVALID_OPCODE: usize = 6;
    pub const DEVICE_NOT_AVAILABLE: usize = 7;
    pub const DOUBLE_FAULT: usize = 8;
    pub const INVALID_TSS: usize = 10;
    pub const SEGMENT_NOT_PRESENT: usize = 11;
    pub const STACK_SEGMENT: usize = 12;
    pub const GENERAL_PROTECTION: usize = 13;
    pub const PAGE_FAULT: usize = 14;
    pub const X87: usize = 16;
    pub const ALIGNMENT: usize = 17;
    pub const MACHINE_CHECK: usize = 18;
    pub const SIMD: usize = 19;
}

/// A 64-bit gate (SDM volume 3, 6.14.1).
#[derive(Clone, Copy)]
#[repr(C)]
struct Gate {
    low: u64,
    high: u64,
}

const INTERRUPT_GATE: u64 = 0xe;
const PRESENT: u64 = 1 << 47;
const VECTORS: usize = 256;

impl Gate {
    fn new(handler: u64, ist: u64, dpl: PrivilegeLevel) -> Gate {
        let low = (handler & 0xffff)
            | u64::from(KERNEL_CS) << 16
            | ist << 32
            | INTERRUPT_GATE << 40
            | (dpl as u64) << 45
            | PRESENT
            | (handler >> 16 & 0xffff) << 48;
        Gate {
            low,
            high: handler >> 32,
        }
    }
}

#[repr(align(16))]
struct Idt(UnsafeCell<[Gate; VECTORS]>);

// SAFETY: written once at bring-up, then only read by the hardware.
unsafe impl Sync for Idt {}

static IDT: Idt = Idt(UnsafeCell::new([Gate { low: 0, high: 0 }; VECTORS]));

/// The stack that a vector switches to: 0 for none, else the entry of the interrupt stack table plus one.
fn ist_of(vector: usize) -> u64 {
    let entry = match vector {
        vector::DOUBLE_FAULT => IST_DOUBLE_FAULT,
        vector::NMI => IST_NMI,
        vector::MACHINE_CHECK => IST_MACHINE_CHECK,
        vector::DEBUG => IST_DEBUG,
        _ => return 0,
    };
    u64::from(entry) + 1
}

/// Fills and loads the table. Once, interrupts off.
pub(super) fn init() {
    // SAFETY: nobody reads the table before it is loaded below.
    let gates = unsafe { &mut *IDT.0.get() };
    for (vector, gate) in gates.iter_mut().enumerate() {
        // User code may use INT3 and INTO; every other INT n is a general protection fault.
        let dpl = match vector {
            vector::BREAKPOINT | vector::OVERFLOW => PrivilegeLevel::Ring3,
            _ => PrivilegeLevel::Ring0,
        };
        *gate = Gate::new(
            (stubs_start() + vector * STUB_SIZE) as u64,
            ist_of(vector),
            dpl,
        );
    }
    let pointer = DescriptorTablePointer {
        limit: (size_of::<[Gate; VECTORS]>() - 1) as u16,
        base: VirtAddr::from_ptr(IDT.0.get()),
    };
    // SAFETY: the table is static and complete.
    unsafe { lidt(&pointer) };
}
