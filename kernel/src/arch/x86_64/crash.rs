//! Crashes on purpose, so that the way a kernel bug is reported can be seen and tested. Nothing comes here unless the configuration
//! has a `crash` record.
//!
//! Each kind ends the machine with a panic's status and a report in the log; none returns.

use core::arch::asm;
use core::hint::black_box;

use crate::config::Crash;

/// Crashes. From a kernel thread, whose stack has a guard page below it.
#[inline(never)]
pub fn crash(kind: Crash) -> ! {
    match kind {
        Crash::Panic => panic!("a crash was asked for"),
        Crash::Overflow => _ = overflow_stack(1),
        Crash::Null => read_null(),
    }
    unreachable!("{kind:?} did not crash the kernel")
}

/// Calls itself until the guard page is hit: the page fault finds no stack, and the double fault has one of its own.
#[inline(never)]
fn overflow_stack(depth: u64) -> u64 {
    let frame = black_box([depth; 32]);
    if depth == 0 {
        return 0;
    }
    overflow_stack(black_box(depth + 1)) + frame[depth as usize % frame.len()]
}

#[inline(never)]
fn read_null() {
    // SAFETY: the fault that this makes ends the machine. In Rust's own terms such a read would be undefined; an instruction is not.
    unsafe { asm!("mov {0}, [{0}]", inout(reg) 0usize => _, options(nostack, readonly)) };
}
