//! Watching many files at once (`epoll(7)`).
//!
//! An instance has an [`Item`] for each file that it watches, by file and descriptor. A file that becomes ready puts its items into
//! their instances' ready lists ([`super::poll`]); a wait looks only at what is there. A file that is closed for the last time takes
//! its items along; an instance does not keep its files open. One item is taken from the ready list at a time, so nothing has to be
//! locked while a file is looked at or user memory is written.
//!
//! Lock ranks: EPOLL_ITEMS for an instance's items and for a file's, never together; EPOLL_READY for ready lists, and for the list of
//! instances whose own watchers are to be told.

mod item;
mod nesting;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use intrusive_collections::{Bound, LinkedList, LinkedListAtomicLink, RBTree, intrusive_adapter};
use linux_raw_sys::general as abi;

use super::file::{File, Opened};
use super::fixed;
use super::poll::PollQueue;
use super::stream::{PollEvents, Stream};
use crate::errno::{Errno, Result};
use crate::sched::wait::NotYet;
use crate::sched::{Sleep, WaitQueue};
use crate::sync::{IrqLock, SpinLock, rank};
use item::{ALWAYS, EXCLUSIVE_OK, Key, PRIVATE, Ready, TreeAdapter};
pub use item::{Event, FileItems, Item};
use nesting::NESTING;

intrusive_adapter!(OuterAdapter = Arc<Instance>: Instance { outer_link => LinkedListAtomicLink });

/// An epoll instance.
pub struct Instance {
    items: SpinLock<RBTree<TreeAdapter>>,
    ready: IrqLock<Ready>,
    waiters: WaitQueue,
    /// Those who watch the instance itself.
    watchers: PollQueue,
    /// How many of its files are instances.
    nested: AtomicUsize,
    /// How many levels the last search found below and above: the search's number, and the levels.
    below: (AtomicU64, AtomicUsize),
    above: (AtomicU64, AtomicUsize),
    outer_link: LinkedListAtomicLink,
}

/// Instances whose watchers are to be told, once the queue that made them ready is unlocked.
static OUTER: IrqLock<LinkedList<OuterAdapter>> =
    IrqLock::new(rank::EPOLL_READY, LinkedList::new(OuterAdapter::NEW));

/// Tells those who watch instances that have become ready; with no lock held.
pub(super) fn tell_outer() {
    loop {
        let Some(instance) = OUTER.lock().pop_front() else {
            return;
        };
        // This may put others on the list, but not for ever: no instance watches itself, however far around.
        instance.watchers.tell_watchers(PollEvents::READABLE);
    }
}

impl Instance {
    fn new() -> Result<Arc<Instance>> {
        Ok(Arc::try_new(Instance {
            items: SpinLock::new(rank::EPOLL_ITEMS, RBTree::new(TreeAdapter::NEW)),
            ready: IrqLock::new(rank::EPOLL_READY, Ready::new()),
            waiters: WaitQueue::new(),
            watchers: PollQueue::new(),
            nested: AtomicUsize::new(0),
            below: Default::default(),
            above: Default::default(),
            outer_link: LinkedListAtomicLink::new(),
        })?)
    }

    /// Puts an item into the ready list, and wakes who waits for it. Those who watch the instance are told by [`tell_outer`].
    fn make_ready(self: &Arc<Self>, item: &Arc<Item>) {
        // One that is in the list already is news all the same, to those who look for edges.
        self.ready.lock().push(item, false);
        self.waiters.wake_one();
        if self.watchers.is_empty() {
            return;
        }
        let mut outer = OUTER.lock();
        if !self.outer_link.is_linked() {
            outer.push_back(self.clone());
        }
    }

    /// EPOLL_CTL_ADD. `EEXIST`, `EINVAL`, `ELOOP`, `ENOMEM`, `EPERM`.
    fn add(self: &Arc<Self>, file: &Arc<File>, fd: i32, event: Event) -> Result {
        let queue = file.poll_queue().ok_or(Errno::EPERM)?;
        let inner = instance_of(file);
        if event.events & abi::EPOLLEXCLUSIVE != 0
            && (inner.is_some() || event.events & !EXCLUSIVE_OK != 0)
        {
            return Err(Errno::EINVAL);
        }
        let _nesting = inner.is_some().then(|| NESTING.lock());
        let item = Item::new(self, file, fd, event)?;
        if self.find(item.key).is_some() {
            return Err(Errno::EEXIST);
        }
        if let Some(inner) = inner {
            self.check_nesting(inner)?;
            self.nested.fetch_add(1, Ordering::Relaxed);
        }
        item.watcher.set_item(&item);
        self.items.lock().insert(item.clone());
        file.epoll_items.0.lock().push_back(item.clone());
        // SAFETY: whoever lets go of the item, the file or the instance, takes the watcher out before.
        unsafe { queue.add(&item.watcher) };
        self.look_again(&item);
        Ok(())
    }

    /// After an item's events have changed: it may be ready already.
    fn look_again(self: &Arc<Self>, item: &Arc<Item>) {
        if item.look() != 0 {
            self.make_ready(item);
            tell_outer();
        }
    }

    fn find(&self, key: Key) -> Option<Arc<Item>> {
        self.items.lock().find(&key).clone_pointer()
    }

    /// EPOLL_CTL_MOD. `ENOENT`, `EINVAL`.
    fn modify(self: &Arc<Self>, file: &Arc<File>, fd: i32, event: Event) -> Result {
        if event.events & abi::EPOLLEXCLUSIVE != 0 {
            return Err(Errno::EINVAL);
        }
        let item = self
            .find((Arc::as_ptr(file).addr(), fd))
            .ok_or(Errno::ENOENT)?;
        if item.events.load(Ordering::Relaxed) & abi::EPOLLEXCLUSIVE != 0 {
            return Err(Errno::EINVAL);
        }
        item.data.store(event.data, Ordering::Relaxed);
        item.events.store(event.events | ALWAYS, Ordering::Relaxed);
        self.look_again(&item);
        Ok(())
    }

    /// EPOLL_CTL_DEL. `ENOENT`.
    fn delete(&self, file: &Arc<File>, fd: i32) -> Result {
        let item = self
            .find((Arc::as_ptr(file).addr(), fd))
            .ok_or(Errno::ENOENT)?;
        self.detach(&item);
        Ok(())
    }

    /// Ends an item. Its file, if it is not being closed, forgets it too.
    fn detach(&self, item: &Item) {
        if let Some(file) = item.file.upgrade() {
            if let Some(queue) = file.poll_queue() {
                queue.remove(&item.watcher);
            }
            file.epoll_items.remove(item);
            if instance_of(&file).is_some() {
                self.nested.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.forget(item);
    }

    /// Takes an item out of the instance.
    fn forget(&self, item: &Item) {
        let mut items = self.items.lock();
        let removed = if item.tree_link.is_linked() {
            // SAFETY: a linked item is in the tree of its own instance, which is this one.
            unsafe { items.cursor_mut_from_ptr(item) }.remove()
        } else {
            None
        };
        drop(items);
        let ready = self.ready.lock().remove(item);
        drop((removed, ready));
    }

    /// The first item after the one with a key.
    fn next_item(&self, after: Option<Key>) -> Option<Arc<Item>> {
        let items = self.items.lock();
        let bound = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        items.lower_bound(bound).clone_pointer()
    }

    /// Hands out what is ready, at most `max` events, through `put`; how many. An event that `put` refuses stays; `EFAULT` if it was the
    /// first.
    fn harvest(
        self: &Arc<Self>,
        max: usize,
        put: &mut dyn FnMut(usize, Event) -> Result,
    ) -> Result<usize> {
        let mut done = 0;
        // What comes back to the end of the list is not looked at again.
        let mut left = self.ready.lock().len;
        while done < max && left > 0 {
            left -= 1;
            let Some(item) = self.ready.lock().pop() else {
                break;
            };
            let events = item.look();
            if events == 0 {
                continue;
            }
            let data = item.data.load(Ordering::Relaxed);
            if let Err(error) = put(done, Event { events, data }) {
                self.put_back(&item, true);
                if done == 0 {
                    return Err(error);
                }
                break;
            }
            done += 1;
            let wanted = item.events.load(Ordering::Relaxed);
            if wanted & abi::EPOLLONESHOT != 0 {
                item.events.store(wanted & PRIVATE, Ordering::Relaxed);
            } else if wanted & abi::EPOLLET == 0 {
                self.put_back(&item, false);
            }
        }
        if self.ready.lock().len > 0 {
            self.waiters.wake_one();
        }
        Ok(done)
    }

    /// An item that was taken from the ready list returns there, unless it was ended meanwhile.
    fn put_back(&self, item: &Arc<Item>, first: bool) {
        let items = self.items.lock();
        if item.tree_link.is_linked() {
            self.ready.lock().push(item, first);
        }
        drop(items);
    }

    /// Waits for events and hands them out; how many, 0 at `deadline_ns` since boot. `EINTR`, `EFAULT`.
    pub fn wait(
        self: &Arc<Self>,
        max: usize,
        deadline_ns: Option<u64>,
        put: &mut dyn FnMut(usize, Event) -> Result,
    ) -> Result<usize> {
        loop {
            let done = self.harvest(max, put)?;
            if done > 0 {
                return Ok(done);
            }
            let some_ready = || (self.ready.lock().len > 0).then_some(());
            let waited =
                self.waiters
                    .wait_until_deadline(Sleep::Interruptible, deadline_ns, some_ready);
            match waited {
                Ok(()) => {}
                Err(NotYet::TimedOut) => return Ok(0),
                Err(NotYet::Interrupted) => return Err(Errno::EINTR),
            }
        }
    }

    /// epoll_ctl(2) for the file of the descriptor `fd`; `event` where the operation takes one.
    pub fn control(
        self: &Arc<Self>,
        operation: u32,
        file: &Arc<File>,
        fd: i32,
        event: Option<Event>,
    ) -> Result {
        if instance_of(file).is_some_and(|inner| Arc::ptr_eq(inner, self)) {
            return Err(Errno::EINVAL);
        }
        match (operation, event) {
            (abi::EPOLL_CTL_ADD, Some(event)) => self.add(file, fd, event),
            (abi::EPOLL_CTL_MOD, Some(event)) => self.modify(file, fd, event),
            (abi::EPOLL_CTL_DEL, _) => self.delete(file, fd),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// The instance that a file is, if it is one.
pub fn instance_of(file: &Arc<File>) -> Option<&Arc<Instance>> {
    file.stream()?.epoll()
}

/// What an instance's file opens as.
struct Epoll(Arc<Instance>);

impl Stream for Epoll {
    fn poll(&self) -> PollEvents {
        let mut left = self.0.ready.lock().len;
        while left > 0 {
            left -= 1;
            let Some(item) = self.0.ready.lock().pop() else {
                break;
            };
            if item.look() != 0 {
                self.0.put_back(&item, true);
                return PollEvents::READABLE;
            }
        }
        PollEvents::empty()
    }

    fn poll_queue(&self) -> Option<&PollQueue> {
        Some(&self.0.watchers)
    }

    fn seekable(&self) -> bool {
        true
    }

    fn epoll(&self) -> Option<&Arc<Instance>> {
        Some(&self.0)
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        while let Some(item) = self.0.next_item(None) {
            self.0.detach(&item);
        }
    }
}

/// A new instance, open. `ENFILE`, `ENOMEM`.
pub fn new() -> Result<Arc<File>> {
    let inode = fixed::anonymous(b"anon_inode:[eventpoll]")?;
    let stream = Box::try_new(Epoll(Instance::new()?))?;
    File::new(inode, Opened::Stream(stream), abi::O_RDWR)
}
