//! System calls, by the instruction itself.

use core::arch::{asm, global_asm};
use core::ffi::c_int;
use core::ptr;

use linux_raw_sys::general as abi;

use crate::check::{self, done};

macro_rules! calls {
    ($($name:ident($($arg:ident in $register:tt),*);)*) => {$(
        /// System call `number`; a result from -4095 to -1 is a negated errno.
        ///
        /// # Safety
        /// What the call does to this process is the caller's business.
        #[inline(always)]
        pub unsafe fn $name(number: u32, $($arg: usize),*) -> isize {
            let result;
            // SAFETY: the ABI of Linux on x86-64; the kernel changes RAX, RCX and R11 and whatever the call means to change.
            unsafe {
                asm!(
                    "syscall",
                    inlateout("rax") number as usize => result,
                    $(in($register) $arg,)*
                    lateout("rcx") _,
                    lateout("r11") _,
                    options(nostack),
                );
            }
            result
        }
    )*};
}

calls! {
    call0();
    call1(a in "rdi");
    call2(a in "rdi", b in "rsi");
    call3(a in "rdi", b in "rsi", c in "rdx");
    call4(a in "rdi", b in "rsi", c in "rdx", d in "r10");
    call6(a in "rdi", b in "rsi", c in "rdx", d in "r10", e in "r8", f in "r9");
}

/// A process or thread.
pub type Pid = usize;
/// An open file.
pub type Fd = usize;

#[inline(always)]
pub fn getpid() -> Pid {
    // SAFETY: it only asks.
    unsafe { call0(abi::__NR_getpid) as usize }
}

pub fn gettid() -> Pid {
    // SAFETY: it only asks.
    unsafe { call0(abi::__NR_gettid) as usize }
}

/// Ends the process.
pub fn exit(status: i32) -> ! {
    loop {
        // SAFETY: nothing is left to be done.
        unsafe { call1(abi::__NR_exit_group, status as usize) };
    }
}

/// fork(2): 0 in the child.
#[inline(always)]
pub fn fork() -> Pid {
    // SAFETY: this program has no state that a fork would break.
    let pid = unsafe { call6(abi::__NR_clone, abi::SIGCHLD as usize, 0, 0, 0, 0, 0) };
    done(pid, "fork")
}

/// Waits for a child; gives its wait status.
#[inline(always)]
pub fn wait(pid: Pid) -> i32 {
    let mut status = 0;
    // SAFETY: a place for the status.
    let ended = unsafe { call4(abi::__NR_wait4, pid, &raw mut status as usize, 0, 0) };
    check::require(ended == pid as isize, "wait4 gives the child");
    status
}

/// Waits for any child; gives its wait status.
pub fn wait_any() -> i32 {
    let mut status = 0;
    // SAFETY: a place for the status.
    done(
        unsafe { call4(abi::__NR_wait4, usize::MAX, &raw mut status as usize, 0, 0) },
        "wait4",
    );
    status
}

/// Runs the program at `path` (ended by NUL) with one argument besides its name. It only comes back if that fails.
pub fn exec(path: &'static str, argument: &'static str) -> ! {
    let arguments = [path.as_ptr(), argument.as_ptr(), ptr::null()];
    let environment = [ptr::null::<u8>()];
    // SAFETY: strings ended by NUL in arrays ended by null.
    unsafe {
        call3(
            abi::__NR_execve,
            path.as_ptr().addr(),
            arguments.as_ptr().addr(),
            environment.as_ptr().addr(),
        );
    }
    check::fail("execve")
}

pub fn pipe() -> [Fd; 2] {
    let mut ends = [0i32; 2];
    // SAFETY: a place for two descriptors.
    done(
        unsafe { call2(abi::__NR_pipe2, &raw mut ends as usize, 0) },
        "pipe2",
    );
    ends.map(|fd| fd as usize)
}

#[inline(always)]
pub fn read(fd: Fd, bytes: &mut [u8]) -> isize {
    // SAFETY: a place for so many bytes.
    unsafe { call3(abi::__NR_read, fd, bytes.as_mut_ptr().addr(), bytes.len()) }
}

#[inline(always)]
pub fn write(fd: Fd, bytes: &[u8]) -> isize {
    // SAFETY: so many bytes are there.
    unsafe { call3(abi::__NR_write, fd, bytes.as_ptr().addr(), bytes.len()) }
}

pub fn close(fd: Fd) {
    // SAFETY: the caller is done with it.
    done(unsafe { call1(abi::__NR_close, fd) }, "close");
}

/// Opens `path` (ended by NUL).
pub fn open(path: &str, flags: u32, mode: u32) -> isize {
    debug_assert!(path.ends_with('\0'));
    // SAFETY: a string ended by NUL.
    unsafe {
        call4(
            abi::__NR_openat,
            abi::AT_FDCWD as usize,
            path.as_ptr().addr(),
            flags as usize,
            mode as usize,
        )
    }
}

/// Sends a signal to a thread of this process.
#[inline(always)]
pub fn signal_thread(thread: Pid, signal: u32) {
    // SAFETY: a handler is there.
    unsafe { call3(abi::__NR_tgkill, getpid(), thread, signal as usize) };
}

/// Sends a signal to this process.
#[inline(always)]
pub fn kill(process: Pid, signal: u32) {
    // SAFETY: a handler is there.
    unsafe { call2(abi::__NR_kill, process, signal as usize) };
}

pub fn sched_yield() {
    // SAFETY: it only waits its turn.
    unsafe { call0(abi::__NR_sched_yield) };
}

pub fn sleep_seconds(seconds: i64) {
    let time = abi::__kernel_timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    // SAFETY: a valid time.
    unsafe { call2(abi::__NR_nanosleep, &raw const time as usize, 0) };
}

/// Memory that nobody uses, in bytes.
pub fn free_memory() -> u64 {
    let mut info = core::mem::MaybeUninit::<linux_raw_sys::system::sysinfo>::zeroed();
    // SAFETY: a place for the structure, of which any bytes are valid.
    let info = unsafe {
        call1(abi::__NR_sysinfo, info.as_mut_ptr().addr());
        info.assume_init()
    };
    info.freeram * u64::from(info.mem_unit)
}

/// Turns the machine off.
pub fn power_off() -> ! {
    // SAFETY: that is what is wanted.
    unsafe {
        call4(
            abi::__NR_reboot,
            abi::LINUX_REBOOT_MAGIC1 as usize,
            abi::LINUX_REBOOT_MAGIC2 as usize,
            abi::LINUX_REBOOT_CMD_POWER_OFF as usize,
            0,
        );
    }
    exit(1)
}

/// A handler with all three arguments.
pub type Handler = extern "C" fn(c_int, *mut abi::siginfo_t, *mut core::ffi::c_void);

global_asm!(
    ".globl bench_restorer",
    "bench_restorer:",
    "mov eax, {sigreturn}",
    "syscall",
    "ud2",
    // bench_clone(flags, stack, thread id's place): the new thread finds its function and its argument on the stack.
    ".globl bench_clone",
    "bench_clone:",
    "mov eax, {clone}",
    "mov r10, rdx",
    "xor r8d, r8d",
    "syscall",
    "test rax, rax",
    "jnz 2f",
    "xor ebp, ebp",
    "pop rax",
    "pop rdi",
    "call rax",
    "xor edi, edi",
    "mov eax, {exit}",
    "syscall",
    "2: ret",
    sigreturn = const abi::__NR_rt_sigreturn,
    clone = const abi::__NR_clone,
    exit = const abi::__NR_exit,
);

unsafe extern "C" {
    safe fn bench_restorer();
    /// # Safety
    /// `stack` points to a function and its argument, the last words of a stack that outlives the thread.
    pub fn bench_clone(flags: usize, stack: *mut usize, thread_id: *mut u32) -> isize;
}

/// What rt_sigaction(2) takes for a handler.
pub fn action(handler: Handler, flags: u32) -> abi::kernel_sigaction {
    // SAFETY: the kernel calls it with three arguments; its type in the structure names only the first one.
    let handler = unsafe { core::mem::transmute::<Handler, unsafe extern "C" fn(c_int)>(handler) };
    abi::kernel_sigaction {
        sa_handler_kernel: Some(handler),
        sa_flags: u64::from(flags | abi::SA_SIGINFO | abi::SA_RESTORER),
        sa_restorer: Some(bench_restorer as unsafe extern "C" fn()),
        sa_mask: abi::kernel_sigset_t { sig: [0] },
    }
}

/// Size of the kernel's signal sets.
pub const SIGNAL_SET: usize = 8;

/// Sets a handler.
pub fn on(signal: u32, handler: Handler, flags: u32) {
    let action = action(handler, flags);
    // SAFETY: a valid action.
    let result = unsafe {
        call4(
            abi::__NR_rt_sigaction,
            signal as usize,
            &raw const action as usize,
            0,
            SIGNAL_SET,
        )
    };
    done(result, "rt_sigaction");
}
