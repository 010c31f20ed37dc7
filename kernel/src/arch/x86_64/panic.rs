//! The end of the kernel by its own fault: registers, what they mean, and where it was.

use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::idt::vector;
use super::page_fault::error;
use super::regs::PtRegs;
use super::{backtrace, irq, machine, percpu, serial, stack};
use crate::arch::Exit;

/// Where the kernel image was loaded, for the symbols of its addresses.
static IMAGE_BASE: AtomicU64 = AtomicU64::new(0);

static PANICKING: AtomicBool = AtomicBool::new(false);

pub(super) fn set_image_base(base: u64) {
    IMAGE_BASE.store(base, Ordering::Relaxed);
}

/// A message for the control record: one line, whatever is in it.
struct OneLine<T>(T);

impl<T: fmt::Display> fmt::Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Spaces<'a, 'b>(&'a mut fmt::Formatter<'b>);
        impl fmt::Write for Spaces<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                text.split('\n').enumerate().try_for_each(|(index, part)| {
                    if index > 0 {
                        self.0.write_char(' ')?;
                    }
                    self.0.write_str(part)
                })
            }
        }
        write!(Spaces(f), "{}", self.0)
    }
}

/// Reports and ends the machine. A second panic on the way ends it at once.
fn report(message: fmt::Arguments<'_>, regs: Option<&PtRegs>, rbp: usize) -> ! {
    let _ = irq::save();
    if PANICKING.swap(true, Ordering::Relaxed) {
        machine::exit(Exit::Panic);
    }
    // SAFETY: interrupts are off and one CPU runs, which never returns from here.
    unsafe { serial::break_locks() };
    let mut log = serial::Log;
    let _ = writeln!(log, "kernel panic: {message}");
    if let Some(regs) = regs {
        write_registers(&mut log, regs);
    }
    if percpu::is_ready() {
        let thread = percpu::current();
        // SAFETY: the current thread, if there is one, is alive.
        if let Some(thread) = unsafe { thread.as_ref() } {
            let _ = writeln!(
                log,
                "thread {} of process {}",
                thread.tid(),
                thread.process.pid
            );
        }
    }
    let _ = writeln!(log, "image base {:#x}", IMAGE_BASE.load(Ordering::Relaxed));
    let _ = writeln!(log, "backtrace:");
    if let Some(regs) = regs {
        let _ = writeln!(log, "  bt {:#x}", regs.rip);
    }
    backtrace::walk(rbp, |address| {
        let _ = writeln!(log, "  bt {address:#x}");
    });
    machine::control(format_args!("panic {}", OneLine(message)));
    machine::exit(Exit::Panic)
}

fn write_registers(out: &mut impl Write, r: &PtRegs) {
    let _ = writeln!(
        out,
        "rip {:#018x} cs {:#x} rflags {:#x} rsp {:#018x} ss {:#x}\n\
         rax {:#018x} rbx {:#018x} rcx {:#018x} rdx {:#018x}\n\
         rsi {:#018x} rdi {:#018x} rbp {:#018x} r8  {:#018x}\n\
         r9  {:#018x} r10 {:#018x} r11 {:#018x} r12 {:#018x}\n\
         r13 {:#018x} r14 {:#018x} r15 {:#018x} orig_rax {:#x}",
        r.rip,
        r.cs,
        r.rflags,
        r.rsp,
        r.ss,
        r.rax,
        r.rbx,
        r.rcx,
        r.rdx,
        r.rsi,
        r.rdi,
        r.rbp,
        r.r8,
        r.r9,
        r.r10,
        r.r11,
        r.r12,
        r.r13,
        r.r14,
        r.r15,
        r.orig_rax
    );
}

/// An exception in the kernel that nothing expects.
pub(super) fn fatal_exception(regs: &PtRegs, vector: usize, error_code: usize, cr2: usize) -> ! {
    let name = exception_name(vector);
    let hint = hint(regs, vector, error_code, cr2);
    match vector {
        vector::PAGE_FAULT => {
            let access = access_name(error_code);
            report(
                format_args!(
                    "page fault: {access} {cr2:#x} at {:#x}, error code {error_code:#x}{hint}",
                    regs.rip
                ),
                Some(regs),
                regs.rbp,
            )
        }
        _ => report(
            format_args!(
                "{name} at {:#x}, error code {error_code:#x}, cr2 {cr2:#x}{hint}",
                regs.rip
            ),
            Some(regs),
            regs.rbp,
        ),
    }
}

fn exception_name(vector: usize) -> &'static str {
    match vector {
        vector::DIVIDE => "division error",
        vector::BREAKPOINT => "breakpoint",
        vector::INVALID_OPCODE => "invalid instruction",
        vector::DEVICE_NOT_AVAILABLE => "FPU not available",
        vector::DOUBLE_FAULT => "double fault",
        vector::INVALID_TSS => "invalid TSS",
        vector::SEGMENT_NOT_PRESENT => "segment not present",
        vector::STACK_SEGMENT => "stack fault",
        vector::GENERAL_PROTECTION => "general protection fault",
        vector::PAGE_FAULT => "page fault",
        vector::MACHINE_CHECK => "machine check",
        _ => "exception",
    }
}

fn access_name(error_code: usize) -> &'static str {
    match error_code {
        code if code & error::FETCH != 0 => "executing",
        code if code & error::WRITE != 0 => "writing",
        _ => "reading",
    }
}

/// What the numbers most probably mean.
fn hint(regs: &PtRegs, vector: usize, error_code: usize, cr2: usize) -> &'static str {
    match vector {
        vector::DOUBLE_FAULT if stack::is_guard_page(cr2) => ": kernel stack overflow",
        vector::PAGE_FAULT if stack::is_guard_page(cr2) => ": kernel stack overflow",
        vector::PAGE_FAULT if error_code & error::RESERVED != 0 => ": a page table is corrupt",
        vector::PAGE_FAULT if cr2 < 4096 => ": looks like a null pointer",
        vector::PAGE_FAULT if cr2 < super::USER_END && error_code & error::FETCH != 0 => {
            ": execution of user memory (SMEP)"
        }
        vector::PAGE_FAULT if cr2 < super::USER_END && !regs.user_mode() => {
            ": user memory outside a user copy (SMAP)"
        }
        _ => "",
    }
}

fn frame_pointer() -> usize {
    let rbp: usize;
    // SAFETY: reads a register.
    unsafe {
        core::arch::asm!("mov {}, rbp", out(reg) rbp, options(nomem, nostack, preserves_flags))
    };
    rbp
}

/// A panic of Rust code.
pub fn rust_panic(info: &PanicInfo) -> ! {
    report(format_args!("{info}"), None, frame_pointer())
}
