//! Pending signals: at most one instance of each standard signal, any number of real-time ones in order.
//!
//! Taking the next signal costs a bit scan. Standard signals need no memory; a real-time instance brings its own entry,
//! allocated by the sender before any lock is taken, and charged to the receiving user.

use alloc::boxed::Box;

use intrusive_collections::{LinkedList, LinkedListAtomicLink, intrusive_adapter};

use super::info::SigInfo;
use super::quota::Charge;
use super::set::{SigSet, Signal};

const STANDARD: usize = Signal::RT_MIN as usize - 1;
const REALTIME: usize = Signal::MAX as usize - STANDARD;

/// One queued instance of a real-time signal.
pub struct Entry {
    info: SigInfo,
    link: LinkedListAtomicLink,
    _charge: Charge,
}

impl Entry {
    /// `None` without memory.
    pub fn new(info: SigInfo, charge: Charge) -> Option<Box<Entry>> {
        Box::try_new(Entry {
            info,
            link: LinkedListAtomicLink::new(),
            _charge: charge,
        })
        .ok()
    }
}

intrusive_adapter!(EntryAdapter = Box<Entry>: Entry { link => LinkedListAtomicLink });

/// Signals that were sent and not yet taken.
pub struct Pending {
    set: SigSet,
    /// Of the standard signals that are in `set`.
    standard: [SigInfo; STANDARD],
    realtime: [LinkedList<EntryAdapter>; REALTIME],
}

impl Pending {
    pub const fn new() -> Pending {
        Pending {
            set: SigSet::EMPTY,
            standard: [SigInfo::lost(Signal::SIGHUP); STANDARD],
            realtime: [const { LinkedList::new(EntryAdapter::NEW) }; REALTIME],
        }
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
        self.standard[info.signal.index()] = *info;
        true
    }

    /// Adds an instance of a real-time signal. Without an entry the signal becomes pending, but its info is lost.
    pub fn push_realtime(&mut self, signal: Signal, entry: Option<Box<Entry>>) {
        self.set = self.set.with(signal);
        if let Some(entry) = entry {
            self.realtime[signal.index() - STANDARD].push_back(entry);
        }
    }

    /// Adds a synchronous signal, in place of one that is pending.
    pub fn force(&mut self, info: SigInfo) {
        self.set = self.set.with(info.signal);
        if !info.signal.is_realtime() {
            self.standard[info.signal.index()] = info;
        }
    }

    /// Takes the next instance of `signal`.
    pub fn take(&mut self, signal: Signal) -> Option<SigInfo> {
        let mut info = SigInfo::lost(signal);
        self.take_into(signal, &mut info).then_some(info)
    }

    /// Takes the next instance of `signal` into `info`; false if there is none.
    #[inline]
    pub fn take_into(&mut self, signal: Signal, info: &mut SigInfo) -> bool {
        if !self.set.contains(signal) {
            return false;
        }
        if !signal.is_realtime() {
            self.set = self.set.without(signal);
            *info = self.standard[signal.index()];
        } else {
            self.take_realtime(signal, info);
        }
        true
    }

    fn take_realtime(&mut self, signal: Signal, info: &mut SigInfo) {
        let queue = &mut self.realtime[signal.index() - STANDARD];
        let entry = queue.pop_front();
        if queue.is_empty() {
            self.set = self.set.without(signal);
        }
        *info = match &entry {
            Some(entry) => entry.info,
            None => SigInfo::lost(signal),
        };
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
        let mut ready = SigSet(self.set.minus(blocked).0 & SigSet::SYNCHRONOUS.0);
        while let Some(signal) = ready.first() {
            if self.standard[signal.index()].code > 0 {
                return Some(signal);
            }
            ready = ready.without(signal);
        }
        None
    }

    /// Forgets all pending instances of the signals in `set`.
    pub fn flush(&mut self, set: SigSet) {
        let mut rest = SigSet(self.set.0 & set.0);
        while let Some(signal) = rest.first() {
            while self.take(signal).is_some() {}
            rest = rest.without(signal);
        }
    }
}

impl Default for Pending {
    fn default() -> Self {
        Pending::new()
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
        let mut pending = Pending::new();
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
        let mut pending = Pending::new();
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
    fn synchronous_signals_come_first_then_the_lowest_number() {
        let mut pending = Pending::new();
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
