//! rt_sigframe: what a handler finds on its stack and sigreturn reads back, bit for bit Linux's
//! (`arch/x86/include/uapi/asm/sigcontext.h`, `arch/x86/kernel/signal_64.c`, `arch/x86/kernel/fpu/signal.c`).
//!
//! From high to low: the XSAVE image, 64-byte aligned and closed by a magic number; siginfo; ucontext; the return address, which is
//! the restorer. A frame read back is a claim: selectors and privileged flags are never taken from it, and its FPU state is
//! checked in kernel memory before it is loaded.

use super::fpu::{self, Area, FP_SSE, FXSAVE_SIZE, HEADER_SIZE, MXCSR_OFFSET};
use super::gdt::{USER_CS, USER_DS};
use super::regs::{PtRegs, flags};
use crate::mm::uaccess::{self, Pod, UserPtr};
use crate::sched::current;
use crate::signal::info::SIGINFO_SIZE;
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

// SAFETY: only integers, and the assertions above leave no room for padding: the named fields fill the sizes.
unsafe impl Pod for UContext {}

const UC_FP_XSTATE: u64 = 1;
const UC_SIGCONTEXT_SS: u64 = 2;
const UC_STRICT_RESTORE_SS: u64 = 4;

/// Below the stack pointer the ABI lets a function keep data.
const RED_ZONE: usize = 128;

/// Software's part of the FXSAVE image: magic, sizes and components.
const SW_OFFSET: usize = 464;
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

fn place(sp: usize, stack: FrameStack) -> Result<Placement, BadFrame> {
    let (top, floor) = match stack {
        FrameStack::Current { floor } => (sp.wrapping_sub(RED_ZONE), floor),
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

/// Writes a handler's frame and points the registers at the handler.
pub fn setup_frame(regs: &mut PtRegs, request: &FrameRequest) -> Result<(), BadFrame> {
    let Placement { fp, frame } = place(regs.rsp, request.stack)?;
    fpu::with_current(|area| write_fpu(area, fp))?;
    let context = ucontext(regs, request, fp);
    UserPtr::new(frame).write(request.restorer)?;
    UserPtr::new(frame + UCONTEXT_OFFSET).write(context)?;
    if request.siginfo {
        uaccess::write_bytes(frame + SIGINFO_OFFSET, &request.info.to_abi())?;
    }
    fpu::replace_current(Area::reset);
    regs.rdi = request.info.signal.number() as usize;
    regs.rsi = frame + SIGINFO_OFFSET;
    regs.rdx = frame + UCONTEXT_OFFSET;
    regs.rax = 0;
    regs.rip = request.handler;
    regs.rsp = frame;
    regs.cs = USER_CS as usize;
    regs.ss = USER_DS as usize;
    regs.rflags &= !(flags::DF | flags::RF | flags::TF);
    Ok(())
}

/// Writes the FPU image. Its software part says how far it goes; the header says that x87 and SSE are in it in any case.
fn write_fpu(area: &mut Area, to: usize) -> Result<(), BadFrame> {
    if fpu::components() == 0 {
        return Ok(uaccess::write_bytes(to, area.bytes())?);
    }
    let size = fpu::size();
    let mut software = [0; 48];
    software[0..4].copy_from_slice(&MAGIC1.to_ne_bytes());
    software[4..8].copy_from_slice(&((size + MAGIC2_SIZE) as u32).to_ne_bytes());
    software[8..16].copy_from_slice(&fpu::components().to_ne_bytes());
    software[16..20].copy_from_slice(&(size as u32).to_ne_bytes());
    let present = u64::from_ne_bytes(area.read(FXSAVE_SIZE));
    uaccess::write_bytes(to, &area.bytes()[..SW_OFFSET])?;
    uaccess::write_bytes(to + SW_OFFSET, &software)?;
    UserPtr::new(to + FXSAVE_SIZE).write(present | FP_SSE)?;
    uaccess::write_bytes(to + FXSAVE_SIZE + 8, &area.bytes()[FXSAVE_SIZE + 8..])?;
    Ok(UserPtr::new(to + size).write(MAGIC2)?)
}

fn ucontext(regs: &PtRegs, request: &FrameRequest, fp: usize) -> UContext {
    let trap = current().arch.trap();
    let xstate = if fpu::components() == 0 {
        0
    } else {
        UC_FP_XSTATE
    };
    UContext {
        flags: xstate | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS,
        stack_sp: request.altstack.base as u64,
        stack_flags: request.altstack.shown_flags(regs.rsp),
        stack_size: request.altstack.size as u64,
        mcontext: SigContext {
            r8: regs.r8 as u64,
            r9: regs.r9 as u64,
            r10: regs.r10 as u64,
            r11: regs.r11 as u64,
            r12: regs.r12 as u64,
            r13: regs.r13 as u64,
            r14: regs.r14 as u64,
            r15: regs.r15 as u64,
            rdi: regs.rdi as u64,
            rsi: regs.rsi as u64,
            rbp: regs.rbp as u64,
            rbx: regs.rbx as u64,
            rdx: regs.rdx as u64,
            rax: regs.rax as u64,
            rcx: regs.rcx as u64,
            rsp: regs.rsp as u64,
            rip: regs.rip as u64,
            eflags: regs.rflags as u64,
            cs: regs.cs as u16,
            ss: regs.ss as u16,
            err: trap.error_code as u64,
            trapno: trap.vector as u64,
            oldmask: request.mask.0,
            cr2: trap.cr2 as u64,
            fpstate: fp as u64,
            ..SigContext::default()
        },
        sigmask: request.mask.0,
        ..UContext::default()
    }
}

/// Reads the frame back that a handler leaves: RSP is above the return address, which its `ret` has taken.
pub fn restore_frame(regs: &mut PtRegs) -> Result<RestoredFrame, BadFrame> {
    let context =
        UserPtr::<UContext>::new(regs.rsp.wrapping_sub(8).wrapping_add(UCONTEXT_OFFSET)).read()?;
    let restored = RestoredFrame {
        mask: SigSet(context.sigmask),
        altstack: AltStack {
            base: context.stack_sp as usize,
            size: context.stack_size as usize,
            flags: context.stack_flags,
        },
    };
    let strict = context.flags & UC_STRICT_RESTORE_SS != 0;
    restore_registers(regs, &context.mcontext, strict);
    restore_fpu(context.mcontext.fpstate as usize)?;
    Ok(restored)
}

/// Takes the registers from a frame. A RIP or selectors that cannot be are found by the IRETQ on the way out, as on Linux; `strict`
/// (UC_STRICT_RESTORE_SS) says that SS is the program's own wish, and not what an old program left there.
fn restore_registers(regs: &mut PtRegs, from: &SigContext, strict: bool) {
    let ss = if strict { from.ss | 3 } else { USER_DS };
    *regs = PtRegs {
        r15: from.r15 as usize,
        r14: from.r14 as usize,
        r13: from.r13 as usize,
        r12: from.r12 as usize,
        rbp: from.rbp as usize,
        rbx: from.rbx as usize,
        r11: from.r11 as usize,
        r10: from.r10 as usize,
        r9: from.r9 as usize,
        r8: from.r8 as usize,
        rax: from.rax as usize,
        rcx: from.rcx as usize,
        rdx: from.rdx as usize,
        rsi: from.rsi as usize,
        rdi: from.rdi as usize,
        orig_rax: usize::MAX,
        rip: from.rip as usize,
        rflags: regs.rflags & !USER_FLAGS | from.eflags as usize & USER_FLAGS,
        rsp: from.rsp as usize,
        cs: usize::from(from.cs | 3),
        ss: usize::from(ss),
    };
}

/// How much of an FPU image is to be believed.
enum Image {
    /// The first 512 bytes.
    FxOnly,
    /// All of it, for these components.
    Xsave(u64),
}

/// Loads the current thread's FPU state from a frame; 0 means the initial state.
fn restore_fpu(from: usize) -> Result<(), BadFrame> {
    if from == 0 {
        fpu::replace_current(Area::reset);
        return Ok(());
    }
    let image = inspect(from)?;
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
    let mut software = [0; 48];
    uaccess::read_bytes(from.wrapping_add(SW_OFFSET), &mut software)?;
    let word = |at: usize| {
        u32::from_ne_bytes([
            software[at],
            software[at + 1],
            software[at + 2],
            software[at + 3],
        ])
    };
    let (magic, extended, size) = (word(0), word(4) as usize, word(16) as usize);
    let components = u64::from(word(8)) | u64::from(word(12)) << 32;
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
