//! System calls: one table, one file per family.
//!
//! A handler (`Plain`) gets the six argument registers and answers with a value or an error number; those that look at other registers or
//! change where user code goes on get all registers themselves (`WithRegs`). A number without a handler is `ENOSYS`, and is logged the first time.

mod args;
pub(crate) mod attr;
pub(crate) mod clone;
pub(crate) mod control;
pub(crate) mod credentials;
pub(crate) mod dir;
pub(crate) mod epoll;
pub(crate) mod fd;
pub(crate) mod futex;
pub(crate) mod io;
pub(crate) mod ioctl;
pub(crate) mod lock;
pub(crate) mod memory;
pub(crate) mod message_queue;
pub(crate) mod pidfd;
pub(crate) mod poll;
pub(crate) mod prctl;
pub(crate) mod process;
pub(crate) mod remote;
pub(crate) mod sched;
pub(crate) mod semaphore;
pub(crate) mod shared_memory;
pub(crate) mod signal;
pub(crate) mod socket;
pub(crate) mod stat;
pub(crate) mod system;
pub(crate) mod sysv_message;
#[cfg(all(test, not(target_os = "none")))]
mod tests;
pub(crate) mod time;
pub(crate) mod timer;
pub(crate) mod unshare;

use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use linux_raw_sys::general::*;

use crate::arch::{self, PtRegs};
use crate::errno::Errno;

/// What runs a system call and leaves its answer in the registers. Interrupts on, no lock held.
pub type Run = extern "C" fn(&mut PtRegs);

/// What the way in calls for that, and nobody else.
pub type Entered = unsafe extern "C" fn(&mut PtRegs);

/// What runs a handler: a function for each call, of the name of its number, so that a small handler becomes a part of it.
macro_rules! run {
    ($name:ident Plain $handler:expr) => {{
        extern "C" fn $name(regs: &mut PtRegs) {
            let answer = $handler(&regs.syscall_args());
            regs.set_return_value(answer.unwrap_or_else(Errno::to_ret));
        }
        $name
    }};
    ($name:ident WithRegs $handler:expr) => {{
        extern "C" fn $name(regs: &mut PtRegs) {
            let answer = $handler(regs);
            regs.set_return_value(answer.unwrap_or_else(Errno::to_ret));
        }
        $name
    }};
}

/// What the way in calls for a handler: the architecture does not have all registers in place from the beginning.
macro_rules! entered {
    (Plain $run:expr) => {
        $run
    };
    (WithRegs $run:expr) => {
        arch::with_all_registers
    };
}

/// One more than the highest number in the table.
pub const NUMBERS: usize = 512;

/// Builds the table, and one of the names for traces, from rows `number kind handler`.
macro_rules! table {
    ($($number:ident $kind:ident $handler:expr;)*) => {
        #[allow(non_snake_case, reason = "as the numbers are named")]
        static TABLE: [Run; NUMBERS] = {
            let mut table: [Run; NUMBERS] = [unknown; NUMBERS];
            $( table[$number as usize] = run!($number $kind $handler); )*
            table
        };
        static ENTERED: [Entered; NUMBERS] = {
            let mut table: [Entered; NUMBERS] = [unknown; NUMBERS];
            $( table[$number as usize] = entered!($kind TABLE[$number as usize]); )*
            table
        };
        static NAMES: [&str; NUMBERS] = {
            let mut names = [""; NUMBERS];
            $(
                assert!(names[$number as usize].is_empty(), "a call has two rows");
                names[$number as usize] = stringify!($number);
            )*
            names
        };
    };
}

table! {
    // Memory.
    __NR_mmap Plain memory::sys_mmap;
    __NR_munmap Plain memory::sys_munmap;
    __NR_mprotect Plain memory::sys_mprotect;
    __NR_brk Plain memory::sys_brk;
    __NR_mremap Plain memory::sys_mremap;
    __NR_madvise Plain memory::sys_madvise;
    __NR_mincore Plain memory::sys_mincore;
    __NR_msync Plain memory::sys_msync;
    __NR_mlock Plain memory::sys_mlock;
    __NR_mlock2 Plain memory::sys_mlock2;
    __NR_munlock Plain memory::sys_munlock;
    __NR_mlockall Plain memory::sys_mlockall;
    __NR_munlockall Plain memory::sys_munlockall;
    __NR_process_vm_readv Plain remote::sys_process_vm_readv;
    __NR_process_vm_writev Plain remote::sys_process_vm_writev;
    __NR_userfaultfd Plain memory::sys_userfaultfd;
    __NR_shmget Plain shared_memory::sys_shmget;
    __NR_shmat Plain shared_memory::sys_shmat;
    __NR_shmdt Plain shared_memory::sys_shmdt;
    __NR_shmctl Plain shared_memory::sys_shmctl;
    __NR_semget Plain semaphore::sys_semget;
    __NR_semop Plain semaphore::sys_semop;
    __NR_semtimedop Plain semaphore::sys_semtimedop;
    __NR_semctl Plain semaphore::sys_semctl;
    // Message queues.
    __NR_msgget Plain sysv_message::sys_msgget;
    __NR_msgsnd Plain sysv_message::sys_msgsnd;
    __NR_msgrcv Plain sysv_message::sys_msgrcv;
    __NR_msgctl Plain sysv_message::sys_msgctl;
    __NR_mq_open Plain message_queue::sys_mq_open;
    __NR_mq_unlink Plain message_queue::sys_mq_unlink;
    __NR_mq_timedsend Plain message_queue::sys_mq_timedsend;
    __NR_mq_timedreceive Plain message_queue::sys_mq_timedreceive;
    __NR_mq_notify Plain message_queue::sys_mq_notify;
    __NR_mq_getsetattr Plain message_queue::sys_mq_getsetattr;
    // Signals.
    __NR_rt_sigaction Plain signal::sys_rt_sigaction;
    __NR_rt_sigprocmask Plain signal::sys_rt_sigprocmask;
    __NR_rt_sigreturn WithRegs signal::sys_rt_sigreturn;
    __NR_rt_sigpending Plain signal::sys_rt_sigpending;
    __NR_rt_sigsuspend Plain signal::sys_rt_sigsuspend;
    __NR_rt_sigtimedwait Plain signal::sys_rt_sigtimedwait;
    __NR_rt_sigqueueinfo Plain signal::sys_rt_sigqueueinfo;
    __NR_rt_tgsigqueueinfo Plain signal::sys_rt_tgsigqueueinfo;
    __NR_sigaltstack WithRegs signal::sys_sigaltstack;
    __NR_pause Plain signal::sys_pause;
    __NR_kill Plain signal::sys_kill;
    __NR_tkill Plain signal::sys_tkill;
    __NR_tgkill Plain signal::sys_tgkill;
    // Time.
    __NR_clock_gettime Plain time::sys_clock_gettime;
    __NR_clock_getres Plain time::sys_clock_getres;
    __NR_gettimeofday Plain time::sys_gettimeofday;
    __NR_time Plain time::sys_time;
    __NR_times Plain time::sys_times;
    __NR_nanosleep Plain time::sys_nanosleep;
    __NR_clock_nanosleep Plain time::sys_clock_nanosleep;
    __NR_restart_syscall Plain time::sys_restart_syscall;
    __NR_alarm Plain timer::sys_alarm;
    __NR_setitimer Plain timer::sys_setitimer;
    __NR_getitimer Plain timer::sys_getitimer;
    __NR_timer_create Plain timer::sys_timer_create;
    __NR_timer_settime Plain timer::sys_timer_settime;
    __NR_timer_gettime Plain timer::sys_timer_gettime;
    __NR_timer_getoverrun Plain timer::sys_timer_getoverrun;
    __NR_timer_delete Plain timer::sys_timer_delete;
    __NR_timerfd_create Plain timer::sys_timerfd_create;
    __NR_timerfd_settime Plain timer::sys_timerfd_settime;
    __NR_timerfd_gettime Plain timer::sys_timerfd_gettime;
    __NR_clock_settime Plain time::sys_clock_settime;
    __NR_settimeofday Plain time::sys_settimeofday;
    __NR_adjtimex Plain time::sys_adjtimex;
    __NR_clock_adjtime Plain time::sys_clock_adjtime;
    // Processes.
    __NR_fork WithRegs clone::sys_fork;
    __NR_vfork WithRegs clone::sys_vfork;
    __NR_clone WithRegs clone::sys_clone;
    __NR_clone3 WithRegs clone::sys_clone3;
    __NR_futex Plain futex::sys_futex;
    __NR_get_robust_list Plain futex::sys_get_robust_list;
    __NR_rseq Plain process::sys_rseq;
    __NR_membarrier Plain process::sys_membarrier;
    __NR_execve WithRegs process::sys_execve;
    __NR_execveat WithRegs process::sys_execveat;
    __NR_exit Plain process::sys_exit;
    __NR_exit_group Plain process::sys_exit_group;
    __NR_wait4 Plain process::sys_wait4;
    __NR_waitid Plain process::sys_waitid;
    __NR_getrusage Plain process::sys_getrusage;
    __NR_getpid Plain process::sys_getpid;
    __NR_gettid Plain process::sys_gettid;
    __NR_getppid Plain process::sys_getppid;
    __NR_capget Plain credentials::sys_capget;
    __NR_capset Plain credentials::sys_capset;
    __NR_getuid Plain credentials::sys_getuid;
    __NR_geteuid Plain credentials::sys_geteuid;
    __NR_getgid Plain credentials::sys_getgid;
    __NR_getegid Plain credentials::sys_getegid;
    __NR_setuid Plain credentials::sys_setuid;
    __NR_setgid Plain credentials::sys_setgid;
    __NR_getresuid Plain credentials::sys_getresuid;
    __NR_getresgid Plain credentials::sys_getresgid;
    __NR_getgroups Plain credentials::sys_getgroups;
    __NR_setfsgid Plain credentials::sys_setfsgid;
    __NR_setfsuid Plain credentials::sys_setfsuid;
    __NR_setgroups Plain credentials::sys_setgroups;
    __NR_setreuid Plain credentials::sys_setreuid;
    __NR_setregid Plain credentials::sys_setregid;
    __NR_setresuid Plain credentials::sys_setresuid;
    __NR_setresgid Plain credentials::sys_setresgid;
    __NR_getpgid Plain process::sys_getpgid;
    __NR_getpgrp Plain process::sys_getpgrp;
    __NR_getsid Plain process::sys_getsid;
    __NR_setpgid Plain process::sys_setpgid;
    __NR_setsid Plain process::sys_setsid;
    __NR_set_tid_address Plain process::sys_set_tid_address;
    __NR_set_robust_list Plain futex::sys_set_robust_list;
    __NR_arch_prctl Plain process::sys_arch_prctl;
    __NR_prctl Plain prctl::sys_prctl;
    __NR_pidfd_open Plain pidfd::sys_pidfd_open;
    __NR_pidfd_send_signal Plain pidfd::sys_pidfd_send_signal;
    __NR_pidfd_getfd Plain pidfd::sys_pidfd_getfd;
    __NR_prlimit64 Plain process::sys_prlimit64;
    __NR_getrlimit Plain process::sys_getrlimit;
    __NR_setrlimit Plain process::sys_setrlimit;
    __NR_sched_yield Plain sched::sys_sched_yield;
    __NR_sched_getaffinity Plain sched::sys_sched_getaffinity;
    __NR_sched_setaffinity Plain sched::sys_sched_setaffinity;
    __NR_sched_getscheduler Plain sched::sys_sched_getscheduler;
    __NR_sched_getparam Plain sched::sys_sched_getparam;
    __NR_sched_setparam Plain sched::sys_sched_setparam;
    __NR_sched_setscheduler Plain sched::sys_sched_setscheduler;
    __NR_sched_get_priority_min Plain sched::sys_sched_get_priority_min;
    __NR_sched_get_priority_max Plain sched::sys_sched_get_priority_max;
    __NR_sched_rr_get_interval Plain sched::sys_sched_rr_get_interval;
    __NR_sched_setattr Plain sched::sys_sched_setattr;
    __NR_sched_getattr Plain sched::sys_sched_getattr;
    __NR_setpriority Plain sched::sys_setpriority;
    __NR_getpriority Plain sched::sys_getpriority;
    __NR_getcpu Plain sched::sys_getcpu;
    // Bytes.
    __NR_read Plain io::sys_read;
    __NR_write Plain io::sys_write;
    __NR_readv Plain io::sys_readv;
    __NR_writev Plain io::sys_writev;
    __NR_pread64 Plain io::sys_pread64;
    __NR_pwrite64 Plain io::sys_pwrite64;
    __NR_preadv Plain io::sys_preadv;
    __NR_pwritev Plain io::sys_pwritev;
    __NR_preadv2 Plain io::sys_preadv2;
    __NR_pwritev2 Plain io::sys_pwritev2;
    __NR_lseek Plain io::sys_lseek;
    __NR_sendfile Plain io::sys_sendfile;
    __NR_copy_file_range Plain io::sys_copy_file_range;
    __NR_splice Plain io::sys_splice;
    __NR_tee Plain io::sys_splice;
    __NR_vmsplice Plain io::sys_splice;
    __NR_getrandom Plain io::sys_getrandom;
    // Descriptors.
    __NR_open Plain fd::sys_open;
    __NR_openat Plain fd::sys_openat;
    __NR_creat Plain fd::sys_creat;
    __NR_close Plain fd::sys_close;
    __NR_close_range Plain fd::sys_close_range;
    __NR_dup Plain fd::sys_dup;
    __NR_dup2 Plain fd::sys_dup2;
    __NR_dup3 Plain fd::sys_dup3;
    __NR_fcntl Plain fd::sys_fcntl;
    __NR_flock Plain lock::sys_flock;
    __NR_socketpair Plain socket::sys_socketpair;
    __NR_socket Plain socket::sys_socket;
    __NR_bind Plain socket::sys_listen;
    __NR_listen Plain socket::sys_listen;
    __NR_accept Plain socket::sys_listen;
    __NR_accept4 Plain socket::sys_listen;
    __NR_connect Plain socket::sys_connect;
    __NR_sendto Plain socket::sys_sendto;
    __NR_recvfrom Plain socket::sys_recvfrom;
    __NR_sendmsg Plain socket::sys_sendmsg;
    __NR_recvmsg Plain socket::sys_recvmsg;
    __NR_shutdown Plain socket::sys_shutdown;
    __NR_getsockname Plain socket::sys_getsockname;
    __NR_getpeername Plain socket::sys_getpeername;
    __NR_getsockopt Plain socket::sys_getsockopt;
    __NR_setsockopt Plain socket::sys_setsockopt;
    __NR_pipe Plain fd::sys_pipe;
    __NR_pipe2 Plain fd::sys_pipe2;
    __NR_eventfd Plain fd::sys_eventfd;
    __NR_eventfd2 Plain fd::sys_eventfd2;
    __NR_signalfd Plain fd::sys_signalfd;
    __NR_signalfd4 Plain fd::sys_signalfd4;
    __NR_memfd_create Plain fd::sys_memfd_create;
    __NR_ioctl Plain ioctl::sys_ioctl;
    __NR_poll Plain poll::sys_poll;
    __NR_ppoll Plain poll::sys_ppoll;
    __NR_epoll_create Plain epoll::sys_epoll_create;
    __NR_epoll_create1 Plain epoll::sys_epoll_create1;
    __NR_epoll_ctl Plain epoll::sys_epoll_ctl;
    __NR_epoll_wait Plain epoll::sys_epoll_wait;
    __NR_epoll_pwait Plain epoll::sys_epoll_pwait;
    __NR_epoll_pwait2 Plain epoll::sys_epoll_pwait2;
    __NR_select Plain poll::sys_select;
    __NR_pselect6 Plain poll::sys_pselect6;
    // Files by name and their attributes.
    __NR_stat Plain stat::sys_stat;
    __NR_lstat Plain stat::sys_lstat;
    __NR_fstat Plain stat::sys_fstat;
    __NR_newfstatat Plain stat::sys_newfstatat;
    __NR_statx Plain stat::sys_statx;
    __NR_access Plain stat::sys_access;
    __NR_faccessat Plain stat::sys_faccessat;
    __NR_faccessat2 Plain stat::sys_faccessat2;
    __NR_readlink Plain stat::sys_readlink;
    __NR_readlinkat Plain stat::sys_readlinkat;
    __NR_statfs Plain stat::sys_statfs;
    __NR_fstatfs Plain stat::sys_fstatfs;
    __NR_getcwd Plain dir::sys_getcwd;
    __NR_chdir Plain dir::sys_chdir;
    __NR_fchdir Plain dir::sys_fchdir;
    __NR_getdents64 Plain dir::sys_getdents64;
    __NR_mkdir Plain dir::sys_mkdir;
    __NR_mkdirat Plain dir::sys_mkdirat;
    __NR_mknod Plain dir::sys_mknod;
    __NR_mknodat Plain dir::sys_mknodat;
    __NR_symlink Plain dir::sys_symlink;
    __NR_symlinkat Plain dir::sys_symlinkat;
    __NR_link Plain dir::sys_link;
    __NR_linkat Plain dir::sys_linkat;
    __NR_unlink Plain dir::sys_unlink;
    __NR_unlinkat Plain dir::sys_unlinkat;
    __NR_rmdir Plain dir::sys_rmdir;
    __NR_rename Plain dir::sys_rename;
    __NR_renameat Plain dir::sys_renameat;
    __NR_renameat2 Plain dir::sys_renameat2;
    __NR_umask Plain attr::sys_umask;
    __NR_unshare Plain unshare::sys_unshare;
    __NR_setns Plain unshare::sys_setns;
    __NR_chmod Plain attr::sys_chmod;
    __NR_fchmod Plain attr::sys_fchmod;
    __NR_fchmodat Plain attr::sys_fchmodat;
    __NR_chown Plain attr::sys_chown;
    __NR_lchown Plain attr::sys_lchown;
    __NR_fchown Plain attr::sys_fchown;
    __NR_fchownat Plain attr::sys_fchownat;
    __NR_utimensat Plain attr::sys_utimensat;
    __NR_utimes Plain attr::sys_utimes;
    __NR_truncate Plain attr::sys_truncate;
    __NR_ftruncate Plain attr::sys_ftruncate;
    __NR_fallocate Plain attr::sys_fallocate;
    __NR_sync Plain attr::sys_sync;
    __NR_fsync Plain attr::sys_fsync;
    __NR_fdatasync Plain attr::sys_fsync;
    __NR_syncfs Plain attr::sys_syncfs;
    __NR_fadvise64 Plain attr::sys_fadvise64;
    __NR_readahead Plain attr::sys_readahead;
    // The system.
    __NR_uname Plain system::sys_uname;
    __NR_sysinfo Plain system::sys_sysinfo;
}

/// The functions that the way in calls, by number; for others [`unknown`]. Handlers that need all registers stand in
/// [`CALLS_WITH_REGISTERS`], and [`arch::with_all_registers`] in their places.
pub static CALLS: AtomicPtr<[Entered; NUMBERS]> = AtomicPtr::new((&raw const ENTERED).cast_mut());

/// The functions that [`arch::with_all_registers`] calls. While calls are traced they are [`traced`], so that nobody asks at each call.
pub static CALLS_WITH_REGISTERS: AtomicPtr<[Run; NUMBERS]> =
    AtomicPtr::new((&raw const TABLE).cast_mut());

/// From now on system calls are written to the log, with their arguments.
pub fn trace_all() {
    static ENTERED: [Entered; NUMBERS] = [arch::with_all_registers; NUMBERS];
    static TRACED: [Run; NUMBERS] = [traced; NUMBERS];
    CALLS_WITH_REGISTERS.store((&raw const TRACED).cast_mut(), Ordering::Relaxed);
    CALLS.store((&raw const ENTERED).cast_mut(), Ordering::Relaxed);
}

extern "C" fn traced(regs: &mut PtRegs) {
    let number = regs.syscall_nr().unwrap_or(NUMBERS);
    match (TABLE.get(number), NAMES.get(number)) {
        (Some(run), Some(name)) => {
            log::trace!("{name}{:x?}", regs.syscall_args());
            run(regs);
        }
        _ => unknown(regs),
    }
}

/// Numbers that were logged, one bit each.
static LOGGED: [AtomicU64; NUMBERS / 64] = [const { AtomicU64::new(0) }; NUMBERS / 64];

/// A call that there is not.
#[cold]
pub extern "C" fn unknown(regs: &mut PtRegs) {
    let number = regs.syscall_nr().unwrap_or(usize::MAX);
    if let Some(word) = LOGGED.get(number / 64) {
        let bit = 1 << (number % 64);
        if word.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            log::info!("system call {number} is not implemented");
        }
    }
    regs.set_return_value(Errno::ENOSYS.to_ret());
}
