//! Watching many files at once (`epoll(7)`).
//!
//! An instance has an [`Item`] for each file that it watches, by file and descriptor. A file that becomes ready puts its items into
//! their instances' ready lists ([`super::poll`]); a wait looks only at what is there. A file that is closed for the last time takes
//! its items along; an instance does not keep its files open. One item is taken from the ready list at a time, so nothing has to be
//! locked while a file is looked at or user memory is written.
//!
//! Lock ranks: EPOLL_ITEMS for an instance's items and for a file's, never together; EPOLL_READY for ready lists, and for the list of
//! instances whose own watchers are to be told.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use intrusive_collections::{
    Bound, KeyAdapter, LinkedList, LinkedListAtomicLink, RBTree, RBTreeAtomicLink,
    intrusive_adapter,
};
use linux_raw_sys::general as abi;

use super::file::{File, Opened};
use super::fixed;
use super::poll::{PollQueue, Watcher};
use super::stream::{PollEvents, Stream};
use crate::errno::{Errno, Result};
use crate::sched::wait::NotYet;
use crate::sched::{Sleep, SleepMutex, WaitQueue};
use crate::sync::{IrqLock, SpinLock, rank};

/// What a caller wants to know of a file, and how it recognises it: struct epoll_event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// PollEvents, and the bits of [`PRIVATE`].
    pub events: u32,
    pub data: u64,
}

/// Bits of an event that are not readiness.
const PRIVATE: u32 = abi::EPOLLWAKEUP | abi::EPOLLONESHOT | abi::EPOLLET | abi::EPOLLEXCLUSIVE;
/// What may come together with EPOLLEXCLUSIVE.
const EXCLUSIVE_OK: u32 = abi::EPOLLIN
    | abi::EPOLLOUT
    | abi::EPOLLERR
    | abi::EPOLLHUP
    | abi::EPOLLWAKEUP
    | abi::EPOLLET
    | abi::EPOLLEXCLUSIVE;
const ALWAYS: u32 = abi::EPOLLERR | abi::EPOLLHUP;

/// How many instances deep they may watch each other, the outermost included.
const MAX_DEPTH: usize = 5;

/// An item's place in its instance: which file, through which descriptor.
type Key = (usize, i32);

/// A file that an instance watches.
pub struct Item {
    key: Key,
    instance: Weak<Instance>,
    file: Weak<File>,
    /// What is wanted, with its private bits. Without any readiness: nothing until it is changed (EPOLLONESHOT).
    events: AtomicU32,
    data: AtomicU64,
    /// In the file's queue.
    watcher: Watcher,
    /// In the instance's tree.
    tree_link: RBTreeAtomicLink,
    /// In the file's list.
    file_link: LinkedListAtomicLink,
    /// In the instance's ready list.
    ready_link: LinkedListAtomicLink,
}

intrusive_adapter!(TreeAdapter = Arc<Item>: Item { tree_link => RBTreeAtomicLink });
intrusive_adapter!(FileAdapter = Arc<Item>: Item { file_link => LinkedListAtomicLink });
intrusive_adapter!(ReadyAdapter = Arc<Item>: Item { ready_link => LinkedListAtomicLink });
intrusive_adapter!(OuterAdapter = Arc<Instance>: Instance { outer_link => LinkedListAtomicLink });

impl<'a> KeyAdapter<'a> for TreeAdapter {
    type Key = Key;
    fn get_key(&self, item: &'a Item) -> Key {
        item.key
    }
}

/// The items of a file, in all instances that watch it.
pub struct FileItems(SpinLock<LinkedList<FileAdapter>>);

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

    fn remove(&self, item: &Item) {
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

struct Ready {
    list: LinkedList<ReadyAdapter>,
    len: usize,
}

/// Instances whose watchers are to be told, once the queue that made them ready is unlocked.
static OUTER: IrqLock<LinkedList<OuterAdapter>> =
    IrqLock::new(rank::EPOLL_READY, LinkedList::new(OuterAdapter::NEW));

/// Held while instances come to watch each other, so that they do not do so in a circle.
static NESTING: SleepMutex<()> = SleepMutex::new(());
/// Numbers the searches for circles, so that each looks at an instance once. Changed under [`NESTING`].
static SEARCH: AtomicU64 = AtomicU64::new(0);

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

impl Item {
    pub(super) fn instance(&self) -> Option<Arc<Instance>> {
        self.instance.upgrade()
    }

    /// The file may be ready for `events`. Called under the lock of the file's queue.
    pub(super) fn tell(self: &Arc<Self>, events: PollEvents) {
        if self.events.load(Ordering::Relaxed) & u32::from(events.bits()) == 0 {
            return;
        }
        if let Some(instance) = self.instance.upgrade() {
            instance.make_ready(self);
        }
    }

    /// What there is of what is wanted.
    fn look(&self) -> u32 {
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

impl Ready {
    fn push(&mut self, item: &Arc<Item>, first: bool) {
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

    fn pop(&mut self) -> Option<Arc<Item>> {
        let item = self.list.pop_front()?;
        self.len -= 1;
        Some(item)
    }

    fn remove(&mut self, item: &Item) -> Option<Arc<Item>> {
        if !item.ready_link.is_linked() {
            return None;
        }
        self.len -= 1;
        // SAFETY: a linked item is in the ready list of its own instance, which is this one.
        unsafe { self.list.cursor_mut_from_ptr(item) }.remove()
    }
}

impl Instance {
    fn new() -> Result<Arc<Instance>> {
        Ok(Arc::try_new(Instance {
            items: SpinLock::new(rank::EPOLL_ITEMS, RBTree::new(TreeAdapter::NEW)),
            ready: IrqLock::new(
                rank::EPOLL_READY,
                Ready {
                    list: LinkedList::new(ReadyAdapter::NEW),
                    len: 0,
                },
            ),
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
        let item = Arc::try_new(Item {
            key: (Arc::as_ptr(file).addr(), fd),
            instance: Arc::downgrade(self),
            file: Arc::downgrade(file),
            events: AtomicU32::new(event.events | ALWAYS),
            data: AtomicU64::new(event.data),
            watcher: Watcher::new(),
            tree_link: RBTreeAtomicLink::new(),
            file_link: LinkedListAtomicLink::new(),
            ready_link: LinkedListAtomicLink::new(),
        })?;
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

    /// `ELOOP` if `inner` watches this instance, or there were too many one within the other. `ENOMEM`.
    fn check_nesting(&self, inner: &Instance) -> Result {
        let search = SEARCH.fetch_add(1, Ordering::Relaxed) + 1;
        let levels = inner.levels_below(self, search)? + self.levels_above(search)?;
        if levels > MAX_DEPTH {
            return Err(Errno::ELOOP);
        }
        Ok(())
    }

    /// How many levels there are from this instance downwards, itself included, as there is no circle. `ELOOP` if `outer` is among them.
    fn levels_below(&self, outer: &Instance, search: u64) -> Result<usize> {
        if core::ptr::eq(self, outer) {
            return Err(Errno::ELOOP);
        }
        if self.below.0.load(Ordering::Relaxed) == search {
            return Ok(self.below.1.load(Ordering::Relaxed));
        }
        let mut levels = 0;
        if self.nested.load(Ordering::Relaxed) > 0 {
            let mut after = None;
            while let Some(item) = self.next_item(after) {
                after = Some(item.key);
                let file = item.file.upgrade();
                if let Some(inner) = file.as_ref().and_then(instance_of) {
                    levels = levels.max(inner.levels_below(outer, search)?);
                }
            }
        }
        self.below.1.store(levels + 1, Ordering::Relaxed);
        self.below.0.store(search, Ordering::Relaxed);
        Ok(levels + 1)
    }

    /// How many levels there are from this instance upwards, itself included. `ENOMEM`.
    fn levels_above(&self, search: u64) -> Result<usize> {
        if self.above.0.load(Ordering::Relaxed) == search {
            return Ok(self.above.1.load(Ordering::Relaxed));
        }
        let mut levels = 0;
        for outer in self.watchers.instances()? {
            levels = levels.max(outer.levels_above(search)?);
        }
        self.above.1.store(levels + 1, Ordering::Relaxed);
        self.above.0.store(search, Ordering::Relaxed);
        Ok(levels + 1)
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
