//! A thread: what the scheduler switches between.
//!
//! Fields are grouped by who may touch them. The assembly at the user boundary reads `flags`; everything else is reached
//! through methods.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use intrusive_collections::LinkedListAtomicLink;

use super::cpu_clock::CpuTimers;
use super::file_view::{FileView, ViewCells};
use super::process::Process;
use super::usage::Counts;
use crate::arch::ThreadState;
use crate::errno::Result;
use crate::sched::timer::Deadline;
use crate::sched::{self, Entity, WaitQueue};
use crate::signal::ThreadSignals;
use crate::sync::{IrqLock, SpinLock, rank};

/// Work to do before the thread goes (back) to user mode; bits of [`Thread::flags`].
pub mod flag {
    /// A signal may have to be delivered.
    pub const SIGPENDING: u32 = 1 << 0;
    /// Another thread wants the CPU.
    pub const NEED_RESCHED: u32 = 1 << 1;
    /// The exit path calls `exit_to_user_mode` if one is set.
    pub const EXIT_WORK: u32 = SIGPENDING | NEED_RESCHED | SWITCHED;
    /// SIGKILL is in the private queue: waits that only fatal signals end are over.
    pub const FATAL_SIGNAL: u32 = 1 << 2;
    /// The FPU registers are another thread's: the architecture loads the thread's own on the way to user mode.
    pub const NEED_FPU: u32 = 1 << 3;
    /// Another thread has run since user mode was left, and a restartable sequence may have to be aborted.
    pub const SWITCHED: u32 = 1 << 5;
    /// The thread ends: it takes no signal any more.
    pub const EXITING: u32 = 1 << 4;
}

/// Fault counts of a thread, as in getrusage(2).
#[derive(Default)]
pub struct FaultCounts {
    pub minor: AtomicU64,
    pub major: AtomicU64,
}

/// An interrupted call with a relative time-out, to be continued with what is left of it.
#[derive(Clone, Copy)]
pub enum RestartBlock {
    None,
    /// nanosleep(2): until when, ns since boot, and where to write the rest if interrupted again.
    Nanosleep {
        deadline_ns: u64,
        remaining: usize,
    },
    /// poll(2): its arguments, and until when.
    Poll {
        fds: usize,
        nfds: usize,
        deadline_ns: Option<u64>,
    },
    /// futex(2), FUTEX_WAIT or FUTEX_WAIT_BITSET with a time-out.
    Futex {
        address: usize,
        shared: bool,
        expected: u32,
        bitset: u32,
        deadline: Deadline,
    },
}

/// The end of a vfork(2) child's use of its parent's memory.
#[derive(Default)]
pub struct VforkEnd {
    pub happened: AtomicBool,
    pub waiters: WaitQueue,
}

/// How late timers may ring, ns, unless a thread wants it otherwise.
pub const DEFAULT_TIMER_SLACK_NS: u64 = 50_000;

/// A thread's name (`comm`), NUL-padded.
pub type Name = [u8; 16];

/// One thread of a process, or a kernel thread.
pub struct Thread {
    /// Bits of [`flag`]. First, so that entry code finds it without an offset.
    pub flags: AtomicU32,
    /// Changes only when exec makes the thread its process's first.
    tid: AtomicU32,
    pub process: Arc<Process>,
    /// Open files, working directory, umask; reached through the methods in `file_view`.
    pub(super) view: ViewCells,
    /// Registers, kernel stack, FPU: the architecture's own.
    pub arch: ThreadState,
    /// Run state and queue link: the scheduler's own.
    pub sched: Entity,
    /// In the process's list of threads, under the process's signal lock.
    pub group_link: LinkedListAtomicLink,
    /// Where it stands in it: greater than those before it. The first has 1.
    pub(super) birth: AtomicU64,
    /// Mask, private queue, alternate stack. Locked by rank THREAD_SIGNAL.
    pub signals: IrqLock<ThreadSignals>,
    pub faults: FaultCounts,
    /// Timers on the thread's CPU clocks.
    pub cpu_timers: CpuTimers,
    /// Where to write 0 and wake a futex at exit (set_tid_address(2)); 0: nowhere. Only the thread itself uses it.
    pub clear_child_tid: AtomicU64,
    /// The user's list of robust futexes (set_robust_list(2)); 0: none. Only the thread itself changes it.
    pub robust_list: AtomicU64,
    /// The name of a thread that is not its process's first, whose name is the process's.
    own_name: SpinLock<Name>,
    /// Whoever made the thread with CLONE_VFORK waits here.
    pub vfork_end: VforkEnd,
    /// Where the thread writes its number when it first runs (CLONE_CHILD_SETTID); 0: nowhere.
    pub set_child_tid: AtomicU64,
    /// While not zero, page faults of the kernel on user addresses go to the exception table at once.
    pub pagefault_disabled: AtomicU32,
    /// How restart_syscall(2) goes on; only the thread itself uses it.
    pub restart: SpinLock<RestartBlock>,
    /// execve(2) gives no new privileges (PR_SET_NO_NEW_PRIVS). Inherited, never cleared.
    pub no_new_privs: AtomicBool,
    /// Kept and shown: timers ring as early as they can (PR_SET_TIMERSLACK).
    pub timer_slack_ns: AtomicU64,
    /// It has children that are its own (`__WNOTHREAD`, PR_SET_PDEATHSIG).
    pub(super) has_children: AtomicBool,
    /// The registered structure of restartable sequences, its length and its signature ([`super::rseq`]); 0: none.
    pub rseq: AtomicU64,
    pub rseq_len: AtomicU32,
    pub rseq_signature: AtomicU32,
    /// What a kernel thread runs; user threads have none.
    pub(super) kernel_entry: Option<fn()>,
}

impl Thread {
    /// A thread that nobody runs yet.
    pub(super) fn new(
        tid: u32,
        process: Arc<Process>,
        view: FileView,
        arch: ThreadState,
        signals: ThreadSignals,
        kernel_entry: Option<fn()>,
    ) -> Result<Arc<Thread>> {
        Ok(Arc::try_new(Thread {
            flags: AtomicU32::new(0),
            tid: AtomicU32::new(tid),
            process,
            view: ViewCells::new(view),
            arch,
            sched: Entity::new(),
            group_link: LinkedListAtomicLink::new(),
            birth: AtomicU64::new(1),
            signals: IrqLock::new(rank::THREAD_SIGNAL, signals),
            faults: FaultCounts::default(),
            cpu_timers: CpuTimers::new(),
            clear_child_tid: AtomicU64::new(0),
            robust_list: AtomicU64::new(0),
            own_name: SpinLock::new(rank::LEAF, [0; 16]),
            vfork_end: VforkEnd::default(),
            set_child_tid: AtomicU64::new(0),
            pagefault_disabled: AtomicU32::new(0),
            restart: SpinLock::new(rank::LEAF, RestartBlock::None),
            no_new_privs: AtomicBool::new(false),
            timer_slack_ns: AtomicU64::new(DEFAULT_TIMER_SLACK_NS),
            has_children: AtomicBool::new(false),
            rseq: AtomicU64::new(0),
            rseq_len: AtomicU32::new(0),
            rseq_signature: AtomicU32::new(0),
            kernel_entry,
        })?)
    }

    #[inline]
    pub fn tid(&self) -> u32 {
        self.tid.load(Ordering::Relaxed)
    }

    /// Takes the number of its process's first thread. The thread is not in the table.
    pub(super) fn become_first(&self) {
        self.tid.store(self.process.pid, Ordering::Relaxed);
    }

    pub(super) fn birth(&self) -> u64 {
        self.birth.load(Ordering::Relaxed)
    }

    /// Whether the thread is its process's first, whose number is the process's.
    #[inline]
    pub fn is_first(&self) -> bool {
        self.tid() == self.process.pid
    }

    /// The thread's name (`comm`).
    pub fn name(&self) -> Name {
        if self.is_first() {
            *self.process.name.lock()
        } else {
            *self.own_name.lock()
        }
    }

    pub fn set_name(&self, name: Name) {
        if self.is_first() {
            *self.process.name.lock() = name;
        } else {
            *self.own_name.lock() = name;
        }
    }

    /// What the thread has used, the turn that it has now included if it is the current one.
    pub fn counts(&self) -> Counts {
        let turn = match core::ptr::eq(self, &*sched::current()) {
            true => self.sched.current_turn_ns(),
            false => 0,
        };
        let (voluntary, involuntary) = self.sched.switches();
        Counts {
            cpu_ns: self.sched.cpu_time_ns() + turn,
            system_ns: self.sched.system_time_ns(),
            minor: self.faults.minor.load(Ordering::Relaxed),
            major: self.faults.major.load(Ordering::Relaxed),
            voluntary,
            involuntary,
        }
    }

    #[inline]
    pub fn set_flag(&self, flag: u32) {
        self.flags.fetch_or(flag, Ordering::Release);
    }

    #[inline]
    pub fn clear_flag(&self, flag: u32) {
        self.flags.fetch_and(!flag, Ordering::Relaxed);
    }

    #[inline]
    pub fn has_flag(&self, flag: u32) -> bool {
        self.flags() & flag != 0
    }

    /// All of [`flag`] that are set.
    #[inline]
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Acquire)
    }
}
