//! Whom the files of /proc/PID and of /proc/PID/task/TID tell about: a process with all its threads, or one of them.

use alloc::sync::Arc;

use crate::errno::{Errno, Result};
use crate::sched::State;
use crate::task::table::{self, INIT_PID};
use crate::task::usage::Counts;
use crate::task::{Process, Thread};

/// A process, or one thread of it.
pub struct Subject<'a> {
    pub process: &'a Process,
    /// The thread; of a process the first one that lives.
    pub thread: Option<Arc<Thread>>,
    /// The number of either.
    pub id: u32,
    is_thread: bool,
}

/// A thread of `process`, by its number. `ENOENT` if there is none.
pub fn thread_of(process: &Process, tid: u32) -> Result<Arc<Thread>> {
    table::find_thread(tid)
        .filter(|thread| core::ptr::eq(&*thread.process, process))
        .ok_or(Errno::ENOENT)
}

impl<'a> Subject<'a> {
    /// The thread `tid` of the process, or all of it. `ESRCH` if the thread has ended.
    pub fn of(process: &'a Process, tid: Option<u32>) -> Result<Subject<'a>> {
        let thread = match tid {
            Some(tid) => Some(thread_of(process, tid).map_err(|_| Errno::ESRCH)?),
            None => process.signals.lock().threads.front().clone_pointer(),
        };
        Ok(Subject {
            process,
            thread,
            id: tid.unwrap_or(process.pid),
            is_thread: tid.is_some(),
        })
    }

    /// `comm`.
    pub fn name(&self) -> Name {
        match &self.thread {
            Some(thread) if self.is_thread => Name(thread.name()),
            _ => Name(*self.process.name.lock()),
        }
    }

    /// What was used.
    pub fn counts(&self) -> Counts {
        match &self.thread {
            Some(thread) if self.is_thread => thread.counts(),
            _ => self.process.counts(),
        }
    }

    /// Letters of proc(5), by what the thread does.
    pub fn state(&self) -> (char, &'static str) {
        match self.thread.as_ref().map(|thread| thread.sched.run_state()) {
            // The kernel's init has no thread.
            None if self.process.pid == INIT_PID => ('S', "sleeping"),
            Some(State::Runnable) => ('R', "running"),
            Some(State::Interruptible) => ('S', "sleeping"),
            Some(State::Killable | State::Uninterruptible) => ('D', "disk sleep"),
            Some(State::Stopped) => ('T', "stopped"),
            Some(State::Dead) | None => ('Z', "zombie"),
        }
    }
}

/// A name of at most 15 bytes.
pub struct Name([u8; 16]);

impl Name {
    pub fn as_bytes(&self) -> &[u8] {
        self.0.split(|&byte| byte == 0).next().unwrap_or_default()
    }
}
