//! The operations of semop(2): done together, or waited for.
//!
//! A waiter stands at the semaphore that is in its way, those who wait for a 0 before those who wait for more. When a semaphore changes,
//! those who stand there are looked at in the order of their coming; what they change is looked at next, until nothing moves any more.

use alloc::boxed::Box;
use alloc::sync::Arc;

use super::undo::{self, Undo};
use super::{SEMAEM, SEMVMX, SETS, State};
use crate::errno::{Errno, Result};
use crate::fs::inode::Time;
use crate::ipc::waiters::Waiter;
use crate::ipc::{abi, permission};
use crate::sched::current;
use crate::sched::timer::Deadline;
use crate::sched::wait::NotYet;
use crate::sync::{SpinLock, rank};

/// Ends the list of touched semaphores.
pub(super) const NONE: u32 = u32::MAX;

/// One operation of a call.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    pub number: u16,
    /// What is added; 0: waits for the value 0.
    pub change: i16,
    pub flags: u16,
}

impl Operation {
    fn has(self, flag: u32) -> bool {
        u32::from(self.flags) & flag != 0
    }

    /// Where a waiter stands that this operation keeps.
    fn rank(self) -> u64 {
        place(u32::from(self.number), self.change == 0)
    }
}

/// Where those wait who wait for this semaphore to become 0, or larger.
fn place(number: u32, for_zero: bool) -> u64 {
    u64::from(number) * 2 + u64::from(!for_zero)
}

/// The operations that a thread waits to do.
pub(super) struct Request {
    operations: Box<[Operation]>,
    undo: Option<Arc<Undo>>,
    pid: u32,
    /// Lock rank: LEAF.
    outcome: SpinLock<Option<Result>>,
}

impl Waiter<Request> {
    /// Ends the wait.
    pub(super) fn end(&self, outcome: Result) {
        *self.outcome.lock() = Some(outcome);
        self.wake();
    }

    fn outcome(&self) -> Result {
        self.outcome.lock().unwrap_or(Err(Errno::EIDRM))
    }
}

/// semtimedop(2) with at least one operation. `EINVAL`, `EFBIG`, `EACCES`, `EIDRM`, `EAGAIN`, `ERANGE`, `EINTR`, `ENOMEM`.
pub fn operate(id: i32, operations: Box<[Operation]>, deadline: Option<Deadline>) -> Result {
    let set = SETS.find(id)?;
    let undoes = operations.iter().any(|one| one.has(abi::SEM_UNDO));
    let undo = match undoes {
        true => Some(undo::of_current(&set)?),
        false => None,
    };
    let highest = operations.iter().map(|one| u32::from(one.number)).max();
    if highest.is_none_or(|highest| highest >= set.count) {
        return Err(Errno::EFBIG);
    }
    let alters = operations.iter().any(|one| one.change != 0);
    let wanted = match alters {
        true => permission::WRITE,
        false => permission::READ,
    };
    let pid = current().process.pid;
    let mut state = set.lock(wanted)?;
    let Some(blocking) = state.perform(&operations, undo.as_deref(), pid)? else {
        state.operation_time = Time::now().sec;
        state.wake_for_touched();
        return Ok(());
    };
    let request = Request {
        operations,
        undo,
        pid,
        outcome: SpinLock::new(rank::LEAF, None),
    };
    let waiter = Waiter::new(blocking.rank(), request)?;
    state.waiters.add(waiter.clone());
    drop(state);
    let Err(not_yet) = waiter.wait(deadline) else {
        return waiter.outcome();
    };
    let mut state = set.state.lock();
    let still_waits = state.waiters.remove(&waiter);
    drop(state);
    match (still_waits, not_yet) {
        (false, _) => waiter.outcome(),
        (true, NotYet::Interrupted) => Err(Errno::EINTR),
        (true, NotYet::TimedOut) => Err(Errno::EAGAIN),
    }
}

impl State {
    /// Does all operations, as process `pid`; or none, and says which one is in the way. `ERANGE`, `EAGAIN`.
    fn perform(
        &mut self,
        operations: &[Operation],
        undo: Option<&Undo>,
        pid: u32,
    ) -> Result<Option<Operation>> {
        for (done, &one) in operations.iter().enumerate() {
            let outcome = match self.apply(one, undo) {
                Ok(true) => continue,
                Ok(false) if one.has(abi::IPC_NOWAIT) => Err(Errno::EAGAIN),
                Ok(false) => Ok(Some(one)),
                Err(error) => Err(error),
            };
            for &one in operations[..done].iter().rev() {
                self.revert(one, undo);
            }
            return outcome;
        }
        // What is touched last is looked at first.
        for one in operations.iter().rev() {
            self.semaphores[usize::from(one.number)].pid = pid;
            if one.change != 0 {
                self.touch(one.number.into());
            }
        }
        Ok(None)
    }

    /// Does one operation; whether it could be done. `ERANGE`.
    fn apply(&mut self, one: Operation, undo: Option<&Undo>) -> Result<bool> {
        let number = usize::from(one.number);
        let value = i32::from(self.semaphores[number].value);
        let change = i32::from(one.change);
        let result = value + change;
        if change == 0 && value != 0 || result < 0 {
            return Ok(false);
        }
        if result > SEMVMX {
            return Err(Errno::ERANGE);
        }
        if let Some(undo) = undo.filter(|_| one.has(abi::SEM_UNDO)) {
            let adjustment = undo.get(number) - change;
            if !(-SEMAEM - 1..=SEMAEM).contains(&adjustment) {
                return Err(Errno::ERANGE);
            }
            undo.set(number, adjustment);
        }
        self.semaphores[number].value = result as u16;
        Ok(true)
    }

    /// Takes back an operation that was just done.
    fn revert(&mut self, one: Operation, undo: Option<&Undo>) {
        let number = usize::from(one.number);
        let value = i32::from(self.semaphores[number].value);
        self.semaphores[number].value = (value - i32::from(one.change)) as u16;
        if let Some(undo) = undo.filter(|_| one.has(abi::SEM_UNDO)) {
            undo.set(number, undo.get(number) + i32::from(one.change));
        }
    }

    /// The semaphore has changed: those who wait for it are to be looked at.
    pub(super) fn touch(&mut self, number: usize) {
        let semaphore = &mut self.semaphores[number];
        if !semaphore.touched {
            semaphore.touched = true;
            semaphore.next_touched = self.touched;
            self.touched = number as u32;
        }
    }

    /// Looks at those who wait for what has changed, until nothing changes any more.
    pub(super) fn wake_for_touched(&mut self) {
        while self.touched != NONE {
            let number = self.touched;
            let semaphore = &mut self.semaphores[number as usize];
            semaphore.touched = false;
            self.touched = semaphore.next_touched;
            let value = semaphore.value;
            if value == 0 {
                self.wake_at(place(number, true));
            }
            if value > 0 {
                self.wake_at(place(number, false));
            }
        }
    }

    fn wake_at(&mut self, place: u64) {
        let mut after = None;
        while let Some((serial, waiter)) = self.waiters.next(place, after) {
            after = Some(serial);
            let outcome = match self.perform(&waiter.operations, waiter.undo.as_deref(), waiter.pid)
            {
                Ok(Some(blocking)) => {
                    if blocking.rank() != place {
                        self.waiters.set_rank(&waiter, blocking.rank());
                    }
                    continue;
                }
                Ok(None) => {
                    self.operation_time = Time::now().sec;
                    Ok(())
                }
                Err(error) => Err(error),
            };
            self.waiters.remove(&waiter);
            waiter.end(outcome);
        }
    }

    /// Threads that wait at a semaphore. Costs them.
    pub(super) fn count_waiters(&self, number: u32, for_zero: bool) -> usize {
        let (mut count, mut after) = (0, None);
        while let Some((serial, _)) = self.waiters.next(place(number, for_zero), after) {
            after = Some(serial);
            count += 1;
        }
        count
    }
}
