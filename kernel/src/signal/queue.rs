//! Pending signals: at most one instance of each standard signal, any number of real-time ones in order.
//!
//! Taking the next signal costs a bit scan, and for a queued instance a way down a tree that has one entry for each signal, at most 64:
//! the signal's first, at which the others wait in their order. So the cost does not depend on how many are pending.
//!
//! Standard signals have room kept for all of them from the beginning; a real-time instance brings its own entry, allocated by the
//! sender before any lock is taken, and charged to the receiving user. A POSIX timer has an entry for all its signals, of either kind,
//! which goes back to it.
//!
//! Every process and thread has one, and most are never used: so it is small, and made and dropped in a few steps.

use alloc::boxed::Box;
use alloc::sync::Weak;
use alloc::vec::Vec;
use core::cell::Cell;

use intrusive_collections::rbtree::Entry as Place;
use intrusive_collections::{
    KeyAdapter, LinkedList, LinkedListAtomicLink, RBTree, RBTreeAtomicLink, intrusive_adapter,
};

use super::info::SigInfo;
use super::quota::Charge;
use super::set::{SigSet, Signal};
use crate::errno::OutOfMemory;
use crate::task::posix_timer::PosixTimer;

const STANDARD: usize = Signal::RT_MIN as usize - 1;

/// One queued instance of a real-time signal, or of a timer's.
pub struct Entry {
    info: SigInfo,
    /// In the tree, if it is the first of its signal.
    link: RBTreeAtomicLink,
    /// Among those that wait for it to be taken, if it is not.
    later_link: LinkedListAtomicLink,
    /// Later ones of the same signal, if it is the first.
    later: Cell<LinkedList<LaterAdapter>>,
    /// The timer that it belongs to.
    timer: Option<Weak<PosixTimer>>,
    _charge: Charge,
}

impl Entry {
    /// `None` without memory.
    pub fn new(info: SigInfo, charge: Charge) -> Option<Box<Entry>> {
        Box::try_new(Entry {
            info,
            link: RBTreeAtomicLink::new(),
            later_link: LinkedListAtomicLink::new(),
            later: Cell::default(),
            timer: None,
            _charge: charge,
        })
        .ok()
    }

    /// From now on it is a timer's.
    pub fn set_timer(&mut self, timer: Weak<PosixTimer>) {
        self.timer = Some(timer);
    }

    pub fn set_info(&mut self, info: SigInfo) {
        self.info = info;
    }

    pub fn info(&self) -> &SigInfo {
        &self.info
    }
}

intrusive_adapter!(FirstAdapter = Box<Entry>: Entry { link => RBTreeAtomicLink });
intrusive_adapter!(LaterAdapter = Box<Entry>: Entry { later_link => LinkedListAtomicLink });

impl<'a> KeyAdapter<'a> for FirstAdapter {
    type Key = Signal;
    fn get_key(&self, entry: &'a Entry) -> Signal {
        entry.info.signal
    }
}

/// Queued instances of any number of signals.
struct Queued(RBTree<FirstAdapter>);

impl Queued {
    // Functions of their own, so that a standard signal's way does not save registers for them.

    /// Puts an entry behind those of the same signal.
    #[inline(never)]
    fn push(&mut self, entry: Box<Entry>) {
        match self.0.entry(&entry.info.signal) {
            Place::Vacant(place) => {
                place.insert(entry);
            }
            Place::Occupied(place) => {
                if let Some(first) = place.get() {
                    let mut later = first.later.take();
                    later.push_back(entry);
                    first.later.set(later);
                }
            }
        }
    }

    /// Takes out the oldest entry of a signal, and tells whether there are more.
    #[inline(never)]
    fn take(&mut self, signal: Signal) -> (Option<Box<Entry>>, bool) {
        let mut place = self.0.find_mut(&signal);
        let Some(first) = place.get() else {
            return (None, false);
        };
        let mut later = first.later.take();
        let Some(second) = later.pop_front() else {
            return (place.remove(), false);
        };
        second.later.set(later);
        (place.replace_with(second).ok(), true)
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[inline(never)]
    fn has(&self, signal: Signal) -> bool {
        !self.0.find(&signal).is_null()
    }
}

/// Signals that were sent and not yet taken.
pub struct Pending {
    set: SigSet,
    /// The part of `set` that `infos` has infos of. They come before entries of the same signal.
    in_slots: SigSet,
    /// Infos of standard signals, in no order. There is room for all.
    infos: Vec<SigInfo>,
    /// Where in it a signal's is.
    slots: [u8; STANDARD],
    queued: Queued,
}

impl Pending {
    pub fn new() -> Result<Pending, OutOfMemory> {
        let mut infos = Vec::new();
        infos.try_reserve_exact(STANDARD).map_err(|_| OutOfMemory)?;
        Ok(Pending {
            set: SigSet::EMPTY,
            in_slots: SigSet::EMPTY,
            infos,
            slots: [0; STANDARD],
            queued: Queued(RBTree::new(FirstAdapter::NEW)),
        })
    }

    pub fn set(&self) -> SigSet {
        self.set
    }

    /// Adds a standard signal; false if one is pending already, whose info stays.
    #[inline]
    pub fn push_standard(&mut self, info: &SigInfo) -> bool {
        debug_assert!(!info.signal.is_realtime());
        if self.set.contains(info.signal) {
            return false;
        }
        self.set = self.set.with(info.signal);
        self.add_info(info);
        true
    }

    /// Keeps the info of a signal that is not in `in_slots`.
    #[inline]
    fn add_info(&mut self, info: &SigInfo) {
        debug_assert!(self.infos.len() < self.infos.capacity());
        self.in_slots = self.in_slots.with(info.signal);
        self.slots[info.signal.index()] = self.infos.len() as u8;
        self.infos.push(*info);
    }

    /// Forgets the info of a signal that is in `in_slots`. The last one takes its place.
    #[inline]
    fn remove_info(&mut self, signal: Signal) {
        self.in_slots = self.in_slots.without(signal);
        let slot = usize::from(self.slots[signal.index()]);
        let last = self.infos.len().saturating_sub(1);
        if slot < last {
            self.infos[slot] = self.infos[last];
            self.slots[self.infos[slot].signal.index()] = slot as u8;
        }
        self.infos.truncate(last);
    }

    /// Adds a timer's signal, whatever else of that number is pending.
    pub fn push_timer(&mut self, entry: Box<Entry>) {
        self.set = self.set.with(entry.info.signal);
        self.queued.push(entry);
    }

    /// Adds an instance of a real-time signal. Without an entry the signal becomes pending, but its info is lost.
    pub fn push_realtime(&mut self, signal: Signal, entry: Option<Box<Entry>>) {
        self.set = self.set.with(signal);
        if let Some(entry) = entry {
            debug_assert_eq!(entry.info.signal, signal);
            self.queued.push(entry);
        }
    }

    /// Adds a synchronous signal, in place of one that is pending.
    pub fn force(&mut self, info: SigInfo) {
        self.set = self.set.with(info.signal);
        if !info.signal.is_realtime() {
            if self.in_slots.contains(info.signal) {
                self.remove_info(info.signal);
            }
            self.add_info(&info);
        }
    }

    /// Takes the next instance of `signal`.
    pub fn take(&mut self, signal: Signal) -> Option<SigInfo> {
        let mut info = SigInfo::lost(signal);
        self.take_into(signal, &mut info).then_some(info)
    }

    /// Takes the next instance of `signal` into `info`; false if there is none, or none that still counts (see [`PosixTimer::taken`]).
    #[inline]
    pub fn take_into(&mut self, signal: Signal, info: &mut SigInfo) -> bool {
        if !self.set.contains(signal) {
            return false;
        }
        if !self.in_slots.contains(signal) {
            return self.take_queued(signal, info);
        }
        *info = self.infos[usize::from(self.slots[signal.index()])];
        self.remove_info(signal);
        if self.queued.is_empty() || !self.queued.has(signal) {
            self.set = self.set.without(signal);
        }
        true
    }

    fn take_queued(&mut self, signal: Signal, info: &mut SigInfo) -> bool {
        while self.set.contains(signal) {
            let (entry, more) = self.queued.take(signal);
            if !more {
                self.set = self.set.without(signal);
            }
            let Some(entry) = entry else {
                *info = SigInfo::lost(signal);
                return true;
            };
            let Some(timer) = &entry.timer else {
                *info = entry.info;
                return true;
            };
            // Without its timer the entry just goes.
            if let Some(told) = timer.upgrade().and_then(|timer| timer.taken(entry)) {
                *info = told;
                return true;
            }
        }
        false
    }

    /// The signal to deliver next to the thread whose own queue this is: one that its own instruction caused comes first.
    #[inline]
    pub fn next_to_deliver(&self, blocked: SigSet) -> Option<Signal> {
        if self.set.minus(blocked).is_empty() {
            return None;
        }
        self.next_synchronous(blocked)
            .or_else(|| self.next(blocked))
    }

    /// The signal to take next: synchronous ones first, then the lowest number.
    #[inline]
    pub fn next(&self, blocked: SigSet) -> Option<Signal> {
        let ready = self.set.minus(blocked);
        let synchronous = SigSet(ready.0 & SigSet::SYNCHRONOUS.0);
        synchronous.first().or_else(|| ready.first())
    }

    /// The pending signal that an instruction of the thread itself caused, if it is not blocked.
    pub fn next_synchronous(&self, blocked: SigSet) -> Option<Signal> {
        let mut ready = SigSet(self.in_slots.minus(blocked).0 & SigSet::SYNCHRONOUS.0);
        while let Some(signal) = ready.first() {
            let slot = self.slots[signal.index()];
            if self.infos[usize::from(slot)].code > 0 {
                return Some(signal);
            }
            ready = ready.without(signal);
        }
        None
    }

    /// Forgets all pending instances of the signals in `set`. Timers get their entries back.
    pub fn flush(&mut self, set: SigSet) {
        let mut rest = SigSet(self.set.0 & set.0);
        self.set = self.set.minus(rest);
        while let Some(signal) = rest.first() {
            if self.in_slots.contains(signal) {
                self.remove_info(signal);
            }
            while let (Some(entry), _) = self.queued.take(signal) {
                let timer = entry.timer.as_ref().and_then(Weak::upgrade);
                if let Some(timer) = timer {
                    timer.take_back(entry);
                }
            }
            rest = rest.without(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::{Detail, code};

    fn user(signal: Signal, pid: u32) -> SigInfo {
        SigInfo {
            signal,
            code: code::SI_USER,
            detail: Detail::Sender { pid, uid: 0 },
        }
    }

    #[cfg_attr(not(target_os = "none"), test)]
    #[cfg_attr(target_os = "none", test_case)]
    fn a_standard_signal_keeps_its_first_info() {
        let mut pending = Pending::new().unwrap();
        assert!(pending.push_standard(&user(Signal::SIGUSR1, 1)));
        assert!(!pending.push_standard(&user(Signal::SIGUSR1, 2)));
        assert_eq!(
            pending.take(Signal::SIGUSR1),
            Some(user(Signal::SIGUSR1, 1))
        );
        assert_eq!(pending.take(Signal::SIGUSR1), None);
    }

    #[cfg_attr(not(target_os = "none"), test)]
    #[cfg_attr(target_os = "none", test_case)]
    fn realtime_instances_queue_in_order_and_survive_lost_memory() {
        let rt = Signal::new(34).unwrap();
        let mut pending = Pending::new().unwrap();
        for pid in 1..=2 {
            let charge = Charge::new(4_000_002, 2).unwrap();
            pending.push_realtime(rt, Entry::new(user(rt, pid), charge));
        }
        pending.push_realtime(rt, None);
        assert_eq!(pending.take(rt), Some(user(rt, 1)));
        assert_eq!(pending.take(rt), Some(user(rt, 2)));
        assert_eq!(pending.take(rt), None);
        pending.push_realtime(rt, None);
        assert_eq!(pending.take(rt), Some(user(rt, 0)));
        assert!(pending.set().is_empty());
    }

    #[cfg_attr(not(target_os = "none"), test)]
    #[cfg_attr(target_os = "none", test_case)]
    fn each_signal_has_its_own_order() {
        const UID: u32 = 4_000_003;
        let mut pending = Pending::new().unwrap();
        let signals = [34, 64, 40].map(|number| Signal::new(number).unwrap());
        let add = |pending: &mut Pending, signal, pid| {
            let charge = Charge::new(UID, 100).unwrap();
            pending.push_realtime(signal, Entry::new(user(signal, pid), charge));
        };
        for pid in 1..=4 {
            for signal in signals {
                add(&mut pending, signal, pid);
            }
        }
        for pid in 1..=3 {
            assert_eq!(pending.take(signals[0]), Some(user(signals[0], pid)));
            // One that comes now is behind those that are there.
            add(&mut pending, signals[0], pid + 4);
        }
        assert_eq!(pending.take(signals[1]), Some(user(signals[1], 1)));
        pending.flush(SigSet::of(&[signals[1]]));
        assert_eq!(pending.take(signals[1]), None);
        for signal in [signals[0], signals[2]] {
            let mut last = 0;
            while let Some(info) = pending.take(signal) {
                let Detail::Sender { pid, .. } = info.detail else {
                    panic!("{info:?}");
                };
                assert!(pid > last);
                last = pid;
            }
        }
        assert!(pending.set().is_empty());
        add(&mut pending, signals[0], 1);
        add(&mut pending, signals[0], 2);
        drop(pending);
        assert_eq!(crate::signal::quota::queued(UID), 0);
    }

    #[cfg_attr(not(target_os = "none"), test)]
    #[cfg_attr(target_os = "none", test_case)]
    fn synchronous_signals_come_first_then_the_lowest_number() {
        let mut pending = Pending::new().unwrap();
        pending.push_standard(&user(Signal::SIGHUP, 1));
        pending.push_standard(&user(Signal::SIGTERM, 1));
        pending.force(SigInfo::fault(Signal::SIGSEGV, code::SEGV_MAPERR, 8));
        assert_eq!(
            pending.next_synchronous(SigSet::EMPTY),
            Some(Signal::SIGSEGV)
        );
        assert_eq!(pending.next(SigSet::EMPTY), Some(Signal::SIGSEGV));
        assert_eq!(
            pending.next(SigSet::of(&[Signal::SIGSEGV])),
            Some(Signal::SIGHUP)
        );
        assert_eq!(
            pending.next_synchronous(SigSet::of(&[Signal::SIGSEGV])),
            None
        );
        pending.flush(SigSet::of(&[Signal::SIGSEGV, Signal::SIGHUP]));
        assert_eq!(pending.next(SigSet::EMPTY), Some(Signal::SIGTERM));
    }
}
