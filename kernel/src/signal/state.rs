//! The signal state of a process and of a thread, as their locks guard it.

use alloc::sync::Arc;

use intrusive_collections::{LinkedList, LinkedListAtomicLink, intrusive_adapter};

use super::action::{Action, Disposition};
use super::actions::{Actions, RoomForActions, SharedActions};
use super::frame::AltStack;
use super::queue::Pending;
use super::set::{SigSet, Signal};
use crate::errno::OutOfMemory;
use crate::task::{ExitStatus, Thread};

intrusive_adapter!(pub GroupAdapter = Arc<Thread>: Thread { group_link => LinkedListAtomicLink });

/// A thread's own part. Lock rank: THREAD_SIGNAL.
pub struct ThreadSignals {
    pub blocked: SigSet,
    /// The mask to come back to after a call with a temporary one (sigsuspend(2), ppoll(2)).
    pub saved: Option<SigSet>,
    /// What is blocked but for the time of a sigtimedwait(2), which takes it: it is neither fatal nor ignored.
    pub waited_for: SigSet,
    pub pending: Pending,
    pub altstack: AltStack,
    /// The process is being stopped, and the thread has not stopped yet.
    stop_due: bool,
}

impl ThreadSignals {
    pub fn new(blocked: SigSet) -> Result<ThreadSignals, OutOfMemory> {
        Ok(ThreadSignals {
            blocked,
            saved: None,
            waited_for: SigSet::EMPTY,
            pending: Pending::new()?,
            altstack: AltStack::DISABLED,
            stop_due: false,
        })
    }
}

/// What all threads of a process share. Lock rank: SIGNAL.
pub struct ProcessSignals {
    pub(super) actions: Actions,
    pub pending: Pending,
    /// Every thread ends, with this status.
    pub group_exit: Option<ExitStatus>,
    /// The process is stopped by this signal.
    pub stopped: Option<Signal>,
    /// Threads that have not stopped yet; the parent is told when there are none.
    stopping: usize,
    /// A stop was ended by SIGCONT, and the parent has not been told.
    pub continued: bool,
    /// The thread with this number has called exec: all others end.
    pub exec_by: Option<u32>,
    /// The thread that took the last signal which the first thread could not; 0: none has.
    pub in_turn: u32,
    /// The threads that are alive, in the order of their birth.
    pub threads: LinkedList<GroupAdapter>,
}

impl ProcessSignals {
    pub fn new() -> Result<ProcessSignals, OutOfMemory> {
        ProcessSignals::with(RoomForActions::new()?)
    }

    /// The state of a new process with these actions, by default the default ones: nothing is pending.
    pub fn with(actions: RoomForActions) -> Result<ProcessSignals, OutOfMemory> {
        Ok(ProcessSignals {
            actions: Actions::with(actions)?,
            pending: Pending::new()?,
            group_exit: None,
            stopped: None,
            stopping: 0,
            exec_by: None,
            continued: false,
            in_turn: 0,
            threads: LinkedList::new(GroupAdapter::NEW),
        })
    }

    /// Begins a stop in which every thread takes part, unless one has begun already; whether it has begun now.
    pub fn begin_stop(&mut self, signal: Signal) -> bool {
        if self.stopped.is_some() {
            return false;
        }
        self.stopped = Some(signal);
        self.stopping = 0;
        for thread in self.threads.iter() {
            thread.signals.lock().stop_due = true;
            self.stopping += 1;
        }
        true
    }

    /// Notes that a thread has stopped, or ends; the signal if it was the last one that the stop waited for.
    pub fn take_part_in_stop(&mut self, own: &mut ThreadSignals) -> Option<Signal> {
        if !core::mem::take(&mut own.stop_due) {
            return None;
        }
        self.stopping -= 1;
        self.stopped.filter(|_| self.stopping == 0)
    }

    /// Ends a stop, or one that has only begun. Threads' flags and sleeps are the caller's business.
    pub fn end_stop(&mut self) -> Option<Signal> {
        let signal = self.stopped.take()?;
        for thread in self.threads.iter() {
            thread.signals.lock().stop_due = false;
        }
        // Nobody was told of a stop that was not complete.
        self.continued = core::mem::take(&mut self.stopping) == 0;
        Some(signal)
    }

    #[inline]
    pub fn action(&self, signal: Signal) -> Action {
        self.actions.look_at(signal, |action| *action)
    }

    /// What the signal's action means.
    #[inline]
    pub fn disposition(&self, signal: Signal) -> Disposition {
        self.actions.look_at(signal, Action::disposition)
    }

    /// Whether the signal has no effect at all.
    #[inline]
    pub fn ignores(&self, signal: Signal) -> bool {
        self.actions
            .look_at(signal, |action| action.ignores(signal))
    }

    /// What the action means; if that is a handler, `action` becomes it.
    #[inline]
    pub fn handler_into(&self, signal: Signal, action: &mut Action) -> Disposition {
        self.actions.look_at(signal, |found| {
            let disposition = found.disposition();
            if disposition == Disposition::Handler {
                action.clone_from(found);
            }
            disposition
        })
    }

    /// The signal's handler goes; the rest of the action stays, as Linux shows it.
    pub fn set_default(&mut self, signal: Signal) {
        self.actions
            .change(|actions| actions[signal.index()].handler = Action::DEFAULT.handler);
    }

    /// Sets the action; the old one comes back.
    #[inline]
    pub fn replace_action(&mut self, signal: Signal, action: Action) -> Action {
        self.actions
            .change(|actions| core::mem::replace(&mut actions[signal.index()], action))
    }

    /// Handlers go back to the default; ignored signals stay ignored.
    pub fn reset_handlers(&mut self) {
        self.actions.reset_handlers();
    }

    /// Actions for a process that shall have the same as this one; `room` is for them if nobody has had so far.
    pub fn share_actions(&mut self, room: Arc<SharedActions>) -> Arc<SharedActions> {
        self.actions.share(room)
    }

    /// From now on the actions are `shared`, which stand for those of another process.
    pub fn join_actions(&mut self, shared: Arc<SharedActions>) {
        self.actions.join(shared);
    }

    /// Makes the actions the process's own. What comes back is to be dropped when the lock is not held.
    #[must_use = "dropped under the lock otherwise"]
    pub fn unshare_actions(&mut self) -> Option<Arc<SharedActions>> {
        self.actions.unshare()
    }

    /// Whether another process has the same actions.
    pub fn are_actions_shared(&self) -> bool {
        self.actions.are_shared()
    }
}
