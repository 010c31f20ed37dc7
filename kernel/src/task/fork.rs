//! clone(2), and with it fork(2) and vfork(2): a new process or a new thread (`kernel/fork.c`).

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::table::{self, NewId};
use super::{Process, Thread, rseq, user_tasks};
use crate::arch::{PtRegs, ThreadState};
use crate::errno::{Errno, Result};
use crate::mm::uaccess::UserPtr;
use crate::mm::{Mm, reclaim};
use crate::sched::{self, Sleep, current};
use crate::signal::{AltStack, SharedActions, SigSet, Signal, ThreadSignals, signal_pending};
use crate::syscall::pidfd;
use crate::task::rlimit::Resource;

/// What is to be made, and what it is to find.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneOptions {
    /// A thread of the current process.
    pub thread: bool,
    /// The child uses the parent's memory itself, not a copy. Always so for threads.
    pub share_memory: bool,
    /// The child uses the parent's descriptors themselves, not copies.
    pub share_files: bool,
    /// The child uses the parent's working directory and umask themselves.
    pub share_fs: bool,
    /// The child uses the parent's signal actions themselves. Always so for threads.
    pub share_actions: bool,
    /// The parent sleeps until the child does not use its memory any more.
    pub vfork: bool,
    /// Handlers go back to the default in the child.
    pub clear_handlers: bool,
    /// The child's parent is the caller's own.
    pub sibling: bool,
    /// The number that the child shall have.
    pub number: Option<u32>,
    /// Where the parent's memory gets a descriptor of the child.
    pub pidfd: Option<usize>,
    /// What the parent gets when the child ends.
    pub exit_signal: Option<Signal>,
    /// Another stack pointer; 0: the parent's.
    pub stack: usize,
    /// Another FS base.
    pub tls: Option<usize>,
    /// Where the parent's memory gets the child's tid.
    pub parent_tid: Option<usize>,
    /// Where the child's memory gets its tid.
    pub set_child_tid: Option<usize>,
    /// Where the child's memory is cleared at its end.
    pub clear_child_tid: Option<usize>,
}

/// Makes a child process or a thread that returns 0 from the call in `regs`. Returns its number. `EAGAIN`, `ENOMEM`;
/// `ERESTARTNOINTR` if a signal is pending, which is to be taken before there are two that could.
pub fn clone(regs: &PtRegs, options: &CloneOptions) -> Result<u32> {
    let parent = current();
    if signal_pending(&parent) {
        return Err(Errno::ERESTARTNOINTR);
    }
    check_limit(&parent.process)?;
    let id = match options.number {
        Some(number) => table::chosen_id(number)?,
        None => table::new_id()?,
    };
    let tid = id.get();
    let process = match options.thread {
        true => parent.process.clone(),
        false => new_process(&parent, tid, options)?,
    };
    let thread = new_thread(&parent, process, tid, regs, options)?;
    let pidfd = match options.pidfd {
        Some(address) => Some(tell_pidfd(&thread.process, address)?),
        None => None,
    };
    if options.thread {
        join_group(&thread, id)?;
    } else if let Err(error) = adopt(&parent, &thread, options.sibling, id) {
        pidfd.map(|fd| parent.files().remove(fd as i32));
        return Err(error);
    }
    // As on Linux, a word that cannot be written is no error. The child reads it, so it comes before the child's first step.
    if let Some(address) = options.parent_tid {
        let _ = UserPtr::<u32>::new(address).write(tid);
    }
    let awaited = options.vfork.then(|| thread.clone());
    sched::spawn(thread);
    if let Some(child) = awaited {
        wait_for_vfork_end(&child);
    }
    Ok(tid)
}

/// Makes a descriptor of the process and writes its number. `EFAULT`, `EMFILE`.
fn tell_pidfd(process: &Arc<Process>, address: usize) -> Result<u32> {
    let fd = pidfd::install(process.clone(), 0)?;
    let told = UserPtr::<u32>::new(address).write(fd);
    if told.is_err() {
        drop(current().files().remove(fd as i32));
    }
    told.map(|()| fd)
}

/// RLIMIT_NPROC counts threads of the same user, and is not for root; nobody gets more than there is memory for.
fn check_limit(process: &Process) -> Result {
    if table::thread_count().max(table::count()) >= table::max_threads() {
        return Err(Errno::EAGAIN);
    }
    let identity = process.credentials.get();
    if identity.is_privileged() || identity.user.real == 0 {
        return Ok(());
    }
    match user_tasks::of(identity.user.real) < process.rlimits.soft(Resource::Processes) {
        true => Ok(()),
        false => Err(Errno::EAGAIN),
    }
}

fn new_process(parent: &Thread, pid: u32, options: &CloneOptions) -> Result<Arc<Process>> {
    let mm = child_mm(&parent.process, options.share_memory)?;
    let process = parent.process.fork(pid, mm)?;
    *process.name.lock() = parent.name();
    process.set_exit_signal(options.exit_signal);
    if options.share_actions {
        let room = SharedActions::new()?;
        let shared = parent.process.signals.lock().share_actions(room);
        process.signals.lock().join_actions(shared);
    } else if options.clear_handlers {
        process.signals.lock().reset_handlers();
    }
    Ok(process)
}

fn child_mm(parent: &Process, share: bool) -> Result<Arc<Mm>> {
    match share {
        true => parent.mm().ok_or(Errno::ENOMEM),
        false => parent.current_mm().ok_or(Errno::ENOMEM)?.fork(),
    }
}

fn new_thread(
    parent: &Thread,
    process: Arc<Process>,
    tid: u32,
    regs: &PtRegs,
    options: &CloneOptions,
) -> Result<Arc<Thread>> {
    let mut child_regs = PtRegs::clone(regs);
    child_regs.set_return_value(0);
    if options.stack != 0 {
        child_regs.set_sp(options.stack);
    }
    let mut arch = reclaim::retry(|| ThreadState::fork_from(&parent.arch, &child_regs))?;
    if let Some(tls) = options.tls {
        arch.set_initial_fs_base(tls);
    }
    let view = parent.view_for_child(options.share_files, options.share_fs)?;
    let signals = inherited_signals(parent, options)?;
    let thread = Thread::new(tid, process, view, arch, signals, None)?;
    thread.sched.inherit(&parent.sched);
    if !options.share_memory {
        rseq::inherit(&thread, parent);
    }
    thread.no_new_privs.store(
        parent.no_new_privs.load(Ordering::Relaxed),
        Ordering::Relaxed,
    );
    thread.timer_slack_ns.store(
        parent.timer_slack_ns.load(Ordering::Relaxed),
        Ordering::Relaxed,
    );
    if options.thread {
        thread.set_name(parent.name());
    }
    for (to, address) in [
        (&thread.set_child_tid, options.set_child_tid),
        (&thread.clear_child_tid, options.clear_child_tid),
    ] {
        to.store(address.unwrap_or(0) as u64, Ordering::Relaxed);
    }
    Ok(thread)
}

/// The mask is inherited, pending signals are not; the alternate stack is, unless both would run on it at once.
fn inherited_signals(parent: &Thread, options: &CloneOptions) -> Result<ThreadSignals> {
    let mut signals = ThreadSignals::new(SigSet::EMPTY)?;
    let own = parent.signals.lock();
    signals.blocked = own.blocked;
    signals.altstack = match options.share_memory && !options.vfork {
        true => AltStack::RESET,
        false => own.altstack,
    };
    drop(own);
    Ok(signals)
}

/// From here on the child process exists. With `sibling` its parent is the one of `maker`'s process. `ERESTARTNOINTR` if that has just
/// ended, `EAGAIN`.
fn adopt(maker: &Thread, thread: &Arc<Thread>, sibling: bool, id: NewId) -> Result {
    let (child, own) = (&thread.process, &maker.process);
    let parent = match sibling {
        true => own.parent().ok_or(Errno::ERESTARTNOINTR)?,
        false => own.clone(),
    };
    child.set_parent(parent.pid);
    child.set_maker(match sibling {
        true => own.maker(),
        false => maker.tid(),
    });
    maker.has_children.store(true, Ordering::Relaxed);
    if sibling {
        child.set_exit_signal(own.exit_signal());
    }
    user_tasks::first(child)?;
    child.signals.lock().threads.push_back(thread.clone());
    child.count_threads(1);
    table::insert(id, child.clone(), Some(thread.clone()), Some(own));
    if parent.pid != table::INIT_PID {
        parent.children.lock().push_back(child.clone());
    }
    Ok(())
}

/// From here on the thread exists; unless its process ends, stops or becomes another program, which the caller has to see first.
fn join_group(thread: &Arc<Thread>, id: NewId) -> Result {
    let mut signals = thread.process.signals.lock();
    if signals.group_exit.is_some() || signals.exec_by.is_some() || signals.stopped.is_some() {
        return Err(Errno::ERESTARTNOINTR);
    }
    user_tasks::more(&thread.process, &signals)?;
    thread.process.note_birth(thread);
    signals.threads.push_back(thread.clone());
    thread.process.count_threads(1);
    drop(signals);
    table::insert_thread(id, thread.clone());
    Ok(())
}

/// Sleeps until the child has called exec or ended; only a fatal signal ends the sleep earlier.
fn wait_for_vfork_end(child: &Thread) {
    let end = &child.vfork_end;
    let happened = || end.happened.load(Ordering::Acquire).then_some(());
    let _ = end.waiters.wait_until(Sleep::Killable, happened);
}
