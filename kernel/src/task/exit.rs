//! The end of threads and processes (`kernel/exit.c`).

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::process::Events;
use super::table::{self, INIT_PID};
use super::{ExitStatus, Process, Thread, init, wait};
use crate::mm::uaccess::UserPtr;
use crate::sched::{self, current};
use crate::signal::action::{Disposition, sa};
use crate::signal::{Signal, code, send};

/// exit_group(2): ends all threads of the current process.
pub fn exit_group(status: ExitStatus) -> ! {
    send::end_process(&current().process, status);
    exit_thread(status)
}

/// Ends the current thread; with the last one the process, whose status is the group's if it is being killed, else `status`.
pub fn exit_thread(status: ExitStatus) -> ! {
    let thread = current().arc();
    clear_child_tid(&thread);
    if leave_group(&thread) {
        let status = thread.process.signals.lock().group_exit.unwrap_or(status);
        end_process(&thread.process, status);
    }
    drop(thread);
    sched::exit_current()
}

/// Ends a kernel thread whose function returned.
pub(super) fn exit_kernel_thread() -> ! {
    let thread = current().arc();
    leave_group(&thread);
    drop(thread);
    sched::exit_current()
}

/// set_tid_address(2): tells whoever joins the thread. A word that cannot be written is no reason to wait, or to fail.
fn clear_child_tid(thread: &Thread) {
    let address = thread.clear_child_tid.load(Ordering::Relaxed) as usize;
    let alone = thread.process.signals.lock().threads.iter().count() == 1;
    if address != 0 && !alone {
        let _ = UserPtr::<u32>::new(address).write(0);
    }
}

/// Takes the thread out of its process; whether it was the last one.
fn leave_group(thread: &Arc<Thread>) -> bool {
    let process = &thread.process;
    process.usage.add(
        thread.sched.cpu_time_ns(),
        thread.faults.minor.load(Ordering::Relaxed),
        thread.faults.major.load(Ordering::Relaxed),
    );
    let mut signals = process.signals.lock();
    let removed = if thread.group_link.is_linked() {
        // SAFETY: a linked thread is in its own process's list, under that process's lock.
        unsafe { signals.threads.cursor_mut_from_ptr(Arc::as_ptr(thread)) }.remove()
    } else {
        None
    };
    let last = signals.threads.is_empty();
    drop(signals);
    drop(removed);
    last
}

/// Gives back what the process had, and leaves a zombie for the parent.
fn end_process(process: &Arc<Process>, status: ExitStatus) {
    process.drop_alarm();
    process.files.close_all();
    process.replace_mm(None);
    give_children_away(process);
    *process.events.lock() = Events {
        exited: Some(status),
        ..Events::default()
    };
    if process.parent_pid() == INIT_PID {
        init::child_exited(process, status);
        return;
    }
    let reaped_by_itself = process
        .parent()
        .is_none_or(|parent| ignores_children(&parent));
    let (code, number) = match status {
        ExitStatus::Code(number) => (code::CLD_EXITED, number as i32),
        ExitStatus::Signal(signal) => (code::CLD_KILLED, signal.number() as i32),
    };
    send::notify_parent(process, code, number);
    if reaped_by_itself && let Some(parent) = process.parent() {
        wait::remove_child(&parent, process);
        parent.child_events.wake_all();
    }
}

/// Whether children vanish without being waited for (`sigaction(2)`, SA_NOCLDWAIT).
fn ignores_children(parent: &Process) -> bool {
    let action = parent.signals.lock().action(Signal::SIGCHLD);
    action.disposition() == Disposition::Ignore || action.has(sa::NOCLDWAIT)
}

/// Orphans go to init, which waits for them at once.
fn give_children_away(process: &Process) {
    loop {
        let Some(child) = process.children.lock().pop_front() else {
            return;
        };
        child.set_parent(INIT_PID);
        if child.events.lock().exited.is_some() {
            table::remove(child.pid);
        }
    }
}
