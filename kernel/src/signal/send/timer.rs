//! Sending by POSIX timers, whose signals have entries of their own.

use alloc::boxed::Box;
use alloc::sync::Arc;

use super::{begin_group_exit, choose, continue_process, effect_on, have, prepare};
use crate::errno::{Errno, Result};
use crate::signal::info::SigInfo;
use crate::signal::queue::Entry;
use crate::signal::quota::Charge;
use crate::signal::set::Signal;
use crate::task::rlimit::Resource;
use crate::task::thread::flag;
use crate::task::{ExitStatus, Process, Thread};

/// Sends a timer's signal, to `thread` if one is given. An entry that is not queued comes back: nobody is there, or the signal is
/// ignored.
pub fn send_by_timer(
    process: &Process,
    thread: Option<&Arc<Thread>>,
    entry: Box<Entry>,
) -> Option<Box<Entry>> {
    let signal = entry.info().signal;
    let mut signals = process.signals.lock();
    let gone = thread.is_some_and(|thread| thread.has_flag(flag::EXITING));
    if gone || signals.threads.is_empty() || signals.group_exit.is_some() {
        return Some(entry);
    }
    if signal == Signal::SIGKILL {
        begin_group_exit(&mut signals, ExitStatus::Signal(signal));
        return Some(entry);
    }
    let continued = signal == Signal::SIGCONT && continue_process(&mut signals);
    let returned = if !prepare(&mut signals, signal, thread.map(|thread| &**thread)) {
        Some(entry)
    } else {
        match thread {
            Some(thread) => thread.signals.lock().pending.push_timer(entry),
            None => signals.pending.push_timer(entry),
        }
        process.signal_readers.tell();
        let taker = match thread {
            Some(thread) => {
                let effect = effect_on(&signals, thread, signal);
                effect.map(|effect| (thread.clone(), effect))
            }
            None => choose(&mut signals, process.pid, signal),
        };
        if let Some((taker, effect)) = taker {
            have(&mut signals, &taker, signal, effect);
        }
        None
    };
    drop(signals);
    if continued {
        process.note_stop_ended();
    }
    returned
}

/// A queue entry for a timer of the process, which counts as a queued signal as long as the timer is there. `EAGAIN`.
pub fn entry_for_timer(process: &Process, signal: Signal) -> Result<Box<Entry>> {
    let limit = process.rlimits.soft(Resource::PendingSignals);
    let uid = process.credentials.user().real;
    let charge = Charge::new(uid, limit).ok_or(Errno::EAGAIN)?;
    Entry::new(SigInfo::kernel(signal), charge).ok_or(Errno::EAGAIN)
}
