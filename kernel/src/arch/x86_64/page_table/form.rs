//! What an entry looks like to the hardware (SDM volume 3, chapter 4), and what the kernel keeps in it besides.

use super::super::kernel_pages::frame_in;
use crate::mm::frame::{Frame, FrameNumber};
use crate::mm::pte::{Pte, PteFlags};

/// Bits of an entry. 9 to 11 are free for software everywhere, 52 to 61 in entries of tables.
pub mod bits {
    pub const PRESENT: u64 = 1 << 0;
    pub const WRITE: u64 = 1 << 1;
    pub const USER: u64 = 1 << 2;
    /// Uncached, together with the next bit (SDM volume 3, 12.5).
    pub const WRITE_THROUGH: u64 = 1 << 3;
    pub const CACHE_DISABLE: u64 = 1 << 4;
    pub const ACCESSED: u64 = 1 << 5;
    pub const DIRTY: u64 = 1 << 6;
    pub const HUGE: u64 = 1 << 7;
    pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    pub const NO_EXECUTE: u64 = 1 << 63;
    /// One unit in the count of the entries of the table below.
    pub const COUNT_ONE: u64 = 1 << 52;
    pub const COUNT: u64 = 0x3ff << 52;
    /// What entries of upper levels have; the lowest decides. Accessed, so that the hardware need not write it.
    pub const TABLE: u64 = PRESENT | WRITE | USER | ACCESSED;
}

/// Entries of the lowest level keep the generic flags of the hardware's and the software's kind together, two and four bits further up.
const SEEN: u64 = PteFlags::ACCESSED.bits() | PteFlags::DIRTY.bits();
const SOFTWARE: u64 = PteFlags::SPECIAL.bits() | PteFlags::NONE.bits() | PteFlags::UFFD_WP.bits();
const _: () = assert!(PteFlags::WRITE.bits() == bits::WRITE);
const _: () = assert!(SEEN << 2 == bits::ACCESSED | bits::DIRTY);
const _: () = assert!(SOFTWARE << 4 == 0b111 << 9);

/// SPECIAL in an entry.
pub(super) const SPECIAL: u64 = PteFlags::SPECIAL.bits() << 4;

/// UFFD_WP in an entry.
pub(super) const UFFD_WP: u64 = PteFlags::UFFD_WP.bits() << 4;

/// The entry of a page that is not there, and is write-protected for userfaultfd as soon as it comes.
pub(super) const MARKER: u64 = UFFD_WP;

#[inline(always)]
pub(super) fn to_hardware(frame: FrameNumber, flags: PteFlags) -> u64 {
    let allowed = match flags.contains(PteFlags::NONE) {
        true => 0,
        false => bits::PRESENT | bits::USER,
    };
    let no_execute = match flags.contains(PteFlags::EXEC) {
        true => 0,
        false => bits::NO_EXECUTE,
    };
    let flags = flags.bits();
    let moved = flags & bits::WRITE | (flags & SEEN) << 2 | (flags & SOFTWARE) << 4;
    frame.phys() | allowed | moved | no_execute
}

#[inline(always)]
pub(super) fn from_hardware(value: u64) -> Pte {
    let read = (value & bits::PRESENT) * PteFlags::READ.bits();
    let exec = (!value >> 63) * PteFlags::EXEC.bits();
    let moved = value & bits::WRITE | (value >> 2) & SEEN | (value >> 4) & SOFTWARE;
    Pte {
        frame: frame_in(value),
        flags: PteFlags::from_bits_retain(read | exec | moved),
    }
}

/// An entry as it counts under that of its table, `low`, which may refuse writes because others have the table, too.
#[inline(always)]
pub(super) fn seen_through(low: u64, value: u64) -> Pte {
    from_hardware(value & (low | !bits::WRITE))
}

/// The entry with other flags, but for SPECIAL, which belongs to the frame.
#[inline(always)]
pub(super) fn with_flags(value: u64, flags: PteFlags) -> u64 {
    let pte = from_hardware(value);
    let special = pte.flags & PteFlags::SPECIAL;
    to_hardware(pte.frame, (flags - PteFlags::SPECIAL) | special)
}

/// Takes the reference that a cleared entry owned.
#[inline(always)]
pub(super) fn owned(value: u64) -> Option<Frame> {
    let pte = from_hardware(value);
    // SAFETY: an entry without SPECIAL owns a reference, and the caller has just taken the entry out.
    (!pte.flags.contains(PteFlags::SPECIAL)).then(|| unsafe { Frame::from_raw(pte.frame) })
}
