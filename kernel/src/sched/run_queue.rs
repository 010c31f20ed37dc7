//! The run queue: who is ready, and who is next.
//!
//! Real-time threads stand in a list for each of their 99 priorities, with a bit for each list that is not empty. All others stand in a
//! tree in the order of their virtual time, which runs slower the greater a thread's weight is: the one that has had least of its share
//! is next. A thread that wakes gets a little credit, and no more, however long it has slept. When real-time threads have had
//! 95 % of a second, the others get the rest of it (`sched(7)`, "Limiting the CPU usage of real-time processes").
//!
//! Whoever runs stands in no list. Everything is O(log n) at worst and allocates nothing.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use intrusive_collections::{
    KeyAdapter, LinkedList, LinkedListAtomicLink, RBTree, RBTreeAtomicLink, intrusive_adapter,
};

use super::entity::Entity;
use super::policy::Policy;
use crate::task::Thread;

/// How long a thread that shares fairly runs before others get their turn, ns.
pub const SLICE_NS: i64 = 4_000_000;
/// The same under SCHED_RR, among equals.
pub const RR_SLICE_NS: i64 = 100_000_000;
/// A thread that has slept is put so far ahead of the others at most, virtual ns.
const SLEEP_CREDIT: u64 = SLICE_NS as u64 / 2;
/// A thread that wakes takes the CPU from one that is so far ahead of it, virtual ns.
const WAKE_UP_GRANULARITY: u64 = 500_000;
/// Of each period the real-time threads get so much while others wait, ns.
const RT_PERIOD_NS: u64 = 1_000_000_000;
const RT_RUNTIME_NS: u64 = 950_000_000;

intrusive_adapter!(ListAdapter = Arc<Thread>: Thread { sched.list_link => LinkedListAtomicLink });
intrusive_adapter!(TreeAdapter = Arc<Thread>: Thread { sched.tree_link => RBTreeAtomicLink });

impl<'a> KeyAdapter<'a> for TreeAdapter {
    type Key = u64;
    fn get_key(&self, thread: &'a Thread) -> u64 {
        thread.sched.vruntime()
    }
}

/// Where a thread comes into the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is new, or woke up.
    Woken,
    /// It ran, and somebody else is to run now.
    Preempted,
    /// It ran, and lets all its equals go first.
    Yielded,
}

pub(super) struct RunQueue {
    levels: [LinkedList<ListAdapter>; 100],
    /// Bit n: level n is not empty.
    occupied: u128,
    fair: RBTree<TreeAdapter>,
    /// Virtual time of those who share fairly: never less than it was.
    clock: u64,
    /// When the period began in which `rt_ran` was counted.
    rt_period: u64,
    rt_ran: u64,
    rt_throttled: bool,
}

impl RunQueue {
    pub const fn new() -> RunQueue {
        RunQueue {
            levels: [const { LinkedList::new(ListAdapter::NEW) }; 100],
            occupied: 0,
            fair: RBTree::new(TreeAdapter::NEW),
            clock: 0,
            rt_period: 0,
            rt_ran: 0,
            rt_throttled: false,
        }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.occupied == 0 && self.fair.is_empty()
    }

    pub fn contains(thread: &Thread) -> bool {
        thread.sched.tree_link.is_linked() || thread.sched.list_link.is_linked()
    }

    /// The running thread has run until `now`; how long since it was charged last, ns.
    #[inline]
    pub fn charge(&mut self, running: &Entity, now: u64) -> u64 {
        let ran = running.charge(now);
        if running.level() != 0 {
            self.charge_real_time(ran, now);
        } else if self.fair.is_empty() {
            self.clock = self.clock.max(running.vruntime());
        } else {
            self.clock = self.clock.max(running.vruntime().min(self.first_fair()));
        }
        ran
    }

    fn charge_real_time(&mut self, ran: u64, now: u64) {
        self.begin_period(now);
        self.rt_ran += ran;
        self.rt_throttled = self.rt_ran >= RT_RUNTIME_NS;
    }

    /// Counts anew if a period is over.
    pub fn begin_period(&mut self, now: u64) {
        if now.saturating_sub(self.rt_period) >= RT_PERIOD_NS {
            self.rt_period = now;
            self.rt_ran = 0;
            self.rt_throttled = false;
        }
    }

    fn first_fair(&self) -> u64 {
        self.fair
            .front()
            .get()
            .map_or(u64::MAX, |thread| thread.sched.vruntime())
    }

    /// The greatest priority with somebody ready who may run now; 0: none.
    fn top_level(&self) -> u8 {
        let throttled = self.rt_throttled && !self.fair.is_empty();
        match self.occupied {
            0 => 0,
            _ if throttled => 0,
            bits => (127 - bits.leading_zeros()) as u8,
        }
    }

    /// Puts a thread into the queue.
    pub fn insert(&mut self, thread: Arc<Thread>, arrival: Arrival) {
        let entity = &thread.sched;
        let level = entity.level();
        if level != 0 {
            return self.insert_real_time(thread, level, arrival);
        }
        match arrival {
            Arrival::Woken => {
                let earliest = self.clock.saturating_sub(SLEEP_CREDIT);
                entity.set_vruntime(entity.vruntime().max(earliest));
            }
            // SCHED_IDLE goes behind whoever is first, whatever its virtual time.
            Arrival::Preempted if !entity.has_policy(Policy::Idle) => {}
            Arrival::Yielded | Arrival::Preempted => {
                let first = self.first_fair();
                if first != u64::MAX {
                    entity.set_vruntime(entity.vruntime().max(first));
                }
            }
        }
        self.fair.insert(thread);
    }

    fn insert_real_time(&mut self, thread: Arc<Thread>, level: u8, arrival: Arrival) {
        let used_up = thread.sched.slice.load(Ordering::Relaxed) <= 0
            && thread.sched.has_policy(Policy::RoundRobin);
        let list = &mut self.levels[level as usize];
        match arrival {
            Arrival::Preempted if !used_up => list.push_front(thread),
            _ => list.push_back(thread),
        }
        self.occupied |= 1 << level;
    }

    /// Takes the next thread out; its turn begins at `now`.
    pub fn pop(&mut self, now: u64) -> Option<Arc<Thread>> {
        let level = self.top_level();
        let next = if level != 0 {
            self.pop_level(level)
        } else {
            self.fair.front_mut().remove()
        }?;
        let entity = &next.sched;
        entity.since.store(now, Ordering::Relaxed);
        if level == 0 {
            entity.slice.store(SLICE_NS, Ordering::Relaxed);
        } else if entity.slice.load(Ordering::Relaxed) <= 0 {
            entity.slice.store(RR_SLICE_NS, Ordering::Relaxed);
        }
        Some(next)
    }

    fn pop_level(&mut self, level: u8) -> Option<Arc<Thread>> {
        let list = &mut self.levels[level as usize];
        let next = list.pop_front();
        if list.is_empty() {
            self.occupied &= !(1 << level);
        }
        next
    }

    /// Takes a thread out of the queue it is in, if it is.
    pub fn remove(&mut self, thread: &Thread) -> Option<Arc<Thread>> {
        if thread.sched.tree_link.is_linked() {
            // SAFETY: a thread is linked in the one run queue there is, whose lock the caller has.
            return unsafe { self.fair.cursor_mut_from_ptr(thread) }.remove();
        }
        if !thread.sched.list_link.is_linked() {
            return None;
        }
        let level = thread.sched.level();
        let list = &mut self.levels[level as usize];
        // SAFETY: as above, and its priority does not change while it is linked.
        let removed = unsafe { list.cursor_mut_from_ptr(thread) }.remove();
        if list.is_empty() {
            self.occupied &= !(1 << level);
        }
        removed
    }

    /// Whether somebody ready goes before the running thread, which was charged just now and could go on. A thread that yields lets
    /// equals go first.
    pub fn has_better(&self, running: &Entity, yields: bool) -> bool {
        let (level, top) = (running.level(), self.top_level());
        if level != 0 {
            let throttled = self.rt_throttled && !self.fair.is_empty();
            let used_up = running.has_policy(Policy::RoundRobin)
                && running.slice.load(Ordering::Relaxed) <= 0;
            return throttled || top > level || top == level && (yields || used_up);
        }
        top != 0 || {
            match self.fair.front().get() {
                None => false,
                Some(first) => {
                    yields
                        || first.sched.vruntime() < running.vruntime()
                        || yields_to(running, &first.sched)
                }
            }
        }
    }

    /// Whether the clock tick ends the running thread's turn. It was charged just now.
    pub fn tick_ends_turn(&self, running: &Entity) -> bool {
        let slice_over = running.slice.load(Ordering::Relaxed) <= 0;
        match running.level() {
            0 if !slice_over => self.top_level() != 0,
            _ => self.has_better(running, false),
        }
    }

    /// Whether `woken`, which is in the queue now, takes the CPU from the running thread at `now`.
    pub fn preempts(&self, woken: &Entity, running: &Entity, now: impl FnOnce() -> u64) -> bool {
        let (level, top) = (running.level(), woken.level());
        if level != 0 || top != 0 {
            return top > level && self.top_level() == top;
        }
        if yields_to(running, woken) {
            return true;
        }
        if !woken.has_policy(Policy::Other) {
            return false;
        }
        let turn = now().saturating_sub(running.since.load(Ordering::Relaxed));
        let ahead = running.vruntime() + running.virtual_ns(turn);
        ahead > woken.vruntime() + WAKE_UP_GRANULARITY
    }
}

/// SCHED_IDLE lets everybody else go first.
fn yields_to(running: &Entity, other: &Entity) -> bool {
    running.has_policy(Policy::Idle) && !other.has_policy(Policy::Idle)
}

#[cfg(all(test, not(target_os = "none")))]
mod tests;
