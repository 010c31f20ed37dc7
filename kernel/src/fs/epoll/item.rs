//! Files that instances watch: what is wanted of each, in which lists it stands, and what may be ready.

use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use intrusive_collections::{
    KeyAdapter, LinkedList, LinkedListAtomicLink, RBTreeAtomicLink, intrusive_adapter,
};
use linux_raw_sys::general as abi;

use super::Instance;
use crate::errno::Result;
use crate::fs::file::File;
use crate::fs::poll::{PollQueue, Watcher};
use crate::fs::stream::PollEvents;
use crate::sync::{SpinLock, rank};

/// What a caller wants to know of a file, and how it recognises it: struct epoll_event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// PollEvents, and the bits of [`PRIVATE`].
    pub events: u32,
    pub data: u64,
}

/// Bits of an event that are not readiness.
pub(super) const PRIVATE: u32 =
    abi::EPOLLWAKEUP | abi::EPOLLONESHOT | abi::EPOLLET | abi::EPOLLEXCLUSIVE;
/// What may come together with EPOLLEXCLUSIVE.
pub(super) const EXCLUSIVE_OK: u32 = abi::EPOLLIN
    | abi::EPOLLOUT
    | abi::EPOLLERR
    | abi::EPOLLHUP
    | abi::EPOLLWAKEUP
    | abi::EPOLLET
    | abi::EPOLLEXCLUSIVE;
pub(super) const ALWAYS: u32 = abi::EPOLLERR | abi::EPOLLHUP;

/// An item's place in its instance: which file, through which descriptor.
pub(super) type Key = (usize, i32);

/// A file that an instance watches.
pub struct Item {
    pub(super) key: Key,
    instance: Weak<Instance>,
    pub(super) file: Weak<File>,
    /// What is wanted, with its private bits. Without any readiness: nothing until it is changed (EPOLLONESHOT).
    pub(super) events: AtomicU32,
    pub(super) data: AtomicU64,
    /// In the file's queue.
    pub(super) watcher: Watcher,
    /// In the instance's tree.
    pub(super) tree_link: RBTreeAtomicLink,
    /// In the file's list.
    file_link: LinkedListAtomicLink,
    /// In the instance's ready list.
    ready_link: LinkedListAtomicLink,
}

intrusive_adapter!(pub(super) TreeAdapter = Arc<Item>: Item { tree_link => RBTreeAtomicLink });
intrusive_adapter!(pub(super) FileAdapter = Arc<Item>: Item { file_link => LinkedListAtomicLink });
intrusive_adapter!(pub(super) ReadyAdapter = Arc<Item>: Item { ready_link => LinkedListAtomicLink });

impl<'a> KeyAdapter<'a> for TreeAdapter {
    type Key = Key;
    fn get_key(&self, item: &'a Item) -> Key {
        item.key
    }
}

impl Item {
    /// An item that is nowhere yet.
    pub(super) fn new(
        instance: &Arc<Instance>,
        file: &Arc<File>,
        fd: i32,
        event: Event,
    ) -> Result<Arc<Item>> {
        Ok(Arc::try_new(Item {
            key: (Arc::as_ptr(file).addr(), fd),
            instance: Arc::downgrade(instance),
            file: Arc::downgrade(file),
            events: AtomicU32::new(event.events | ALWAYS),
            data: AtomicU64::new(event.data),
            watcher: Watcher::new(),
            tree_link: RBTreeAtomicLink::new(),
            file_link: LinkedListAtomicLink::new(),
            ready_link: LinkedListAtomicLink::new(),
        })?)
    }

    pub(in crate::fs) fn instance(&self) -> Option<Arc<Instance>> {
        self.instance.upgrade()
    }

    /// The file may be ready for `events`. Called under the lock of the file's queue.
    pub(in crate::fs) fn tell(self: &Arc<Self>, events: PollEvents) {
        if self.events.load(Ordering::Relaxed) & u32::from(events.bits()) == 0 {
            return;
        }
        if let Some(instance) = self.instance.upgrade() {
            instance.make_ready(self);
        }
    }

    /// What there is of what is wanted.
    pub(super) fn look(&self) -> u32 {
        let wanted = self.events.load(Ordering::Relaxed);
        if wanted & !PRIVATE == 0 {
            return 0;
        }
        let Some(file) = self.file.upgrade() else {
            return 0;
        };
        u32::from(file.poll().bits()) & wanted
    }
}

/// The items of a file, in all instances that watch it.
pub struct FileItems(pub(super) SpinLock<LinkedList<FileAdapter>>);

impl FileItems {
    pub const fn new() -> FileItems {
        FileItems(SpinLock::new(
            rank::EPOLL_ITEMS,
            LinkedList::new(FileAdapter::NEW),
        ))
    }

    /// The file, whose queue this is, is being closed; `nested`: it is an instance itself.
    pub fn close(&mut self, queue: Option<&PollQueue>, nested: bool) {
        while let Some(item) = self.0.get_mut().pop_front() {
            if let Some(queue) = queue {
                queue.remove(&item.watcher);
            }
            if let Some(instance) = item.instance.upgrade() {
                instance
                    .nested
                    .fetch_sub(usize::from(nested), Ordering::Relaxed);
                instance.forget(&item);
            }
        }
    }

    pub(super) fn remove(&self, item: &Item) {
        let mut items = self.0.lock();
        let removed = if item.file_link.is_linked() {
            // SAFETY: a linked item is in the list of its own file, which is this one.
            unsafe { items.cursor_mut_from_ptr(item) }.remove()
        } else {
            None
        };
        drop(items);
        drop(removed);
    }
}

impl Default for FileItems {
    fn default() -> Self {
        FileItems::new()
    }
}

/// What may be ready, in the order in which it was told.
pub(super) struct Ready {
    list: LinkedList<ReadyAdapter>,
    pub(super) len: usize,
}

impl Ready {
    pub(super) fn new() -> Ready {
        Ready {
            list: LinkedList::new(ReadyAdapter::NEW),
            len: 0,
        }
    }

    pub(super) fn push(&mut self, item: &Arc<Item>, first: bool) {
        if item.ready_link.is_linked() {
            return;
        }
        self.len += 1;
        if first {
            self.list.push_front(item.clone());
        } else {
            self.list.push_back(item.clone());
        }
    }

    pub(super) fn pop(&mut self) -> Option<Arc<Item>> {
        let item = self.list.pop_front()?;
        self.len -= 1;
        Some(item)
    }

    pub(super) fn remove(&mut self, item: &Item) -> Option<Arc<Item>> {
        if !item.ready_link.is_linked() {
            return None;
        }
        self.len -= 1;
        // SAFETY: a linked item is in the ready list of its own instance, which is this one.
        unsafe { self.list.cursor_mut_from_ptr(item) }.remove()
    }
}
