//! POSIX message queues (`mq_overview(7)`; Linux's `ipc/mqueue.c`).
//!
//! A [`Queue`] is an inode, found by its name in [`directory`], whose open files carry messages instead of bytes. A message goes to a
//! receiver that waits, or into the queue; who takes one out of a full queue puts that of a waiting sender in. Those who wait are in order
//! of their scheduling priority and then of their coming, and messages of their own priority: all in O(log n).
//!
//! Lock rank: IPC, for all that changes about a queue. Threads are woken, signals sent and pollers told after it was released.

pub mod directory;
mod inode;
mod notification;

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicUsize, Ordering};

use intrusive_collections::{KeyAdapter, RBTree, RBTreeAtomicLink, intrusive_adapter};
use linux_raw_sys::general as abi;
use spin::Once;

use super::message::Bytes;
use super::settings;
use super::waiters::{Waiter, Waiters};
use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::fs::inode::Time;
use crate::fs::poll::PollQueue;
use crate::fs::stream::PollEvents;
use crate::sched::current;
use crate::sched::timer::Deadline;
use crate::sched::wait::NotYet;
use crate::sync::{SpinLock, rank};
use crate::task::quota::Quota;
use crate::task::rlimit::Resource;
use inode::Attributes;
use notification::Registration;

pub use notification::{COOKIE_LEN, Notification, closed_by_process};

/// Priorities of messages are below this (`MQ_PRIO_MAX`).
pub const PRIORITIES: u32 = 32768;

/// Most messages in a queue, and bytes in a message, that even root can have (`HARD_MSGMAX`, `HARD_MSGSIZEMAX`).
pub const MOST_MESSAGES: u64 = 65536;
pub const MOST_BYTES: u64 = 16 << 20;

/// What a message costs of RLIMIT_MSGQUEUE besides its bytes, and a priority (`struct msg_msg`, `struct posix_msg_tree_node`).
const MESSAGE_COST: u64 = 48;
const PRIORITY_COST: u64 = 48;

/// Bytes that each user's queues can hold, with what they cost besides.
static HELD: Quota = Quota::new();
/// Queues there are.
static QUEUES: AtomicUsize = AtomicUsize::new(0);

/// A message, in a queue or with a thread that waits to send it.
struct Message {
    bytes: Bytes,
    priority: u32,
    /// Orders messages of one priority. Set when it comes into a queue.
    serial: u64,
    link: RBTreeAtomicLink,
}

intrusive_adapter!(ByUrgency = Box<Message>: Message { link => RBTreeAtomicLink });

impl<'a> KeyAdapter<'a> for ByUrgency {
    type Key = (u32, u64);
    fn get_key(&self, message: &'a Message) -> (u32, u64) {
        (PRIORITIES - message.priority, message.serial)
    }
}

/// What a thread that waits wants to send, or has received. Lock rank: LEAF.
type Slot = SpinLock<Option<Box<Message>>>;

/// The current thread as one that waits: the most important first.
fn waiter(message: Option<Box<Message>>) -> Result<Arc<Waiter<Slot>>> {
    let parameters = current().sched.parameters();
    let rank = match parameters.policy.is_real_time() {
        true => 99 - u64::from(parameters.priority),
        false => (120 + i32::from(parameters.nice)) as u64,
    };
    Waiter::new(rank, SpinLock::new(rank::LEAF, message))
}

/// How large a queue may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Messages.
    pub messages: u64,
    /// Bytes of a message.
    pub bytes: u64,
}

/// A message queue.
pub struct Queue {
    /// Itself, for open files. Set before anybody else sees the queue.
    this: Once<Weak<Queue>>,
    ino: u64,
    size: Size,
    /// Whose [`HELD`] it counts against.
    uid: u32,
    attributes: SpinLock<Attributes>,
    state: SpinLock<State>,
    pollers: PollQueue,
}

struct State {
    messages: RBTree<ByUrgency>,
    count: u64,
    /// In all messages.
    bytes: u64,
    next_serial: u64,
    receivers: Waiters<Slot>,
    senders: Waiters<Slot>,
    registration: Option<Registration>,
}

impl Size {
    /// What a new queue gets that does not say.
    fn usual() -> Size {
        Size {
            messages: settings::MSG_MAX.get().min(settings::MSG_DEFAULT.get()),
            bytes: settings::MSGSIZE_MAX
                .get()
                .min(settings::MSGSIZE_DEFAULT.get()),
        }
    }

    /// Whether the current process may have such a queue. `EINVAL`.
    fn check(self) -> Result {
        let privileged = current().process.credentials.get().is_privileged();
        let most = match privileged {
            true => Size {
                messages: MOST_MESSAGES,
                bytes: MOST_BYTES,
            },
            false => Size {
                messages: settings::MSG_MAX.get(),
                bytes: settings::MSGSIZE_MAX.get(),
            },
        };
        let fits = |asked: u64, most: u64| asked > 0 && asked <= most;
        if fits(self.messages, most.messages) && fits(self.bytes, most.bytes) {
            Ok(())
        } else {
            Err(Errno::EINVAL)
        }
    }

    /// Bytes of RLIMIT_MSGQUEUE.
    fn cost(self) -> u64 {
        let priorities = self.messages.min(u64::from(PRIORITIES));
        self.messages * (self.bytes + MESSAGE_COST) + priorities * PRIORITY_COST
    }
}

impl Queue {
    /// A new queue without messages. `EINVAL`, `EMFILE` (RLIMIT_MSGQUEUE), `ENOSPC`, `ENOMEM`.
    fn new(name: &[u8], mode: u32, size: Option<Size>) -> Result<Arc<Queue>> {
        let process = &current().process;
        let identity = process.credentials.get();
        let there_are = QUEUES.load(Ordering::Relaxed) as u64;
        if there_are >= settings::QUEUES_MAX.get() && !identity.is_privileged() {
            return Err(Errno::ENOSPC);
        }
        let size = size.unwrap_or_else(Size::usual);
        size.check()?;
        crate::fs::check_memory()?;
        let attributes = Attributes::new(name, mode)?;
        let uid = identity.user.real;
        let limit = process.rlimits.soft(Resource::MessageQueue);
        if !HELD.take(uid, size.cost(), limit) {
            return Err(Errno::EMFILE);
        }
        let queue = Arc::try_new(Queue {
            this: Once::new(),
            ino: directory::next_ino(),
            size,
            uid,
            attributes: SpinLock::new(rank::IPC, attributes),
            state: SpinLock::new(
                rank::IPC,
                State {
                    messages: RBTree::new(ByUrgency::NEW),
                    count: 0,
                    bytes: 0,
                    next_serial: 0,
                    receivers: Waiters::new(),
                    senders: Waiters::new(),
                    registration: None,
                },
            ),
            pollers: PollQueue::new(),
        });
        if queue.is_err() {
            HELD.give_back(uid, size.cost());
        }
        let queue = queue?;
        QUEUES.fetch_add(1, Ordering::Relaxed);
        queue.this.call_once(|| Arc::downgrade(&queue));
        Ok(queue)
    }

    pub fn size(&self) -> Size {
        self.size
    }

    /// Messages in the queue.
    pub fn count(&self) -> u64 {
        self.state.lock().count
    }

    /// mq_timedsend(2) of the `len` bytes at `addr`. `EMSGSIZE`, `EFAULT`, `ENOMEM`, `EAGAIN`, `ETIMEDOUT`, `ERESTARTSYS`.
    pub fn send(
        &self,
        addr: usize,
        len: usize,
        priority: u32,
        nonblock: bool,
        deadline: Option<Deadline>,
    ) -> Result {
        if len as u64 > self.size.bytes {
            return Err(Errno::EMSGSIZE);
        }
        let message = Box::try_new(Message {
            bytes: Bytes::read(addr, len)?,
            priority,
            serial: 0,
            link: RBTreeAtomicLink::new(),
        })?;
        let mut state = self.state.lock();
        if state.count < self.size.messages {
            let receiver = state.receivers.first();
            let mut event = None;
            match &receiver {
                Some(receiver) => *receiver.lock() = Some(message),
                None => {
                    state.put(message);
                    event = state.take_event();
                }
            }
            drop(state);
            self.changed();
            if let Some(event) = event {
                event.send();
            }
            match receiver {
                Some(receiver) => receiver.wake(),
                None => self.pollers.tell(PollEvents::READABLE),
            }
            return Ok(());
        }
        if nonblock {
            return Err(Errno::EAGAIN);
        }
        let waiter = waiter(Some(message))?;
        state.senders.add(waiter.clone());
        drop(state);
        self.wait(&waiter, deadline, |state| &mut state.senders)
    }

    /// mq_timedreceive(2) into `len` bytes: `write` gets the message and its priority. `EMSGSIZE`, `EAGAIN`, `ETIMEDOUT`, `ERESTARTSYS`,
    /// `ENOMEM`.
    pub fn receive<R>(
        &self,
        len: usize,
        nonblock: bool,
        deadline: Option<Deadline>,
        write: impl FnOnce(&[u8], u32) -> Result<R>,
    ) -> Result<R> {
        if (len as u64) < self.size.bytes {
            return Err(Errno::EMSGSIZE);
        }
        let mut state = self.state.lock();
        let message = match state.take() {
            Some(message) => {
                let sender = state.senders.first();
                if let Some(theirs) = sender.as_ref().and_then(|sender| sender.lock().take()) {
                    state.put(theirs);
                }
                drop(state);
                match sender {
                    Some(sender) => sender.wake(),
                    None => self.pollers.tell(PollEvents::WRITABLE),
                }
                self.changed();
                message
            }
            None if nonblock => return Err(Errno::EAGAIN),
            None => {
                let waiter = waiter(None)?;
                state.receivers.add(waiter.clone());
                drop(state);
                self.wait(&waiter, deadline, |state| &mut state.receivers)?;
                let received = waiter.lock().take();
                received.ok_or(Errno::EAGAIN)?
            }
        };
        write(&message.bytes, message.priority)
    }

    /// Waits until another thread has taken the waiter out of the queue.
    fn wait(
        &self,
        waiter: &Arc<Waiter<Slot>>,
        deadline: Option<Deadline>,
        among: impl FnOnce(&mut State) -> &mut Waiters<Slot>,
    ) -> Result {
        if let Err(not_yet) = waiter.wait(deadline) {
            let mut state = self.state.lock();
            let still_waits = among(&mut state).remove(waiter);
            drop(state);
            // What came at the last moment counts.
            if still_waits {
                return Err(match not_yet {
                    NotYet::Interrupted => Errno::ERESTARTSYS,
                    NotYet::TimedOut => Errno::ETIMEDOUT,
                });
            }
        }
        Ok(())
    }

    /// Messages came or went.
    fn changed(&self) {
        let now = Time::now();
        self.attributes.lock().times = [now; 3];
    }

    fn poll(&self) -> PollEvents {
        let count = self.state.lock().count;
        let mut events = PollEvents::empty();
        events.set(PollEvents::READABLE, count > 0);
        events.set(PollEvents::WRITABLE, count < self.size.messages);
        events
    }
}

impl State {
    fn put(&mut self, mut message: Box<Message>) {
        message.serial = self.next_serial;
        self.next_serial += 1;
        self.count += 1;
        self.bytes += message.bytes.len() as u64;
        self.messages.insert(message);
    }

    /// The most urgent message, the oldest of them.
    fn take(&mut self) -> Option<Box<Message>> {
        let message = self.messages.front_mut().remove()?;
        self.count -= 1;
        self.bytes -= message.bytes.len() as u64;
        Some(message)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        QUEUES.fetch_sub(1, Ordering::Relaxed);
        HELD.give_back(self.uid, self.size.cost());
    }
}

/// The queue that a file is. `EBADF` if it is none.
pub fn queue_of(file: &File) -> Result<&Arc<Queue>> {
    file.positioned()
        .and_then(|contents| contents.queue())
        .ok_or(Errno::EBADF)
}

/// Whether calls on the file shall not wait.
pub fn is_nonblock(file: &File) -> bool {
    file.flags() & abi::O_NONBLOCK != 0
}
