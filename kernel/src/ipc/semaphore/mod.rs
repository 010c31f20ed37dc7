//! System V semaphores (`semget(2)`, `semop(2)`, `semctl(2)`; Linux's `ipc/sem.c`).
//!
//! A [`Set`] is an array of counters. A call's operations are all done at once or not at all; a call that cannot go on waits at the first
//! semaphore that is in its way, and is looked at again when that one changes ([`operation`]). What a process asks to be undone at its end
//! is in [`undo`].
//!
//! Lock rank: IPC for the table and for a set, never both; what a process has to undo (LEAF) inside.

mod operation;
pub mod undo;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use super::memory::Charge;
use super::permission::{self, Permission};
use super::table::{Kind, Object, Objects, PLACES};
use super::waiters::Waiters;
use crate::errno::{Errno, Result};
use crate::fs::inode::Time;
use crate::sched::current;
use crate::sync::{SpinLock, SpinLockGuard, rank};

pub use operation::{Operation, operate};
use undo::SetUndos;

/// Most semaphores in a set, in all sets, sets, and operations of a call (`SEMMSL`, `SEMMNS`, `SEMMNI`, `SEMOPM`).
pub const SEMMSL: u32 = 32000;
pub const SEMMNS: u64 = SEMMNI * SEMMSL as u64;
pub const SEMMNI: u64 = 32000;
pub const SEMOPM: usize = 500;
/// Largest value, and adjustment at a process's end (`SEMVMX`, `SEMAEM`).
pub const SEMVMX: i32 = 32767;
pub const SEMAEM: i32 = SEMVMX;

const _: () = assert!(SEMMNI as usize <= PLACES);

pub static SETS: Objects<Set> = Objects::new();
/// Semaphores of all sets.
static SEMAPHORES: AtomicU64 = AtomicU64::new(0);

/// A set of semaphores.
pub struct Set {
    count: u32,
    state: SpinLock<State>,
    _charge: Charge,
}

/// A counter.
#[derive(Clone, Copy, Default)]
struct Semaphore {
    value: u16,
    /// It changed, and those who wait for it are to be looked at.
    touched: bool,
    /// The next one of which that is true.
    next_touched: u32,
    /// Who changed it last.
    pid: u32,
}

struct State {
    permission: Permission,
    semaphores: Box<[Semaphore]>,
    /// The first one that was touched, [`operation::NONE`] without any.
    touched: u32,
    operation_time: i64,
    change_time: i64,
    waiters: Waiters<operation::Request>,
    undos: SetUndos,
    removed: bool,
}

/// What semctl(2) and /proc/sysvipc/sem tell of a set.
pub struct Status {
    pub id: u32,
    pub key: i32,
    pub sequence: u32,
    pub permission: Permission,
    pub count: u32,
    pub operation_time: i64,
    pub change_time: i64,
}

/// What is told of one semaphore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    Value,
    /// Process that changed it last.
    Pid,
    /// Threads that wait for it to become larger.
    WaitForMore,
    /// Threads that wait for it to become 0.
    WaitForZero,
}

/// semget(2).
pub fn get(key: i32, count: i32, flags: u32) -> Result<u32> {
    let count = u32::try_from(count)
        .ok()
        .filter(|&count| count <= SEMMSL)
        .ok_or(Errno::EINVAL)?;
    let check = |set: &Set| match count > set.count {
        true => Err(Errno::EINVAL),
        false => set.permission().check(flags),
    };
    SETS.get(
        key,
        flags,
        SEMMNI as usize,
        || Set::new(count, flags),
        check,
    )
}

impl Set {
    fn new(count: u32, flags: u32) -> Result<Set> {
        if count == 0 {
            return Err(Errno::EINVAL);
        }
        if SEMAPHORES.load(Ordering::Relaxed) + u64::from(count) > SEMMNS {
            return Err(Errno::ENOSPC);
        }
        let charge =
            Charge::new(size_of::<Object<Set>>() + count as usize * size_of::<Semaphore>())?;
        let mut semaphores = Vec::new();
        semaphores.try_reserve_exact(count as usize)?;
        semaphores.resize(count as usize, Semaphore::default());
        let state = State {
            permission: Permission::new(flags),
            semaphores: semaphores.into_boxed_slice(),
            touched: operation::NONE,
            operation_time: 0,
            change_time: Time::now().sec,
            waiters: Waiters::new(),
            undos: SetUndos::new(),
            removed: false,
        };
        SEMAPHORES.fetch_add(u64::from(count), Ordering::Relaxed);
        Ok(Set {
            count,
            state: SpinLock::new(rank::IPC, state),
            _charge: charge,
        })
    }

    /// The set to be worked with, if the current process may do what `wanted` says. `EACCES`, `EIDRM`.
    fn lock(&self, wanted: u32) -> Result<SpinLockGuard<'_, State>> {
        let state = self.state.lock();
        state.permission.check(wanted)?;
        if state.removed {
            return Err(Errno::EIDRM);
        }
        Ok(state)
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        SEMAPHORES.fetch_sub(u64::from(self.count), Ordering::Relaxed);
    }
}

impl Kind for Set {
    type Status = Status;

    fn permission(&self) -> Permission {
        self.state.lock().permission
    }

    fn status(object: &Object<Set>) -> Status {
        let state = object.state.lock();
        Status {
            id: object.id(),
            key: object.key(),
            sequence: object.sequence(),
            permission: state.permission,
            count: object.count,
            operation_time: state.operation_time,
            change_time: state.change_time,
        }
    }
}

/// Sets, semaphores in them, and the highest place.
pub fn totals() -> (usize, u64, usize) {
    let table = SETS.lock();
    let semaphores = SEMAPHORES.load(Ordering::Relaxed);
    (table.count(), semaphores, table.highest_place())
}

/// IPC_SET, with a `struct ipc64_perm`. `EINVAL`, `EPERM`.
pub fn set(id: i32, new: [u64; 6]) -> Result {
    let set = SETS.find(id)?;
    let mut state = set.state.lock();
    state.permission.check_owner()?;
    state.permission.set(new)?;
    state.change_time = Time::now().sec;
    Ok(())
}

/// IPC_RMID: whoever waits ends with `EIDRM`. `EINVAL`, `EPERM`.
pub fn remove(id: i32) -> Result {
    let set = SETS.find(id)?;
    set.permission().check_owner()?;
    let removed = SETS.lock().remove(&set).ok_or(Errno::EINVAL)?;
    let mut state = set.state.lock();
    state.removed = true;
    while let Some(waiter) = state.waiters.first() {
        waiter.end(Err(Errno::EIDRM));
    }
    drop(state);
    undo::forget(&set);
    drop(removed);
    Ok(())
}

/// GETVAL and its like. `EINVAL`, `EACCES`, `EIDRM`.
pub fn figure(id: i32, number: i32, what: Figure) -> Result<usize> {
    let set = SETS.find(id)?;
    let state = set.lock(permission::READ)?;
    let semaphore = usize::try_from(number)
        .ok()
        .and_then(|number| state.semaphores.get(number))
        .ok_or(Errno::EINVAL)?;
    Ok(match what {
        Figure::Value => semaphore.value.into(),
        Figure::Pid => semaphore.pid as usize,
        Figure::WaitForMore => state.count_waiters(number as u32, false),
        Figure::WaitForZero => state.count_waiters(number as u32, true),
    })
}

/// GETALL. `EINVAL`, `EACCES`, `EIDRM`, `ENOMEM`.
pub fn values(id: i32) -> Result<Vec<u16>> {
    let set = SETS.find(id)?;
    set.permission().check(permission::READ)?;
    let mut values = Vec::new();
    values.try_reserve_exact(set.count as usize)?;
    let state = set.lock(permission::READ)?;
    values.extend(state.semaphores.iter().map(|semaphore| semaphore.value));
    Ok(values)
}

/// How many values SETALL takes, if the current process may. `EINVAL`, `EACCES`.
pub fn count_to_set(id: i32) -> Result<usize> {
    let set = SETS.find(id)?;
    set.permission().check(permission::WRITE)?;
    Ok(set.count as usize)
}

/// SETALL. `EINVAL`, `EACCES`, `EIDRM`, `ERANGE`.
pub fn set_values(id: i32, values: &[u16]) -> Result {
    let set = SETS.find(id)?;
    if values.iter().any(|&value| i32::from(value) > SEMVMX) {
        return Err(Errno::ERANGE);
    }
    let mut state = set.lock(permission::WRITE)?;
    if values.len() != state.semaphores.len() {
        return Err(Errno::EINVAL);
    }
    for (number, &value) in values.iter().enumerate().rev() {
        state.put(number, value);
    }
    state.undos.clear_all();
    state.change_time = Time::now().sec;
    state.wake_for_touched();
    Ok(())
}

/// SETVAL. `ERANGE`, `EINVAL`, `EACCES`, `EIDRM`.
pub fn set_value(id: i32, number: i32, value: i32) -> Result {
    if !(0..=SEMVMX).contains(&value) {
        return Err(Errno::ERANGE);
    }
    let set = SETS.find(id)?;
    let number = u32::try_from(number)
        .ok()
        .filter(|&number| number < set.count)
        .ok_or(Errno::EINVAL)?;
    let mut state = set.lock(permission::WRITE)?;
    state.put(number as usize, value as u16);
    state.undos.clear(number as usize);
    state.change_time = Time::now().sec;
    state.wake_for_touched();
    Ok(())
}

impl State {
    /// Sets a value, as the current process.
    fn put(&mut self, number: usize, value: u16) {
        let semaphore = &mut self.semaphores[number];
        semaphore.value = value;
        semaphore.pid = current().process.pid;
        self.touch(number);
    }
}
