//! What is added to semaphores when a process ends (SEM_UNDO): the opposite of what it has added itself.
//!
//! An [`Undo`] belongs to one process and one set, and is found from both. It changes under the set's lock only. Lock rank of a process's
//! list: LEAF, inside the set's.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicI16, AtomicU64, Ordering};

use intrusive_collections::{KeyAdapter, RBTree, RBTreeAtomicLink, intrusive_adapter};

use super::{SEMVMX, Set, State};
use crate::errno::{Errno, Result};
use crate::fs::inode::Time;
use crate::ipc::memory::Charge;
use crate::ipc::table::Object;
use crate::sched::current;
use crate::sync::{SpinLock, rank};
use crate::task::Process;

/// What one process undoes in one set.
pub(super) struct Undo {
    set: Arc<Object<Set>>,
    serial: u64,
    adjustments: Box<[AtomicI16]>,
    by_set: RBTreeAtomicLink,
    by_process: RBTreeAtomicLink,
    _charge: Charge,
}

intrusive_adapter!(BySet = Arc<Undo>: Undo { by_set => RBTreeAtomicLink });
intrusive_adapter!(ByProcess = Arc<Undo>: Undo { by_process => RBTreeAtomicLink });

impl<'a> KeyAdapter<'a> for BySet {
    type Key = u64;
    fn get_key(&self, undo: &'a Undo) -> u64 {
        undo.serial
    }
}

impl<'a> KeyAdapter<'a> for ByProcess {
    type Key = u32;
    fn get_key(&self, undo: &'a Undo) -> u32 {
        undo.set.id()
    }
}

impl Undo {
    fn new(set: &Arc<Object<Set>>) -> Result<Arc<Undo>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let count = set.count as usize;
        let charge = Charge::new(size_of::<Undo>() + count * size_of::<AtomicI16>())?;
        let mut adjustments = Vec::new();
        adjustments.try_reserve_exact(count)?;
        adjustments.resize_with(count, || AtomicI16::new(0));
        Ok(Arc::try_new(Undo {
            set: set.clone(),
            serial: NEXT.fetch_add(1, Ordering::Relaxed),
            adjustments: adjustments.into_boxed_slice(),
            by_set: RBTreeAtomicLink::new(),
            by_process: RBTreeAtomicLink::new(),
            _charge: charge,
        })?)
    }

    pub fn get(&self, number: usize) -> i32 {
        self.adjustments[number].load(Ordering::Relaxed).into()
    }

    /// `adjustment` is within [`super::SEMAEM`].
    pub fn set(&self, number: usize, adjustment: i32) {
        self.adjustments[number].store(adjustment as i16, Ordering::Relaxed);
    }
}

/// What processes undo in one set.
pub(super) struct SetUndos(RBTree<BySet>);

impl SetUndos {
    pub fn new() -> SetUndos {
        SetUndos(RBTree::new(BySet::NEW))
    }

    /// Nobody undoes what was done to this semaphore.
    pub fn clear(&self, number: usize) {
        self.0.iter().for_each(|undo| undo.set(number, 0));
    }

    pub fn clear_all(&self) {
        for undo in self.0.iter() {
            (0..undo.adjustments.len()).for_each(|number| undo.set(number, 0));
        }
    }
}

/// What a process undoes at its end.
pub struct Undos(SpinLock<RBTree<ByProcess>>);

impl Undos {
    pub const fn new() -> Undos {
        Undos(SpinLock::new(rank::LEAF, RBTree::new(ByProcess::NEW)))
    }

    /// That of a set that is there.
    fn find(&self, set: &Arc<Object<Set>>) -> Option<Arc<Undo>> {
        let undos = self.0.lock();
        undos.find(&set.id()).clone_pointer()
    }
}

/// What the current process undoes in a set. `EIDRM`, `ENOMEM`.
pub(super) fn of_current(set: &Arc<Object<Set>>) -> Result<Arc<Undo>> {
    let own = &current().process.undos;
    if let Some(undo) = own.find(set) {
        return Ok(undo);
    }
    let undo = Undo::new(set)?;
    let mut state = set.state.lock();
    if state.removed {
        return Err(Errno::EIDRM);
    }
    let mut list = own.0.lock();
    // Another thread may have made it meanwhile.
    if let Some(other) = list.find(&set.id()).clone_pointer() {
        return Ok(other);
    }
    list.insert(undo.clone());
    drop(list);
    state.undos.0.insert(undo.clone());
    Ok(undo)
}

/// A removed set needs nothing undone. Processes forget it at their ends.
pub(super) fn forget(set: &Arc<Object<Set>>) {
    let mut state = set.state.lock();
    let undos = state.undos.0.take();
    drop(state);
    drop(undos);
}

/// Undoes what the current process, which ends, has asked for.
pub fn process_ended(process: &Process) {
    loop {
        let undo = process.undos.0.lock().front_mut().remove();
        let Some(undo) = undo else {
            return;
        };
        let mut state = undo.set.state.lock();
        let listed = state.undos.0.find_mut(&undo.serial).remove();
        if listed.is_some() {
            state.undo(&undo, process.pid);
        }
        drop(state);
        drop(listed);
    }
}

impl State {
    /// Adds the adjustments as far as they go, as process `pid`.
    fn undo(&mut self, undo: &Undo, pid: u32) {
        for number in (0..self.semaphores.len()).rev() {
            let adjustment = undo.get(number);
            if adjustment == 0 {
                continue;
            }
            let semaphore = &mut self.semaphores[number];
            let value = i32::from(semaphore.value) + adjustment;
            semaphore.value = value.clamp(0, SEMVMX) as u16;
            semaphore.pid = pid;
            self.touch(number);
        }
        self.operation_time = Time::now().sec;
        self.wake_for_touched();
    }
}
