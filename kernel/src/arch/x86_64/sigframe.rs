//! rt_sigframe: what a handler finds on its stack and sigreturn reads back, bit for bit Linux's
//! (`arch/x86/include/uapi/asm/sigcontext.h`, `arch/x86/kernel/signal_64.c`, `arch/x86/kernel/fpu/signal.c`).
//!
//! From high to low: the XSAVE image, 64-byte aligned and closed by a magic number; siginfo; ucontext; the return address, which is
//! the restorer. A frame read back is a claim: selectors and privileged flags are never taken from it, and its FPU state is
//! checked in kernel memory before it is loaded.

use core::arch::global_asm;
use core::mem::{MaybeUninit, offset_of};
use core::ptr;

use super::fpu::{self, Area, FP_SSE, FXSAVE_SIZE, HEADER_SIZE, MXCSR_OFFSET, SW_OFFSET};
use super::gdt::{USER_CS, USER_DS};
use super::regs::{PtRegs, TrapInfo, flags};
use crate::mm::uaccess::{self, UserPtr};
use crate::sched::current;
use crate::signal::action::sa;
use crate::signal::info::{SIGINFO_SIZE, SIGINFO_WORDS};
use crate::signal::{AltStack, FrameRequest, FrameStack, SigSet};

/// The frame cannot be written, or what was read back is not one.
#[derive(Debug)]
pub struct BadFrame;

impl From<crate::errno::Errno> for BadFrame {
    fn from(_: crate::errno::Errno) -> BadFrame {
        BadFrame
    }
}

/// What sigreturn restores besides registers.
pub struct RestoredFrame {
    pub mask: SigSet,
    pub altstack: AltStack,
}

/// `struct sigcontext`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct SigContext {
    r8: u64,
    r9: u64,
    r10: u64,
    r11: u64,
    r12: u64,
    r13: u64,
    r14: u64,
    r15: u64,
    rdi: u64,
    rsi: u64,
    rbp: u64,
    rbx: u64,
    rdx: u64,
    rax: u64,
    rcx: u64,
    rsp: u64,
    rip: u64,
    eflags: u64,
    cs: u16,
    gs: u16,
    fs: u16,
    ss: u16,
    err: u64,
    trapno: u64,
    oldmask: u64,
    cr2: u64,
    fpstate: u64,
    reserved: [u64; 8],
}

/// `struct ucontext`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct UContext {
    flags: u64,
    link: u64,
    stack_sp: u64,
    stack_flags: u32,
    stack_padding: u32,
    stack_size: u64,
    mcontext: SigContext,
    sigmask: u64,
}

const UCONTEXT_OFFSET: usize = 8;
const SIGINFO_OFFSET: usize = 312;
const FRAME_SIZE: usize = 440;
const _: () = assert!(size_of::<SigContext>() == 256 && size_of::<UContext>() == 304);
const _: () = assert!(UCONTEXT_OFFSET + size_of::<UContext>() == SIGINFO_OFFSET);
const _: () = assert!(SIGINFO_OFFSET + SIGINFO_SIZE == FRAME_SIZE);

const UC_FP_XSTATE: u64 = 1;
const UC_SIGCONTEXT_SS: u64 = 2;
const UC_STRICT_RESTORE_SS: u64 = 4;

const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;
const MAGIC2_SIZE: usize = 4;

/// Flags that sigreturn takes from the frame; the others stay as they are.
const USER_FLAGS: usize = 0x50dd5;

/// Bytes of the FPU image, its closing magic included.
fn fp_size() -> usize {
    if fpu::components() == 0 {
        FXSAVE_SIZE
    } else {
        fpu::size() + MAGIC2_SIZE
    }
}

/// What a frame needs at most, for AT_MINSIGSTKSZ: `fp_size`, the frame, and the padding of both alignments.
pub fn min_frame_size() -> usize {
    fp_size() + 63 + FRAME_SIZE + 8 + 15
}

/// Where the two parts of a frame go.
struct Placement {
    fp: usize,
    frame: usize,
}

fn place(regs: &PtRegs, stack: FrameStack) -> Result<Placement, BadFrame> {
    let (top, floor) = match stack {
        FrameStack::Current { floor } => (regs.frame_top(), floor),
        FrameStack::Alternate { base, top } => (top, Some(base)),
    };
    let fp = top.wrapping_sub(fp_size()) & !63;
    // As after a call: the handler's stack pointer is 8 below a multiple of 16.
    let frame = (fp.wrapping_sub(FRAME_SIZE) & !15).wrapping_sub(8);
    if frame > top || floor.is_some_and(|floor| frame <= floor) {
        return Err(BadFrame);
    }
    Ok(Placement { fp, frame })
}

/// What a frame shows besides registers, trap, alternate stack and siginfo.
#[repr(C)]
struct FrameValues {
    restorer: usize,
    uc_flags: u64,
    mask: u64,
    fpstate: usize,
}

// `faultline_signal_frame(rdi: frame, rsi: registers, rdx: values, rcx: trap, r8: alternate stack, r9: the words of a siginfo, or null)
// -> eax: 1 if the address is bad`: the frame, written in place. The words of the context that mean nothing stay the user's own.
//
// `faultline_read_frame(rdi: ucontext, rsi: registers, rdx: values) -> eax` likewise. Both ends are read before a register changes; a page
// between them there is not.
global_asm!(
    ".pushsection .text.uaccess, \"ax\"",
    ".macro frame_value from, to",
    "mov rax, [rdx + \\from]",
    "mov [rdi + \\to], rax",
    ".endm",
    ".macro frame_register from, to",
    "mov rax, [rsi + \\from]",
    "mov [rdi + {mcontext} + \\to], rax",
    ".endm",
    ".global faultline_signal_frame",
    "faultline_signal_frame:",
    "frame_value {v_restorer}, 0",
    "frame_value {v_flags}, {uc}",
    "xor eax, eax",
    "mov [rdi + {uc} + {uc_link}], rax",
    "mov rax, [r8 + {s_base}]",
    "mov [rdi + {uc} + {uc_stack}], rax",
    "mov eax, [r8 + {s_flags}]",
    "mov [rdi + {uc} + {uc_stack} + 8], rax",
    "mov rax, [r8 + {s_size}]",
    "mov [rdi + {uc} + {uc_stack} + 16], rax",
    "frame_register {r8}, 0",
    "frame_register {r9}, 8",
    "frame_register {r10}, 16",
    "frame_register {r11}, 24",
    "frame_register {r12}, 32",
    "frame_register {r13}, 40",
    "frame_register {r14}, 48",
    "frame_register {r15}, 56",
    "frame_register {rdi}, 64",
    "frame_register {rsi}, 72",
    "frame_register {rbp}, 80",
    "frame_register {rbx}, 88",
    "frame_register {rdx}, 96",
    "frame_register {rax}, 104",
    "frame_register {rcx}, 112",
    "frame_register {rsp}, 120",
    "frame_register {rip}, 128",
    "frame_register {rflags}, 136",
    "movzx eax, word ptr [rsi + {cs}]",
    "movzx r8d, word ptr [rsi + {ss}]",
    "shl r8, 48",
    "or rax, r8",
    "mov [rdi + {mcontext} + {c_cs}], rax",
    "mov rax, [rcx + {t_error}]",
    "mov [rdi + {mcontext} + {c_err}], rax",
    "mov rax, [rcx + {t_vector}]",
    "mov [rdi + {mcontext} + {c_trapno}], rax",
    "mov rax, [rcx + {t_cr2}]",
    "mov [rdi + {mcontext} + {c_cr2}], rax",
    "frame_value {v_mask}, {mcontext}+{c_oldmask}",
    "mov [rdi + {uc} + {uc_sigmask}], rax",
    "frame_value {v_fpstate}, {mcontext}+{c_fpstate}",
    "test r9, r9",
    "jz faultline_signal_frame_end",
    ".set at, 0",
    ".rept {info_words}",
    "mov rax, [r9 + at]",
    "mov [rdi + {siginfo} + at], rax",
    ".set at, at + 8",
    ".endr",
    "xor eax, eax",
    ".rept {info_size} / 8 - {info_words}",
    "mov [rdi + {siginfo} + at], rax",
    ".set at, at + 8",
    ".endr",
    ".global faultline_signal_frame_end",
    "faultline_signal_frame_end:",
    "xor eax, eax",
    "ret",
    ".macro context_value from, to",
    "mov rax, [rdi + \\from]",
    "mov [rdx + \\to], rax",
    ".endm",
    ".macro context_register from, to",
    "mov rax, [rdi + {in_uc} + \\from]",
    "mov [rsi + \\to], rax",
    ".endm",
    ".global faultline_read_frame",
    "faultline_read_frame:",
    "mov rax, [rdi]",
    "context_value {uc_sigmask}, {r_mask}",
    "context_value 0, {r_flags}",
    "context_value {uc_stack}, {r_stack_base}",
    "context_value {uc_stack}+8, {r_stack_flags}",
    "context_value {uc_stack}+16, {r_stack_size}",
    "context_value {in_uc}+{c_fpstate}, {r_fpstate}",
    "context_value {in_uc}+136, {r_rflags}",
    "context_value {in_uc}+{c_cs}, {r_selectors}",
    "context_register 0, {r8}",
    "context_register 8, {r9}",
    "context_register 16, {r10}",
    "context_register 24, {r11}",
    "context_register 32, {r12}",
    "context_register 40, {r13}",
    "context_register 48, {r14}",
    "context_register 56, {r15}",
    "context_register 64, {rdi}",
    "context_register 72, {rsi}",
    "context_register 80, {rbp}",
    "context_register 88, {rbx}",
    "context_register 96, {rdx}",
    "context_register 104, {rax}",
    "context_register 112, {rcx}",
    "context_register 120, {rsp}",
    "context_register 128, {rip}",
    "xor eax, eax",
    ".global faultline_frames_end",
    "faultline_frames_end:",
    "ret",
    ".global faultline_frames_fixup",
    "faultline_frames_fixup:",
    "mov eax, 1",
    "ret",
    ".purgem frame_value",
    ".purgem frame_register",
    ".purgem context_value",
    ".purgem context_register",
    ".popsection",
    uc = const UCONTEXT_OFFSET,
    siginfo = const SIGINFO_OFFSET,
    info_size = const SIGINFO_SIZE,
    info_words = const SIGINFO_WORDS,
    uc_link = const offset_of!(UContext, link),
    uc_stack = const offset_of!(UContext, stack_sp),
    uc_sigmask = const offset_of!(UContext, sigmask),
    mcontext = const UCONTEXT_OFFSET + offset_of!(UContext, mcontext),
    in_uc = const offset_of!(UContext, mcontext),
    c_cs = const offset_of!(SigContext, cs),
    c_err = const offset_of!(SigContext, err),
    c_trapno = const offset_of!(SigContext, trapno),
    c_oldmask = const offset_of!(SigContext, oldmask),
    c_cr2 = const offset_of!(SigContext, cr2),
    c_fpstate = const offset_of!(SigContext, fpstate),
    v_restorer = const offset_of!(FrameValues, restorer),
    v_flags = const offset_of!(FrameValues, uc_flags),
    v_mask = const offset_of!(FrameValues, mask),
    v_fpstate = const offset_of!(FrameValues, fpstate),
    t_vector = const offset_of!(TrapInfo, vector),
    t_error = const offset_of!(TrapInfo, error_code),
    t_cr2 = const offset_of!(TrapInfo, cr2),
    s_base = const offset_of!(AltStack, base),
    s_size = const offset_of!(AltStack, size),
    s_flags = const offset_of!(AltStack, flags),
    r_flags = const offset_of!(ReadValues, uc_flags),
    r_stack_base = const offset_of!(ReadValues, stack_base),
    r_stack_flags = const offset_of!(ReadValues, stack_flags),
    r_stack_size = const offset_of!(ReadValues, stack_size),
    r_mask = const offset_of!(ReadValues, mask),
    r_fpstate = const offset_of!(ReadValues, fpstate),
    r_rflags = const offset_of!(ReadValues, rflags),
    r_selectors = const offset_of!(ReadValues, selectors),
    r8 = const offset_of!(PtRegs, r8),
    r9 = const offset_of!(PtRegs, r9),
    r10 = const offset_of!(PtRegs, r10),
    r11 = const offset_of!(PtRegs, r11),
    r12 = const offset_of!(PtRegs, r12),
    r13 = const offset_of!(PtRegs, r13),
    r14 = const offset_of!(PtRegs, r14),
    r15 = const offset_of!(PtRegs, r15),
    rdi = const offset_of!(PtRegs, rdi),
    rsi = const offset_of!(PtRegs, rsi),
    rbp = const offset_of!(PtRegs, rbp),
    rbx = const offset_of!(PtRegs, rbx),
    rdx = const offset_of!(PtRegs, rdx),
    rax = const offset_of!(PtRegs, rax),
    rcx = const offset_of!(PtRegs, rcx),
    rsp = const offset_of!(PtRegs, rsp),
    rip = const offset_of!(PtRegs, rip),
    rflags = const offset_of!(PtRegs, rflags),
    cs = const offset_of!(PtRegs, cs),
    ss = const offset_of!(PtRegs, ss),
);

/// What is read of a frame but for the general registers: the user's claims.
#[derive(Default)]
#[repr(C)]
struct ReadValues {
    uc_flags: u64,
    stack_base: usize,
    stack_flags: u64,
    stack_size: usize,
    mask: u64,
    fpstate: usize,
    rflags: usize,
    /// CS, GS, FS and SS.
    selectors: [u16; 4],
}

unsafe extern "C" {
    fn faultline_signal_frame(
        frame: usize,
        regs: &PtRegs,
        values: &FrameValues,
        trap: *const TrapInfo,
        altstack: &AltStack,
        info: *const u64,
    ) -> u32;
    fn faultline_read_frame(context: usize, regs: &mut PtRegs, values: *mut ReadValues) -> u32;
    static faultline_frames_end: u8;
    static faultline_frames_fixup: u8;
}

/// The row of the exception table: from where to where frames are written and read, and where a fault goes on.
pub(super) fn exception_row() -> (*const u8, *const u8, *const u8) {
    (
        faultline_signal_frame as *const u8,
        &raw const faultline_frames_end,
        &raw const faultline_frames_fixup,
    )
}

/// Writes a handler's frame and points the registers at the handler.
pub fn setup_frame(regs: &mut PtRegs, request: &FrameRequest) -> Result<(), BadFrame> {
    let Placement { fp, frame } = place(regs, request.stack)?;
    write_fpu(fp)?;
    write_frame(regs, request, fp, frame)?;
    fpu::reset_current();
    regs.rdi = request.info.signal.number() as usize;
    regs.rsi = frame + SIGINFO_OFFSET;
    regs.rdx = frame + UCONTEXT_OFFSET;
    regs.rax = 0;
    regs.rip = request.action.handler;
    regs.rsp = frame;
    regs.cs = USER_CS as usize;
    regs.ss = USER_DS as usize;
    regs.rflags &= !(flags::DF | flags::RF | flags::TF);
    Ok(())
}

fn write_frame(
    regs: &PtRegs,
    request: &FrameRequest,
    fp: usize,
    frame: usize,
) -> Result<(), BadFrame> {
    let xstate = if fpu::components() == 0 {
        0
    } else {
        UC_FP_XSTATE
    };
    let values = FrameValues {
        restorer: request.action.restorer,
        uc_flags: xstate | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS,
        mask: request.mask.0,
        fpstate: fp,
    };
    let trap = current().arch.trap_ptr();
    let info: [u64; SIGINFO_WORDS];
    let info = if request.action.has(sa::SIGINFO) {
        info = request.info.abi_words();
        info.as_ptr()
    } else {
        ptr::null()
    };
    let altstack = request.altstack;
    // SAFETY: all of the frame is in the user's half, where faults are fixed up; all else is the kernel's own, and the trap is the current
    // thread's, which changes it nowhere else meanwhile.
    let write = || unsafe { faultline_signal_frame(frame, regs, &values, trap, altstack, info) };
    match super::uaccess::with_user_range(frame, FRAME_SIZE, write) {
        Some(0) => Ok(()),
        _ => Err(BadFrame),
    }
}

/// Software's part of the image: magic and size, components, size without the closing magic; three more words are zero.
#[inline]
fn software_part() -> [u64; 3] {
    let size = fpu::size();
    [
        u64::from(MAGIC1) | ((size + MAGIC2_SIZE) as u64) << 32,
        fpu::components(),
        size as u64,
    ]
}

/// Writes the FPU image: right from the registers if its pages are there and writable, else as a copy, which may wait for them.
fn write_fpu(to: usize) -> Result<(), BadFrame> {
    if fpu::components() != 0 && fpu::save_to_user(to, &software_part(), MAGIC2) {
        return Ok(());
    }
    fpu::with_current(|area| copy_fpu(area, to))
}

/// Copies the FPU image out. Its software part says how far it goes; the header says that x87 and SSE are in it in any case.
fn copy_fpu(area: &mut Area, to: usize) -> Result<(), BadFrame> {
    if fpu::components() == 0 {
        return Ok(uaccess::write_bytes(to, area.bytes())?);
    }
    let present = u64::from_ne_bytes(area.read(FXSAVE_SIZE));
    uaccess::write_bytes(to, &area.bytes()[..SW_OFFSET])?;
    UserPtr::new(to + SW_OFFSET).write(software_part())?;
    uaccess::clear(to + SW_OFFSET + 24, FXSAVE_SIZE - SW_OFFSET - 24)?;
    UserPtr::new(to + FXSAVE_SIZE).write(present | FP_SSE)?;
    uaccess::write_bytes(to + FXSAVE_SIZE + 8, &area.bytes()[FXSAVE_SIZE + 8..])?;
    Ok(UserPtr::new(to + fpu::size()).write(MAGIC2)?)
}

/// Reads the frame back that a handler leaves: RSP is above the return address, which its `ret` has taken.
pub fn restore_frame(regs: &mut PtRegs) -> Result<RestoredFrame, BadFrame> {
    let from = regs.rsp.wrapping_sub(8).wrapping_add(UCONTEXT_OFFSET);
    let mut values = MaybeUninit::<ReadValues>::uninit();
    // SAFETY: the context is in the user's half, where faults are fixed up, and there is room for the values.
    let read = || unsafe { faultline_read_frame(from, regs, values.as_mut_ptr()) };
    if super::uaccess::with_user_range(from, size_of::<UContext>(), read) != Some(0) {
        return Err(BadFrame);
    }
    // SAFETY: all of them were written, and any bytes are values.
    let values = unsafe { values.assume_init_ref() };
    let restored = RestoredFrame {
        mask: SigSet(values.mask),
        altstack: AltStack {
            base: values.stack_base,
            size: values.stack_size,
            flags: values.stack_flags as u32,
        },
    };
    restore_special(regs, values);
    restore_fpu(values.fpstate)?;
    Ok(restored)
}

/// Takes the registers from a frame that are not the user's alone. A RIP or selectors that cannot be are found by the IRETQ on the way
/// out, as on Linux; UC_STRICT_RESTORE_SS says that SS is the program's own wish, and not what an old program left there.
fn restore_special(regs: &mut PtRegs, from: &ReadValues) {
    let [cs, _, _, ss] = from.selectors;
    let strict = from.uc_flags & UC_STRICT_RESTORE_SS != 0;
    regs.forget_syscall();
    regs.rflags = regs.rflags & !USER_FLAGS | from.rflags & USER_FLAGS;
    regs.cs = usize::from(cs | 3);
    regs.ss = usize::from(if strict { ss | 3 } else { USER_DS });
}

/// How much of an FPU image is to be believed.
enum Image {
    /// The first 512 bytes.
    FxOnly,
    /// All of it, for these components.
    Xsave(u64),
}

/// Loads the current thread's FPU state from a frame; 0 means the initial state. A good image whose pages are there goes right into the
/// registers, which the hardware checks; else a copy is checked and loaded, or the state is reset.
fn restore_fpu(from: usize) -> Result<(), BadFrame> {
    if from == 0 {
        fpu::reset_current();
        return Ok(());
    }
    let image = inspect(from)?;
    if let Image::Xsave(components) = image
        && fpu::load_from_user(from, components)
    {
        return Ok(());
    }
    let aligned = match image {
        Image::FxOnly => from.is_multiple_of(16),
        Image::Xsave(_) => from.is_multiple_of(64),
    };
    let outcome = if aligned {
        fpu::replace_current(|area| read_fpu(area, from, image))
    } else {
        Err(BadFrame)
    };
    if outcome.is_err() {
        fpu::replace_current(Area::reset);
    }
    outcome
}

/// Looks at the software part and the closing magic: anything odd means an old-style image, not an error.
fn inspect(from: usize) -> Result<Image, BadFrame> {
    if fpu::components() == 0 {
        return Ok(Image::FxOnly);
    }
    let software = UserPtr::<[u64; 3]>::new(from.wrapping_add(SW_OFFSET)).read()?;
    let (magic, extended) = (software[0] as u32, (software[0] >> 32) as usize);
    let (components, size) = (software[1], software[2] as u32 as usize);
    if magic != MAGIC1 || size < FXSAVE_SIZE + HEADER_SIZE || size > fpu::size() || size > extended
    {
        return Ok(Image::FxOnly);
    }
    let closing = UserPtr::<u32>::new(from.wrapping_add(size)).read()?;
    Ok(if closing == MAGIC2 {
        Image::Xsave(components)
    } else {
        Image::FxOnly
    })
}

/// Copies an image in and checks what XRSTOR would fault on (SDM volume 1, 13.8.1).
fn read_fpu(area: &mut Area, from: usize, image: Image) -> Result<(), BadFrame> {
    match image {
        Image::FxOnly => {
            area.reset();
            uaccess::read_bytes(from, &mut area.bytes_mut()[..FXSAVE_SIZE])?;
            if fpu::components() != 0 {
                area.write(FXSAVE_SIZE, &FP_SSE.to_ne_bytes());
            }
        }
        Image::Xsave(components) => {
            // Always as much as the kernel's own image has: a frame cannot make the copy shorter than what is loaded.
            uaccess::read_bytes(from, area.bytes_mut())?;
            let header: [u8; HEADER_SIZE] = area.read(FXSAVE_SIZE);
            let (present, rest) = header.split_at(8);
            let present = u64::from_ne_bytes(present.try_into().map_err(|_| BadFrame)?);
            if present & !fpu::components() != 0 || rest.iter().any(|&byte| byte != 0) {
                return Err(BadFrame);
            }
            area.write(FXSAVE_SIZE, &(present & components).to_ne_bytes());
        }
    }
    let mxcsr = u32::from_ne_bytes(area.read(MXCSR_OFFSET));
    if mxcsr & !fpu::mxcsr_mask() != 0 {
        Err(BadFrame)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
