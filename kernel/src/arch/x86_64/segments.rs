//! The segment registers of user code, and the bases of FS and GS.
//!
//! User code loads selectors whenever it likes, and with FSGSBASE sets both bases to any canonical address, the kernel's half not
//! excluded, without a word to the kernel: while a thread runs, the hardware has the only true values. They are read when the thread is
//! switched away from, and asked for. In the kernel the user's GS base waits in the register that SWAPGS exchanges.

use core::arch::asm;
use core::cell::Cell;

use x86_64::instructions::segmentation::{DS, ES, FS, GS, Segment};
use x86_64::registers::model_specific::Msr;
use x86_64::registers::segmentation::SegmentSelector;

use super::{features, irq};

/// What a thread has in them, valid while it does not run.
#[derive(Clone, Default)]
pub(super) struct Segments {
    fs_base: Cell<usize>,
    gs_base: Cell<usize>,
    selectors: Cell<Selectors>,
}

/// DS, ES, FS and GS: null nearly always.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Selectors {
    ds: u16,
    es: u16,
    fs: u16,
    gs: u16,
}

impl Selectors {
    fn read() -> Selectors {
        Selectors {
            ds: DS::get_reg().0,
            es: ES::get_reg().0,
            fs: FS::get_reg().0,
            gs: GS::get_reg().0,
        }
    }

    /// Loads them; the bases of FS and GS are then anything. Interrupts are off.
    fn load(self) {
        let Selectors { ds, es, fs, gs } = self;
        // SAFETY: user code has loaded the selectors before, and the table does not change; the kernel uses none of these.
        unsafe {
            DS::set_reg(SegmentSelector(ds));
            ES::set_reg(SegmentSelector(es));
            FS::set_reg(SegmentSelector(fs));
        }
        load_gs(gs);
    }
}

/// Loads GS; the user's base is then anything. Interrupts are off.
fn load_gs(selector: u16) {
    // SAFETY: null, or user code has loaded it before. The kernel's GS base is out of the way meanwhile, and an NMI finds its own.
    unsafe {
        asm!("swapgs", "mov gs, {:x}", "swapgs", in(reg) selector, options(nostack, preserves_flags));
    }
}

// Raw numbers throughout: an emulated CPU lets programs set bases that are not canonical.
const FS_BASE: Msr = Msr::new(0xc000_0100);
const KERNEL_GS_BASE: Msr = Msr::new(0xc000_0102);

/// The current thread's FS base.
pub(super) fn current_fs_base() -> usize {
    if !features::fsgsbase() {
        // SAFETY: the register is there on every x86-64.
        return unsafe { FS_BASE.read() } as usize;
    }
    let base;
    // SAFETY: the instruction is turned on.
    unsafe { asm!("rdfsbase {}", out(reg) base, options(nomem, nostack, preserves_flags)) };
    base
}

fn write_fs_base(base: usize) {
    // SAFETY: the kernel does not use FS, and the program has had the base before, or it is one of its half.
    unsafe {
        if features::fsgsbase() {
            asm!("wrfsbase {}", in(reg) base, options(nomem, nostack, preserves_flags));
        } else {
            let mut register = FS_BASE;
            register.write(base as u64);
        }
    }
}

/// The current thread's GS base.
pub(super) fn current_gs_base() -> usize {
    // SAFETY: the register is there on every x86-64.
    unsafe { KERNEL_GS_BASE.read() as usize }
}

fn write_gs_base(base: usize) {
    let mut register = KERNEL_GS_BASE;
    // SAFETY: only SWAPGS on the way to user mode uses it, and the program has had the base before, or it is one of its half.
    unsafe { register.write(base as u64) };
}

impl Segments {
    /// What the current thread has.
    pub(super) fn of_current() -> Segments {
        let now = Segments::default();
        now.save();
        now
    }

    /// Before the thread's first run.
    pub(super) fn set_initial_fs_base(&self, base: usize) {
        self.fs_base.set(base);
    }

    fn save(&self) {
        self.fs_base.set(current_fs_base());
        self.gs_base.set(current_gs_base());
        self.selectors.set(Selectors::read());
    }

    /// Keeps what the thread had that runs, and loads what `next` has. Interrupts are off.
    pub(super) fn switch_to(&self, next: &Segments) {
        self.save();
        let mut loaded = (self.fs_base.get(), self.gs_base.get());
        if self.selectors.get() != next.selectors.get() {
            next.selectors.get().load();
            loaded = (current_fs_base(), current_gs_base());
        }
        if loaded.0 != next.fs_base.get() {
            write_fs_base(next.fs_base.get());
        }
        if loaded.1 != next.gs_base.get() {
            write_gs_base(next.gs_base.get());
        }
    }
}

/// Gives the current thread an FS base, a user address, and the null selector.
pub(super) fn set_current_fs_base(base: usize) {
    let flags = irq::save();
    // SAFETY: the kernel does not use FS.
    unsafe { FS::set_reg(SegmentSelector::NULL) };
    write_fs_base(base);
    irq::restore(flags);
}

/// Gives the current thread a GS base, a user address, and the null selector.
pub(super) fn set_current_gs_base(base: usize) {
    let flags = irq::save();
    load_gs(0);
    write_gs_base(base);
    irq::restore(flags);
}

/// The current thread begins another program: null selectors, and bases of 0.
pub(super) fn reset_current() {
    let flags = irq::save();
    Selectors::default().load();
    write_fs_base(0);
    write_gs_base(0);
    irq::restore(flags);
}
