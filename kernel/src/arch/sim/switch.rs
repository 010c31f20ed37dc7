//! Simulated context switches: threads are host threads that hand a baton on.

use core::cell::Cell;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use super::{PtRegs, TrapInfo};
use crate::errno::OutOfMemory;
use crate::task::Thread;

/// Says whose turn it is.
#[derive(Default)]
struct Baton {
    here: Mutex<bool>,
    arrived: Condvar,
}

impl Baton {
    fn give(&self) {
        *self.here.lock().expect("no panic while the baton is held") = true;
        self.arrived.notify_one();
    }

    fn take(&self) {
        let mut here = self.here.lock().expect("no panic while the baton is held");
        while !*here {
            here = self
                .arrived
                .wait(here)
                .expect("no panic while the baton is held");
        }
        *here = false;
    }
}

/// The simulated architecture's part of a thread.
pub struct ThreadState {
    baton: Arc<Baton>,
    started: Cell<bool>,
    fs_base: AtomicUsize,
    gs_base: AtomicUsize,
    trap: Mutex<TrapInfo>,
}

// SAFETY: `started` is only touched in `switch`, by the one host thread that has the baton.
unsafe impl Sync for ThreadState {}

impl ThreadState {
    pub fn new_kernel() -> Result<ThreadState, OutOfMemory> {
        Ok(ThreadState {
            baton: Arc::default(),
            started: Cell::new(false),
            fs_base: AtomicUsize::new(0),
            gs_base: AtomicUsize::new(0),
            trap: Mutex::default(),
        })
    }

    pub fn new_user(_regs: &PtRegs) -> Result<ThreadState, OutOfMemory> {
        ThreadState::new_kernel()
    }

    pub fn fork_from(_parent: &ThreadState, regs: &PtRegs) -> Result<ThreadState, OutOfMemory> {
        ThreadState::new_user(regs)
    }

    pub fn set_initial_fs_base(&mut self, base: usize) {
        *self.fs_base.get_mut() = base;
    }

    /// Nothing is kept of threads that are gone.
    pub fn free_spares() -> usize {
        0
    }

    pub fn reset_for_exec(&self) {
        self.set_fs_base(0);
        self.set_gs_base(0);
    }

    pub fn fs_base(&self) -> usize {
        self.fs_base.load(Ordering::Relaxed)
    }

    pub fn set_fs_base(&self, base: usize) {
        self.fs_base.store(base, Ordering::Relaxed);
    }

    pub fn gs_base(&self) -> usize {
        self.gs_base.load(Ordering::Relaxed)
    }

    pub fn set_gs_base(&self, base: usize) {
        self.gs_base.store(base, Ordering::Relaxed);
    }

    pub fn set_trap(&self, trap: TrapInfo) {
        *self.trap.lock().expect("never poisoned") = trap;
    }

    pub fn trap(&self) -> TrapInfo {
        *self.trap.lock().expect("never poisoned")
    }
}

static CURRENT: AtomicPtr<Thread> = AtomicPtr::new(core::ptr::null_mut());

pub fn current() -> *const Thread {
    CURRENT.load(Ordering::Relaxed)
}

/// # Safety
/// As in the contract.
pub unsafe fn set_current(thread: *const Thread) {
    CURRENT.store(thread.cast_mut(), Ordering::Relaxed);
}

/// # Safety
/// As in the contract.
pub unsafe fn switch(prev: &Thread, next: &Thread) {
    // Threads whose host thread exists already: all that have run, and the idle thread, which is the first to switch away.
    prev.arch.started.set(true);
    if !next.arch.started.replace(true) {
        let baton = next.arch.baton.clone();
        std::thread::spawn(move || {
            baton.take();
            crate::task::thread_start();
            unreachable!("simulated threads end in the kernel");
        });
    }
    let own = prev.arch.baton.clone();
    next.arch.baton.give();
    // A dead thread waits here for ever; its host thread ends with the test process.
    own.take();
}

/// # Safety
/// As in the contract.
pub unsafe fn enter_user(_regs: &PtRegs) -> ! {
    unreachable!("there is no simulated user code to enter");
}
