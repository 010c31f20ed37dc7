//! System V semaphores: semget(2), semop(2), semtimedop(2), semctl(2).

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::args::Args;
use super::time::read_timeout;
use crate::errno::{Errno, Result};
use crate::ipc::abi;
use crate::ipc::semaphore::{
    self, Figure, Operation, SEMAEM, SEMMNI, SEMMNS, SEMMSL, SEMOPM, SEMVMX, Status,
};
use crate::mm::uaccess::UserPtr;
use crate::sched::timer::Deadline;

/// semget(2).
pub fn sys_semget(&[key, count, flags, ..]: &Args) -> Result<usize> {
    semaphore::get(key as i32, count as i32, flags as u32).map(|id| id as usize)
}

/// semop(2).
pub fn sys_semop(&[id, operations, count, ..]: &Args) -> Result<usize> {
    operate(id, operations, count, 0)
}

/// semtimedop(2).
pub fn sys_semtimedop(&[id, operations, count, timeout, ..]: &Args) -> Result<usize> {
    operate(id, operations, count, timeout)
}

fn operate(id: usize, operations: usize, count: usize, timeout: usize) -> Result<usize> {
    // What is read of it comes first, and what it means last.
    let deadline = match read_timeout(timeout) {
        Err(Errno::EFAULT) => return Err(Errno::EFAULT),
        deadline => deadline,
    };
    let count = count as u32 as usize;
    if count > SEMOPM {
        return Err(Errno::E2BIG);
    }
    if count == 0 {
        return Err(Errno::EINVAL);
    }
    let operations = read_operations(operations, count)?;
    if (id as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    let deadline = deadline?.map(Deadline::Monotonic);
    semaphore::operate(id as i32, operations, deadline).map(|()| 0)
}

/// An array of `struct sembuf`. `EFAULT`, `ENOMEM`.
fn read_operations(addr: usize, count: usize) -> Result<Box<[Operation]>> {
    let mut operations = Vec::new();
    operations.try_reserve_exact(count)?;
    let array = UserPtr::<[u16; 3]>::new(addr);
    for n in 0..count {
        let [number, change, flags] = array.at(n).read()?;
        operations.push(Operation {
            number,
            change: change as i16,
            flags,
        });
    }
    Ok(operations.into_boxed_slice())
}

/// semctl(2).
pub fn sys_semctl(&[id, number, command, arg, ..]: &Args) -> Result<usize> {
    let (id, number, command) = (id as i32, number as i32, command as u32);
    if id < 0 {
        return Err(Errno::EINVAL);
    }
    let figure = |what| semaphore::figure(id, number, what);
    match command {
        abi::IPC_INFO | abi::SEM_INFO => info(command == abi::SEM_INFO, arg),
        abi::IPC_STAT => tell(&semaphore::SETS.status(id)?, arg).map(|()| 0),
        abi::SEM_STAT | abi::SEM_STAT_ANY => {
            let status = semaphore::SETS.status_at(id, command == abi::SEM_STAT_ANY)?;
            tell(&status, arg)?;
            Ok(status.id as usize)
        }
        abi::GETVAL => figure(Figure::Value),
        abi::GETPID => figure(Figure::Pid),
        abi::GETNCNT => figure(Figure::WaitForMore),
        abi::GETZCNT => figure(Figure::WaitForZero),
        abi::GETALL => {
            let array = UserPtr::<u16>::new(arg);
            for (n, value) in semaphore::values(id)?.into_iter().enumerate() {
                array.at(n).write(value)?;
            }
            Ok(0)
        }
        abi::SETALL => set_all(id, arg).map(|()| 0),
        abi::SETVAL => semaphore::set_value(id, number, arg as i32).map(|()| 0),
        abi::IPC_SET => {
            let new = UserPtr::<[u64; 13]>::new(arg).read()?;
            semaphore::set(id, [new[0], new[1], new[2], 0, 0, 0]).map(|()| 0)
        }
        abi::IPC_RMID => semaphore::remove(id).map(|()| 0),
        _ => Err(Errno::EINVAL),
    }
}

fn set_all(id: i32, addr: usize) -> Result {
    let count = semaphore::count_to_set(id)?;
    let mut values = Vec::new();
    values.try_reserve_exact(count)?;
    let array = UserPtr::<u16>::new(addr);
    for n in 0..count {
        values.push(array.at(n).read()?);
    }
    semaphore::set_values(id, &values)
}

/// Writes a `struct seminfo`; with `now` the numbers of what there is.
fn info(now: bool, buf: usize) -> Result<usize> {
    let (sets, semaphores, highest) = semaphore::totals();
    let per_process = SEMOPM as i32;
    let (sets, semaphores) = match now {
        true => (sets as i32, semaphores as i32),
        // The size of an entry of what is undone, as it once was (`SEMUSZ`), and the largest adjustment.
        false => (20, SEMAEM),
    };
    let all = SEMMNS as i32;
    let info = [
        all,
        SEMMNI as i32,
        all,
        all,
        SEMMSL as i32,
        SEMOPM as i32,
        per_process,
        sets,
        SEMVMX,
        semaphores,
    ];
    UserPtr::<[i32; 10]>::new(buf).write(info)?;
    Ok(highest)
}

/// Writes a `struct semid64_ds`.
fn tell(status: &Status, buf: usize) -> Result {
    let mut words = [0; 13];
    words[..6].copy_from_slice(&status.permission.to_abi(status.key, status.sequence));
    words[6] = status.operation_time as u64;
    words[8] = status.change_time as u64;
    words[10] = status.count.into();
    UserPtr::<[u64; 13]>::new(buf).write(words)
}
