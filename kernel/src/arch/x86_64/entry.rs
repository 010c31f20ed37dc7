//! The ways into the kernel and out of it, in assembly.
//!
//! Every way in leaves a full `PtRegs` on the kernel stack, GS pointing at this CPU's data, and AC clear; the ways out undo it.
//! From user mode the GS base is exchanged. Vectors with a stack of their own (NMI, #DF, #MC, #DB) may come when the saved CS does
//! not tell which GS base is in place, nor does the base itself, which may be any in user mode: they find the CPU's data at the top of
//! their stack, and put back what was there. The LFENCE after a decision keeps a wrongly predicted one from going on with the wrong base
//! (CVE-2019-1125).
//!
//! The IRETQ to user mode may fault itself, with GS exchanged already, as sigreturn lets a program ask for any selectors and any RIP
//! (CVE-2014-9322). There is one such instruction, `iret_to_user`, and faults on it become the program's.
//!
//! The registers leave RSP at 8 modulo 16, so every call is made 8 bytes further down.

use core::arch::{global_asm, naked_asm};
use core::mem::offset_of;

use x86_64::VirtAddr;
use x86_64::registers::model_specific::{LStar, Msr, SFMask};
use x86_64::registers::rflags::RFlags;

use super::exception::exception;
use super::gdt::{KERNEL_CS, SYSRET_BASE, USER_CS, USER_DS};
use super::percpu::{CURRENT, KERNEL_SP, USER_SP};
use super::regs::{PT_REGS_SIZE, PtRegs, flags};
use super::{fpu, irq, percpu};
use crate::sched::{self, current};
use crate::syscall;
use crate::task::Thread;
use crate::task::thread::flag;

/// Distance of two stubs, bytes.
pub(super) const STUB_SIZE: usize = 16;

const FLAGS: usize = offset_of!(Thread, flags);
/// What keeps a thread from returning to user mode at once.
const WORK: u32 = flag::EXIT_WORK | flag::NEED_FPU;

const ORIG_RAX: usize = offset_of!(PtRegs, orig_rax);
const RIP: usize = offset_of!(PtRegs, rip);
const _: () = assert!(PT_REGS_SIZE % 16 == 8);
const CS: usize = offset_of!(PtRegs, cs);
const RFLAGS: usize = offset_of!(PtRegs, rflags);
const RSP: usize = offset_of!(PtRegs, rsp);
const SS: usize = offset_of!(PtRegs, ss);
const RCX: usize = offset_of!(PtRegs, rcx);
const R11: usize = offset_of!(PtRegs, r11);
/// Flags with which SYSRET does not do what IRETQ would.
const NOT_SYSRET: usize = flags::TF | flags::RF;
const GS_BASE: u32 = 0xc000_0101;

/// Flags that SYSCALL clears: interrupts stay off until the kernel stack is in use.
const SYSCALL_MASK: u64 =
    (flags::IF | flags::DF | flags::TF | flags::AC | flags::NT | flags::RF) as u64;

// One stub per vector: makes the stack look alike whether or not the hardware pushed an error code, and puts the vector where the
// common code swaps it with RDI.
global_asm!(
    ".pushsection .text.entry_stubs, \"ax\"",
    ".balign 16",
    ".global faultline_stubs",
    "faultline_stubs:",
    ".set vector, 0",
    ".rept 256",
    ".balign 16",
    ".if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30",
    ".else",
    "push -1",
    ".endif",
    ".if vector > 127",
    "push vector - 256",
    ".else",
    "push vector",
    ".endif",
    ".if vector == 1 || vector == 2 || vector == 8 || vector == 18",
    "jmp {paranoid}",
    ".else",
    "jmp {common}",
    ".endif",
    ".set vector, vector + 1",
    ".endr",
    ".popsection",
    paranoid = sym paranoid_entry,
    common = sym common_entry,
);

unsafe extern "C" {
    static faultline_stubs: u8;
}

/// Address of the stub of vector 0.
pub(super) fn stubs_start() -> usize {
    &raw const faultline_stubs as usize
}

/// Saves the registers above the error code; RDI holds the vector afterwards.
macro_rules! save_registers {
    () => {
        "xchg rdi, [rsp]
         push rsi
         push rdx
         push rcx
         push rax
         push r8
         push r9
         push r10
         push r11
         push rbx
         push rbp
         push r12
         push r13
         push r14
         push r15
         cld
         pushfq
         and dword ptr [rsp], 0xfffbffff
         popfq"
    };
}

macro_rules! restore_registers {
    () => {
        "pop r15
         pop r14
         pop r13
         pop r12
         pop rbp
         pop rbx
         pop r11
         pop r10
         pop r9
         pop r8
         pop rax
         pop rcx
         pop rdx
         pop rsi
         pop rdi"
    };
}

/// Puts the registers in their places, at RDI, that `syscall_entry` leaves out. R11 is what SYSCALL has made it: the flags.
macro_rules! save_other_registers {
    () => {
        "mov [rdi + {rbx}], rbx
         mov [rdi + {r12}], r12
         mov [rdi + {r13}], r13
         mov [rdi + {r14}], r14
         mov [rdi + {r15}], r15
         mov rax, [rdi + {rflags}]
         mov [rdi + {r11}], rax"
    };
}

/// Exceptions and interrupts on the ordinary stack.
#[unsafe(naked)]
unsafe extern "C" fn common_entry() {
    naked_asm!(
        save_registers!(),
        "test byte ptr [rsp + {cs}], 3",
        "jz 3f",
        "swapgs",
        "2:",
        "lfence",
        "movzx esi, dil",
        "mov rdi, rsp",
        "lea rbp, [rsp + {rip} - 8]",
        "sub rsp, 8",
        "call {exception}",
        "add rsp, 8",
        "test byte ptr [rsp + {cs}], 3",
        "jnz {to_user}",
        "jmp {to_kernel}",
        "3:",
        "lea rax, [rip + {iret}]",
        "cmp [rsp + {rip}], rax",
        "jne 2b",
        "swapgs",
        "lfence",
        "movzx ebx, dil",
        "mov rdi, rsp",
        "sub rsp, 8",
        "call {bad_iret}",
        "mov rsp, rax",
        "mov edi, ebx",
        "jmp 2b",
        cs = const CS,
        rip = const RIP,
        exception = sym exception,
        iret = sym iret_to_user,
        bad_iret = sym bad_iret,
        to_user = sym return_to_user,
        to_kernel = sym return_to_kernel,
    );
}

/// Turns a fault on the IRETQ to user mode, at `fault`, into one that the program makes with the registers that were being restored.
/// IRETQ reads its five words in place at the top of the thread's stack and changes nothing before it faults; the others are as
/// they were restored. Returns the place of the whole, which the registers at `fault` overlap from below.
extern "C" fn bad_iret(fault: &PtRegs) -> *mut PtRegs {
    // SAFETY: this CPU's own field, and interrupts are off.
    let top = unsafe { *percpu::this().kernel_sp.get() };
    let place = (top - PT_REGS_SIZE) as *mut PtRegs;
    let general = *fault;
    // SAFETY: the top of the current thread's stack is where its user registers lie; `fault` is not used any more.
    unsafe {
        let PtRegs {
            rip,
            cs,
            rflags,
            rsp,
            ss,
            ..
        } = *place;
        place.write(PtRegs {
            rip,
            // Whatever selector it was, it was to be the user's.
            cs: cs | 3,
            rflags,
            rsp,
            ss,
            ..general
        });
    }
    place
}

/// Exceptions on a stack of the interrupt stack table. One from user mode goes on on the thread's own stack, where it may sleep.
#[unsafe(naked)]
unsafe extern "C" fn paranoid_entry() {
    naked_asm!(
        save_registers!(),
        "test byte ptr [rsp + {cs}], 3",
        "jnz 3f",
        "mov r12, rdi",
        "mov ecx, {gs_base}",
        "rdmsr",
        "mov ebx, eax",
        "mov r13d, edx",
        "mov rax, [rsp + {size}]",
        "mov rdx, rax",
        "shr rdx, 32",
        "wrmsr",
        "movzx esi, r12b",
        "mov rdi, rsp",
        "sub rsp, 8",
        "call {exception}",
        "add rsp, 8",
        "mov ecx, {gs_base}",
        "mov eax, ebx",
        "mov edx, r13d",
        "wrmsr",
        "jmp {to_kernel}",
        "3:",
        "swapgs",
        "lfence",
        "movzx eax, dil",
        "mov rsi, rsp",
        "mov rdi, gs:[{kernel_sp}]",
        "sub rdi, {size}",
        "mov rdx, rdi",
        "mov ecx, {words}",
        "rep movsq",
        "mov rsp, rdx",
        "mov rdi, rsp",
        "mov esi, eax",
        "sub rsp, 8",
        "call {exception}",
        "add rsp, 8",
        "jmp {to_user}",
        cs = const CS,
        gs_base = const GS_BASE,
        kernel_sp = const KERNEL_SP,
        size = const PT_REGS_SIZE,
        words = const PT_REGS_SIZE / 8,
        exception = sym exception,
        to_user = sym return_to_user,
        to_kernel = sym return_to_kernel,
    );
}

/// Back to interrupted kernel code. The registers are on the stack.
#[unsafe(naked)]
unsafe extern "C" fn return_to_kernel() {
    naked_asm!("cli", restore_registers!(), "add rsp, 8", "iretq");
}

/// The common way to user mode: does the work that is due and leaves by IRETQ. The registers are on the stack.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn return_to_user() {
    naked_asm!(
        "cli",
        "mov rax, gs:[{current}]",
        "test dword ptr [rax + {flags}], {work}",
        "jz {restore}",
        "mov rdi, rsp",
        "sub rsp, 8",
        "call {do_work}",
        "add rsp, 8",
        "jmp {restore}",
        current = const CURRENT,
        flags = const FLAGS,
        work = const WORK,
        do_work = sym exit_work,
        restore = sym restore_to_user,
    );
}

/// Leaves by IRETQ with the registers on the stack. Interrupts are off, and no work is due.
#[unsafe(naked)]
unsafe extern "C" fn restore_to_user() {
    naked_asm!(
        restore_registers!(),
        "add rsp, 8",
        "swapgs",
        "jmp {iret}",
        iret = sym iret_to_user,
    );
}

/// The only IRETQ to user mode.
#[unsafe(naked)]
unsafe extern "C" fn iret_to_user() {
    naked_asm!("iretq");
}

/// SYSCALL lands here on the user's stack, with interrupts off (SDM volume 2, SYSCALL).
///
/// R11 and the registers that functions preserve (RBX, R12 to R15) have their places in the registers on the stack, but are put there
/// only for those who look: the calls that go through [`with_all_registers`], and the work that may be due on the way out. Until then
/// the user's values are where they were, or where the functions that were called have saved them. RBP is zero meanwhile, so that
/// backtraces end here.
#[unsafe(naked)]
unsafe extern "C" fn syscall_entry() {
    naked_asm!(
        "swapgs",
        "mov gs:[{user_sp}], rsp",
        "mov rsp, gs:[{kernel_sp}]",
        "push {user_ds}",
        "push qword ptr gs:[{user_sp}]",
        "push r11",
        "push {user_cs}",
        "push rcx",
        // The number is 32 bits wide; negative ones are not calls.
        "movsxd rax, eax",
        "push rax",
        "push rdi",
        "push rsi",
        "push rdx",
        "push rcx",
        "push rax",
        "push r8",
        "push r9",
        "push r10",
        "sub rsp, {r10} + 8",
        "lea rdi, [rsp + 8]",
        "mov [rdi + {rbp}], rbp",
        "xor ebp, ebp",
        "sti",
        "cmp rax, {numbers}",
        "jae 5f",
        "mov rcx, [rip + {calls}]",
        "call [rcx + rax * 8]",
        "6:",
        "cli",
        "mov rax, gs:[{current}]",
        "test dword ptr [rax + {flags}], {work}",
        "jnz 2f",
        // A call that changed nothing but its answer: SYSRET does what IRETQ would, but for RCX and R11, which SYSCALL has spoilt
        // already, and flags that it treats differently.
        "mov rcx, [rsp + 8 + {rip}]",
        "mov r11, [rsp + 8 + {rflags}]",
        "test r11d, {not_sysret}",
        "jnz 2f",
        "mov rbp, [rsp + 8 + {rbp}]",
        "add rsp, {r10} + 8",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rax",
        "add rsp, 8",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "mov rsp, [rsp + {rsp_from_orig}]",
        "swapgs",
        "sysretq",
        "2:",
        "test dword ptr [rax + {flags}], {work_on_registers}",
        "jnz 3f",
        "test dword ptr [rax + {flags}], {work}",
        "jz 3f",
        "call {other_work}",
        "jmp 6b",
        "3:",
        "lea rdi, [rsp + 8]",
        save_other_registers!(),
        "jmp {leave}",
        "5:",
        "call {unknown}",
        "jmp 6b",
        user_sp = const USER_SP,
        kernel_sp = const KERNEL_SP,
        user_ds = const USER_DS,
        user_cs = const USER_CS,
        numbers = const syscall::NUMBERS,
        calls = sym syscall::CALLS,
        unknown = sym syscall::unknown,
        current = const CURRENT,
        flags = const FLAGS,
        work = const WORK,
        work_on_registers = const flag::SIGPENDING | flag::SWITCHED,
        other_work = sym other_work,
        rip = const RIP,
        rflags = const RFLAGS,
        not_sysret = const NOT_SYSRET,
        rsp_from_orig = const RSP - ORIG_RAX,
        r10 = const offset_of!(PtRegs, r10),
        r11 = const R11,
        rbx = const offset_of!(PtRegs, rbx),
        rbp = const offset_of!(PtRegs, rbp),
        r12 = const offset_of!(PtRegs, r12),
        r13 = const offset_of!(PtRegs, r13),
        r14 = const offset_of!(PtRegs, r14),
        r15 = const offset_of!(PtRegs, r15),
        leave = sym leave_syscall,
    );
}

/// Calls that look at more of the user's registers than arguments, or change others than the answer, are entered here: it runs them out
/// of [`syscall::CALLS_WITH_REGISTERS`], with all registers in place, and leaves with all as they are then.
///
/// # Safety
/// `syscall_entry` has called it for the system call that it makes: the return address is not used.
#[unsafe(naked)]
pub unsafe extern "C" fn with_all_registers(_regs: &mut PtRegs) {
    naked_asm!(
        save_other_registers!(),
        "add rsp, 8",
        "mov rax, [rdi + {orig_rax}]",
        "mov rcx, [rip + {calls}]",
        "call [rcx + rax * 8]",
        "cli",
        "jmp {leave}",
        orig_rax = const ORIG_RAX,
        calls = sym syscall::CALLS_WITH_REGISTERS,
        rflags = const RFLAGS,
        r11 = const R11,
        rbx = const offset_of!(PtRegs, rbx),
        r12 = const offset_of!(PtRegs, r12),
        r13 = const offset_of!(PtRegs, r13),
        r14 = const offset_of!(PtRegs, r14),
        r15 = const offset_of!(PtRegs, r15),
        leave = sym leave_syscall,
    );
}

/// The way out of a system call whose registers are all in place, 8 bytes above RSP: does the work that is due, and leaves by SYSRET if
/// they are such as a call leaves. Interrupts are off.
#[unsafe(naked)]
unsafe extern "C" fn leave_syscall() {
    naked_asm!(
        "mov rax, gs:[{current}]",
        "test dword ptr [rax + {flags}], {work}",
        "jz 3f",
        "lea rdi, [rsp + 8]",
        "call {do_work}",
        "3:",
        "add rsp, 8",
        // After sigreturn they may be those of a call that a signal interrupted, or came after; then RCX and R11 are as SYSRET leaves
        // them. It treats some flags differently.
        "mov rcx, [rsp + {rcx}]",
        "cmp rcx, [rsp + {rip}]",
        "jne 2f",
        "mov r11, [rsp + {r11}]",
        "cmp r11, [rsp + {rflags}]",
        "jne 2f",
        "test r11d, {not_sysret}",
        "jnz 2f",
        "cmp qword ptr [rsp + {cs}], {user_cs}",
        "jne 2f",
        "cmp qword ptr [rsp + {ss}], {user_ds}",
        "jne 2f",
        // On an address that is not canonical SYSRET faults in the kernel (CVE-2012-0217).
        "mov rax, rcx",
        "shr rax, 47",
        "jnz 2f",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "add rsp, 8",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rax",
        "add rsp, 8",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "mov rsp, [rsp + {rsp_from_orig}]",
        "swapgs",
        "sysretq",
        "2:",
        "jmp {restore}",
        current = const CURRENT,
        flags = const FLAGS,
        work = const WORK,
        do_work = sym exit_work,
        rcx = const RCX,
        rip = const RIP,
        r11 = const R11,
        rflags = const RFLAGS,
        not_sysret = const NOT_SYSRET,
        cs = const CS,
        ss = const SS,
        user_cs = const USER_CS,
        user_ds = const USER_DS,
        rsp_from_orig = const RSP - ORIG_RAX,
        restore = sym restore_to_user,
    );
}

/// The slow part of the way to user mode: signals and other threads first, then the FPU registers. Interrupts are off.
extern "C" fn exit_work(regs: &mut PtRegs) {
    crate::task::exit_to_user_mode(regs);
    fpu::load_for_user();
}

/// A step of what [`exit_work`] does, if no work on registers is due; more may be afterwards. Interrupts are off.
extern "C" fn other_work() {
    if current().has_flag(flag::NEED_RESCHED) {
        irq::enable();
        sched::schedule();
        let _ = irq::disable();
    } else {
        fpu::load_for_user();
    }
}

/// What a new kernel stack runs first: `switch` returns here, with the user registers right above.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn thread_entry() {
    naked_asm!(
        "xor ebp, ebp",
        "sub rsp, 8",
        "call {start}",
        "add rsp, 8",
        "jmp {to_user}",
        start = sym thread_start,
        to_user = sym return_to_user,
    );
}

extern "C" fn thread_start() {
    crate::task::thread_start();
}

/// Leaves for user mode with the registers at `regs`, which becomes the bottom of the stack in use.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn jump_to_user(regs: *const PtRegs) -> ! {
    naked_asm!("mov rsp, rdi", "jmp {to_user}", to_user = sym return_to_user);
}

/// Programs SYSCALL. Once per CPU.
pub(super) fn init() {
    LStar::write(VirtAddr::new(syscall_entry as *const () as u64));
    SFMask::write(RFlags::from_bits_truncate(SYSCALL_MASK));
    // STAR: bits 32.. hold the kernel's code selector, bits 48.. what SYSRET starts from (SDM volume 3, 5.8.8).
    let star = u64::from(KERNEL_CS) << 32 | u64::from(SYSRET_BASE) << 48;
    // SAFETY: the selectors are those of this kernel's GDT.
    unsafe { Msr::new(0xc000_0081).write(star) };
}

#[cfg(test)]
mod tests;
