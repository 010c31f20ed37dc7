//! Tasks: processes, their threads, and how they begin and end.
//!
//! Lock order: process table > family > futex > signal state > run queue.

pub mod cpu_clock;
pub mod credentials;
pub mod exec;
pub mod exit;
pub mod file_view;
pub mod fork;
pub mod futex;
pub mod group;
pub mod init;
pub mod interval;
pub mod itimer;
pub mod numbers;
pub mod oom;
pub mod own_cell;
pub mod posix_timer;
pub mod process;
pub mod quota;
pub mod rlimit;
pub mod robust;
pub mod rseq;
pub mod table;
pub mod thread;
mod threads;
pub mod usage;
pub mod user_tasks;
pub mod wait;

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use crate::arch::{PtRegs, ThreadState, irq};
use crate::errno::Result;
use crate::mm::Mm;
use crate::mm::uaccess::UserPtr;
use crate::sched::{self, current};
use crate::signal::{SigSet, Signal, ThreadSignals, deliver};

use file_view::FileView;
pub use process::Process;
pub use thread::Thread;
use thread::flag;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// exit(2), low eight bits.
    Code(u8),
    /// Killed by a signal.
    Signal(Signal),
}

impl ExitStatus {
    /// As wait4(2) reports it.
    pub fn to_wait_status(self) -> i32 {
        match self {
            ExitStatus::Code(code) => (code as i32) << 8,
            ExitStatus::Signal(signal) => signal.number() as i32,
        }
    }
}

/// Does the work that is due before user code goes on: other threads, signals. Called by the architecture before every return
/// to user mode on which the thread's flags show work; interrupts are off, and off again when it returns.
pub fn exit_to_user_mode(regs: &mut PtRegs) {
    let thread = current();
    loop {
        let work = thread.flags.load(Ordering::Acquire) & flag::EXIT_WORK;
        if work == 0 {
            return;
        }
        irq::enable();
        if work & flag::NEED_RESCHED != 0 {
            sched::schedule();
        }
        // Without a switch there was nobody to interfere; one that has happened meanwhile is seen in the next round.
        if thread.has_flag(flag::SWITCHED) {
            thread.clear_flag(flag::SWITCHED);
            rseq::abort_if_inside(regs);
        }
        if work & flag::SIGPENDING != 0 {
            deliver::deliver(regs);
        }
        let _ = irq::disable();
    }
}

/// The first thing that runs on a new kernel stack, with interrupts off. Returns for user threads, which go on to user mode.
pub fn thread_start() {
    sched::finish_switch();
    let thread = current();
    if let Some(entry) = thread.kernel_entry {
        irq::enable();
        entry();
        exit::exit_kernel_thread();
    }
    let tid_address = thread.set_child_tid.load(Ordering::Relaxed) as usize;
    if tid_address != 0 {
        irq::enable();
        // As on Linux, a word that cannot be written is no error.
        let _ = UserPtr::<u32>::new(tid_address).write(thread.tid());
        let _ = irq::save();
    }
}

/// Starts a kernel thread that runs `entry`. `ENOMEM`.
pub fn kernel_thread(name: &str, entry: fn()) -> Result {
    let process = table::kernel_process();
    let signals = ThreadSignals::new(SigSet(!0))?;
    let id = table::new_id()?;
    let thread = Thread::new(
        id.get(),
        process.clone(),
        FileView::of_kernel()?,
        ThreadState::new_kernel()?,
        signals,
        Some(entry),
    )?;
    log::debug!("kernel thread {} is {name}", thread.tid());
    process.signals.lock().threads.push_back(thread.clone());
    process.count_threads(1);
    table::insert_thread(id, thread.clone());
    sched::spawn(thread);
    Ok(())
}

/// Prepares the scheduler: the calling context becomes the idle thread. Once, at bring-up.
pub fn start() -> Result {
    let process = Process::kernel()?;
    table::set_kernel_process(process.clone());
    let idle = Thread::new(
        0,
        process,
        FileView::of_kernel()?,
        ThreadState::new_kernel()?,
        ThreadSignals::new(SigSet(!0))?,
        Some(|| {}),
    )?;
    sched::start(idle);
    Ok(())
}

/// A new user process below init, whose thread, not running yet, begins in the kernel with `entry`: that makes it a program, or
/// ends it. `ENOMEM`.
fn child_of_init(entry: fn()) -> Result<Arc<Thread>> {
    let id = table::new_id()?;
    let process = Process::first(id.get(), Mm::new()?)?;
    process.set_parent(table::INIT_PID);
    let thread = Thread::new(
        process.pid,
        process.clone(),
        FileView::new()?,
        ThreadState::new_user(&PtRegs::new_user(0, 0))?,
        ThreadSignals::new(SigSet::EMPTY)?,
        Some(entry),
    )?;
    process.signals.lock().threads.push_back(thread.clone());
    process.count_threads(1);
    table::insert(id, process, Some(thread.clone()), None);
    Ok(thread)
}

/// Runs `entry` in a user process of its own, for tests. On hardware `entry` does not return: it ends the process.
#[cfg(any(test, not(target_os = "none")))]
pub(crate) fn spawn_test_process(entry: fn()) -> Result {
    sched::spawn(child_of_init(entry)?);
    Ok(())
}

/// A thread that nobody runs, for tests of what holds threads.
#[cfg(all(test, not(target_os = "none")))]
pub(crate) fn idle_test_thread() -> Arc<Thread> {
    let state = ThreadState::new_kernel().expect("memory");
    let signals = ThreadSignals::new(SigSet::EMPTY).expect("memory");
    let process = table::kernel_process().clone();
    let view = FileView::of_kernel().expect("memory");
    let id = table::new_id().expect("a number");
    Thread::new(id.get(), process, view, state, signals, Some(|| {})).expect("memory")
}

/// A process whose threads nobody runs, in no table, for tests of what is decided about them. Process and threads keep each other.
#[cfg(all(test, not(target_os = "none")))]
pub(crate) fn idle_test_process(threads: usize) -> (Arc<Process>, Vec<Arc<Thread>>) {
    let space = Mm::new().expect("memory");
    let new_id = || table::new_id().expect("a number").get();
    let process = Process::first(new_id(), space).expect("memory");
    let thread = |n| {
        let id = if n == 0 { process.pid } else { new_id() };
        let state = ThreadState::new_kernel().expect("memory");
        let signals = ThreadSignals::new(SigSet::EMPTY).expect("memory");
        let view = FileView::of_kernel().expect("memory");
        let thread = Thread::new(id, process.clone(), view, state, signals, Some(|| {}));
        let thread = thread.expect("memory");
        process.signals.lock().threads.push_back(thread.clone());
        thread
    };
    let threads = (0..threads).map(thread).collect();
    (process, threads)
}
