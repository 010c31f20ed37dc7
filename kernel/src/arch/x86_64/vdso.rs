//! The vDSO: reading the clocks without a system call (`vdso(7)`).
//!
//! The program gets two pages, one after the other: the clocks' data, which it can only read, and a small shared object with the code.
//! The code is position-independent assembly, kept as data in the kernel; the object around it is put together here, byte by byte, so
//! that nothing but the compiler is needed to build the kernel:
//!
//! | offset | what |
//! |---|---|
//! | 0 | ELF header, program headers |
//! | then | dynamic section, symbols, versions of symbols, version definitions, hash table, strings |
//! | [`TEXT_OFFSET`] | the code |
//!
//! The data is guarded by a sequence number, odd while it is being changed; it changes only when the wall clock is set.

use alloc::vec::Vec;
use core::arch::global_asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};

use elf::abi;
use linux_raw_sys::general::{__NR_clock_getres, __NR_clock_gettime};

use super::gdt::CPU_NUMBER;
use crate::errno::OutOfMemory;
use crate::mm::PAGE_SIZE;
use crate::mm::frame::FrameNumber;

/// Where the code begins in its page.
const TEXT_OFFSET: usize = 0x800;
/// From the code back to the data: it lies in the page before.
const DATA_BACK: usize = TEXT_OFFSET + PAGE_SIZE;

/// The data page.
#[repr(C)]
struct Data {
    sequence: AtomicU32,
    tsc_at_boot: AtomicU64,
    /// Nanoseconds per count, times 2^32.
    ns_per_count: AtomicU64,
    wall_offset: AtomicU64,
}

/// Null until there is a data page.
static DATA: AtomicPtr<Data> = AtomicPtr::new(core::ptr::null_mut());

/// What the coarse clocks count in, ns.
const COARSE_NS: u64 = crate::syscall::time::COARSE_NS;

// Bits by the clocks' numbers: those that are read here, those that count from 1970, and the coarse ones.
const KNOWN: u32 = 1 << 0 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 11;
const WALL: u32 = 1 << 0 | 1 << 5 | 1 << 11;
const COARSE: u32 = 1 << 5 | 1 << 6;
const LAST: u32 = 11;

// `faultline_vdso_now` gives the monotonic clock in RAX and the wall clock's distance from it in R9, and changes RDX and R8.
global_asm!(
    ".pushsection .rodata.faultline_vdso, \"a\"",
    ".balign 16",
    "faultline_vdso_start:",
    "faultline_vdso_now:",
    "2:",
    "mov r8d, [rip + faultline_vdso_start - {back} + {sequence}]",
    "test r8d, 1",
    "jnz 3f",
    "lfence",
    "rdtsc",
    "shl rdx, 32",
    "or rax, rdx",
    "sub rax, [rip + faultline_vdso_start - {back} + {tsc_at_boot}]",
    "mul qword ptr [rip + faultline_vdso_start - {back} + {ns_per_count}]",
    "shrd rax, rdx, 32",
    "mov r9, [rip + faultline_vdso_start - {back} + {wall_offset}]",
    "cmp r8d, [rip + faultline_vdso_start - {back} + {sequence}]",
    "jne 2b",
    "ret",
    "3:",
    "pause",
    "jmp 2b",
    // int clock_gettime(clockid_t, struct timespec *)
    ".balign 16",
    "faultline_vdso_clock_gettime:",
    "cmp edi, {last}",
    "ja 5f",
    "mov ecx, {known}",
    "bt ecx, edi",
    "jnc 5f",
    "call faultline_vdso_now",
    "mov ecx, {coarse}",
    "bt ecx, edi",
    "jnc 3f",
    "mov r10, rax",
    "xor edx, edx",
    "mov ecx, {coarse_ns}",
    "div rcx",
    "mov rax, r10",
    "sub rax, rdx",
    "3:",
    "mov ecx, {wall}",
    "bt ecx, edi",
    "jnc 4f",
    "add rax, r9",
    "4:",
    "xor edx, edx",
    "mov ecx, 1000000000",
    "div rcx",
    "mov [rsi], rax",
    "mov [rsi + 8], rdx",
    "xor eax, eax",
    "ret",
    "5:",
    "mov eax, {nr_gettime}",
    "syscall",
    "ret",
    // int gettimeofday(struct timeval *, struct timezone *)
    ".balign 16",
    "faultline_vdso_gettimeofday:",
    "test rdi, rdi",
    "jz 3f",
    "call faultline_vdso_now",
    "add rax, r9",
    "xor edx, edx",
    "mov ecx, 1000000000",
    "div rcx",
    "mov [rdi], rax",
    "mov eax, edx",
    "xor edx, edx",
    "mov ecx, 1000",
    "div ecx",
    "mov [rdi + 8], rax",
    "3:",
    "test rsi, rsi",
    "jz 4f",
    "mov qword ptr [rsi], 0",
    "4:",
    "xor eax, eax",
    "ret",
    // time_t time(time_t *)
    ".balign 16",
    "faultline_vdso_time:",
    "call faultline_vdso_now",
    "add rax, r9",
    "xor edx, edx",
    "mov ecx, 1000000000",
    "div rcx",
    "test rdi, rdi",
    "jz 3f",
    "mov [rdi], rax",
    "3:",
    "ret",
    // int getcpu(unsigned *, unsigned *, void *): the number is the limit of a segment, the node is the only one.
    ".balign 16",
    "faultline_vdso_getcpu:",
    "mov eax, {cpu_number}",
    "lsl eax, eax",
    "test rdi, rdi",
    "jz 3f",
    "mov [rdi], eax",
    "3:",
    "test rsi, rsi",
    "jz 4f",
    "mov dword ptr [rsi], 0",
    "4:",
    "xor eax, eax",
    "ret",
    // int clock_getres(clockid_t, struct timespec *)
    ".balign 16",
    "faultline_vdso_clock_getres:",
    "cmp edi, {last}",
    "ja 5f",
    "mov ecx, {known}",
    "bt ecx, edi",
    "jnc 5f",
    "test rsi, rsi",
    "jz 4f",
    "mov eax, 1",
    "mov ecx, {coarse}",
    "bt ecx, edi",
    "jnc 3f",
    "mov eax, {coarse_ns}",
    "3:",
    "mov qword ptr [rsi], 0",
    "mov [rsi + 8], rax",
    "4:",
    "xor eax, eax",
    "ret",
    "5:",
    "mov eax, {nr_getres}",
    "syscall",
    "ret",
    "faultline_vdso_end:",
    ".popsection",
    back = const DATA_BACK,
    sequence = const offset_of!(Data, sequence),
    tsc_at_boot = const offset_of!(Data, tsc_at_boot),
    ns_per_count = const offset_of!(Data, ns_per_count),
    wall_offset = const offset_of!(Data, wall_offset),
    last = const LAST,
    known = const KNOWN,
    wall = const WALL,
    coarse = const COARSE,
    coarse_ns = const COARSE_NS,
    cpu_number = const CPU_NUMBER,
    nr_gettime = const __NR_clock_gettime,
    nr_getres = const __NR_clock_getres,
);

unsafe extern "C" {
    static faultline_vdso_start: u8;
    static faultline_vdso_end: u8;
    static faultline_vdso_clock_gettime: u8;
    static faultline_vdso_gettimeofday: u8;
    static faultline_vdso_time: u8;
    static faultline_vdso_getcpu: u8;
    static faultline_vdso_clock_getres: u8;
}

fn start() -> usize {
    (&raw const faultline_vdso_start).addr()
}

/// The functions: name without the prefix `__vdso_`, and where they are in the kernel. As on Linux each has both names.
fn functions() -> [(&'static str, usize); 5] {
    [
        (
            "clock_gettime",
            (&raw const faultline_vdso_clock_gettime).addr(),
        ),
        (
            "gettimeofday",
            (&raw const faultline_vdso_gettimeofday).addr(),
        ),
        ("time", (&raw const faultline_vdso_time).addr()),
        ("getcpu", (&raw const faultline_vdso_getcpu).addr()),
        (
            "clock_getres",
            (&raw const faultline_vdso_clock_getres).addr(),
        ),
    ]
}

const PREFIX: &str = "__vdso_";
const SONAME: &str = "linux-vdso.so.1";
/// The version of all symbols, under which C libraries look them up.
const VERSION: &str = "LINUX_2.6";

/// Tables of the object, while it is put together. What does not fit in memory is noted once, at the end.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn put(&mut self, bytes: &[u8]) -> Result<(), OutOfMemory> {
        self.0.try_reserve(bytes.len()).map_err(|_| OutOfMemory)?;
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn words<const N: usize>(&mut self, words: [u64; N]) -> Result<(), OutOfMemory> {
        words
            .iter()
            .try_for_each(|word| self.put(&word.to_le_bytes()))
    }

    fn halves<const N: usize>(&mut self, halves: [u32; N]) -> Result<(), OutOfMemory> {
        halves
            .iter()
            .try_for_each(|half| self.put(&half.to_le_bytes()))
    }

    fn shorts<const N: usize>(&mut self, shorts: [u16; N]) -> Result<(), OutOfMemory> {
        shorts
            .iter()
            .try_for_each(|short| self.put(&short.to_le_bytes()))
    }

    /// Adds a string with its NUL; where it begins.
    fn string(&mut self, parts: [&str; 2]) -> Result<u32, OutOfMemory> {
        let at = self.0.len() as u32;
        self.put(parts[0].as_bytes())?;
        self.put(parts[1].as_bytes())?;
        self.put(&[0])?;
        Ok(at)
    }
}

/// The hash of System V's ABI, for version definitions.
fn elf_hash(name: &str) -> u32 {
    name.bytes().fold(0u32, |hash, byte| {
        let hash = (hash << 4).wrapping_add(u32::from(byte));
        let high = hash & 0xf000_0000;
        (hash ^ high >> 24) & !high
    })
}

/// `st_info`: a function, and how its name binds.
const GLOBAL_FUNCTION: u8 = abi::STB_GLOBAL << 4 | abi::STT_FUNC;
const WEAK_FUNCTION: u8 = abi::STB_WEAK << 4 | abi::STT_FUNC;
// Sizes of the System V ABI.
const EHDR_SIZE: usize = 64;
const PHDR_SIZE: usize = 56;
const SYMBOL_SIZE: usize = 24;
const DYNAMIC_ENTRIES: usize = 10;

/// Where the tables begin.
const DYNAMIC: usize = EHDR_SIZE + 2 * PHDR_SIZE;
const SYMBOLS: usize = DYNAMIC + 16 * DYNAMIC_ENTRIES;

/// Symbols, their versions, a hash table with one chain, and strings.
struct Tables {
    symbols: Bytes,
    versions: Bytes,
    definitions: Bytes,
    hash: Bytes,
    strings: Bytes,
    soname: u32,
}

fn tables() -> Result<Tables, OutOfMemory> {
    let [
        mut symbols,
        mut versions,
        mut definitions,
        mut hash,
        mut strings,
    ] = core::array::from_fn(|_| Bytes::default());
    strings.put(&[0])?;
    let soname = strings.string([SONAME, ""])?;
    let version = strings.string([VERSION, ""])?;
    symbols.words([0; 3])?;
    versions.shorts([0])?;
    let mut count: u32 = 1;
    for (name, address) in functions() {
        for (prefix, kind) in [(PREFIX, GLOBAL_FUNCTION), ("", WEAK_FUNCTION)] {
            let value = (TEXT_OFFSET + address - start()) as u64;
            // Defined in some section, of which there is no table.
            let section = 1u64;
            let name = strings.string([prefix, name])?;
            symbols.words([
                u64::from(name) | u64::from(kind) << 32 | section << 48,
                value,
                0,
            ])?;
            versions.shorts([2])?;
            count += 1;
        }
    }
    hash.halves([1, count, 1, 0])?;
    for next in 2..=count {
        hash.halves([next % count])?;
    }
    // Two definitions: the object itself (VER_FLG_BASE), and the version.
    for (flags, index, name, at, next) in [(1, 1, SONAME, soname, 28), (0, 2, VERSION, version, 0)]
    {
        definitions.shorts([1, flags, index, 1])?;
        definitions.halves([elf_hash(name), 20, next, at, 0])?;
    }
    Ok(Tables {
        symbols,
        versions,
        definitions,
        hash,
        strings,
        soname,
    })
}

/// The object, one page. `ENOMEM`.
pub fn image() -> Result<Vec<u8>, OutOfMemory> {
    let tables = tables()?;
    let mut end = SYMBOLS;
    let mut places = [0u64; 5];
    let parts = [
        &tables.symbols,
        &tables.hash,
        &tables.definitions,
        &tables.versions,
        &tables.strings,
    ];
    for (place, part) in places.iter_mut().zip(parts) {
        *place = end as u64;
        end += part.0.len().next_multiple_of(8);
    }
    let [symbols, hash, definitions, versions, strings] = places;
    let mut image = Bytes::default();
    header(&mut image)?;
    for (tag, value) in [
        (abi::DT_SONAME, u64::from(tables.soname)),
        (abi::DT_HASH, hash),
        (abi::DT_SYMTAB, symbols),
        (abi::DT_STRTAB, strings),
        (abi::DT_STRSZ, tables.strings.0.len() as u64),
        (abi::DT_SYMENT, SYMBOL_SIZE as u64),
        (abi::DT_VERDEF, definitions),
        (abi::DT_VERDEFNUM, 2),
        (abi::DT_VERSYM, versions),
        (abi::DT_NULL, 0),
    ] {
        image.words([tag as u64, value])?;
    }
    for part in parts {
        image.put(&part.0)?;
        let padding = image.0.len().next_multiple_of(8) - image.0.len();
        image.put(&[0; 8][..padding])?;
    }
    assert!(
        image.0.len() <= TEXT_OFFSET,
        "the tables reach into the code"
    );
    image.put(&[0; TEXT_OFFSET][image.0.len()..])?;
    let len = (&raw const faultline_vdso_end).addr() - start();
    // SAFETY: the code lies between its two symbols in the kernel's read-only data.
    image.put(unsafe { core::slice::from_raw_parts(&raw const faultline_vdso_start, len) })?;
    assert!(
        image.0.len() <= PAGE_SIZE,
        "the code is longer than its page"
    );
    Ok(image.0)
}

/// The ELF header and two program headers: all is one readable and executable segment, with the dynamic section in it.
fn header(image: &mut Bytes) -> Result<(), OutOfMemory> {
    image.put(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0")?;
    image.shorts([abi::ET_DYN, abi::EM_X86_64])?;
    image.halves([1])?;
    image.words([TEXT_OFFSET as u64, EHDR_SIZE as u64, 0])?;
    image.halves([0])?;
    image.shorts([EHDR_SIZE as u16, PHDR_SIZE as u16, 2, 0, 0, 0])?;
    let read_execute = abi::PF_R | abi::PF_X;
    let page = PAGE_SIZE as u64;
    image.halves([abi::PT_LOAD, read_execute])?;
    image.words([0, 0, 0, page, page, page])?;
    let (at, len) = (DYNAMIC as u64, 16 * DYNAMIC_ENTRIES as u64);
    image.halves([abi::PT_DYNAMIC, abi::PF_R])?;
    image.words([at, at, at, len, len, 8])
}

/// Keeps the clocks' data in a frame from now on, which goes before the object's wherever that is mapped.
pub fn set_data_frame(frame: FrameNumber) {
    DATA.store(crate::arch::frame_ptr(frame).cast(), Ordering::Release);
    super::time::publish();
}

/// The clocks' data has changed.
pub(super) fn publish(tsc_at_boot: u64, ns_per_count: u64, wall_offset: u64) {
    // SAFETY: null, or the frame that was given for good.
    let Some(data) = (unsafe { DATA.load(Ordering::Acquire).as_ref() }) else {
        return;
    };
    let flags = super::irq::save();
    let sequence = data.sequence.load(Ordering::Relaxed);
    data.sequence
        .store(sequence.wrapping_add(1), Ordering::Relaxed);
    fence(Ordering::SeqCst);
    data.tsc_at_boot.store(tsc_at_boot, Ordering::Relaxed);
    data.ns_per_count.store(ns_per_count, Ordering::Relaxed);
    data.wall_offset.store(wall_offset, Ordering::Relaxed);
    data.sequence
        .store(sequence.wrapping_add(2), Ordering::Release);
    super::irq::restore(flags);
}
