//! Single instructions that may fault, at known addresses, with one place to go on if they do.
//!
//! A probe uses no stack between its call and its return, so a handler that sets RIP to [`recovery`] makes it return "it faulted".

use std::arch::global_asm;

use crate::signals::{self, Caught, Slot};
use nix::sys::signal::{SaFlags, Signal};

global_asm!(
    ".globl faultline_probe_load, faultline_probe_load_insn, faultline_probe_store, faultline_probe_store_insn",
    ".globl faultline_probe_jump, faultline_probe_recovery",
    "faultline_probe_load:", // rdi address, rsi where the value goes
    "faultline_probe_load_insn:",
    "mov rax, qword ptr [rdi]",
    "mov qword ptr [rsi], rax",
    "mov eax, 1",
    "ret",
    "faultline_probe_store:", // rdi address, rsi value
    "faultline_probe_store_insn:",
    "mov qword ptr [rdi], rsi",
    "mov eax, 1",
    "ret",
    "faultline_probe_jump:", // rdi address of code that returns 1
    "jmp rdi",
    "faultline_probe_recovery:",
    "xor eax, eax",
    "ret",
);

unsafe extern "C" {
    fn faultline_probe_load(address: usize, value: *mut u64) -> u32;
    fn faultline_probe_store(address: usize, value: u64) -> u32;
    fn faultline_probe_jump(address: usize) -> u32;
    static faultline_probe_load_insn: u8;
    static faultline_probe_store_insn: u8;
    static faultline_probe_recovery: u8;
}

/// Reads eight bytes at `address` with one instruction, or None if a handler went to [`recovery`].
pub fn load(address: usize) -> Option<u64> {
    let mut value = 0;
    // SAFETY: the load either gives bytes, which are only shown, or faults, and then the handler decides.
    let done = unsafe { faultline_probe_load(address, &mut value) };
    (done == 1).then_some(value)
}

/// Writes eight bytes at `address` with one instruction; false if a handler went to [`recovery`].
///
/// # Safety
/// If the memory is there and writable, it is the caller's to write.
pub unsafe fn store(address: usize, value: u64) -> bool {
    // SAFETY: the caller's promise.
    unsafe { faultline_probe_store(address, value) == 1 }
}

/// Jumps to `address`; false if a handler went to [`recovery`].
///
/// # Safety
/// If the memory is there and executable, it holds code that returns 1 and follows the C calling convention.
pub unsafe fn jump(address: usize) -> bool {
    // SAFETY: the caller's promise.
    unsafe { faultline_probe_jump(address) == 1 }
}

/// Address of the instruction by which [`load`] reads.
pub fn load_insn() -> usize {
    &raw const faultline_probe_load_insn as usize
}

/// Address of the instruction by which [`store`] writes.
pub fn store_insn() -> usize {
    &raw const faultline_probe_store_insn as usize
}

/// Where a handler sends a probe that shall report its fault.
pub fn recovery() -> usize {
    &raw const faultline_probe_recovery as usize
}

static FAULT: Slot = Slot::new();

extern "C" fn note_and_recover(
    _: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel's own pointers. Only probes fault while this handler is installed.
    unsafe {
        FAULT.store(&Caught::read(info, context));
        signals::resume_at(context, recovery());
    }
}

/// Installs the handler that notes a SIGSEGV or SIGBUS and lets the probe report it. With SA_ONSTACK in `flags` it runs there.
pub fn catch_faults(flags: SaFlags) -> std::io::Result<()> {
    signals::on(Signal::SIGSEGV, flags, note_and_recover)?;
    signals::on(Signal::SIGBUS, flags, note_and_recover)
}

/// What the handler of [`catch_faults`] saw last since the last call.
pub fn take_fault() -> Option<Caught> {
    FAULT.take()
}
