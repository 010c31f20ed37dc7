//! The signal state of a process and of a thread, as their locks guard it.

use alloc::sync::Arc;

use intrusive_collections::{LinkedList, LinkedListAtomicLink, intrusive_adapter};

use super::action::Action;
use super::frame::AltStack;
use super::queue::Pending;
use super::set::{SigSet, Signal};
use crate::task::{ExitStatus, Thread};

intrusive_adapter!(pub GroupAdapter = Arc<Thread>: Thread { group_link => LinkedListAtomicLink });

/// A thread's own part. Lock rank: THREAD_SIGNAL.
pub struct ThreadSignals {
    pub blocked: SigSet,
    /// The mask to come back to after a call with a temporary one (sigsuspend(2), ppoll(2)).
    pub saved: Option<SigSet>,
    pub pending: Pending,
    pub altstack: AltStack,
}

impl ThreadSignals {
    pub const fn new(blocked: SigSet) -> ThreadSignals {
        ThreadSignals {
            blocked,
            saved: None,
            pending: Pending::new(),
            altstack: AltStack::DISABLED,
        }
    }
}

/// What all threads of a process share. Lock rank: SIGNAL.
pub struct ProcessSignals {
    actions: [Action; Signal::MAX as usize],
    pub pending: Pending,
    /// Every thread ends, with this status.
    pub group_exit: Option<ExitStatus>,
    /// The process is stopped by this signal.
    pub stopped: Option<Signal>,
    /// A stop was ended by SIGCONT, and the parent has not been told.
    pub continued: bool,
    /// The threads that are alive.
    pub threads: LinkedList<GroupAdapter>,
}

impl ProcessSignals {
    pub const fn new() -> ProcessSignals {
        ProcessSignals {
            actions: [Action::DEFAULT; Signal::MAX as usize],
            pending: Pending::new(),
            group_exit: None,
            stopped: None,
            continued: false,
            threads: LinkedList::new(GroupAdapter::NEW),
        }
    }

    /// The state of a forked child: the same actions, nothing pending.
    pub fn fork(&self) -> ProcessSignals {
        ProcessSignals {
            actions: self.actions,
            ..ProcessSignals::new()
        }
    }

    pub fn action(&self, signal: Signal) -> Action {
        self.actions[signal.index()]
    }

    pub fn set_action(&mut self, signal: Signal, action: Action) {
        self.actions[signal.index()] = action;
    }

    /// Handlers go back to the default at execve(2); ignored signals stay ignored.
    pub fn reset_handlers(&mut self) {
        for action in &mut self.actions {
            let ignored = action.disposition() == super::Disposition::Ignore;
            *action = Action {
                handler: if ignored { action.handler } else { 0 },
                ..Action::DEFAULT
            };
        }
    }
}

impl Default for ProcessSignals {
    fn default() -> Self {
        ProcessSignals::new()
    }
}
