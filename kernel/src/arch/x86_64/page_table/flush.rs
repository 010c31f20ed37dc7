//! Stale translations, and the root that the CPU uses.

use x86_64::VirtAddr as HardwareAddr;
use x86_64::instructions::tlb;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::PhysFrame;

use super::super::percpu;
use crate::mm::frame::FrameNumber;

/// More pages than these are flushed by reloading CR3.
const FLUSH_ONE_BY_ONE: usize = 32;

/// A stale translation.
#[must_use = "a stale translation survives until this is flushed"]
pub struct TlbFlush(pub(super) usize);

impl TlbFlush {
    /// Drops the page's translation, and all cached entries of tables (SDM volume 3, 4.10.4.1).
    #[inline]
    pub fn flush(self) {
        tlb::flush(HardwareAddr::new_truncate(self.0 as u64));
    }

    /// Leaves it where it is, as it only permits less than there is now: who meets it makes a fault, which drops it (SDM volume 3,
    /// 4.10.4.3).
    #[inline]
    pub fn leave_to_faults(self) {}
}

/// Drops the translations that a range operation makes stale when it ends: page by page, or all if there are many.
pub(super) struct Stale {
    /// Of a table that is not in use nothing can be cached.
    pub(super) in_use: bool,
    pages: heapless::Vec<usize, FLUSH_ONE_BY_ONE>,
    /// There were more.
    all: bool,
}

impl Stale {
    #[inline]
    pub(super) fn of(root: FrameNumber) -> Stale {
        Stale {
            in_use: root.phys() == root_in_use(),
            pages: heapless::Vec::new(),
            all: false,
        }
    }

    /// The page's entry has just been changed.
    #[inline]
    pub(super) fn add(&mut self, page: usize) {
        self.all |= self.in_use && self.pages.push(page).is_err();
    }

    /// More entries have been changed than are worth to be told.
    #[inline]
    pub(super) fn add_many(&mut self) {
        self.all |= self.in_use;
    }

    /// From here on nothing stale is left.
    #[inline]
    pub(super) fn flush(self) {
        if self.all {
            tlb::flush_all();
        } else {
            self.pages.iter().for_each(|&page| TlbFlush(page).flush());
        }
    }
}

/// Drops all translations of user memory.
pub(super) fn flush_all() {
    tlb::flush_all();
}

/// Physical address of the root that this CPU uses.
#[inline]
pub(super) fn root_in_use() -> u64 {
    // SAFETY: this CPU's own field, written by `load_root` alone, which interrupt handlers do not call.
    unsafe { *percpu::this().root.get() }
}

pub(super) fn load_root(root: u64) {
    let flags = crate::arch::irq::save();
    // SAFETY: this CPU's own field, interrupts off.
    let current = unsafe { &mut *percpu::this().root.get() };
    if *current != root {
        *current = root;
        // SAFETY: the table holds the kernel's half, so the kernel goes on where it is.
        unsafe {
            Cr3::write(
                PhysFrame::containing_address(x86_64::PhysAddr::new(root)),
                Cr3Flags::empty(),
            )
        };
    }
    crate::arch::irq::restore(flags);
}
