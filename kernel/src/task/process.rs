//! A process: what its threads share.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};

use intrusive_collections::{LinkedList, LinkedListAtomicLink, intrusive_adapter};

use super::cpu_clock::{CpuItimers, CpuSum, CpuTimers};
use super::credentials::Credentials;
use super::itimer::RealTimer;
use super::own_cell::OwnCell;
use super::posix_timer::PosixTimers;
use super::rlimit::Rlimits;
use super::table::Membership;
use super::usage::Usage;
use super::{ExitStatus, table};
use crate::arch::PageTable;
use crate::errno::Result;
use crate::fs::File;
use crate::fs::poll::PollQueue;
use crate::fs::stream::PollEvents;
use crate::fs::terminal::Terminal;
use crate::ipc::semaphore::undo::Undos;
use crate::mm::Mm;
use crate::sched::WaitQueue;
use crate::signal::readers::Readers;
use crate::signal::{ProcessSignals, RoomForActions, Signal, code, send};
use crate::sync::{IrqLock, SpinLock, rank};

intrusive_adapter!(pub ChildAdapter = Arc<Process>: Process { sibling_link => LinkedListAtomicLink });

/// What wait4(2) can be told of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Events {
    pub exited: Option<ExitStatus>,
    /// Stopped by this signal, not reported yet.
    pub stopped: Option<Signal>,
    /// Continued, not reported yet.
    pub continued: bool,
}

/// How far a process's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Life {
    Lives = 0,
    /// It has ended, and was not waited for.
    Zombie = 1,
    Gone = 2,
}

/// A process, or the kernel's own threads taken together.
pub struct Process {
    pub pid: u32,
    mm: OwnCell<Option<Arc<Mm>>>,
    /// The program's file, until the process ends.
    exe: SpinLock<Option<Arc<File>>>,
    pub rlimits: Rlimits,
    pub credentials: Credentials,
    /// Actions, shared queue, threads. Lock rank SIGNAL.
    pub signals: IrqLock<ProcessSignals>,
    /// The parent's pid. The parent is found through the table, as it may be gone.
    parent: AtomicU32,
    /// Group and session: changed by the table, in which the process gets its parent's.
    pub(super) process_group: AtomicU32,
    pub session: AtomicU32,
    /// Living and unreaped children. Lock rank FAMILY.
    pub children: SpinLock<LinkedList<ChildAdapter>>,
    /// What the parent has not waited for yet. Lock rank SIGNAL (never together with `signals`).
    pub events: IrqLock<Events>,
    /// The parent waits here for its children's events.
    pub child_events: WaitQueue,
    /// Threads that read signal files wait here.
    pub signal_readers: Readers,
    /// exec waits here for the other threads' ends.
    pub thread_ends: WaitQueue,
    /// The number of the signal that the parent gets when the process ends; 0: none.
    exit_signal: AtomicU32,
    /// The controlling terminal (`credentials(7)`).
    terminal: SpinLock<Option<Arc<Terminal>>>,
    /// The foreground group of a terminal that has hung up, which hears of the leader's end; 0: none.
    hung_up_group: AtomicU32,
    /// Living threads.
    pub(super) nr_threads: AtomicU32,
    /// The user for whom they count ([`super::user_tasks`]).
    pub(super) counted_for: AtomicU32,
    /// `birth` of the youngest.
    pub(super) births: AtomicU64,
    /// [`Life`].
    life: AtomicU8,
    /// Those who watch for the end.
    pub watchers: PollQueue,
    /// The parent's thread that made the process, or that has taken it over from that one.
    maker: AtomicU32,
    /// The number of the signal that the process gets when that thread ends; 0: none.
    parent_death_signal: AtomicU32,
    /// It adopts the orphans below it (PR_SET_CHILD_SUBREAPER).
    pub adopts: AtomicBool,
    /// An ancestor does, or did.
    below_adopter: AtomicBool,
    /// How often it has called exec since it was made.
    programs: AtomicU32,
    pub dumpable: AtomicBool,
    pub keep_caps: AtomicBool,
    /// Registered uses of membarrier(2), bits of its commands.
    pub barriers: AtomicU32,
    /// ITIMER_REAL.
    pub real_timer: RealTimer,
    /// How much sooner the process is chosen when memory runs out, -1000..=1000 thousandths of all memory, and the lowest that it has
    /// been given by root (`oom_score_adj`).
    pub oom_adjustment: AtomicI32,
    pub oom_adjustment_min: AtomicI32,
    /// When the process began, ns since boot.
    pub start_ns: u64,
    /// ITIMER_PROF and ITIMER_VIRTUAL, and the limit of CPU time.
    pub cpu_itimers: CpuItimers,
    pub posix_timers: PosixTimers,
    /// What semaphores get back at the end.
    pub undos: Undos,
    /// Timers on the process's CPU clocks.
    pub cpu_timers: CpuTimers,
    pub cpu_sum: CpuSum,
    /// Of ended threads.
    pub usage: Usage,
    /// Of children that were waited for.
    pub child_usage: Usage,
    /// The name of the first thread (`comm`), NUL-padded: at first the program's.
    pub name: SpinLock<[u8; 16]>,
    /// Addresses for /proc/self: argument and environment strings, and the auxiliary vector.
    pub layout: SpinLock<Layout>,
    pub(super) membership: Membership,
    pub(super) sibling_link: LinkedListAtomicLink,
}

/// Where exec has put what it gave the program, user addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout {
    pub arg_start: usize,
    pub arg_end: usize,
    pub env_start: usize,
    pub env_end: usize,
    pub stack_start: usize,
    /// From where to where the program's executable segments and all its segments with contents reach (`start_code`, `end_code`,
    /// `start_data`, `end_data`).
    pub code: (usize, usize),
    pub data: (usize, usize),
}

impl Process {
    /// The process of all kernel threads.
    pub(super) fn kernel() -> Result<Arc<Process>> {
        Self::with(0, None, Rlimits::initial(), ProcessSignals::new()?)
    }

    /// Process 1: the kernel's init, which has no program and no thread, and to which signals mean nothing.
    pub(super) fn init() -> Result<Arc<Process>> {
        let signals = ProcessSignals::new()?;
        let init = Self::with(table::INIT_PID, None, Rlimits::initial(), signals)?;
        *init.name.lock() = *b"init\0\0\0\0\0\0\0\0\0\0\0\0";
        Ok(init)
    }

    /// The first user process, before it has a program.
    pub(super) fn first(pid: u32, mm: Arc<Mm>) -> Result<Arc<Process>> {
        Self::with(pid, Some(mm), Rlimits::initial(), ProcessSignals::new()?)
    }

    /// A child with a copy of everything but the address space, which is given, the name, and what the table gives it.
    pub(super) fn fork(&self, pid: u32, mm: Arc<Mm>) -> Result<Arc<Process>> {
        let mut actions = RoomForActions::new()?;
        actions.copy_from(&self.signals.lock());
        let signals = ProcessSignals::with(actions)?;
        let child = Self::with(pid, Some(mm), self.rlimits.fork(), signals)?;
        child.parent.store(self.pid, Ordering::Relaxed);
        for (to, value) in [
            (
                &child.below_adopter,
                self.adopts.load(Ordering::Relaxed) || self.is_below_adopter(),
            ),
            (&child.dumpable, self.dumpable.load(Ordering::Relaxed)),
            (&child.keep_caps, self.keep_caps.load(Ordering::Relaxed)),
        ] {
            to.store(value, Ordering::Relaxed);
        }
        for (to, from) in [
            (&child.oom_adjustment, &self.oom_adjustment),
            (&child.oom_adjustment_min, &self.oom_adjustment_min),
        ] {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        child.set_terminal(self.terminal());
        child.credentials.inherit(&self.credentials);
        child.set_exe(self.exe());
        let layout = *self.layout.lock();
        *child.layout.lock() = layout;
        Ok(child)
    }

    fn with(
        pid: u32,
        mm: Option<Arc<Mm>>,
        rlimits: Rlimits,
        signals: ProcessSignals,
    ) -> Result<Arc<Process>> {
        Ok(Arc::try_new(Process {
            pid,
            mm: OwnCell::new(mm),
            exe: SpinLock::new(rank::LEAF, None),
            rlimits,
            credentials: Credentials::root(),
            signals: IrqLock::new(rank::SIGNAL, signals),
            parent: AtomicU32::new(0),
            process_group: AtomicU32::new(pid),
            session: AtomicU32::new(pid),
            children: SpinLock::new(rank::FAMILY, LinkedList::new(ChildAdapter::NEW)),
            events: IrqLock::new(rank::SIGNAL, Events::default()),
            child_events: WaitQueue::new(),
            signal_readers: Readers::default(),
            thread_ends: WaitQueue::new(),
            exit_signal: AtomicU32::new(u32::from(Signal::SIGCHLD.number())),
            terminal: SpinLock::new(rank::LEAF, None),
            hung_up_group: AtomicU32::new(0),
            nr_threads: AtomicU32::new(0),
            counted_for: AtomicU32::new(0),
            births: AtomicU64::new(1),
            life: AtomicU8::new(Life::Lives as u8),
            watchers: PollQueue::new(),
            maker: AtomicU32::new(0),
            parent_death_signal: AtomicU32::new(0),
            adopts: AtomicBool::new(false),
            below_adopter: AtomicBool::new(false),
            programs: AtomicU32::new(0),
            dumpable: AtomicBool::new(true),
            keep_caps: AtomicBool::new(false),
            barriers: AtomicU32::new(0),
            real_timer: RealTimer::new(),
            oom_adjustment: AtomicI32::new(0),
            oom_adjustment_min: AtomicI32::new(0),
            start_ns: crate::arch::time::now_ns(),
            cpu_itimers: CpuItimers::new(),
            posix_timers: PosixTimers::new(),
            undos: Undos::new(),
            cpu_timers: CpuTimers::new(),
            cpu_sum: CpuSum::default(),
            usage: Usage::default(),
            child_usage: Usage::default(),
            name: SpinLock::new(rank::LEAF, [0; 16]),
            layout: SpinLock::new(rank::LEAF, Layout::default()),
            membership: Membership::default(),
            sibling_link: LinkedListAtomicLink::new(),
        })?)
    }

    /// The address space; `None` for the kernel's process and after exit.
    pub fn mm(&self) -> Option<Arc<Mm>> {
        self.mm.get()
    }

    pub fn set_exit_signal(&self, signal: Option<Signal>) {
        let number = signal.map_or(0, Signal::number);
        self.exit_signal.store(u32::from(number), Ordering::Relaxed);
    }

    /// What the parent gets when the process ends.
    pub fn exit_signal(&self) -> Option<Signal> {
        Signal::new(self.exit_signal.load(Ordering::Relaxed) as usize)
    }

    /// Whether the process is a child in the ordinary sense, and not one that wait4(2) finds with `__WCLONE` only.
    pub fn has_ordinary_exit_signal(&self) -> bool {
        self.exit_signal() == Some(Signal::SIGCHLD)
    }

    /// The address space of the current process, without taking a reference.
    #[inline]
    pub fn current_mm(&self) -> Option<&Mm> {
        debug_assert!(core::ptr::eq(self, &*crate::sched::current().process));
        // SAFETY: the caller is a thread of this process, as just asserted in debug builds; all callers go through `current()`. The
        // borrow ends with the fault or call, before exec or exit replace the space.
        unsafe { self.mm.own() }.as_deref()
    }

    /// Makes the address space that of this CPU. Threads of the kernel go on with the one that is there. Called by the scheduler
    /// when it switches to a thread of this process.
    pub(crate) fn activate_mm(&self) {
        // SAFETY: the CPU is switching to a live thread of this process.
        if let Some(mm) = unsafe { self.mm.own() }.as_deref() {
            mm.activate();
        }
    }

    /// Replaces the current process's address space and goes on in the new one, or in the kernel's own without one. The old one
    /// goes with its last reference.
    pub(crate) fn replace_mm(&self, mm: Option<Arc<Mm>>) {
        debug_assert!(core::ptr::eq(self, &*crate::sched::current().process));
        match &mm {
            Some(mm) => mm.activate(),
            None => PageTable::deactivate(),
        }
        // SAFETY: exec and exit call this as the last live thread of the process, and hold no borrow of the old space.
        let old = unsafe { self.mm.replace(mm) };
        if let Some(old) = old {
            self.usage.note_resident(old.peak_resident_pages());
        }
    }

    /// The file that the process executes, for /proc/PID/exe.
    pub fn exe(&self) -> Option<Arc<File>> {
        self.exe.lock().clone()
    }

    pub(super) fn set_exe(&self, exe: Option<Arc<File>>) {
        let old = core::mem::replace(&mut *self.exe.lock(), exe);
        drop(old);
    }

    pub fn terminal(&self) -> Option<Arc<Terminal>> {
        self.terminal.lock().clone()
    }

    pub fn set_terminal(&self, terminal: Option<Arc<Terminal>>) {
        let before = core::mem::replace(&mut *self.terminal.lock(), terminal);
        drop(before);
    }

    pub fn set_hung_up_group(&self, group: u32) {
        self.hung_up_group.store(group, Ordering::Relaxed);
    }

    pub fn take_hung_up_group(&self) -> Option<u32> {
        Some(self.hung_up_group.swap(0, Ordering::Relaxed)).filter(|&group| group != 0)
    }

    pub fn life(&self) -> Life {
        match self.life.load(Ordering::Acquire) {
            0 => Life::Lives,
            1 => Life::Zombie,
            _ => Life::Gone,
        }
    }

    /// The process has ended, or was waited for: tells those who watch.
    pub(super) fn set_life(&self, life: Life) {
        self.life.store(life as u8, Ordering::Release);
        self.watchers.tell(PollEvents::READABLE | PollEvents::HUP);
    }

    pub(super) fn is_below_adopter(&self) -> bool {
        self.below_adopter.load(Ordering::Relaxed)
    }

    pub fn has_exec(&self) -> bool {
        self.programs() > 0
    }

    /// How often the process has called exec.
    pub fn programs(&self) -> u32 {
        self.programs.load(Ordering::Relaxed)
    }

    pub(super) fn set_has_exec(&self) {
        self.programs.fetch_add(1, Ordering::Relaxed);
    }

    /// The thread of the parent whose child the process is (`__WNOTHREAD`).
    pub(super) fn maker(&self) -> u32 {
        self.maker.load(Ordering::Relaxed)
    }

    pub(super) fn set_maker(&self, tid: u32) {
        self.maker.store(tid, Ordering::Relaxed);
    }

    /// PR_SET_PDEATHSIG.
    pub fn set_parent_death_signal(&self, signal: Option<Signal>) {
        let number = signal.map_or(0, Signal::number);
        self.parent_death_signal
            .store(number.into(), Ordering::Relaxed);
    }

    pub fn parent_death_signal(&self) -> Option<Signal> {
        Signal::new(self.parent_death_signal.load(Ordering::Relaxed) as usize)
    }

    /// The process group.
    pub fn group(&self) -> u32 {
        self.process_group.load(Ordering::Relaxed)
    }

    pub fn parent_pid(&self) -> u32 {
        self.parent.load(Ordering::Relaxed)
    }

    pub(super) fn set_parent(&self, pid: u32) {
        self.parent.store(pid, Ordering::Relaxed);
    }

    /// The parent, unless that is the kernel.
    pub fn parent(&self) -> Option<Arc<Process>> {
        table::find(self.parent_pid())
    }

    /// The parent is told that the process was stopped.
    pub fn note_stopped(&self, signal: Signal) {
        *self.events.lock() = Events {
            stopped: Some(signal),
            ..Events::default()
        };
        if let Some(process) = table::find(self.pid) {
            send::notify_parent(&process, code::CLD_STOPPED, signal.number() as i32);
        }
    }

    /// SIGCONT was sent: from now on the parent can see that the process goes on.
    pub fn note_stop_ended(&self) {
        *self.events.lock() = Events {
            continued: true,
            ..Events::default()
        };
    }

    /// The process goes on after a stop, and its parent is told.
    pub fn note_continued(&self) {
        if let Some(process) = table::find(self.pid) {
            send::notify_parent(
                &process,
                code::CLD_CONTINUED,
                Signal::SIGCONT.number() as i32,
            );
        }
    }

    /// `oom_score_adj`.
    pub fn oom_adjustment(&self) -> i32 {
        self.oom_adjustment.load(Ordering::Relaxed)
    }
}
