//! fork(2) and vfork(2): a new process.

use alloc::sync::Arc;

use super::{Process, Thread, table};
use crate::arch::{PtRegs, ThreadState};
use crate::errno::{Errno, Result};
use crate::mm::reclaim;
use crate::sched::{self, current};
use crate::signal::ThreadSignals;
use crate::task::rlimit::Resource;

/// What the child is to find.
#[derive(Clone, Copy, Debug, Default)]
pub struct ForkOptions {
    /// Another stack pointer; 0: the parent's.
    pub stack: usize,
    /// Another FS base.
    pub tls: Option<usize>,
    /// Where the child's memory gets its tid.
    pub set_child_tid: Option<usize>,
    /// Where the child's memory is cleared at its end.
    pub clear_child_tid: Option<usize>,
}

/// Makes a child of the current process that returns 0 from the call in `regs`. Returns the child. `EAGAIN`, `ENOMEM`.
pub fn fork(regs: &PtRegs, options: ForkOptions) -> Result<Arc<Process>> {
    let parent = current();
    let limit = parent.process.rlimits.soft(Resource::Processes);
    if table::count() as u64 >= limit {
        return Err(Errno::EAGAIN);
    }
    let mm = parent.process.current_mm().ok_or(Errno::ENOMEM)?.fork()?;
    let process = parent.process.fork(table::new_id(), mm)?;
    let mut child_regs = PtRegs::clone(regs);
    child_regs.set_return_value(0);
    if options.stack != 0 {
        child_regs.set_sp(options.stack);
    }
    let mut arch = reclaim::retry(|| ThreadState::fork_from(&parent.arch, &child_regs))?;
    if let Some(tls) = options.tls {
        arch.set_initial_fs_base(tls);
    }
    let signals = inherited_signals(&parent);
    let thread = Thread::new(process.pid, process.clone(), arch, signals, None)?;
    if let Some(address) = options.set_child_tid {
        thread
            .set_child_tid
            .store(address as u64, core::sync::atomic::Ordering::Relaxed);
    }
    if let Some(address) = options.clear_child_tid {
        thread
            .clear_child_tid
            .store(address as u64, core::sync::atomic::Ordering::Relaxed);
    }
    adopt(&parent.process, &process, thread);
    Ok(process)
}

/// The mask and the alternate stack are inherited, pending signals are not.
fn inherited_signals(parent: &Thread) -> ThreadSignals {
    let own = parent.signals.lock();
    let mut signals = ThreadSignals::new(own.blocked);
    signals.altstack = own.altstack;
    signals
}

/// From here on the child exists.
fn adopt(parent: &Process, child: &Arc<Process>, thread: Arc<Thread>) {
    child.signals.lock().threads.push_back(thread.clone());
    table::insert(child.clone());
    parent.children.lock().push_back(child.clone());
    sched::spawn(thread);
}
