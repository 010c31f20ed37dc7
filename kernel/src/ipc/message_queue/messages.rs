//! The messages of a queue, by the order of their coming and by their types.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use intrusive_collections::{Bound, KeyAdapter, RBTree, RBTreeAtomicLink, intrusive_adapter};

use crate::errno::Result;
use crate::ipc::message::Bytes;

/// A message.
pub struct Message {
    /// Its type, more than 0.
    pub kind: i64,
    pub(super) bytes: Bytes,
    /// Its place among all others. Set when it comes into a queue.
    serial: AtomicU64,
    by_order: RBTreeAtomicLink,
    by_kind: RBTreeAtomicLink,
}

intrusive_adapter!(ByOrder = Arc<Message>: Message { by_order => RBTreeAtomicLink });
intrusive_adapter!(ByKind = Arc<Message>: Message { by_kind => RBTreeAtomicLink });

impl<'a> KeyAdapter<'a> for ByOrder {
    type Key = u64;
    fn get_key(&self, message: &'a Message) -> u64 {
        message.serial()
    }
}

impl<'a> KeyAdapter<'a> for ByKind {
    type Key = (i64, u64);
    fn get_key(&self, message: &'a Message) -> (i64, u64) {
        (message.kind, message.serial())
    }
}

impl Message {
    pub(super) fn new(kind: i64, bytes: Bytes) -> Result<Arc<Message>> {
        Ok(Arc::try_new(Message {
            kind,
            bytes,
            serial: AtomicU64::new(0),
            by_order: RBTreeAtomicLink::new(),
            by_kind: RBTreeAtomicLink::new(),
        })?)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn serial(&self) -> u64 {
        self.serial.load(Ordering::Relaxed)
    }
}

/// Which message a receiver wants: the first in the queue that it describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Any,
    Kind(i64),
    AllBut(i64),
    /// One of the lowest type there is, and at most this one.
    UpTo(i64),
    /// The one at this place, which stays in the queue, and the room for it: nothing is cut off.
    CopyOf(i64, usize),
}

impl Wanted {
    pub(super) fn is_copied(self) -> bool {
        matches!(self, Wanted::CopyOf(..))
    }

    /// Whether one who waits takes a message of this type.
    pub(super) fn takes(self, kind: i64) -> bool {
        match self {
            Wanted::Any => true,
            Wanted::Kind(own) => kind == own,
            Wanted::AllBut(other) => kind != other,
            Wanted::UpTo(most) => kind <= most,
            Wanted::CopyOf(..) => false,
        }
    }
}

/// See the module.
pub(super) struct Messages {
    order: RBTree<ByOrder>,
    kinds: RBTree<ByKind>,
    count: u64,
    next_serial: u64,
}

impl Messages {
    pub fn new() -> Messages {
        Messages {
            order: RBTree::new(ByOrder::NEW),
            kinds: RBTree::new(ByKind::NEW),
            count: 0,
            next_serial: 0,
        }
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// Puts a message in that is in no queue.
    pub fn push(&mut self, message: Arc<Message>) {
        message.serial.store(self.next_serial, Ordering::Relaxed);
        self.next_serial += 1;
        self.count += 1;
        self.order.insert(message.clone());
        self.kinds.insert(message);
    }

    pub fn find(&self, wanted: Wanted) -> Option<Arc<Message>> {
        match wanted {
            Wanted::Any => self.order.front().clone_pointer(),
            Wanted::Kind(kind) => {
                let first = self.kinds.lower_bound(Bound::Included(&(kind, 0)));
                first.clone_pointer().filter(|found| found.kind == kind)
            }
            Wanted::UpTo(most) => {
                let lowest = self.kinds.front().clone_pointer();
                lowest.filter(|found| found.kind <= most)
            }
            Wanted::AllBut(kind) => self.find_in_order(|found, _| found.kind != kind),
            Wanted::CopyOf(place, _) => self.find_in_order(|_, at| at == place),
        }
    }

    /// The first one for which `is_it` says so, which is given its place too. Costs those before it.
    fn find_in_order(&self, is_it: impl Fn(&Message, i64) -> bool) -> Option<Arc<Message>> {
        let mut cursor = self.order.front();
        let mut place = 0;
        while let Some(message) = cursor.get() {
            if is_it(message, place) {
                return cursor.clone_pointer();
            }
            cursor.move_next();
            place += 1;
        }
        None
    }

    pub fn remove(&mut self, message: &Message) {
        let removed = self.order.find_mut(&message.serial()).remove();
        self.count -= u64::from(removed.is_some());
        self.kinds
            .find_mut(&(message.kind, message.serial()))
            .remove();
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.order.clear();
        self.kinds.clear();
    }
}
