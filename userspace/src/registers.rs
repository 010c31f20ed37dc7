//! The whole register file before and after something that a signal interrupts: general registers, flags, x87, MXCSR, vectors.
//!
//! Each function loads all registers from a block, does one thing, and stores all of them to another block. A signal delivered at
//! that one thing must leave no trace. Only `syscall` itself changes RAX, RCX and R11.

use std::arch::global_asm;
use std::mem::offset_of;

/// Order of the general registers in [`Registers::general`].
pub const NAMES: [&str; 15] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];

/// A register file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C, align(32))]
pub struct Registers {
    pub vectors: [[u8; 32]; 16],
    pub general: [u64; 15],
    pub flags: u64,
    /// Two x87 registers, 10 bytes used of each.
    pub x87: [[u8; 16]; 2],
    pub mxcsr: u64,
    /// Whether the vectors are YMM registers; without AVX only the lower halves exist.
    pub avx: u64,
}

/// CF, PF, AF, ZF, SF, IF, DF and OF, and the bit that is always set.
const ALL_FLAGS: u64 = 0xed7;
/// Every exception masked, rounding toward zero, flush to zero.
const UNUSUAL_MXCSR: u64 = 0xff80;

impl Registers {
    /// A different value in every register, as far as this CPU has it.
    pub fn pattern() -> Self {
        Self {
            vectors: std::array::from_fn(|i| [0x0f * i as u8 + 1; 32]),
            general: std::array::from_fn(|i| 0x0101_0101_0101_0101 * (i as u64 + 1)),
            flags: ALL_FLAGS,
            x87: [[0; 16]; 2],
            mxcsr: UNUSUAL_MXCSR,
            avx: u64::from(std::arch::is_x86_feature_detected!("avx")),
        }
    }

    fn empty(&self) -> Self {
        Self {
            vectors: [[0; 32]; 16],
            general: [0; 15],
            flags: 0,
            x87: [[0; 16]; 2],
            mxcsr: 0,
            avx: self.avx,
        }
    }

    /// The names of the registers that differ.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut names: Vec<String> = (0..15)
            .filter(|&i| self.general[i] != other.general[i])
            .map(|i| NAMES[i].into())
            .collect();
        let used = if self.avx == 1 { 32 } else { 16 };
        names.extend(
            (0..16)
                .filter(|&i| self.vectors[i][..used] != other.vectors[i][..used])
                .map(|i| format!("vector {i}")),
        );
        names.extend((self.flags != other.flags).then(|| "flags".into()));
        names.extend((self.x87 != other.x87).then(|| "x87".into()));
        names.extend((self.mxcsr != other.mxcsr).then(|| "mxcsr".into()));
        names
    }
}

global_asm!(
    ".macro faultline_load_all", // rdi: block
    "fninit",
    "fldpi",
    "fldl2e",
    "ldmxcsr dword ptr [rdi + {mxcsr}]",
    "cmp qword ptr [rdi + {avx}], 0",
    "je 771f",
    ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
    "vmovdqu ymm\\n, ymmword ptr [rdi + {vectors} + 32 * \\n]",
    ".endr",
    "jmp 772f",
    "771:",
    ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
    "movups xmm\\n, xmmword ptr [rdi + {vectors} + 32 * \\n]",
    ".endr",
    "772:",
    "push qword ptr [rdi + {flags}]",
    "popfq",
    "mov rax, qword ptr [rdi + {general}]",
    "mov rbx, qword ptr [rdi + {general} + 8]",
    "mov rcx, qword ptr [rdi + {general} + 16]",
    "mov rdx, qword ptr [rdi + {general} + 24]",
    "mov rsi, qword ptr [rdi + {general} + 32]",
    "mov rbp, qword ptr [rdi + {general} + 48]",
    "mov r8, qword ptr [rdi + {general} + 56]",
    "mov r9, qword ptr [rdi + {general} + 64]",
    "mov r10, qword ptr [rdi + {general} + 72]",
    "mov r11, qword ptr [rdi + {general} + 80]",
    "mov r12, qword ptr [rdi + {general} + 88]",
    "mov r13, qword ptr [rdi + {general} + 96]",
    "mov r14, qword ptr [rdi + {general} + 104]",
    "mov r15, qword ptr [rdi + {general} + 112]",
    "mov rdi, qword ptr [rdi + {general} + 40]",
    ".endm",
    ".macro faultline_store_all", // [rsp]: block
    "push rcx",
    "pushfq",
    "mov rcx, qword ptr [rsp + 16]",
    "mov qword ptr [rcx + {general}], rax",
    "mov qword ptr [rcx + {general} + 8], rbx",
    "mov qword ptr [rcx + {general} + 24], rdx",
    "mov qword ptr [rcx + {general} + 32], rsi",
    "mov qword ptr [rcx + {general} + 40], rdi",
    "mov qword ptr [rcx + {general} + 48], rbp",
    "mov qword ptr [rcx + {general} + 56], r8",
    "mov qword ptr [rcx + {general} + 64], r9",
    "mov qword ptr [rcx + {general} + 72], r10",
    "mov qword ptr [rcx + {general} + 80], r11",
    "mov qword ptr [rcx + {general} + 88], r12",
    "mov qword ptr [rcx + {general} + 96], r13",
    "mov qword ptr [rcx + {general} + 104], r14",
    "mov qword ptr [rcx + {general} + 112], r15",
    "pop qword ptr [rcx + {flags}]",
    "pop qword ptr [rcx + {general} + 16]",
    "cld",
    "stmxcsr dword ptr [rcx + {mxcsr}]",
    "cmp qword ptr [rcx + {avx}], 0",
    "je 773f",
    ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
    "vmovdqu ymmword ptr [rcx + {vectors} + 32 * \\n], ymm\\n",
    ".endr",
    "vzeroupper",
    "jmp 774f",
    "773:",
    ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
    "movups xmmword ptr [rcx + {vectors} + 32 * \\n], xmm\\n",
    ".endr",
    "774:",
    "fstp tbyte ptr [rcx + {x87}]",
    "fstp tbyte ptr [rcx + {x87} + 16]",
    "fninit",
    "push 0x1f80",
    "ldmxcsr dword ptr [rsp]",
    "pop rax",
    ".endm",
    ".macro faultline_enter",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "push rsi",
    "faultline_load_all",
    ".endm",
    ".macro faultline_leave",
    "faultline_store_all",
    "pop rsi",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    ".endm",
    ".globl faultline_across_syscall, faultline_across_store, faultline_across_spin",
    "faultline_across_syscall:",
    "faultline_enter",
    "syscall",
    "faultline_leave",
    "faultline_across_store:",
    "faultline_enter",
    "mov byte ptr [rdi], 1",
    "faultline_leave",
    "faultline_across_spin:",
    "faultline_enter",
    "779:",
    "cmp byte ptr [rdi], 0",
    "je 779b",
    "faultline_leave",
    vectors = const offset_of!(Registers, vectors),
    general = const offset_of!(Registers, general),
    flags = const offset_of!(Registers, flags),
    x87 = const offset_of!(Registers, x87),
    mxcsr = const offset_of!(Registers, mxcsr),
    avx = const offset_of!(Registers, avx),
);

unsafe extern "C" {
    fn faultline_across_syscall(before: *const Registers, after: *mut Registers);
    fn faultline_across_store(before: *const Registers, after: *mut Registers);
    fn faultline_across_spin(before: *const Registers, after: *mut Registers);
}

/// All registers across a system call with up to two arguments. RAX (the result), RCX and R11 are set to the block's own values in
/// what is returned, for the call may change them.
pub fn across_syscall(
    block: &Registers,
    number: libc::c_long,
    first: u64,
    second: u64,
) -> Registers {
    let mut before = block.clone();
    before.general[0] = number as u64;
    before.general[5] = first;
    before.general[4] = second;
    let mut after = before.empty();
    // SAFETY: both blocks are valid; the calls that the programs make here write no memory.
    unsafe { faultline_across_syscall(&before, &mut after) };
    for register in [0, 2, 4, 5, 10] {
        assert!(
            matches!(register, 0 | 2 | 10) || after.general[register] == before.general[register],
            "{}",
            NAMES[register]
        );
        after.general[register] = block.general[register];
    }
    after
}

/// All registers across the store of the byte 1 to `target`.
///
/// # Safety
/// `target` is the caller's to write, at the latest after its handler ran.
pub unsafe fn across_store(block: &Registers, target: *mut u8) -> Registers {
    across_memory(block, target, faultline_across_store)
}

/// All registers across a loop that ends when a handler has set the byte at `target`. The loop's comparison changes the flags; they
/// are set to the block's own in what is returned.
///
/// # Safety
/// `target` can be read.
pub unsafe fn across_spin(block: &Registers, target: *mut u8) -> Registers {
    Registers {
        flags: block.flags,
        ..across_memory(block, target, faultline_across_spin)
    }
}

fn across_memory(
    block: &Registers,
    target: *mut u8,
    across: unsafe extern "C" fn(*const Registers, *mut Registers),
) -> Registers {
    let mut before = block.clone();
    before.general[5] = target as u64;
    let mut after = before.empty();
    // SAFETY: both blocks are valid, and the callers vouch for `target`.
    unsafe { across(&before, &mut after) };
    assert_eq!(after.general[5], before.general[5], "rdi");
    after.general[5] = block.general[5];
    after
}

/// What an interrupted program must not notice: overwrites every vector register, MXCSR and the x87 state.
pub fn clobber() {
    // SAFETY: every register that is changed is declared; MXCSR and the x87 control word get their defaults back at the end.
    unsafe {
        std::arch::asm!(
            "pcmpeqd xmm0, xmm0",
            ".irp n,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
            "movaps xmm\\n, xmm0",
            ".endr",
            "test {avx}, {avx}",
            "jz 2f",
            ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
            "vinsertf128 ymm\\n, ymm\\n, xmm0, 1",
            ".endr",
            "2:",
            "fninit",
            "fldz",
            "fldz",
            "fldz",
            "fninit",
            avx = in(reg) u64::from(std::arch::is_x86_feature_detected!("avx")),
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _, out("xmm6") _,
            out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _,
            out("xmm14") _, out("xmm15") _, out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
        );
    }
}

/// MXCSR now: 0x1f80 is what a handler must start with.
pub fn mxcsr() -> u32 {
    let mut value = 0u32;
    // SAFETY: stores four bytes to our variable.
    unsafe {
        std::arch::asm!("stmxcsr dword ptr [{}]", in(reg) &mut value, options(nostack, preserves_flags))
    };
    value
}
