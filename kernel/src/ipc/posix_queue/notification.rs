//! Being told that a message has come to an empty queue (`mq_notify(3)`).
//!
//! One process at a time can be registered, and is told once, if no receiver waits.

use alloc::sync::Weak;
use core::sync::atomic::{AtomicUsize, Ordering};

use linux_raw_sys::general as abi;

use super::{Queue, State, queue_of};
use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::fs::socket::Notice;
use crate::sched::current;
use crate::signal::info::Detail;
use crate::signal::{SigInfo, Signal, code, send};
use crate::task::Process;

/// How a process wants to be told.
pub enum Notification {
    /// Not at all; but nobody else is told either.
    None,
    /// By a signal with this value; without a number nothing is sent.
    Signal(Option<Signal>, u64),
    /// By a message to a socket, where the C library has a thread that waits.
    Socket(Notice),
}

/// A process that is to be told.
pub(super) struct Registration {
    how: Notification,
    process: Weak<Process>,
    /// As it was then: another program does not expect the signal.
    programs: u32,
}

/// How a message to a socket ends: why it was sent (`include/uapi/linux/mqueue.h`).
const NOTIFY_WOKENUP: u8 = 1;
const NOTIFY_REMOVED: u8 = 2;
/// Bytes of such a message (`NOTIFY_COOKIE_LEN`).
pub const COOKIE_LEN: usize = 32;

/// Registrations there are, so that closing other files costs nothing.
static REGISTRATIONS: AtomicUsize = AtomicUsize::new(0);

impl Registration {
    fn new(how: Notification) -> Registration {
        REGISTRATIONS.fetch_add(1, Ordering::Relaxed);
        let process = &current().process;
        Registration {
            how,
            process: alloc::sync::Arc::downgrade(process),
            programs: process.programs(),
        }
    }

    /// It was taken back.
    fn removed(removed: Option<Registration>) {
        if let Some(registration) = removed
            && let Notification::Socket(notice) = &registration.how
        {
            notice.send(NOTIFY_REMOVED);
        }
    }

    fn is_own(&self) -> bool {
        core::ptr::eq(self.process.as_ptr(), &raw const *current().process)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        REGISTRATIONS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A message has come, and this process is to be told.
#[must_use]
pub(super) struct Event(Registration);

impl Event {
    /// Tells it, as by the current process.
    pub fn send(self) {
        match &self.0.how {
            Notification::None | Notification::Signal(None, _) => {}
            Notification::Signal(Some(signal), value) => self.0.signal(*signal, *value),
            Notification::Socket(notice) => notice.send(NOTIFY_WOKENUP),
        }
    }
}

impl Registration {
    fn signal(&self, signal: Signal, value: u64) {
        let Some(process) = self.process.upgrade() else {
            return;
        };
        if process.programs() != self.programs {
            return;
        }
        let sender = &current().process;
        let uid = sender.credentials.user().real;
        let info = SigInfo {
            signal,
            code: code::SI_MESGQ,
            detail: Detail::Raw {
                errno: 0,
                fields: [u64::from(sender.pid) | u64::from(uid) << 32, value, 0, 0],
            },
        };
        send::send_to_process(&process, info);
    }
}

impl State {
    /// After a message was put in: who is to be told of it.
    pub(super) fn take_event(&mut self) -> Option<Event> {
        match self.count {
            1 => self.registration.take().map(Event),
            _ => None,
        }
    }
}

impl Queue {
    /// mq_notify(2): registers the current process, or with `None` takes its registration back. `EBUSY`.
    pub fn notify(&self, how: Option<Notification>) -> Result {
        let mut state = self.state.lock();
        match how {
            None => {
                let removed = state.unregister();
                drop(state);
                Registration::removed(removed);
            }
            Some(_) if state.registration.is_some() => return Err(Errno::EBUSY),
            Some(how) => state.registration = Some(Registration::new(how)),
        }
        Ok(())
    }

    /// For the text that a queue's file reads as: how who is told (`SIGEV_*`, signal, process).
    pub(super) fn registered(&self) -> (u32, u32, u32) {
        let state = self.state.lock();
        let Some(registration) = &state.registration else {
            return (0, 0, 0);
        };
        let pid = registration
            .process
            .upgrade()
            .map_or(0, |process| process.pid);
        match &registration.how {
            Notification::None => (abi::SIGEV_NONE, 0, pid),
            Notification::Socket(_) => (abi::SIGEV_THREAD, 0, pid),
            Notification::Signal(signal, _) => {
                let number = signal.map_or(0, Signal::number);
                (abi::SIGEV_SIGNAL, u32::from(number), pid)
            }
        }
    }
}

impl State {
    /// Takes the current process's registration.
    fn unregister(&mut self) -> Option<Registration> {
        self.registration
            .take_if(|registration| registration.is_own())
    }
}

/// The current process has closed a descriptor of the file: its registration goes, whatever other descriptors it has.
pub fn closed_by_process(file: &File) {
    if REGISTRATIONS.load(Ordering::Relaxed) > 0
        && let Ok(queue) = queue_of(file)
    {
        let removed = queue.state.lock().unregister();
        Registration::removed(removed);
    }
}
