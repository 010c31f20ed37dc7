//! System V message queues (`msgget(2)`, `msgop(2)`, `msgctl(2)`; Linux's `ipc/msg.c`).
//!
//! Messages have types, and a receiver says which it wants ([`Wanted`]). A message goes straight to the first receiver that waits for one
//! like it, or into the queue. Senders that find it full wait for room and then try again, in the order of their coming.
//!
//! Messages are found by their order and by their type, so that taking one is O(log n), but for one of any type except a certain one.
//!
//! Lock rank: IPC for the table and for a queue, never both.

mod messages;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use super::abi;
use super::memory::Charge;
use super::message::Bytes;
use super::permission::{self, Permission};
use super::settings::{MSGMAX, MSGMNB, MSGMNI};
use super::table::{Kind, Object, Objects};
use super::waiters::{Waiter, Waiters};
use crate::errno::{Errno, Result};
use crate::fs::inode::Time;
use crate::sched::{Interrupted, Sleep, WaitQueue, current};
use crate::sync::{SpinLock, SpinLockGuard, rank};
use messages::Messages;

pub use messages::{Message, Wanted};

pub static QUEUES: Objects<Queue> = Objects::new();
/// Messages in all queues, and bytes in them.
static MESSAGES: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

/// A message queue.
pub struct Queue {
    state: SpinLock<State>,
    /// Threads that wait for room.
    senders: WaitQueue,
    _charge: Charge,
}

struct State {
    permission: Permission,
    messages: Messages,
    /// Bytes in all messages.
    bytes: u64,
    /// Most bytes, and most messages.
    most: u64,
    receivers: Waiters<Receiver>,
    send_time: i64,
    receive_time: i64,
    change_time: i64,
    last_sender: u32,
    last_receiver: u32,
    removed: bool,
}

/// What a thread waits for.
struct Receiver {
    wanted: Wanted,
    /// Longest message that it takes.
    most: usize,
    pid: u32,
    /// `None` inside: the queue changed, and it looks again. Lock rank: LEAF.
    outcome: SpinLock<Option<Result<Option<Arc<Message>>>>>,
}

impl Waiter<Receiver> {
    fn end(&self, outcome: Result<Option<Arc<Message>>>) {
        *self.outcome.lock() = Some(outcome);
        self.wake();
    }

    /// What it was woken with.
    fn take(&self) -> Result<Option<Arc<Message>>> {
        self.outcome.lock().take().unwrap_or(Ok(None))
    }
}

/// What msgctl(2) and /proc/sysvipc/msg tell of a queue.
pub struct Status {
    pub id: u32,
    pub key: i32,
    pub sequence: u32,
    pub permission: Permission,
    pub bytes: u64,
    pub messages: u64,
    pub most: u64,
    pub last_sender: u32,
    pub last_receiver: u32,
    pub send_time: i64,
    pub receive_time: i64,
    pub change_time: i64,
}

/// Sums over all queues.
pub struct Totals {
    pub queues: usize,
    pub messages: u64,
    pub bytes: u64,
    /// The highest place in the table.
    pub highest: usize,
}

/// msgget(2).
pub fn get(key: i32, flags: u32) -> Result<u32> {
    QUEUES.get(
        key,
        flags,
        MSGMNI.get() as usize,
        || Queue::new(flags),
        |queue| queue.permission().check(flags),
    )
}

impl Queue {
    fn new(flags: u32) -> Result<Queue> {
        let charge = Charge::new(size_of::<Object<Queue>>())?;
        let state = State {
            permission: Permission::new(flags),
            messages: Messages::new(),
            bytes: 0,
            most: MSGMNB.get(),
            receivers: Waiters::new(),
            send_time: 0,
            receive_time: 0,
            change_time: Time::now().sec,
            last_sender: 0,
            last_receiver: 0,
            removed: false,
        };
        Ok(Queue {
            state: SpinLock::new(rank::IPC, state),
            senders: WaitQueue::new(),
            _charge: charge,
        })
    }

    /// The queue to be worked with, if the current process may do what `wanted` says. `EACCES`, `EIDRM`.
    fn lock(&self, wanted: u32) -> Result<SpinLockGuard<'_, State>> {
        let state = self.state.lock();
        state.permission.check(wanted)?;
        if state.removed {
            return Err(Errno::EIDRM);
        }
        Ok(state)
    }

    /// Hands a message on, or puts it in; `None` if there is no room.
    fn try_send(&self, message: &Arc<Message>) -> Option<Result> {
        let mut state = match self.lock(permission::WRITE) {
            Ok(state) => state,
            Err(error) => return Some(Err(error)),
        };
        let bytes = state.bytes.saturating_add(message.bytes.len() as u64);
        if bytes > state.most || state.messages.count() + 1 > state.most {
            return None;
        }
        state.last_sender = current().process.pid;
        state.send_time = Time::now().sec;
        if !state.hand_on(message) {
            state.bytes = bytes;
            state.messages.push(message.clone());
            MESSAGES.fetch_add(1, Ordering::Relaxed);
            BYTES.fetch_add(message.bytes.len() as u64, Ordering::Relaxed);
        }
        Some(Ok(()))
    }
}

impl State {
    /// Gives the message to the first receiver that waits for one like it; whether there was one. Those for whom it is too long learn that.
    fn hand_on(&mut self, message: &Arc<Message>) -> bool {
        let mut after = None;
        while let Some((serial, receiver)) = self.receivers.next(0, after) {
            after = Some(serial);
            if !receiver.wanted.takes(message.kind) {
                continue;
            }
            self.receivers.remove(&receiver);
            if receiver.most < message.bytes.len() {
                receiver.end(Err(Errno::E2BIG));
                continue;
            }
            self.last_receiver = receiver.pid;
            self.receive_time = Time::now().sec;
            receiver.end(Ok(Some(message.clone())));
            return true;
        }
        false
    }

    /// Takes a message that `wanted` describes, of at most `most` bytes. `E2BIG`, `EINVAL`.
    fn take(&mut self, wanted: Wanted, most: usize) -> Result<Option<Arc<Message>>> {
        let Some(found) = self.messages.find(wanted) else {
            return Ok(None);
        };
        if found.bytes.len() > most {
            return Err(Errno::E2BIG);
        }
        if let Wanted::CopyOf(_, room) = wanted {
            return match found.bytes.len() <= room {
                true => Ok(Some(found)),
                false => Err(Errno::EINVAL),
            };
        }
        self.messages.remove(&found);
        self.bytes -= found.bytes.len() as u64;
        MESSAGES.fetch_sub(1, Ordering::Relaxed);
        BYTES.fetch_sub(found.bytes.len() as u64, Ordering::Relaxed);
        self.last_receiver = current().process.pid;
        self.receive_time = Time::now().sec;
        Ok(Some(found))
    }

    /// Ends the waits of all receivers.
    fn end_receivers(&mut self, outcome: Result<()>) {
        while let Some(receiver) = self.receivers.first() {
            receiver.end(outcome.map(|()| None));
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        MESSAGES.fetch_sub(state.messages.count(), Ordering::Relaxed);
        BYTES.fetch_sub(state.bytes, Ordering::Relaxed);
    }
}

impl Kind for Queue {
    type Status = Status;

    fn permission(&self) -> Permission {
        self.state.lock().permission
    }

    fn status(object: &Object<Queue>) -> Status {
        let state = object.state.lock();
        Status {
            id: object.id(),
            key: object.key(),
            sequence: object.sequence(),
            permission: state.permission,
            bytes: state.bytes,
            messages: state.messages.count(),
            most: state.most,
            last_sender: state.last_sender,
            last_receiver: state.last_receiver,
            send_time: state.send_time,
            receive_time: state.receive_time,
            change_time: state.change_time,
        }
    }
}

/// msgsnd(2) of the `len` bytes at `addr`. `EINVAL`, `EFAULT`, `ENOMEM`, `EACCES`, `EIDRM`, `EAGAIN`, `ERESTARTNOHAND`.
pub fn send(id: i32, kind: i64, addr: usize, len: usize, nowait: bool) -> Result {
    if len as u64 > MSGMAX.get() || id < 0 || kind < 1 {
        return Err(Errno::EINVAL);
    }
    let message = Message::new(kind, Bytes::read(addr, len)?)?;
    let queue = QUEUES.find(id)?;
    match queue.try_send(&message) {
        Some(outcome) => outcome,
        None if nowait => Err(Errno::EAGAIN),
        None => queue
            .senders
            .wait_until(Sleep::Interruptible, || queue.try_send(&message))
            .map_err(|Interrupted| Errno::ERESTARTNOHAND)?,
    }
}

/// msgrcv(2) of a message of at most `most` bytes. `EINVAL`, `EACCES`, `EIDRM`, `E2BIG`, `ENOMSG`, `ENOMEM`, `ERESTARTNOHAND`.
pub fn receive(id: i32, wanted: Wanted, most: usize, nowait: bool) -> Result<Arc<Message>> {
    let queue = QUEUES.find(id)?;
    loop {
        let mut state = queue.lock(permission::READ)?;
        if let Some(message) = state.take(wanted, most)? {
            drop(state);
            if !wanted.is_copied() {
                queue.senders.wake_all();
            }
            return Ok(message);
        }
        if nowait {
            return Err(Errno::ENOMSG);
        }
        let receiver = Receiver {
            wanted,
            most,
            pid: current().process.pid,
            outcome: SpinLock::new(rank::LEAF, None),
        };
        let receiver = Waiter::new(0, receiver)?;
        state.receivers.add(receiver.clone());
        drop(state);
        if receiver.wait(None).is_err() {
            let mut state = queue.state.lock();
            let still_waits = state.receivers.remove(&receiver);
            drop(state);
            if still_waits {
                return Err(Errno::ERESTARTNOHAND);
            }
        }
        if let Some(message) = receiver.take()? {
            return Ok(message);
        }
    }
}

pub fn totals() -> Totals {
    let table = QUEUES.lock();
    Totals {
        queues: table.count(),
        messages: MESSAGES.load(Ordering::Relaxed),
        bytes: BYTES.load(Ordering::Relaxed),
        highest: table.highest_place(),
    }
}

/// IPC_SET, with a `struct ipc64_perm` and the most bytes. Whoever waits looks again. `EINVAL`, `EPERM`.
pub fn set(id: i32, new: [u64; 6], most: u64) -> Result {
    let queue = QUEUES.find(id)?;
    let mut state = queue.state.lock();
    state.permission.check_owner()?;
    let privileged = current().process.credentials.get().is_privileged();
    if most > MSGMNB.get() && !privileged {
        return Err(Errno::EPERM);
    }
    state.permission.set(new)?;
    state.most = most;
    state.change_time = Time::now().sec;
    state.end_receivers(Ok(()));
    drop(state);
    queue.senders.wake_all();
    Ok(())
}

/// IPC_RMID: whoever waits ends with `EIDRM`. `EINVAL`, `EPERM`.
pub fn remove(id: i32) -> Result {
    let queue = QUEUES.find(id)?;
    queue.permission().check_owner()?;
    let removed = QUEUES.lock().remove(&queue).ok_or(Errno::EINVAL)?;
    let mut state = queue.state.lock();
    state.removed = true;
    state.end_receivers(Err(Errno::EIDRM));
    drop(state);
    queue.senders.wake_all();
    drop(removed);
    Ok(())
}

/// The way of finding a message that msgrcv(2) asks for, into `room` bytes. `EINVAL`.
pub fn wanted(kind: i64, flags: u32, room: usize) -> Result<Wanted> {
    if flags & abi::MSG_COPY != 0 {
        let allowed = flags & abi::MSG_EXCEPT == 0 && flags & abi::IPC_NOWAIT != 0;
        return match allowed {
            true => Ok(Wanted::CopyOf(kind, room)),
            false => Err(Errno::EINVAL),
        };
    }
    Ok(match kind {
        0 => Wanted::Any,
        i64::MIN => Wanted::UpTo(i64::MAX),
        kind if kind < 0 => Wanted::UpTo(-kind),
        kind if flags & abi::MSG_EXCEPT != 0 => Wanted::AllBut(kind),
        kind => Wanted::Kind(kind),
    })
}
