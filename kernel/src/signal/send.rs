//! Sending: what kill(2), a fault, a timer or a child's end does. Marks and wakes, and never acts.
//!
//! Follows `kernel/signal.c`: prepare_signal (stop and continue flush each other, ignored signals are dropped), queueing,
//! complete_signal (which thread is woken; a fatal signal without core dump becomes SIGKILL for all threads at once). From any
//! context.

mod ends;
mod parent;
mod timer;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::action::{DefaultAction, Disposition, STOP, default_action};
use super::info::{Detail, SigInfo, code};
use super::queue::{Entry, Pending};
use super::quota::{self, Charge};
use super::set::{SigSet, Signal};
use super::state::{ProcessSignals, ThreadSignals};
use crate::errno::{Errno, Result};
use crate::sched::{self, current};
use crate::sync::InnerGuard;
use crate::task::rlimit::Resource;
use crate::task::thread::flag;
use crate::task::{ExitStatus, Process, Thread};
use ends::begin_group_exit;
pub use ends::{begin_exit, end_other_threads, end_process};
pub use parent::notify_parent;
pub use timer::{entry_for_timer, send_by_timer};

/// Sends to a process: its first thread takes it if it can, else another one. Whether the info could be kept is not told.
pub fn send_to_process(process: &Process, info: SigInfo) {
    let _ = send_preferring(process, None, info);
}

/// Sends to a process: `thread` takes it if it can, or without one the first thread, else another one. `EAGAIN` if it is a real-time
/// signal that is not from kill(2), and its user has too many queued.
pub fn send_preferring(process: &Process, thread: Option<&Thread>, info: SigInfo) -> Result {
    let room = Room::find(process, &info);
    let mut signals = process.signals.lock();
    // Without threads nobody ever takes it: a zombie, or the kernel's init.
    if signals.threads.is_empty() || signals.group_exit.is_some() {
        return Ok(());
    }
    if info.signal == Signal::SIGKILL {
        begin_group_exit(&mut signals, ExitStatus::Signal(info.signal));
        return Ok(());
    }
    let continued = match info.signal {
        Signal::SIGCONT => continue_process(&mut signals),
        _ => false,
    };
    let outcome = queue_shared(&mut signals, process, thread, &info, room);
    drop(signals);
    if continued {
        process.note_stop_ended();
    }
    outcome
}

#[inline(always)]
fn queue_shared(
    signals: &mut ProcessSignals,
    process: &Process,
    thread: Option<&Thread>,
    info: &SigInfo,
    room: Room,
) -> Result {
    if !prepare(signals, info.signal, thread) {
        return Ok(());
    }
    if !room.queue(&mut signals.pending, info)? {
        return Ok(());
    }
    process.signal_readers.tell();
    let own = current();
    let is_own = match thread {
        Some(thread) => core::ptr::eq(thread, &*own),
        None => core::ptr::eq(process, &*own.process) && own.is_first(),
    };
    if is_own && effect_on(signals, &own, info.signal) == Some(Effect::Tell) {
        // It runs: it looks when it goes to sleep, or to user mode.
        own.set_flag(flag::SIGPENDING);
        return Ok(());
    }
    let preferred = thread.map_or(process.pid, Thread::tid);
    if let Some((taker, effect)) = choose(signals, preferred, info.signal) {
        have(signals, &taker, info.signal, effect);
    }
    Ok(())
}

/// Sends to one thread. Whether the info could be kept is not told.
pub fn send_to_thread(thread: &Arc<Thread>, info: SigInfo) {
    let _ = queue_to_thread(thread, info);
}

/// Sends to one thread; `EAGAIN` as in [`send_preferring`].
pub fn queue_to_thread(thread: &Arc<Thread>, info: SigInfo) -> Result {
    let process = &thread.process;
    let room = Room::find(process, &info);
    let mut signals = process.signals.lock();
    if signals.group_exit.is_some() {
        return Ok(());
    }
    if info.signal == Signal::SIGKILL {
        begin_group_exit(&mut signals, ExitStatus::Signal(info.signal));
        return Ok(());
    }
    let continued = match info.signal {
        Signal::SIGCONT => continue_process(&mut signals),
        _ => false,
    };
    let outcome = queue_private(&mut signals, thread, &info, room);
    drop(signals);
    if continued {
        process.note_stop_ended();
    }
    outcome
}

fn queue_private(
    signals: &mut ProcessSignals,
    thread: &Arc<Thread>,
    info: &SigInfo,
    room: Room,
) -> Result {
    if !prepare(signals, info.signal, Some(thread)) {
        return Ok(());
    }
    if !room.queue(&mut thread.signals.lock().pending, info)? {
        return Ok(());
    }
    thread.process.signal_readers.tell();
    if let Some(effect) = effect_on(signals, thread, info.signal) {
        have(signals, thread, info.signal, effect);
    }
    Ok(())
}

/// What a signal does when it reaches a thread that takes it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// The thread is told, and looks.
    Tell,
    /// The process ends, without a core dump.
    Kill,
}

fn have(signals: &mut ProcessSignals, taker: &Arc<Thread>, signal: Signal, effect: Effect) {
    match effect {
        Effect::Tell => notify(taker),
        Effect::Kill => begin_group_exit(signals, ExitStatus::Signal(signal)),
    }
}

/// What the signal would do to the thread now; `None` if it would not take it (wants_signal, sig_fatal): it blocks it, or it sleeps or
/// waits and has others to take already; and a stopped one takes nothing.
#[inline(always)]
fn effect_on(signals: &ProcessSignals, thread: &Thread, signal: Signal) -> Option<Effect> {
    let flags = thread.flags.load(Ordering::Acquire);
    if flags & flag::EXITING != 0 || signals.stopped.is_some() {
        return None;
    }
    if flags & flag::SIGPENDING != 0 && !core::ptr::eq(thread, &*current()) {
        return None;
    }
    let is_awaited = {
        let own = thread.signals.lock();
        if own.blocked.contains(signal) {
            return None;
        }
        own.waited_for.contains(signal)
    };
    let kills = !is_awaited
        && signals.disposition(signal) == Disposition::Default
        && default_action(signal) == DefaultAction::Terminate;
    Some(if kills { Effect::Kill } else { Effect::Tell })
}

/// Where a signal's info is kept while it is pending.
enum Room {
    /// In the place that each standard signal has.
    Slot,
    Entry(Box<Entry>),
    /// Nowhere: the signal becomes pending without it.
    Nowhere,
    /// Nowhere, and the sender is told.
    Refused,
}

impl Room {
    /// Only real-time signals need memory to be queued, which counts for the receiver's user (`__send_signal_locked`).
    #[inline(always)]
    fn find(process: &Process, info: &SigInfo) -> Room {
        let from_user_queue = info.code < 0;
        if !info.signal.is_realtime() && !from_user_queue {
            return Room::Slot;
        }
        Room::of_user(process, info)
    }

    #[inline(never)]
    fn of_user(process: &Process, info: &SigInfo) -> Room {
        let limit = process.rlimits.soft(Resource::PendingSignals);
        let uid = process.credentials.user().real;
        if !info.signal.is_realtime() {
            let has_room = quota::queued(uid) < limit;
            return if has_room { Room::Slot } else { Room::Nowhere };
        }
        let entry = Charge::new(uid, limit).and_then(|charge| Entry::new(*info, charge));
        match entry {
            Some(entry) => Room::Entry(entry),
            None if info.code == code::SI_USER => Room::Nowhere,
            None => Room::Refused,
        }
    }

    /// Puts the signal into a queue; false if it is pending already and need not be again. `EAGAIN`.
    #[inline(always)]
    fn queue(self, pending: &mut Pending, info: &SigInfo) -> Result<bool> {
        match self {
            Room::Slot => Ok(pending.push_standard(info)),
            other => other.queue_counted(pending, info),
        }
    }

    #[inline(never)]
    fn queue_counted(self, pending: &mut Pending, info: &SigInfo) -> Result<bool> {
        match self {
            Room::Slot => Ok(pending.push_standard(info)),
            Room::Nowhere if !info.signal.is_realtime() => {
                Ok(pending.push_standard(&SigInfo::lost(info.signal)))
            }
            Room::Entry(entry) => {
                pending.push_realtime(info.signal, Some(entry));
                Ok(true)
            }
            Room::Nowhere => {
                pending.push_realtime(info.signal, None);
                Ok(true)
            }
            Room::Refused => Err(Errno::EAGAIN),
        }
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

#[inline]
fn force_as(info: SigInfo, default: bool) {
    let thread = current();
    let mut signals = thread.process.signals.lock_irq();
    let mut own = thread.signals.lock_inside(&signals);
    let ignored = signals.disposition(info.signal) == Disposition::Ignore;
    if default || ignored || own.blocked.contains(info.signal) {
        signals.set_default(info.signal);
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

/// What sending does before queueing; false if the signal is dropped. `target` is the thread that was named; else the first one counts.
#[inline(always)]
fn prepare(signals: &mut ProcessSignals, signal: Signal, target: Option<&Thread>) -> bool {
    if STOP.contains(signal) {
        flush_everywhere(signals, SigSet::of(&[Signal::SIGCONT]));
    }
    if !signals.ignores(signal) {
        return true;
    }
    // A blocked signal is kept: its action may have changed by the time it is unblocked.
    let Some(thread) = target.or(signals.threads.front().get()) else {
        return false;
    };
    let own = thread.signals.lock();
    own.blocked.union(own.waited_for).contains(signal)
}

/// Takes the signals in `set` out of all queues of a process.
pub fn flush_everywhere(signals: &mut ProcessSignals, set: SigSet) {
    signals.pending.flush(set);
    for thread in signals.threads.iter() {
        thread.signals.lock().pending.flush(set);
    }
}

/// SIGCONT ends a stop when it is sent, whatever its action, and takes pending stop signals with it. Whether the process was stopped.
fn continue_process(signals: &mut ProcessSignals) -> bool {
    flush_everywhere(signals, STOP);
    if signals.end_stop().is_none() {
        return false;
    }
    for_each_thread(signals, |thread| {
        sched::wake_stopped(thread);
    });
    signals.continued
}

fn for_each_thread(signals: &ProcessSignals, mut f: impl FnMut(&Arc<Thread>)) {
    let mut cursor = signals.threads.front();
    while let Some(thread) = cursor.clone_pointer() {
        f(&thread);
        cursor.move_next();
    }
}

/// The thread that is to take a signal of its process: the one with the number `preferred`, else the next in turn, beginning with the
/// one that took the last such signal (complete_signal). `None` if nobody can now: threads that have signals to take find it then.
fn choose(
    signals: &mut ProcessSignals,
    preferred: u32,
    signal: Signal,
) -> Option<(Arc<Thread>, Effect)> {
    let in_turn = signals.in_turn;
    let mut before = None;
    let mut after = None;
    let mut turn_came = false;
    let mut cursor = signals.threads.front();
    while let Some(thread) = cursor.get() {
        turn_came |= thread.tid() == in_turn;
        let place = if turn_came { &mut after } else { &mut before };
        let is_preferred = thread.tid() == preferred;
        if (is_preferred || place.is_none())
            && let Some(effect) = effect_on(signals, thread, signal)
        {
            let taker = cursor.clone_pointer().map(|thread| (thread, effect));
            if is_preferred {
                return taker;
            }
            *place = taker;
        }
        cursor.move_next();
    }
    let chosen = after.or(before)?;
    signals.in_turn = chosen.0.tid();
    Some(chosen)
}

/// Signals of the process in `set` were one thread's to take, `from`, and are not any more: tells others that can
/// (retarget_shared_pending). No thread's own lock is held.
pub(super) fn retarget(signals: &ProcessSignals, from: &Thread, set: SigSet) {
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

/// Tells a thread that it has a signal to take.
fn notify(thread: &Arc<Thread>) {
    thread.set_flag(flag::SIGPENDING);
    sched::wake_for_signal(thread, false);
}

/// Brings the thread's SIGPENDING up to date after its mask or a queue has changed; what it is. Both locks are held.
#[inline]
pub(super) fn recalculate(thread: &Thread, signals: &ProcessSignals, own: &ThreadSignals) -> bool {
    let flags = thread.flags();
    let due = is_due(flags, signals, own);
    if due != (flags & flag::SIGPENDING != 0) {
        if due {
            thread.set_flag(flag::SIGPENDING);
        } else {
            thread.clear_flag(flag::SIGPENDING);
        }
    }
    due
}

/// Whether a thread with these flags has something to do before it returns to user mode.
#[inline]
fn is_due(flags: u32, signals: &ProcessSignals, own: &ThreadSignals) -> bool {
    let ready = own.pending.set().minus(own.blocked).0 | signals.pending.set().minus(own.blocked).0;
    ready != 0
        || signals.group_exit.is_some()
        || flags & flag::FATAL_SIGNAL != 0
        || signals.stopped.is_some()
}

/// Changes the current thread's blocked mask, which cannot hold SIGKILL and SIGSTOP. Returns the old one.
pub fn set_blocked(change: impl FnOnce(SigSet) -> SigSet) -> SigSet {
    set_blocked_with(|own| change(own.blocked))
}

/// As [`set_blocked`]; `change` may change other parts of the thread's state too.
pub fn set_blocked_with(change: impl FnOnce(&mut ThreadSignals) -> SigSet) -> SigSet {
    set_blocked_of(&current(), change)
}

pub(super) fn set_blocked_of(
    thread: &Thread,
    change: impl FnOnce(&mut ThreadSignals) -> SigSet,
) -> SigSet {
    let signals = thread.process.signals.lock_irq();
    let mut own = thread.signals.lock_inside(&signals);
    let old = own.blocked;
    let mask = change(&mut own);
    let newly = block(&mut own, mask);
    let blocked = mask.blockable();
    // Whatever else a thread has to do before it returns to user mode, it has been told when that came up.
    let pending = SigSet(own.pending.set().0 | signals.pending.set().0);
    if thread.has_flag(flag::SIGPENDING) || !pending.minus(blocked).is_empty() {
        mask_matters(thread, &signals, own, newly);
    }
    old
}

/// The mask has changed, `newly` being what it blocks now, while signals were there to take, or are now.
#[cold]
#[inline(never)]
fn mask_matters(
    thread: &Thread,
    signals: &ProcessSignals,
    own: InnerGuard<'_, ThreadSignals>,
    newly: SigSet,
) {
    let was_pending = thread.has_flag(flag::SIGPENDING);
    recalculate(thread, signals, &own);
    drop(own);
    if was_pending {
        retarget(signals, thread, newly);
    }
}

/// Sets the mask of a thread whose locks are held; what it blocks now and did not before.
pub(super) fn block(own: &mut ThreadSignals, mask: SigSet) -> SigSet {
    let old = own.blocked;
    own.blocked = mask.blockable();
    own.blocked.minus(old)
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
