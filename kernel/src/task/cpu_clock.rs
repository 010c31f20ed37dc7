//! CPU clocks of processes and threads, and the timers that go by them (`clock_getcpuclockid(3)`, `setitimer(2)`, RLIMIT_CPU).
//!
//! A timer on a CPU clock stands in a queue of that clock's owner, by when it rings. The tick of whoever runs looks at the first of the
//! queues of its thread and its process, so such timers are as fine as the tick, as on Linux.
//!
//! Lock rank: TIMER for a queue; released before a timer rings.

use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use intrusive_collections::{Bound, KeyAdapter, RBTree, RBTreeAtomicLink, intrusive_adapter};

use super::interval::{Schedule, Setting};
use super::posix_timer::PosixTimer;
use super::rlimit::{INFINITY, Resource};
use super::{Process, Thread};
use crate::signal::{SigInfo, Signal, send};
use crate::sync::{IrqLock, rank};

/// What of the CPU time a clock counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Kind {
    /// All of it: what Linux calls PROF, and SCHED.
    Total = 0,
    /// User time: VIRT.
    User = 1,
}

const KINDS: [Kind; 2] = [Kind::Total, Kind::User];

/// Whose time it is.
#[derive(Clone)]
enum Owner {
    Process(Weak<Process>),
    Thread(Weak<Thread>),
}

/// A CPU clock.
#[derive(Clone)]
pub struct CpuClock {
    owner: Owner,
    kind: Kind,
}

intrusive_adapter!(CpuAdapter = Arc<PosixTimer>: PosixTimer { cpu_link => RBTreeAtomicLink });

impl<'a> KeyAdapter<'a> for CpuAdapter {
    type Key = u64;
    fn get_key(&self, timer: &'a PosixTimer) -> u64 {
        timer.cpu_deadline.load(Ordering::Relaxed)
    }
}

/// The timers on the clocks of a process or a thread.
pub struct CpuTimers {
    queues: IrqLock<[RBTree<CpuAdapter>; 2]>,
    /// Whether there is any: a hint, changed under the lock.
    armed: AtomicBool,
}

impl CpuTimers {
    pub const fn new() -> CpuTimers {
        CpuTimers {
            queues: IrqLock::new(rank::TIMER, [const { RBTree::new(CpuAdapter::NEW) }; 2]),
            armed: AtomicBool::new(false),
        }
    }

    fn insert(&self, kind: Kind, timer: &Arc<PosixTimer>) {
        let mut queues = self.queues.lock();
        if !timer.cpu_link.is_linked() {
            queues[kind as usize].insert(timer.clone());
        }
        self.armed.store(true, Ordering::Relaxed);
    }

    fn remove(&self, kind: Kind, timer: &PosixTimer) {
        let mut queues = self.queues.lock();
        let removed = if timer.cpu_link.is_linked() {
            // SAFETY: a linked timer is in the queue of its own clock, which is this one.
            unsafe { queues[kind as usize].cursor_mut_from_ptr(timer) }.remove()
        } else {
            None
        };
        drop(queues);
        drop(removed);
    }

    fn take_due(&self, kind: Kind, now: u64) -> Option<Arc<PosixTimer>> {
        let mut queues = self.queues.lock();
        let queue = &mut queues[kind as usize];
        let first = queue.lower_bound(Bound::Unbounded);
        if first
            .get()
            .is_none_or(|timer| timer.cpu_deadline.load(Ordering::Relaxed) > now)
        {
            let empty = queues.iter().all(RBTree::is_empty);
            self.armed.store(!empty, Ordering::Relaxed);
            return None;
        }
        queue.front_mut().remove()
    }

    /// Lets the timers ring whose time has come.
    fn run(&self, now: impl Fn(Kind) -> u64) {
        if !self.armed.load(Ordering::Relaxed) {
            return;
        }
        for kind in KINDS {
            let now = now(kind);
            while let Some(timer) = self.take_due(kind, now) {
                timer.rung();
            }
        }
    }
}

impl Default for CpuTimers {
    fn default() -> Self {
        CpuTimers::new()
    }
}

impl CpuClock {
    pub fn of_process(process: &Arc<Process>, kind: Kind) -> CpuClock {
        CpuClock {
            owner: Owner::Process(Arc::downgrade(process)),
            kind,
        }
    }

    pub fn of_thread(thread: &Arc<Thread>, kind: Kind) -> CpuClock {
        CpuClock {
            owner: Owner::Thread(Arc::downgrade(thread)),
            kind,
        }
    }

    /// The clock, ns; `None` if its owner is gone.
    pub fn read(&self) -> Option<u64> {
        match &self.owner {
            Owner::Process(process) => process
                .upgrade()
                .map(|process| process_time(&process, self.kind)),
            Owner::Thread(thread) => thread
                .upgrade()
                .map(|thread| thread_time(&thread, self.kind)),
        }
    }

    fn with_timers<R>(&self, f: impl FnOnce(&CpuTimers) -> R) -> Option<R> {
        match &self.owner {
            Owner::Process(process) => process.upgrade().map(|process| f(&process.cpu_timers)),
            Owner::Thread(thread) => thread.upgrade().map(|thread| f(&thread.cpu_timers)),
        }
    }

    pub(super) fn arm(&self, timer: &Arc<PosixTimer>) {
        self.with_timers(|timers| timers.insert(self.kind, timer));
    }

    pub(super) fn disarm(&self, timer: &PosixTimer) {
        self.with_timers(|timers| timers.remove(self.kind, timer));
    }
}

/// CPU time of a thread, ns; the current turn counts too, where it is the current thread's.
pub fn thread_time(thread: &Thread, kind: Kind) -> u64 {
    let current = crate::sched::current();
    let turn = match core::ptr::eq(thread, &*current) {
        true => thread.sched.current_turn_ns(),
        false => 0,
    };
    let total = thread.sched.cpu_time_ns() + turn;
    match kind {
        Kind::Total => total,
        Kind::User => total.saturating_sub(thread.sched.system_time_ns()),
    }
}

/// CPU time of a process, ended threads included, ns.
pub fn process_time(process: &Process, kind: Kind) -> u64 {
    let current = crate::sched::current();
    let turn = match core::ptr::eq(process, &*current.process) {
        true => current.sched.current_turn_ns(),
        false => 0,
    };
    let total = process.cpu_sum.total.load(Ordering::Relaxed) + turn;
    match kind {
        Kind::Total => total,
        Kind::User => total.saturating_sub(process.cpu_sum.system.load(Ordering::Relaxed)),
    }
}

/// CPU time of all threads that a process ever had, ns, kept by the scheduler.
#[derive(Default)]
pub struct CpuSum {
    pub total: AtomicU64,
    /// The part that was spent in the kernel.
    pub system: AtomicU64,
}

/// ITIMER_PROF and ITIMER_VIRTUAL of a process, and its limit of CPU time.
pub struct CpuItimers {
    schedules: IrqLock<[Schedule; 2]>,
    /// When the next of the timers rings or the limit is reached, ns of the clock that all time counts on; later than that never by
    /// mistake. User time is never ahead of it.
    next: AtomicU64,
}

impl CpuItimers {
    pub const fn new() -> CpuItimers {
        CpuItimers {
            schedules: IrqLock::new(rank::INTERVAL_TIMER, [Schedule::STOPPED; 2]),
            next: AtomicU64::new(0),
        }
    }
}

impl Default for CpuItimers {
    fn default() -> Self {
        CpuItimers::new()
    }
}

/// The signal of a process's interval timer by its clock.
fn signal_of(kind: Kind) -> Signal {
    match kind {
        Kind::Total => Signal::SIGPROF,
        Kind::User => Signal::SIGVTALRM,
    }
}

const NS_PER_S: u64 = 1_000_000_000;

impl Process {
    /// What ITIMER_PROF or ITIMER_VIRTUAL shows.
    pub fn cpu_itimer(&self, kind: Kind) -> Setting {
        let now = process_time(self, kind);
        self.cpu_itimers.schedules.lock()[kind as usize].shown(now, 1000)
    }

    /// Sets one of them; what it showed before.
    pub fn set_cpu_itimer(&self, kind: Kind, new: Setting) -> Setting {
        let now = process_time(self, kind);
        let mut schedules = self.cpu_itimers.schedules.lock();
        let schedule = &mut schedules[kind as usize];
        let before = schedule.shown(now, 1000);
        *schedule = Schedule::start(new, false, now);
        drop(schedules);
        self.look_at_cpu_time_again();
        before
    }

    /// A timer or the limit of CPU time has changed: the next tick looks at all.
    pub fn look_at_cpu_time_again(&self) {
        self.cpu_itimers.next.store(0, Ordering::Relaxed);
    }

    /// Sends what is due by the process's own timers and its limit.
    fn check_cpu_time(&self) {
        let total = process_time(self, Kind::Total);
        if total < self.cpu_itimers.next.load(Ordering::Relaxed) {
            return;
        }
        let mut next = u64::MAX;
        for kind in KINDS {
            let now = process_time(self, kind);
            let mut schedules = self.cpu_itimers.schedules.lock();
            let schedule = &mut schedules[kind as usize];
            let rang = schedule.pass(now) > 0;
            if let Some(at) = schedule.next {
                next = next.min(total + (at - now));
            }
            drop(schedules);
            if rang {
                send::send_to_process(self, SigInfo::kernel(signal_of(kind)));
            }
        }
        next = next.min(self.check_cpu_limit(total));
        self.cpu_itimers.next.store(next, Ordering::Relaxed);
    }

    /// RLIMIT_CPU: SIGKILL at the hard limit, SIGXCPU at the soft one and every second after that, by which it moves on as on Linux. When
    /// there is something to do next, ns.
    fn check_cpu_limit(&self, total: u64) -> u64 {
        let Ok(mut limit) = self.rlimits.get(Resource::Cpu as usize) else {
            return u64::MAX;
        };
        let ns = |seconds: u64| match seconds {
            INFINITY => u64::MAX,
            seconds => seconds.saturating_mul(NS_PER_S),
        };
        if total >= ns(limit.hard) {
            send::send_to_process(self, SigInfo::kernel(Signal::SIGKILL));
            return u64::MAX;
        }
        if total >= ns(limit.soft) {
            send::send_to_process(self, SigInfo::kernel(Signal::SIGXCPU));
            limit.soft = (limit.soft + 1).min(limit.hard);
            let _ = self.rlimits.set(Resource::Cpu as usize, limit);
        }
        ns(limit.soft).min(ns(limit.hard))
    }
}

/// The tick has found `thread` running: lets CPU timers ring. Interrupts off, no lock held.
pub fn tick(thread: &Thread) {
    let process = &thread.process;
    thread.cpu_timers.run(|kind| thread_time(thread, kind));
    process.cpu_timers.run(|kind| process_time(process, kind));
    process.check_cpu_time();
}
