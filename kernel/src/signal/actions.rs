//! The actions of a process's signals (`sighand_struct`): its own, or those that it shares with other processes (CLONE_SIGHAND).
//!
//! Own ones stand in the process's signal state and are guarded by its lock, so that delivery finds them without another step. The first
//! clone(2) that shares them moves them into an object with a lock of its own; execve(2) moves them back. Lock rank of that: LEAF.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::action::{Action, Disposition};
use super::set::Signal;
use super::state::ProcessSignals;
use crate::errno::OutOfMemory;
use crate::sync::{IrqLock, rank};

const ACTIONS: usize = Signal::MAX as usize;

/// In the order of their signals.
type Table = [Action; ACTIONS];

/// Room for the actions of a new process.
pub struct RoomForActions(Vec<Action>);

impl RoomForActions {
    pub fn new() -> Result<RoomForActions, OutOfMemory> {
        let mut room = Vec::new();
        room.try_reserve_exact(ACTIONS).map_err(|_| OutOfMemory)?;
        Ok(RoomForActions(room))
    }

    /// Fills it.
    pub fn copy_from(&mut self, parent: &ProcessSignals) {
        self.0.clear();
        match &parent.actions.shared {
            None => self.0.extend_from_slice(&*parent.actions.own),
            Some(shared) => self.0.extend_from_slice(&*shared.0.lock()),
        }
    }

    fn into_table(mut self) -> Result<Box<Table>, OutOfMemory> {
        self.0.resize(ACTIONS, Action::DEFAULT);
        self.0
            .into_boxed_slice()
            .try_into()
            .map_err(|_| OutOfMemory)
    }
}

/// Actions that several processes have in common.
pub struct SharedActions(IrqLock<Table>);

impl SharedActions {
    /// Room for actions. `ENOMEM`.
    pub fn new() -> Result<Arc<SharedActions>, OutOfMemory> {
        let table = IrqLock::new(rank::LEAF, [Action::DEFAULT; ACTIONS]);
        Arc::try_new(SharedActions(table)).map_err(|_| OutOfMemory)
    }
}

/// A process's actions.
pub(super) struct Actions {
    /// Not in the structure itself, which is moved into its place when a process is made.
    own: Box<Table>,
    /// If it is there, it counts and `own` does not.
    shared: Option<Arc<SharedActions>>,
}

impl Actions {
    /// Actions of its own, by default the default ones.
    pub fn with(room: RoomForActions) -> Result<Actions, OutOfMemory> {
        Ok(Actions {
            own: room.into_table()?,
            shared: None,
        })
    }

    /// The action. What is seen of own ones costs no copy.
    #[inline]
    pub fn look_at<R>(&self, signal: Signal, look: impl FnOnce(&Action) -> R) -> R {
        match &self.shared {
            None => look(&self.own[signal.index()]),
            Some(shared) => {
                let action = Self::get_shared(shared, signal);
                look(&action)
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn get_shared(shared: &SharedActions, signal: Signal) -> Action {
        shared.0.lock()[signal.index()]
    }

    #[inline]
    pub fn change<R>(&mut self, change: impl FnOnce(&mut Table) -> R) -> R {
        match &self.shared {
            None => change(&mut self.own),
            Some(shared) => change(&mut shared.0.lock()),
        }
    }

    /// Handlers go back to the default; ignored signals stay ignored.
    pub fn reset_handlers(&mut self) {
        self.change(|table| {
            for action in table {
                let ignored = action.disposition() == Disposition::Ignore;
                *action = Action {
                    handler: if ignored { action.handler } else { 0 },
                    ..Action::DEFAULT
                };
            }
        });
    }

    /// What to share, which is `room` unless they are shared already.
    pub fn share(&mut self, room: Arc<SharedActions>) -> Arc<SharedActions> {
        let own = &*self.own;
        let shared = self.shared.get_or_insert_with(|| {
            *room.0.lock() = *own;
            room
        });
        shared.clone()
    }

    /// From now on `shared` counts.
    pub fn join(&mut self, shared: Arc<SharedActions>) {
        self.shared = Some(shared);
    }

    /// Makes them the process's own. The shared ones come back, to be dropped when no lock is held.
    pub fn unshare(&mut self) -> Option<Arc<SharedActions>> {
        let shared = self.shared.take()?;
        *self.own = *shared.0.lock();
        Some(shared)
    }

    /// Whether another process has the same.
    pub fn are_shared(&self) -> bool {
        let users = self.shared.as_ref().map(Arc::strong_count);
        users.is_some_and(|users| users > 1)
    }
}
