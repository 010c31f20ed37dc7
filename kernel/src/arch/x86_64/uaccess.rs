//! Copies between kernel and user memory, and the exception table that lets them fail.
//!
//! The routines below are the only kernel code that may fault on user addresses. The table is their address ranges: a fault in one
//! that cannot be resolved continues at its fixup.

use core::arch::global_asm;

use super::regs::PtRegs;
use super::{USER_END, features};

// `faultline_exchange(rdi: address, esi: expected, edx: new, rcx: where the value found goes) -> eax: 1 if the address is bad`.
//
// `faultline_copy(rdi: destination, rsi: source, rdx: bytes) -> rax: bytes not copied`, and `faultline_clear(rdi, rdx)` likewise. Words
// first, as each turn of a string instruction counts; a fault among them goes on byte by byte, so that the count is exact.
global_asm!(
    ".pushsection .text.uaccess, \"ax\"",
    ".global faultline_copy, faultline_clear",
    "faultline_copy:",
    "mov rcx, rdx",
    "shr rcx, 3",
    "faultline_copy_words:",
    "rep movsq",
    "faultline_copy_words_end:",
    "mov ecx, edx",
    "and ecx, 7",
    "faultline_copy_bytes:",
    "rep movsb",
    "faultline_copy_bytes_end:",
    "mov rax, rcx",
    "ret",
    "faultline_copy_words_fixup:",
    "and edx, 7",
    "lea rcx, [rdx + rcx * 8]",
    "jmp faultline_copy_bytes",
    "faultline_clear:",
    "xor eax, eax",
    "mov rcx, rdx",
    "shr rcx, 3",
    "faultline_clear_words:",
    "rep stosq",
    "faultline_clear_words_end:",
    "mov ecx, edx",
    "and ecx, 7",
    "faultline_clear_bytes:",
    "rep stosb",
    "faultline_clear_bytes_end:",
    "mov rax, rcx",
    "ret",
    "faultline_clear_words_fixup:",
    "and edx, 7",
    "lea rcx, [rdx + rcx * 8]",
    "jmp faultline_clear_bytes",
    ".global faultline_exchange",
    "faultline_exchange:",
    "mov eax, esi",
    "faultline_exchange_at:",
    "lock cmpxchg [rdi], edx",
    "faultline_exchange_end:",
    "mov [rcx], eax",
    "xor eax, eax",
    "ret",
    "faultline_exchange_fixup:",
    "mov eax, 1",
    "ret",
    ".popsection",
);

unsafe extern "C" {
    fn faultline_copy(dst: usize, src: usize, len: usize) -> usize;
    fn faultline_clear(dst: usize, unused: usize, len: usize) -> usize;
    fn faultline_exchange(address: usize, expected: u32, new: u32, found: *mut u32) -> u32;
    static faultline_copy_words: u8;
    static faultline_copy_words_end: u8;
    static faultline_copy_words_fixup: u8;
    static faultline_copy_bytes: u8;
    static faultline_copy_bytes_end: u8;
    static faultline_clear_words: u8;
    static faultline_clear_words_end: u8;
    static faultline_clear_words_fixup: u8;
    static faultline_clear_bytes: u8;
    static faultline_clear_bytes_end: u8;
    static faultline_exchange_at: u8;
    static faultline_exchange_end: u8;
    static faultline_exchange_fixup: u8;
}

/// Where a fault of the instruction at `ip` continues, if that is part of a user copy.
fn fixup_of(ip: usize) -> Option<usize> {
    let table = [
        (
            &raw const faultline_copy_words,
            &raw const faultline_copy_words_end,
            &raw const faultline_copy_words_fixup,
        ),
        (
            &raw const faultline_copy_bytes,
            &raw const faultline_copy_bytes_end,
            &raw const faultline_copy_bytes_end,
        ),
        (
            &raw const faultline_clear_words,
            &raw const faultline_clear_words_end,
            &raw const faultline_clear_words_fixup,
        ),
        (
            &raw const faultline_clear_bytes,
            &raw const faultline_clear_bytes_end,
            &raw const faultline_clear_bytes_end,
        ),
        (
            &raw const faultline_exchange_at,
            &raw const faultline_exchange_end,
            &raw const faultline_exchange_fixup,
        ),
    ];
    table
        .iter()
        .find(|(start, end, _)| (*start as usize..*end as usize).contains(&ip))
        .map(|(.., target)| *target as usize)
}

/// Whether the interrupted context is a user copy.
pub(super) fn is_user_copy(regs: &PtRegs) -> bool {
    fixup_of(regs.rip).is_some()
}

/// Sends the interrupted context to its fixup, if it is a user copy; whether it was.
pub(super) fn fixup(regs: &mut PtRegs) -> bool {
    match fixup_of(regs.rip) {
        Some(target) => {
            regs.rip = target;
            true
        }
        None => false,
    }
}

fn is_user_range(addr: usize, len: usize) -> bool {
    addr.checked_add(len).is_some_and(|end| end <= USER_END)
}

/// Runs `f` while user memory may be touched (SDM volume 3, 4.6.1).
#[inline]
fn with_access<R>(f: impl FnOnce() -> R) -> R {
    if !features::smap() {
        return f();
    }
    // SAFETY: SMAP is there, so the instructions are; AC is clear again afterwards.
    unsafe { core::arch::asm!("stac", options(nostack)) };
    let result = f();
    // SAFETY: as above.
    unsafe { core::arch::asm!("clac", options(nostack)) };
    result
}

/// Copies from user memory; how many bytes were not copied.
///
/// # Safety
/// `dst` has room for `len` bytes.
pub unsafe fn copy_from_user(dst: *mut u8, src: usize, len: usize) -> usize {
    if !is_user_range(src, len) {
        return copy_below_end(src, len, |len| {
            // SAFETY: a shorter copy into the caller's room.
            unsafe { copy_from_user(dst, src, len) }
        });
    }
    // SAFETY: the source is in the user's half, where faults are fixed up; the caller has the room.
    with_access(|| unsafe { faultline_copy(dst as usize, src, len) })
}

/// Copies to user memory; how many bytes were not copied.
///
/// # Safety
/// `src` is readable for `len` bytes.
pub unsafe fn copy_to_user(dst: usize, src: *const u8, len: usize) -> usize {
    if !is_user_range(dst, len) {
        return copy_below_end(dst, len, |len| {
            // SAFETY: a shorter copy from the caller's bytes.
            unsafe { copy_to_user(dst, src, len) }
        });
    }
    // SAFETY: the destination is in the user's half, where faults are fixed up; the caller's bytes are readable.
    with_access(|| unsafe { faultline_copy(dst, src as usize, len) })
}

/// Writes zeros; how many bytes were not written.
pub fn clear_user(dst: usize, len: usize) -> usize {
    if !is_user_range(dst, len) {
        return copy_below_end(dst, len, |len| clear_user(dst, len));
    }
    // SAFETY: the destination is in the user's half, where faults are fixed up.
    with_access(|| unsafe { faultline_clear(dst, 0, len) })
}

/// Atomically puts `new` at the aligned user address `address` if `expected` is there; what was found. `None` for a bad address.
pub fn compare_exchange_user(address: usize, expected: u32, new: u32) -> Option<u32> {
    if !address.is_multiple_of(4) || !is_user_range(address, 4) {
        return None;
    }
    let mut found = 0;
    // SAFETY: the word is in the user's half, where faults are fixed up; `found` is a local.
    let bad = with_access(|| unsafe { faultline_exchange(address, expected, new, &raw mut found) });
    (bad == 0).then_some(found)
}

/// A range that leaves the user's half: what lies below its end is still copied, as for any other bad address.
fn copy_below_end(addr: usize, len: usize, copy: impl FnOnce(usize) -> usize) -> usize {
    match USER_END.checked_sub(addr) {
        Some(room) if room > 0 && room < len => len - room + copy(room),
        _ => len,
    }
}
