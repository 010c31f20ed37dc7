//! A program of any size, made on the spot: it reads a byte of each of its pages and ends with the sum of them as its status.

use core::mem::size_of;

use linux_raw_sys::general as abi;

use crate::check::{done, require};
use crate::memory::PAGE;
use crate::sys;

/// Where the program is loaded.
const BASE: u64 = 0x40_0000;

/// `mov esi, BASE; mov ecx, PAGES; xor edi, edi; 2: movzx eax, byte ptr [rsi]; add edi, eax; add rsi, 4096; dec ecx; jnz 2b;
/// and edi, 0x7f; mov eax, 231; syscall`, the number of pages to be filled in.
const CODE: [u8; 38] = [
    0xbe, 0, 0, 0x40, 0, // mov esi, BASE
    0xb9, 0, 0, 0, 0, // mov ecx, pages
    0x31, 0xff, // xor edi, edi
    0x0f, 0xb6, 0x06, // movzx eax, byte ptr [rsi]
    0x01, 0xc7, // add edi, eax
    0x48, 0x81, 0xc6, 0, 0x10, 0, 0, // add rsi, 4096
    0xff, 0xc9, // dec ecx
    0x75, 0xf0, // jnz to the movzx
    0x83, 0xe7, 0x7f, // and edi, 0x7f
    0xb8, 0xe7, 0, 0, 0, // mov eax, exit_group
    0x0f, 0x05, // syscall
];
/// Where the number of pages is in it.
const PAGES_AT: usize = 6;

/// The headers of an ELF file with one segment.
#[repr(C)]
struct Headers {
    ident: [u8; 16],
    kind: u16,
    machine: u16,
    version: u32,
    entry: u64,
    segments_at: u64,
    sections_at: u64,
    flags: u32,
    header_size: u16,
    segment_size: u16,
    segment_count: u16,
    section_size: u16,
    section_count: u16,
    names_at: u16,
    segment: Segment,
}

#[repr(C)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    physical: u64,
    in_file: u64,
    in_memory: u64,
    align: u64,
}

/// Writes the program to `path` (ended by NUL); gives the status with which it ends.
pub fn write(path: &'static str, size: usize) -> i32 {
    const HEADERS: usize = size_of::<Headers>();
    let headers = Headers {
        ident: *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0",
        kind: 2,
        machine: 62,
        version: 1,
        entry: BASE + HEADERS as u64,
        segments_at: 64,
        sections_at: 0,
        flags: 0,
        header_size: 64,
        segment_size: 56,
        segment_count: 1,
        section_size: 0,
        section_count: 0,
        names_at: 0,
        segment: Segment {
            kind: 1,
            flags: 5,
            offset: 0,
            address: BASE,
            physical: BASE,
            in_file: size as u64,
            in_memory: size as u64,
            align: PAGE as u64,
        },
    };
    let mut code = CODE;
    code[PAGES_AT..PAGES_AT + 4].copy_from_slice(&((size / PAGE) as u32).to_le_bytes());
    let mut page = [0; PAGE];
    // SAFETY: plain numbers without padding.
    page[..HEADERS]
        .copy_from_slice(&unsafe { core::mem::transmute::<Headers, [u8; HEADERS]>(headers) });
    page[HEADERS..HEADERS + CODE.len()].copy_from_slice(&code);
    let flags = abi::O_CREAT | abi::O_WRONLY | abi::O_TRUNC;
    let fd = done(sys::open(path, flags, 0o755), "a program is made");
    let mut sum = 0;
    for number in 0..size / PAGE {
        if number > 0 {
            page.fill(number as u8);
        }
        sum += i32::from(page[0]);
        require(
            sys::write(fd, &page) == PAGE as isize,
            "a program is written",
        );
    }
    sys::close(fd);
    sum & 0x7f
}

/// Whether there is a file at `path` (ended by NUL).
pub fn exists(path: &'static str) -> bool {
    let fd = sys::open(path, abi::O_RDONLY, 0);
    if fd >= 0 {
        sys::close(fd as usize);
    }
    fd >= 0
}

/// Takes a file away.
pub fn remove(path: &'static str) {
    // SAFETY: a string ended by NUL.
    unsafe { sys::call1(abi::__NR_unlink, path.as_ptr().addr()) };
}
