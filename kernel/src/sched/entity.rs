//! The scheduler's part of a thread: its run state, how it is scheduled, and what it has used.
//!
//! Written under the run queue's lock, but for the state that a thread sets for itself; the numbers may be read at any time.

use core::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering};

use intrusive_collections::{LinkedListAtomicLink, RBTreeAtomicLink};

use super::State;
use super::policy::{NICE_0_WEIGHT, Parameters, Policy};
use crate::arch::time;

/// The scheduler's part of a thread.
pub struct Entity {
    pub(super) state: AtomicU8,
    /// In the list of a real-time priority.
    pub(super) list_link: LinkedListAtomicLink,
    /// In the tree of those who share fairly.
    pub(super) tree_link: RBTreeAtomicLink,
    /// [`Parameters`], packed.
    parameters: AtomicU32,
    /// Nanoseconds to virtual ones, times 2^[`SHIFT`].
    scale: AtomicU32,
    /// Virtual time: CPU time divided by weight.
    vruntime: AtomicU64,
    /// What is left of the slice, ns.
    pub(super) slice: AtomicI64,
    /// When the thread was last switched to or charged, ns since boot.
    pub(super) since: AtomicU64,
    cpu_time: AtomicU64,
    /// What of the CPU time the clock tick has found to be user's and the kernel's.
    seen_user: AtomicU64,
    seen_system: AtomicU64,
    voluntary: AtomicU64,
    involuntary: AtomicU64,
}

const SHIFT: u32 = 20;

/// Adds under the run queue's lock, where nobody else does.
#[inline]
fn add(to: &AtomicU64, value: u64) {
    to.store(
        to.load(Ordering::Relaxed).wrapping_add(value),
        Ordering::Relaxed,
    );
}

impl Entity {
    pub const fn new() -> Entity {
        Entity {
            state: AtomicU8::new(State::Runnable as u8),
            list_link: LinkedListAtomicLink::new(),
            tree_link: RBTreeAtomicLink::new(),
            parameters: AtomicU32::new(Parameters::DEFAULT.pack()),
            scale: AtomicU32::new(1 << SHIFT),
            vruntime: AtomicU64::new(0),
            slice: AtomicI64::new(0),
            since: AtomicU64::new(0),
            cpu_time: AtomicU64::new(0),
            seen_user: AtomicU64::new(0),
            seen_system: AtomicU64::new(0),
            voluntary: AtomicU64::new(0),
            involuntary: AtomicU64::new(0),
        }
    }

    /// A new thread's, made by the one with `parent`: scheduled as that is, and no further ahead.
    pub fn inherit(&self, parent: &Entity) {
        self.set_parameters(parent.parameters().inherited());
        self.vruntime.store(parent.vruntime(), Ordering::Relaxed);
    }

    /// What the thread does, as it is at some moment.
    pub fn run_state(&self) -> State {
        let states = [
            State::Runnable,
            State::Interruptible,
            State::Killable,
            State::Uninterruptible,
            State::Stopped,
        ];
        let state = self.state();
        states
            .into_iter()
            .find(|&one| one as u8 == state)
            .unwrap_or(State::Dead)
    }

    #[inline]
    pub(super) fn state(&self) -> u8 {
        self.state.load(Ordering::Relaxed)
    }

    pub fn parameters(&self) -> Parameters {
        Parameters::unpack(self.parameters.load(Ordering::Relaxed))
    }

    pub(super) fn set_parameters(&self, parameters: Parameters) {
        let scale = (NICE_0_WEIGHT << SHIFT) as u64 / u64::from(parameters.weight());
        self.scale.store(scale as u32, Ordering::Relaxed);
        self.parameters.store(parameters.pack(), Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn has_policy(&self, policy: Policy) -> bool {
        self.parameters.load(Ordering::Relaxed) as u8 == policy as u8
    }

    /// The real-time priority; 0 for those who share fairly.
    #[inline]
    pub(super) fn level(&self) -> u8 {
        (self.parameters.load(Ordering::Relaxed) >> 8) as u8
    }

    #[inline]
    pub(super) fn vruntime(&self) -> u64 {
        self.vruntime.load(Ordering::Relaxed)
    }

    pub(super) fn set_vruntime(&self, to: u64) {
        self.vruntime.store(to, Ordering::Relaxed);
    }

    /// So many nanoseconds of CPU in virtual time.
    #[inline]
    pub(super) fn virtual_ns(&self, ns: u64) -> u64 {
        let scale = self.scale.load(Ordering::Relaxed);
        if scale == 1 << SHIFT {
            return ns;
        }
        ((u128::from(ns) * u128::from(scale)) >> SHIFT) as u64
    }

    /// Charges what ran since the last charge; how much, ns.
    #[inline]
    pub(super) fn charge(&self, now: u64) -> u64 {
        let ran = now.saturating_sub(self.since.load(Ordering::Relaxed));
        self.since.store(now, Ordering::Relaxed);
        add(&self.cpu_time, ran);
        let left = self.slice.load(Ordering::Relaxed) - ran as i64;
        self.slice.store(left, Ordering::Relaxed);
        if self.level() == 0 {
            add(&self.vruntime, self.virtual_ns(ran));
        }
        ran
    }

    /// The clock ticked while the thread was in user mode, or not: all that is not accounted yet counts as that.
    pub(super) fn account(&self, in_user_mode: bool) {
        let seen = self.seen_user.load(Ordering::Relaxed) + self.system_time_ns();
        let to = match in_user_mode {
            true => &self.seen_user,
            false => &self.seen_system,
        };
        add(to, self.cpu_time_ns().saturating_sub(seen));
    }

    pub(super) fn count_switch(&self, voluntary: bool) {
        add(
            match voluntary {
                true => &self.voluntary,
                false => &self.involuntary,
            },
            1,
        );
    }

    /// CPU time of completed turns, ns.
    pub fn cpu_time_ns(&self) -> u64 {
        self.cpu_time.load(Ordering::Relaxed)
    }

    /// The part of the CPU time that was spent in the kernel, as far as the clock tick saw, ns. The rest is user time.
    pub fn system_time_ns(&self) -> u64 {
        self.seen_system.load(Ordering::Relaxed)
    }

    /// How often the thread gave the CPU up to wait, and how often it was taken away or yielded.
    pub fn switches(&self) -> (u64, u64) {
        (
            self.voluntary.load(Ordering::Relaxed),
            self.involuntary.load(Ordering::Relaxed),
        )
    }

    /// How long the turn has lasted in which the thread, the current one, is now, ns.
    pub fn current_turn_ns(&self) -> u64 {
        time::now_ns().saturating_sub(self.since.load(Ordering::Relaxed))
    }
}

impl Default for Entity {
    fn default() -> Self {
        Entity::new()
    }
}
