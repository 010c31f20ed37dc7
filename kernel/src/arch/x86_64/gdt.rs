//! Segments and the task state segment: the few that 64-bit mode still needs (SDM volume 3, 3.4 and 8.7).

use core::arch::asm;
use core::cell::UnsafeCell;

use lazy_static::lazy_static;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, FS, GS, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::registers::segmentation::SegmentSelector;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;

use super::percpu::{self, PerCpu};

/// Selectors: Linux's, as signal frames show them. SYSRET wants user data right before user code (SDM volume 2, SYSRET).
pub(super) const KERNEL_CS: u16 = 0x10;
pub(super) const KERNEL_DS: u16 = 0x18;
pub(super) const USER_DS: u16 = 0x28 | 3;
pub(super) const USER_CS: u16 = 0x30 | 3;
const TSS_SELECTOR: u16 = 0x40;
/// A data segment for user code that is never loaded: its limit, which LSL tells, is the CPU's number. The boot CPU's is 0.
pub(super) const CPU_NUMBER: u16 = 0x50 | 3;
const CPU_NUMBER_SEGMENT: u64 = 0x0040_f100_0000_0000;

/// What SYSRET adds 8 and 16 to.
pub(super) const SYSRET_BASE: u16 = 0x20 | 3;

/// Interrupt stack table entries: exceptions that may come when the current stack cannot be trusted.
pub(super) const IST_DOUBLE_FAULT: u16 = 0;
pub(super) const IST_NMI: u16 = 1;
pub(super) const IST_MACHINE_CHECK: u16 = 2;
pub(super) const IST_DEBUG: u16 = 3;
const IST_STACKS: usize = 4;
const IST_STACK_SIZE: usize = 16 << 10;
/// At the top of each such stack: the place of the CPU's data, which entry code cannot learn from the GS base, and padding.
const IST_TOP: usize = 16;

#[repr(align(16))]
struct Stack {
    _memory: [u8; IST_STACK_SIZE],
}

struct IstStacks(UnsafeCell<[Stack; IST_STACKS]>);

// SAFETY: only the hardware uses the stacks.
unsafe impl Sync for IstStacks {}

static STACKS: IstStacks = IstStacks(UnsafeCell::new(
    [const {
        Stack {
            _memory: [0; IST_STACK_SIZE],
        }
    }; IST_STACKS],
));

struct Tss(UnsafeCell<TaskStateSegment>);

// SAFETY: the boot CPU's own, changed with interrupts off.
unsafe impl Sync for Tss {}

static TSS: Tss = Tss(UnsafeCell::new(TaskStateSegment::new()));

lazy_static! {
    static ref GDT: GlobalDescriptorTable<11> = {
        // The places of Linux's 32-bit segments stay empty.
        let empty = || Descriptor::UserSegment(0);
        let mut gdt = GlobalDescriptorTable::empty();
        gdt.append(empty());
        gdt.append(Descriptor::kernel_code_segment());
        gdt.append(Descriptor::kernel_data_segment());
        gdt.append(empty());
        gdt.append(Descriptor::user_data_segment());
        gdt.append(Descriptor::user_code_segment());
        gdt.append(empty());
        // SAFETY: TSS is static.
        gdt.append(unsafe { Descriptor::tss_segment_unchecked(TSS.0.get()) });
        gdt.append(Descriptor::UserSegment(CPU_NUMBER_SEGMENT));
        gdt
    };
}

/// Loads the kernel's own segments and task state. Once, before interrupts are possible.
pub(super) fn init() {
    // SAFETY: nobody else uses the TSS yet; the stacks are static and only named here.
    unsafe {
        let tss = &mut *TSS.0.get();
        for index in 0..IST_STACKS {
            let end = STACKS.0.get().cast::<Stack>().add(index + 1);
            let top = end.byte_sub(IST_TOP).cast::<*const PerCpu>();
            top.write(percpu::this());
            tss.interrupt_stack_table[index] = VirtAddr::from_ptr(top);
        }
    }
    GDT.load();
    let null = SegmentSelector(0);
    // SAFETY: the selectors are those of the table that was just loaded; data segments are not used in 64-bit mode.
    unsafe {
        CS::set_reg(SegmentSelector(KERNEL_CS));
        SS::set_reg(SegmentSelector(KERNEL_DS));
        DS::set_reg(null);
        ES::set_reg(null);
        FS::set_reg(null);
        GS::set_reg(null);
        load_tss(SegmentSelector(TSS_SELECTOR));
        // Reset leaves one at address 0, which programs could fill.
        asm!("lldt {:x}", in(reg) null.0, options(nomem, nostack, preserves_flags));
    }
}

/// Sets the stack that exceptions in user mode start on. Interrupts off.
pub(super) fn set_kernel_stack(top: usize) {
    // SAFETY: the hardware reads the field only when it enters the kernel from user mode, which cannot happen now.
    unsafe { (*TSS.0.get()).privilege_stack_table[0] = VirtAddr::new_truncate(top as u64) };
}
