//! Copies between kernel and user memory: of bytes, and of objects whose size is known when the caller is compiled, mostly one word.
//!
//! There are two sets of routines, with and without STAC and CLAC around the access (SDM volume 3, 4.6.1), and the set that the CPU wants is
//! chosen once, so that nobody asks at each copy. Nothing in them but the accesses to user memory can fault; a fault that cannot be
//! resolved continues at the set's fixup.

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::mem::offset_of;

use super::{USER_END, features};

// `get8(rax: address) -> rax: the word there, rdx: 1 if the address is bad`, `put8(rdx: address, rax: word) -> rdx: 1 if the address is bad`,
// for half a word `get4` and `put4`; `words(rdi: destination, rsi: source, edx: words) -> eax: 1 if the user's address is bad`, for both
// directions, and so for `copy(rdi: destination, rsi: source, rdx: bytes) -> rax: bytes not copied`. That takes words first, as each turn of
// a string instruction counts; a fault among them goes on byte by byte, so that the count is exact. Besides these registers and the flags
// they change RCX, the last two RDI and RSI.
global_asm!(
    ".pushsection .text.uaccess, \"ax\"",
    ".macro faultline_objects kind, open=, close=",
    "faultline_copy_\\kind:",
    "mov rcx, rdx",
    "shr rcx, 3",
    "\\open",
    "faultline_copy_words_\\kind:",
    "rep movsq",
    "faultline_copy_words_end_\\kind:",
    "mov ecx, edx",
    "and ecx, 7",
    "faultline_copy_bytes_\\kind:",
    "rep movsb",
    "faultline_copy_bytes_end_\\kind:",
    "\\close",
    "mov rax, rcx",
    "ret",
    "faultline_copy_words_fixup_\\kind:",
    "and edx, 7",
    "lea rcx, [rdx + rcx * 8]",
    "jmp faultline_copy_bytes_\\kind",
    "faultline_objects_\\kind:",
    "faultline_get8_\\kind:",
    "xor edx, edx",
    "\\open",
    "mov rax, [rax]",
    "\\close",
    "ret",
    "faultline_get4_\\kind:",
    "xor edx, edx",
    "\\open",
    "mov eax, [rax]",
    "\\close",
    "ret",
    "faultline_put8_\\kind:",
    "\\open",
    "mov [rdx], rax",
    "\\close",
    "xor edx, edx",
    "ret",
    "faultline_put4_\\kind:",
    "\\open",
    "mov [rdx], eax",
    "\\close",
    "xor edx, edx",
    "ret",
    "faultline_words_\\kind:",
    "mov ecx, edx",
    "xor eax, eax",
    "\\open",
    "rep movsq",
    "\\close",
    "ret",
    "faultline_objects_end_\\kind:",
    "faultline_objects_fixup_\\kind:",
    "\\close",
    "mov eax, 1",
    "mov edx, 1",
    "ret",
    ".endm",
    "faultline_objects plain",
    "faultline_objects guarded, stac, clac",
    ".purgem faultline_objects",
    ".popsection",
);

/// One of the routines, which only assembly calls: they leave all registers alone but those that are said to change, so that the caller
/// keeps what it has where it has it.
type Routine = unsafe extern "C" fn();

/// One set of the routines.
#[repr(C)]
struct Routines {
    get8: Routine,
    get4: Routine,
    put8: Routine,
    put4: Routine,
    words: Routine,
    copy: Routine,
}

unsafe extern "C" {
    fn faultline_get8_plain();
    fn faultline_get4_plain();
    fn faultline_put8_plain();
    fn faultline_put4_plain();
    fn faultline_words_plain();
    fn faultline_copy_plain();
    fn faultline_get8_guarded();
    fn faultline_get4_guarded();
    fn faultline_put8_guarded();
    fn faultline_put4_guarded();
    fn faultline_words_guarded();
    fn faultline_copy_guarded();
    static faultline_copy_words_plain: u8;
    static faultline_copy_words_end_plain: u8;
    static faultline_copy_words_fixup_plain: u8;
    static faultline_copy_bytes_plain: u8;
    static faultline_copy_bytes_end_plain: u8;
    static faultline_objects_plain: u8;
    static faultline_objects_end_plain: u8;
    static faultline_objects_fixup_plain: u8;
    static faultline_copy_words_guarded: u8;
    static faultline_copy_words_end_guarded: u8;
    static faultline_copy_words_fixup_guarded: u8;
    static faultline_copy_bytes_guarded: u8;
    static faultline_copy_bytes_end_guarded: u8;
    static faultline_objects_guarded: u8;
    static faultline_objects_end_guarded: u8;
    static faultline_objects_fixup_guarded: u8;
}

/// The set that is used.
#[repr(transparent)]
struct Chosen(UnsafeCell<Routines>);

// SAFETY: written once, while nothing else runs.
unsafe impl Sync for Chosen {}

static CHOSEN: Chosen = Chosen(UnsafeCell::new(Routines {
    get8: faultline_get8_plain,
    get4: faultline_get4_plain,
    put8: faultline_put8_plain,
    put4: faultline_put4_plain,
    words: faultline_words_plain,
    copy: faultline_copy_plain,
}));

/// Chooses the routines for this CPU. Once, before the first process, with its features turned on.
pub(super) fn init() {
    if features::smap() {
        // SAFETY: nobody uses it yet.
        unsafe {
            *CHOSEN.0.get() = Routines {
                get8: faultline_get8_guarded,
                get4: faultline_get4_guarded,
                put8: faultline_put8_guarded,
                put4: faultline_put4_guarded,
                words: faultline_words_guarded,
                copy: faultline_copy_guarded,
            };
        }
    }
}

/// What the exception table has of the routines: start, end and where a fault continues.
pub(super) fn exception_rows() -> [(*const u8, *const u8, *const u8); 6] {
    [
        (
            &raw const faultline_copy_words_guarded,
            &raw const faultline_copy_words_end_guarded,
            &raw const faultline_copy_words_fixup_guarded,
        ),
        (
            &raw const faultline_copy_bytes_guarded,
            &raw const faultline_copy_bytes_end_guarded,
            &raw const faultline_copy_bytes_end_guarded,
        ),
        (
            &raw const faultline_copy_words_plain,
            &raw const faultline_copy_words_end_plain,
            &raw const faultline_copy_words_fixup_plain,
        ),
        (
            &raw const faultline_copy_bytes_plain,
            &raw const faultline_copy_bytes_end_plain,
            &raw const faultline_copy_bytes_end_plain,
        ),
        (
            &raw const faultline_objects_guarded,
            &raw const faultline_objects_end_guarded,
            &raw const faultline_objects_fixup_guarded,
        ),
        (
            &raw const faultline_objects_plain,
            &raw const faultline_objects_end_plain,
            &raw const faultline_objects_fixup_plain,
        ),
    ]
}

/// Copies bytes between the kernel and user memory; how many were not copied.
///
/// # Safety
/// The user's side is in the user's half, where faults are fixed up; the kernel's may be read or written that far.
#[inline(always)]
pub(super) unsafe fn copy(dst: usize, src: usize, bytes: usize) -> usize {
    let missing;
    // SAFETY: the routine changes what is said here, and the rest is as the caller promises.
    unsafe {
        asm!(
            "call qword ptr [rip + {chosen} + {copy}]",
            chosen = sym CHOSEN,
            copy = const offset_of!(Routines, copy),
            inout("rdi") dst => _,
            inout("rsi") src => _,
            inout("rdx") bytes => _,
            lateout("rcx") _,
            lateout("rax") missing,
        );
    }
    missing
}

/// Calls a routine that reads: what is there, and whether the address was good.
macro_rules! get {
    ($routine:ident, $src:expr) => {{
        let (value, bad): (u64, u64);
        asm!(
            "call qword ptr [rip + {chosen} + {routine}]",
            chosen = sym CHOSEN,
            routine = const offset_of!(Routines, $routine),
            inlateout("rax") $src => value,
            lateout("rdx") bad,
        );
        (value, bad == 0)
    }};
}

macro_rules! put {
    ($routine:ident, $dst:expr, $value:expr) => {{
        let bad: u64;
        asm!(
            "call qword ptr [rip + {chosen} + {routine}]",
            chosen = sym CHOSEN,
            routine = const offset_of!(Routines, $routine),
            inlateout("rdx") $dst => bad,
            inlateout("rax") $value => _,
        );
        bad == 0
    }};
}

/// # Safety
/// As for [`copy`].
#[inline(always)]
unsafe fn copy_words(dst: usize, src: usize, words: usize) -> bool {
    let bad: u32;
    // SAFETY: as in `copy`.
    unsafe {
        asm!(
            "call qword ptr [rip + {chosen} + {routine}]",
            chosen = sym CHOSEN,
            routine = const offset_of!(Routines, words),
            inout("rdi") dst => _,
            inout("rsi") src => _,
            inout("rdx") words => _,
            lateout("rcx") _,
            lateout("eax") bad,
        );
    }
    bad == 0
}

/// Copies an object of `size` bytes from user memory; whether all could be read. The caller knows the size when it is compiled.
///
/// # Safety
/// `dst` has room for `size` bytes.
#[inline(always)]
pub unsafe fn get_user(dst: *mut u8, src: usize, size: usize) -> bool {
    if src > USER_END - size {
        return false;
    }
    // SAFETY: the source is in the user's half, where faults are fixed up; the caller has the room. The routines change what is said.
    unsafe {
        match size {
            8 => {
                let (value, whole) = get!(get8, src);
                dst.cast::<u64>().write_unaligned(value);
                whole
            }
            4 => {
                let (value, whole) = get!(get4, src);
                dst.cast::<u32>().write_unaligned(value as u32);
                whole
            }
            _ if size.is_multiple_of(8) => copy_words(dst as usize, src, size / 8),
            _ => super::copy_from_user(dst, src, size) == 0,
        }
    }
}

/// Copies an object of `size` bytes to user memory; whether all could be written, else a part may have been. The size as above.
///
/// # Safety
/// `src` is readable for `size` bytes.
#[inline(always)]
pub unsafe fn put_user(dst: usize, src: *const u8, size: usize) -> bool {
    if dst > USER_END - size {
        return false;
    }
    // SAFETY: the destination is in the user's half, where faults are fixed up; the caller's bytes are readable. The routines change what
    // is said.
    unsafe {
        match size {
            8 => put!(put8, dst, src.cast::<u64>().read_unaligned()),
            4 => put!(put4, dst, u64::from(src.cast::<u32>().read_unaligned())),
            _ if size.is_multiple_of(8) => copy_words(dst, src as usize, size / 8),
            _ => super::copy_to_user(dst, src, size) == 0,
        }
    }
}
