//! The end of threads and processes (`kernel/exit.c`).
//!
//! A thread that ends tells whoever joins it and whoever waits for its robust futexes, then leaves its process. The last one takes the
//! process with it; a first thread that ends earlier leaves its number to the process.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::process::{Events, Life};
use super::table::{self, INIT_PID};
use super::{ExitStatus, Process, Thread, futex, group, init, robust, user_tasks, wait};
use crate::fs::terminal;
use crate::ipc::semaphore::undo;
use crate::mm::uaccess::UserPtr;
use crate::sched::{self, current};
use crate::signal::action::{Disposition, sa};
use crate::signal::{Signal, code, send};

/// exit_group(2): ends all threads of the current process.
pub fn exit_group(status: ExitStatus) -> ! {
    send::end_process(&current().process, status);
    exit_thread(status)
}

/// Ends the current thread; with the last one the process. Its status is the group's if it is being killed, else that of its last
/// thread (`synchronize_group_exit`).
pub fn exit_thread(status: ExitStatus) -> ! {
    let thread = current().arc();
    send::begin_exit(&thread);
    leave_memory(&thread);
    thread.give_up_files();
    if leave_group(&thread) {
        let group = thread.process.signals.lock().group_exit;
        let status = group.unwrap_or(status);
        end_process(&thread.process, status);
    }
    end_vfork(&thread);
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

/// What the current thread owes to others in its address space, which it is about to leave: its robust futexes, and the word that
/// set_tid_address(2) named. Words that cannot be written are no reason to wait, or to fail.
pub(super) fn leave_memory(thread: &Thread) {
    robust::release_all(thread);
    let address = thread.clear_child_tid.swap(0, Ordering::Relaxed) as usize;
    // Nobody could tell if the memory goes too.
    if address != 0 && thread.process.shares_memory() {
        let _ = UserPtr::<u32>::new(address).write(0);
        let _ = futex::wake(address, true, 1, futex::ANY);
    }
}

/// Whoever waits for a vfork(2) child to leave its memory goes on.
pub(super) fn end_vfork(thread: &Thread) {
    if !thread.vfork_end.happened.swap(true, Ordering::Release) {
        thread.vfork_end.waiters.wake_all();
    }
}

/// Takes the thread out of its process and the table; whether it was the last one.
fn leave_group(thread: &Arc<Thread>) -> bool {
    let process = &thread.process;
    process.usage.add(thread.counts());
    table::remove_thread(thread.tid());
    let mut signals = process.signals.lock();
    let stopped = signals.take_part_in_stop(&mut thread.signals.lock());
    let removed = if thread.group_link.is_linked() {
        // SAFETY: a linked thread is in its own process's list, under that process's lock.
        unsafe { signals.threads.cursor_mut_from_ptr(Arc::as_ptr(thread)) }.remove()
    } else {
        None
    };
    let last = signals.threads.is_empty();
    process.count_threads(-1);
    if !last {
        user_tasks::less(process, &signals);
    }
    drop(signals);
    drop(removed);
    if !last {
        give_children_to_another_thread(thread);
    }
    process.thread_ends.wake_all();
    if let Some(signal) = stopped.filter(|_| !last) {
        process.note_stopped(signal);
    }
    last
}

/// Gives back what the process had, and leaves a zombie for the parent.
fn end_process(process: &Arc<Process>, status: ExitStatus) {
    process.real_timer.stop();
    terminal::give_up(process, true);
    process.posix_timers.delete_all();
    undo::process_ended(process);
    process.replace_mm(None);
    process.set_exe(None);
    give_children_away(process);
    *process.events.lock() = Events {
        exited: Some(status),
        ..Events::default()
    };
    process.set_life(Life::Zombie);
    group::release_if_orphaned(process, None);
    if process.parent_pid() == INIT_PID {
        init::child_exited(process, status);
        return;
    }
    tell_parent(process, status);
}

/// Sends the parent what it is to get, or is gone at once if that is what the parent wants.
fn tell_parent(process: &Arc<Process>, status: ExitStatus) {
    let reaped_by_itself = process
        .parent()
        .is_none_or(|parent| process.has_ordinary_exit_signal() && ignores_children(&parent));
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

/// Orphans go to the nearest ancestor that adopts them (PR_SET_CHILD_SUBREAPER), or to init, which waits for them at once.
fn give_children_away(process: &Process) {
    let adopter = adopter_of(process);
    loop {
        let Some(child) = process.children.lock().pop_front() else {
            return;
        };
        child.set_parent(adopter.as_ref().map_or(INIT_PID, |adopter| adopter.pid));
        child.set_exit_signal(Some(Signal::SIGCHLD));
        signal_parents_death(&child);
        let ended = child.events.lock().exited;
        if let Some(adopter) = &adopter {
            child.set_maker(adopter.pid);
            adopter.children.lock().push_back(child.clone());
            if let Some(status) = ended {
                tell_parent(&child, status);
            }
        } else if ended.is_some() {
            table::remove(child.pid);
        }
        group::release_if_orphaned(&child, Some(process));
    }
}

/// The nearest ancestor that adopts orphans, if there is one (`find_new_reaper`).
fn adopter_of(process: &Process) -> Option<Arc<Process>> {
    if !process.is_below_adopter() {
        return None;
    }
    let mut ancestor = process.parent()?;
    while !ancestor.adopts.load(Ordering::Relaxed) || ancestor.life() != Life::Lives {
        ancestor = ancestor.parent()?;
    }
    Some(ancestor)
}

/// PR_SET_PDEATHSIG.
fn signal_parents_death(child: &Process) {
    if let Some(signal) = child.parent_death_signal() {
        send::send_to_process(child, send::by_current_process(signal));
    }
}

/// A thread with children of its own ends before its process: they are those of another thread now.
fn give_children_to_another_thread(thread: &Thread) {
    if !thread.has_children.load(Ordering::Relaxed) {
        return;
    }
    let process = &thread.process;
    let Some(heir) = process.signals.lock().threads.front().clone_pointer() else {
        return;
    };
    heir.has_children.store(true, Ordering::Relaxed);
    let children = process.children.lock();
    let mut cursor = children.front();
    while let Some(child) = cursor.clone_pointer() {
        cursor.move_next();
        if child.maker() == thread.tid() {
            child.set_maker(heir.tid());
            signal_parents_death(&child);
        }
    }
}
