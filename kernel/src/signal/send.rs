//! Sending: what kill(2), a fault, a timer or a child's end does. Marks and wakes, and never acts.
//!
//! Follows `kernel/signal.c`: prepare_signal (stop and continue flush each other, ignored signals are dropped), queueing,
//! complete_signal (which thread is woken; a fatal signal without core dump becomes SIGKILL for all threads at once). From any
//! context.

use alloc::boxed::Box;
use alloc::sync::Arc;

use super::action::{Action, DefaultAction, Disposition, STOP, default_action};
use super::info::{Detail, SigInfo, code};
use super::queue::Entry;
use super::set::{SigSet, Signal};
use super::state::{ProcessSignals, ThreadSignals};
use crate::errno::{Errno, Result};
use crate::sched::{self, current};
use crate::task::thread::flag;
use crate::task::{ExitStatus, Process, Thread};

/// Sends to a process: its first thread takes it if it can, else another one.
pub fn send_to_process(process: &Process, info: SigInfo) {
    send_preferring(process, None, info);
}

/// Sends to a process: the thread `tid` takes it if it can, or without one the first thread, else another one.
pub fn send_preferring(process: &Process, tid: Option<u32>, info: SigInfo) {
    let entry = entry_for(&info);
    let mut signals = process.signals.lock();
    // Without threads nobody ever takes it: a zombie, or the kernel's init.
    let nobody = signals.threads.is_empty() || signals.group_exit.is_some();
    if nobody || !prepare(&mut signals, &info, None) {
        return;
    }
    if !info.signal.is_realtime() {
        if !signals.pending.push_standard(info) {
            return;
        }
    } else {
        signals.pending.push_realtime(info.signal, entry);
    }
    let taker = choose(&signals, tid.unwrap_or(process.pid), info.signal);
    match taker {
        // Nobody may be left to take it, and a thread be held up on its way out.
        None if info.signal != Signal::SIGKILL => {}
        Some(taker) if !is_fatal(&signals, &taker, info.signal) => notify(&taker),
        _ => begin_group_exit(&mut signals, ExitStatus::Signal(info.signal)),
    }
}

/// Sends to one thread.
pub fn send_to_thread(thread: &Arc<Thread>, info: SigInfo) {
    let entry = entry_for(&info);
    let process = &thread.process;
    let mut signals = process.signals.lock();
    if signals.group_exit.is_some() || !prepare(&mut signals, &info, Some(thread)) {
        return;
    }
    let blocked = {
        let mut own = thread.signals.lock();
        let queued = match info.signal.is_realtime() {
            false => own.pending.push_standard(info),
            true => {
                own.pending.push_realtime(info.signal, entry);
                true
            }
        };
        if !queued {
            return;
        }
        own.blocked.contains(info.signal)
    };
    if blocked {
        return;
    }
    if is_fatal(&signals, thread, info.signal) {
        begin_group_exit(&mut signals, ExitStatus::Signal(info.signal));
    } else {
        notify(thread);
    }
}

/// Sends a signal that the current thread itself caused. One that it blocks or ignores gets its default action, and kills.
pub fn force(info: SigInfo) {
    force_as(info, false);
}

/// As [`force`], but without asking a handler.
pub fn force_fatal(info: SigInfo) {
    force_as(info, true);
}

fn force_as(info: SigInfo, default: bool) {
    let thread = current();
    let mut signals = thread.process.signals.lock();
    let mut own = thread.signals.lock();
    let action = signals.action(info.signal);
    let blocked = own.blocked.contains(info.signal);
    if default || blocked || action.disposition() == Disposition::Ignore {
        signals.set_action(
            info.signal,
            Action {
                handler: 0,
                ..action
            },
        );
        own.blocked = own.blocked.without(info.signal);
    }
    own.pending.force(info);
    if info.signal == Signal::SIGKILL {
        thread.set_flag(flag::FATAL_SIGNAL);
    }
    thread.set_flag(flag::SIGPENDING);
}

/// What kill(2) of the current process would send.
pub fn by_current_process(signal: Signal) -> SigInfo {
    let process = &current().process;
    SigInfo {
        signal,
        code: code::SI_USER,
        detail: Detail::Sender {
            pid: process.pid,
            uid: process.credentials.get().user.real,
        },
    }
}

/// The current thread ends: it takes no signal any more, and those of its process that it would have taken go to others.
pub fn begin_exit(thread: &Thread) {
    let signals = thread.process.signals.lock();
    thread.set_flag(flag::EXITING);
    if signals.group_exit.is_none() {
        let blocked = thread.signals.lock().blocked;
        retarget(&signals, thread, SigSet(!blocked.0));
    }
}

/// Ends all threads of the current process but the current one, `thread`, which has called exec. `EAGAIN` if another thread was faster
/// or the process is being killed.
pub fn end_other_threads(thread: &Thread) -> Result {
    let mut signals = thread.process.signals.lock();
    if signals.group_exit.is_some() || signals.exec_by.is_some() {
        return Err(Errno::EAGAIN);
    }
    signals.exec_by = Some(thread.tid());
    for_each_thread(&signals, |other| {
        if !core::ptr::eq(&**other, thread) {
            kill(other);
        }
    });
    Ok(())
}

/// Ends all threads of the current process with `status`, unless their end has begun already. The caller's own end follows on
/// its way to user mode.
pub fn end_process(process: &Process, status: ExitStatus) {
    let mut signals = process.signals.lock();
    if signals.group_exit.is_none() {
        begin_group_exit(&mut signals, status);
    }
}

/// Every thread gets SIGKILL, which nothing holds up.
fn begin_group_exit(signals: &mut ProcessSignals, status: ExitStatus) {
    signals.group_exit = Some(status);
    signals.end_stop();
    signals.continued = false;
    for_each_thread(signals, kill);
}

/// Makes a thread end: nothing holds it up but what cannot be interrupted.
fn kill(thread: &Arc<Thread>) {
    thread.set_flag(flag::FATAL_SIGNAL | flag::SIGPENDING);
    sched::wake_for_signal(thread, true);
}

/// Only real-time signals need memory to be queued.
fn entry_for(info: &SigInfo) -> Option<Box<Entry>> {
    if info.signal.is_realtime() {
        Entry::new(*info)
    } else {
        None
    }
}

/// What sending does before queueing; false if the signal is dropped.
fn prepare(signals: &mut ProcessSignals, info: &SigInfo, target: Option<&Thread>) -> bool {
    if STOP.contains(info.signal) {
        flush_everywhere(signals, SigSet::of(&[Signal::SIGCONT]));
    } else if info.signal == Signal::SIGCONT {
        flush_everywhere(signals, STOP);
        continue_process(signals);
    }
    if !signals.action(info.signal).ignores(info.signal) {
        return true;
    }
    // A blocked signal is kept: its action may have changed by the time it is unblocked.
    let is_kept = |thread: &Thread| {
        let own = thread.signals.lock();
        own.blocked.union(own.waited_for).contains(info.signal)
    };
    match target {
        Some(thread) => is_kept(thread),
        None => signals.threads.front().get().is_some_and(is_kept),
    }
}

fn flush_everywhere(signals: &mut ProcessSignals, set: SigSet) {
    signals.pending.flush(set);
    for thread in signals.threads.iter() {
        thread.signals.lock().pending.flush(set);
    }
}

/// SIGCONT ends a stop when it is sent, whatever its action.
fn continue_process(signals: &mut ProcessSignals) {
    if signals.end_stop().is_some() {
        for_each_thread(signals, |thread| {
            sched::wake_stopped(thread);
        });
    }
}

fn for_each_thread(signals: &ProcessSignals, mut f: impl FnMut(&Arc<Thread>)) {
    let mut cursor = signals.threads.front();
    while let Some(thread) = cursor.clone_pointer() {
        f(&thread);
        cursor.move_next();
    }
}

/// The thread that is to take a signal of its process: the one with the number `preferred`, else one that has no other signal to
/// take, else any that does not block it (complete_signal).
fn choose(signals: &ProcessSignals, preferred: u32, signal: Signal) -> Option<Arc<Thread>> {
    let own = current();
    let mut busy = None;
    let mut idle = None;
    let mut cursor = signals.threads.front();
    while let Some(thread) = cursor.get() {
        if wants(thread, signal) {
            let runs = core::ptr::eq(thread, &*own);
            let has_time = runs || !thread.has_flag(flag::SIGPENDING);
            if has_time && thread.tid() == preferred {
                return cursor.clone_pointer();
            }
            let place = if has_time { &mut idle } else { &mut busy };
            if place.is_none() {
                *place = cursor.clone_pointer();
            }
        }
        cursor.move_next();
    }
    idle.or(busy)
}

/// Whether a thread would take the signal.
fn wants(thread: &Thread, signal: Signal) -> bool {
    !thread.has_flag(flag::EXITING) && !thread.signals.lock().blocked.contains(signal)
}

/// Signals of the process in `set` were one thread's to take, `from`, and are not any more: tells others that can
/// (retarget_shared_pending). No thread's own lock is held.
fn retarget(signals: &ProcessSignals, from: &Thread, set: SigSet) {
    let mut left = SigSet(signals.pending.set().0 & set.0);
    let mut cursor = signals.threads.front();
    while let Some(thread) = cursor.clone_pointer() {
        if left.is_empty() {
            return;
        }
        cursor.move_next();
        if core::ptr::eq(&*thread, from) || thread.has_flag(flag::EXITING) {
            continue;
        }
        let blocked = thread.signals.lock().blocked;
        if left.minus(blocked).is_empty() {
            continue;
        }
        left = SigSet(left.0 & blocked.0);
        if !thread.has_flag(flag::SIGPENDING) {
            notify(&thread);
        }
    }
}

/// Lets every thread but the current one look at what has changed for all of them.
pub(super) fn notify_others(signals: &ProcessSignals) {
    let own = current();
    for_each_thread(signals, |thread| {
        if !core::ptr::eq(&**thread, &*own) {
            notify(thread);
        }
    });
}

/// Whether the signal, which `taker` does not block, ends the process without a core dump.
fn is_fatal(signals: &ProcessSignals, taker: &Thread, signal: Signal) -> bool {
    signal == Signal::SIGKILL
        || !taker.signals.lock().waited_for.contains(signal)
            && signals.action(signal).disposition() == Disposition::Default
            && default_action(signal) == DefaultAction::Terminate
}

/// Tells a thread that it has a signal to take.
fn notify(thread: &Arc<Thread>) {
    thread.set_flag(flag::SIGPENDING);
    sched::wake_for_signal(thread, false);
}

/// Brings the thread's SIGPENDING up to date after its mask or a queue has changed. Both locks are held.
pub(super) fn recalculate(thread: &Thread, signals: &ProcessSignals, own: &ThreadSignals) {
    let ready = own.pending.set().minus(own.blocked).0 | signals.pending.set().minus(own.blocked).0;
    let killed = signals.group_exit.is_some() || thread.has_flag(flag::FATAL_SIGNAL);
    if ready != 0 || killed || signals.stopped.is_some() {
        thread.set_flag(flag::SIGPENDING);
    } else {
        thread.clear_flag(flag::SIGPENDING);
    }
}

/// Changes the current thread's blocked mask, which cannot hold SIGKILL and SIGSTOP. Returns the old one.
pub fn set_blocked(change: impl FnOnce(SigSet) -> SigSet) -> SigSet {
    let thread = current();
    let signals = thread.process.signals.lock();
    let mut own = thread.signals.lock();
    let old = own.blocked;
    own.blocked = change(old).blockable();
    let newly = own.blocked.minus(old);
    let was_pending = thread.has_flag(flag::SIGPENDING);
    recalculate(&thread, &signals, &own);
    drop(own);
    if was_pending {
        retarget(&signals, &thread, newly);
    }
    old
}

/// Blocks `mask` in place of the current thread's own until the call returns to user mode; a handler that runs then comes back to
/// the own mask (sigsuspend(2), ppoll(2), pselect(2)).
pub fn set_temporary_mask(mask: SigSet) {
    let old = set_blocked(|_| mask);
    current().signals.lock().saved = Some(old);
}

/// Ends a temporary mask early: the call did not have to wait, or was not interrupted.
pub fn restore_mask() {
    let saved = current().signals.lock().saved.take();
    if let Some(mask) = saved {
        set_blocked(|_| mask);
    }
}

/// Tells the parent of `process` what became of it. `code` is one of `CLD_*`.
pub fn notify_parent(process: &Arc<Process>, code: i32, status: i32) {
    let Some(parent) = process.parent() else {
        return;
    };
    let action = parent.signals.lock().action(Signal::SIGCHLD);
    let stop = matches!(code, code::CLD_STOPPED | code::CLD_CONTINUED);
    let signal = match stop {
        true => Some(Signal::SIGCHLD).filter(|_| !action.has(super::action::sa::NOCLDSTOP)),
        false => process.exit_signal(),
    };
    if let Some(signal) = signal {
        let (utime, stime) = process.cpu_times_in_ticks();
        let detail = Detail::Child {
            pid: process.pid,
            uid: 0,
            status,
            utime,
            stime,
        };
        send_to_process(
            &parent,
            SigInfo {
                signal,
                code,
                detail,
            },
        );
    }
    parent.child_events.wake_all();
}
