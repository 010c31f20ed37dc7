//! Copies between kernel and user memory, and the exception table that lets them fail.
//!
//! The routines below are the only kernel code that may fault on user addresses. The table is their address ranges: a fault in one
//! that cannot be resolved continues at its fixup.

use core::arch::global_asm;

use super::fpu::{FP_SSE, SW_OFFSET};
use super::regs::PtRegs;
use super::{USER_END, features, objects, sigframe};

// `faultline_exchange(rdi: address, esi: expected, edx: new, rcx: where the value found goes) -> eax: 1 if the address is bad`.
//
// `faultline_clear(rdi: address, rdx: bytes) -> rax: bytes not cleared`; words first, as in `objects`.
//
// `faultline_xsave(rdi: address, rsi: software's 48 bytes, edx: size, ecx: closing magic) -> eax: 1 if the address is bad`: an XSAVE image as
// signal frames have it, with the header cleared first, as XSAVE leaves its reserved bytes alone. `faultline_xrstor(rdi: address, esi,
// edx: components) -> eax` likewise; the registers hold anything after a failure.
global_asm!(
    ".pushsection .text.uaccess, \"ax\"",
    ".global faultline_clear",
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
    ".global faultline_xsave, faultline_xrstor",
    "faultline_xsave:",
    "mov r8d, edx",
    "xor eax, eax",
    "faultline_xsave_at:",
    "mov [rdi + 512], rax",
    "mov [rdi + 520], rax",
    "mov [rdi + 528], rax",
    "mov [rdi + 536], rax",
    "mov [rdi + 544], rax",
    "mov [rdi + 552], rax",
    "mov [rdi + 560], rax",
    "mov [rdi + 568], rax",
    "mov eax, -1",
    "mov edx, -1",
    "xsave64 [rdi]",
    "or qword ptr [rdi + 512], {fp_sse}",
    "mov rax, [rsi]",
    "mov [rdi + {software}], rax",
    "mov rax, [rsi + 8]",
    "mov [rdi + {software} + 8], rax",
    "mov rax, [rsi + 16]",
    "mov [rdi + {software} + 16], rax",
    "xor eax, eax",
    "mov [rdi + {software} + 24], rax",
    "mov [rdi + {software} + 32], rax",
    "mov [rdi + {software} + 40], rax",
    "mov [rdi + r8], ecx",
    "faultline_xsave_end:",
    "ret",
    "faultline_xrstor:",
    "mov eax, esi",
    "faultline_xrstor_at:",
    "xrstor64 [rdi]",
    "faultline_xrstor_end:",
    "xor eax, eax",
    "ret",
    "faultline_xstate_fixup:",
    "mov eax, 1",
    "ret",
    ".popsection",
    fp_sse = const FP_SSE,
    software = const SW_OFFSET,
);

unsafe extern "C" {
    fn faultline_clear(dst: usize, unused: usize, len: usize) -> usize;
    fn faultline_exchange(address: usize, expected: u32, new: u32, found: *mut u32) -> u32;
    fn faultline_xsave(address: usize, software: *const u64, size: u32, magic: u32) -> u32;
    fn faultline_xrstor(address: usize, low: u32, high: u32) -> u32;
    static faultline_clear_words: u8;
    static faultline_clear_words_end: u8;
    static faultline_clear_words_fixup: u8;
    static faultline_clear_bytes: u8;
    static faultline_clear_bytes_end: u8;
    static faultline_exchange_at: u8;
    static faultline_exchange_end: u8;
    static faultline_exchange_fixup: u8;
    static faultline_xsave_at: u8;
    static faultline_xsave_end: u8;
    static faultline_xrstor_at: u8;
    static faultline_xrstor_end: u8;
    static faultline_xstate_fixup: u8;
}

/// Where a fault of the instruction at `ip` continues, if that is part of a user copy.
fn fixup_of(ip: usize) -> Option<usize> {
    let others = [
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
        (
            &raw const faultline_xsave_at,
            &raw const faultline_xsave_end,
            &raw const faultline_xstate_fixup,
        ),
        (
            &raw const faultline_xrstor_at,
            &raw const faultline_xrstor_end,
            &raw const faultline_xstate_fixup,
        ),
        sigframe::exception_row(),
    ];
    objects::exception_rows()
        .iter()
        .chain(&others)
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

#[inline]
fn is_user_range(addr: usize, len: usize) -> bool {
    len <= USER_END && addr <= USER_END - len
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

/// Runs `f`, a routine of the exception table, if the range is one of user addresses.
pub(super) fn with_user_range<R>(addr: usize, len: usize, f: impl FnOnce() -> R) -> Option<R> {
    is_user_range(addr, len).then(|| with_access(f))
}

/// Copies from user memory; how many bytes were not copied.
///
/// # Safety
/// `dst` has room for `len` bytes.
#[inline]
pub unsafe fn copy_from_user(dst: *mut u8, src: usize, len: usize) -> usize {
    match is_user_range(src, len) {
        // SAFETY: the source is in the user's half; the caller has the room.
        true => unsafe { objects::copy(dst as usize, src, len) },
        // SAFETY: as above.
        false => copy_below_end(src, len, |len| unsafe {
            objects::copy(dst as usize, src, len)
        }),
    }
}

/// Copies to user memory; how many bytes were not copied.
///
/// # Safety
/// `src` is readable for `len` bytes.
#[inline]
pub unsafe fn copy_to_user(dst: usize, src: *const u8, len: usize) -> usize {
    match is_user_range(dst, len) {
        // SAFETY: the destination is in the user's half; the caller's bytes are readable.
        true => unsafe { objects::copy(dst, src as usize, len) },
        // SAFETY: as above.
        false => copy_below_end(dst, len, |len| unsafe {
            objects::copy(dst, src as usize, len)
        }),
    }
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

/// Saves the FPU registers, which are the current thread's, as an XSAVE image of `size` bytes for a signal frame, closed by `magic`;
/// `software` are the first three words of the image's software part, the other three are zero. False if the address is bad or not a
/// multiple of 64; a part may have been written then. With faults off (`NoFault`), as a wait would let others use the registers.
pub(super) fn xsave_to_user(to: usize, software: &[u64; 3], size: usize, magic: u32) -> bool {
    if !to.is_multiple_of(64) || !is_user_range(to, size + 4) {
        return false;
    }
    // SAFETY: the image is in the user's half, where faults are fixed up; three words of `software` are read.
    with_access(|| unsafe { faultline_xsave(to, software.as_ptr(), size as u32, magic) }) == 0
}

/// Loads `components` of the FPU registers from an XSAVE image of `size` bytes. False if the address is bad, or the image is one that
/// XRSTOR refuses; the registers hold anything then. With faults off, as above.
pub(super) fn xrstor_from_user(from: usize, components: u64, size: usize) -> bool {
    if !from.is_multiple_of(64) || !is_user_range(from, size) {
        return false;
    }
    // SAFETY: the image is in the user's half, where faults are fixed up, and so is the #GP for a bad image.
    with_access(|| unsafe { faultline_xrstor(from, components as u32, (components >> 32) as u32) })
        == 0
}

/// A range that leaves the user's half: what lies below its end is still copied, as for any other bad address.
#[cold]
#[inline(never)]
fn copy_below_end(addr: usize, len: usize, copy: impl FnOnce(usize) -> usize) -> usize {
    match USER_END.checked_sub(addr) {
        Some(room) if room > 0 && room < len => len - room + copy(room),
        _ => len,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::map::Place;
    use crate::mm::{PAGE_SIZE, VmFlags};
    use crate::sched::current;
    use crate::testing::in_user_process;

    const RW: VmFlags = VmFlags::READ.union(VmFlags::WRITE).union(VmFlags::MAYREAD);
    const BASE: usize = 0x10_0000_0000;
    const PAGES: usize = 2;
    const END: usize = BASE + PAGES * PAGE_SIZE;

    fn map_two_pages() {
        let process = &current().process;
        let mm = process.current_mm().expect("a user process");
        mm.activate();
        let mapped = mm.map(Place::Fixed(BASE), PAGES * PAGE_SIZE, RW, None);
        assert_eq!(mapped, Ok(BASE));
    }

    fn read(src: usize, buf: &mut [u8]) -> usize {
        // SAFETY: the buffer has room for its own length.
        unsafe { copy_from_user(buf.as_mut_ptr(), src, buf.len()) }
    }

    fn write(dst: usize, bytes: &[u8]) -> usize {
        // SAFETY: the bytes are readable.
        unsafe { copy_to_user(dst, bytes.as_ptr(), bytes.len()) }
    }

    /// Around the end of what is mapped, every length and alignment leaves exactly what does not fit, and nothing else is touched.
    fn counts_are_exact() {
        map_two_pages();
        let bytes: [u8; 64] = core::array::from_fn(|index| index as u8 + 1);
        for room in 0..33 {
            for len in [0, 1, 7, 8, 9, 15, 16, 31, 64] {
                let (start, fits) = (END - room, room.min(len));
                assert_eq!(clear_user(END - 64, 64), 0);
                assert_eq!(write(start, &bytes[..len]), len - fits, "{room} {len}");
                let mut seen = [0xff; 64];
                assert_eq!(read(start, &mut seen[..len]), len - fits);
                assert_eq!(seen[..fits], bytes[..fits]);
                assert!(seen[fits..].iter().all(|&byte| byte == 0xff));
                let mut before = [0xff; 64];
                assert_eq!(read(END - 64, &mut before), 0);
                assert!(before[..64 - room].iter().all(|&byte| byte == 0));
                assert_eq!(clear_user(start, len), len - fits);
            }
        }
    }

    #[test_case]
    fn a_copy_over_the_end_of_a_mapping_counts_every_byte() {
        in_user_process(counts_are_exact);
    }

    fn bad_addresses_copy_nothing() {
        map_two_pages();
        let kernel = map_two_pages as *const () as usize;
        for address in [
            0,
            8,
            END,
            USER_END,
            1 << 47,
            !0 << 47,
            kernel,
            usize::MAX - 3,
        ] {
            assert_eq!(read(address, &mut [0; 64]), 64, "{address:#x}");
            assert_eq!(write(address, &[0; 64]), 64, "{address:#x}");
            assert_eq!(clear_user(address, 64), 64, "{address:#x}");
        }
        assert_eq!(clear_user(BASE, usize::MAX), usize::MAX - PAGES * PAGE_SIZE);
    }

    #[test_case]
    fn bad_addresses_are_refused_whole() {
        in_user_process(bad_addresses_copy_nothing);
    }

    #[test_case]
    fn user_memory_is_closed_between_copies() {
        let flags = x86_64::registers::rflags::read_raw() as usize;
        assert_eq!(flags & super::super::regs::flags::AC, 0);
    }
}
