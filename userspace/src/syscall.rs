//! The `syscall` instruction itself, without libc between the program and the kernel.

use std::arch::asm;

/// Makes a system call; a result from -4095 to -1 is a negated errno.
///
/// # Safety
/// What the call does to this process is the caller's business: it may write memory, close files or end the process.
pub unsafe fn raw(number: u64, args: [u64; 6]) -> i64 {
    let result;
    // SAFETY: the ABI of Linux on x86-64; the kernel changes RAX, RCX and R11 and whatever the call means to change.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as i64 => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// The errno of a result, 0 if the call succeeded.
pub fn errno(result: i64) -> i32 {
    if (-4095..0).contains(&result) {
        -result as i32
    } else {
        0
    }
}
