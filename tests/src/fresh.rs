//! A program on the host begins as one in the guest does: no signal ignored, none blocked, whatever the tests were started by.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

/// `struct kernel_sigaction` of `rt_sigaction(2)`; all zero is SIG_DFL.
const DEFAULT: [u64; 4] = [0; 4];
const MASK_SIZE: usize = 8;

/// Makes `command` start with all signals at their defaults.
pub fn with_default_signals(command: &mut Command) -> &mut Command {
    // SAFETY: the function only makes system calls.
    unsafe { command.pre_exec(reset_signals) }
}

/// The C library has no way to two of the signals, so it is left out.
fn reset_signals() -> io::Result<()> {
    for signal in 1..=64 {
        // SAFETY: reads `DEFAULT` and writes nothing. SIGKILL and SIGSTOP are refused, which is as well.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                DEFAULT.as_ptr(),
                ptr::null_mut::<u64>(),
                MASK_SIZE,
            );
        }
    }
    // SAFETY: reads a mask of the given size and writes nothing.
    let unblocked = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            DEFAULT.as_ptr(),
            ptr::null_mut::<u64>(),
            MASK_SIZE,
        )
    };
    if unblocked == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
