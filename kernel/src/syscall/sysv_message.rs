//! System V message queues: msgget(2), msgsnd(2), msgrcv(2), msgctl(2).

use super::args::Args;
use crate::errno::{Errno, Result};
use crate::ipc::abi;
use crate::ipc::message_queue::{self, Status, wanted};
use crate::ipc::settings::{MSGMAX, MSGMNB, MSGMNI};
use crate::mm::uaccess::{self, UserPtr};

/// The bytes of a message come after its type.
const TEXT: usize = 8;

/// msgget(2).
pub fn sys_msgget(&[key, flags, ..]: &Args) -> Result<usize> {
    message_queue::get(key as i32, flags as u32).map(|id| id as usize)
}

/// msgsnd(2).
pub fn sys_msgsnd(&[id, message, len, flags, ..]: &Args) -> Result<usize> {
    let kind = UserPtr::<i64>::new(message).read()?;
    let nowait = flags as u32 & abi::IPC_NOWAIT != 0;
    let text = message.wrapping_add(TEXT);
    message_queue::send(id as i32, kind, text, len, nowait).map(|()| 0)
}

/// msgrcv(2).
pub fn sys_msgrcv(&[id, to, len, kind, flags, _]: &Args) -> Result<usize> {
    let (id, flags) = (id as i32, flags as u32);
    if id < 0 || len > isize::MAX as usize {
        return Err(Errno::EINVAL);
    }
    let wanted = wanted(kind as i64, flags, len)?;
    let most = match flags & abi::MSG_NOERROR {
        0 => len,
        _ => usize::MAX,
    };
    let message = message_queue::receive(id, wanted, most, flags & abi::IPC_NOWAIT != 0)?;
    let bytes = message.bytes();
    let bytes = &bytes[..bytes.len().min(len)];
    UserPtr::<i64>::new(to).write(message.kind)?;
    uaccess::write_bytes(to.wrapping_add(TEXT), bytes)?;
    Ok(bytes.len())
}

/// msgctl(2).
pub fn sys_msgctl(&[id, command, buf, ..]: &Args) -> Result<usize> {
    let (id, command) = (id as i32, command as u32);
    if id < 0 || (command as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    match command {
        abi::IPC_INFO | abi::MSG_INFO => info(command == abi::MSG_INFO, buf),
        abi::IPC_STAT => tell(&message_queue::QUEUES.status(id)?, buf).map(|()| 0),
        abi::MSG_STAT | abi::MSG_STAT_ANY => {
            let status = message_queue::QUEUES.status_at(id, command == abi::MSG_STAT_ANY)?;
            tell(&status, buf)?;
            Ok(status.id as usize)
        }
        abi::IPC_SET => {
            let new = UserPtr::<[u64; 15]>::new(buf).read()?;
            let permission = [new[0], new[1], new[2], 0, 0, 0];
            message_queue::set(id, permission, new[11]).map(|()| 0)
        }
        abi::IPC_RMID => message_queue::remove(id).map(|()| 0),
        _ => Err(Errno::EINVAL),
    }
}

/// Writes a `struct msginfo`; with `now` the numbers of what there is. What Linux does not heed either is what it tells.
fn info(now: bool, buf: usize) -> Result<usize> {
    /// `MSGMNI`, `MSGMNB`, `MSGSSZ`, `MSGSEG`.
    const QUEUES: i32 = 32000;
    const BYTES: i32 = 16384;
    const SEGMENT: i32 = 16;
    const SEGMENTS: i32 = 0xffff;
    let totals = message_queue::totals();
    let (pool, map, all) = match now {
        true => (
            totals.queues as i32,
            totals.messages as i32,
            totals.bytes as i32,
        ),
        false => (
            QUEUES / 1024 * BYTES + QUEUES % 1024 * (BYTES / 1024),
            BYTES,
            BYTES,
        ),
    };
    let [most, most_in_queue, queues] =
        [&MSGMAX, &MSGMNB, &MSGMNI].map(|setting| setting.get() as i32);
    let info = [
        pool,
        map,
        most,
        most_in_queue,
        queues,
        SEGMENT,
        all,
        SEGMENTS,
    ];
    UserPtr::<[i32; 8]>::new(buf).write(info)?;
    Ok(totals.highest)
}

/// Writes a `struct msqid64_ds`.
fn tell(status: &Status, buf: usize) -> Result {
    let mut words = [0; 15];
    words[..6].copy_from_slice(&status.permission.to_abi(status.key, status.sequence));
    words[6..13].copy_from_slice(&[
        status.send_time as u64,
        status.receive_time as u64,
        status.change_time as u64,
        status.bytes,
        status.messages,
        status.most,
        u64::from(status.last_sender) | u64::from(status.last_receiver) << 32,
    ]);
    UserPtr::<[u64; 15]>::new(buf).write(words)
}
