//! Signals that are read instead of handled (`signalfd(2)`).
//!
//! A signal file holds a set and nothing else: who reads or polls it sees the signals of that set which are pending for itself or its
//! process, whoever opened it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use super::file::{File, Opened};
use super::fixed;
use super::io::Dst;
use super::stream::{PollEvents, Stream};
use crate::errno::{Errno, Result};
use crate::sched::{Sleep, current};
use crate::signal::info::{Layout, SIGINFO_SIZE};
use crate::signal::readers::Open;
use crate::signal::{SigInfo, SigSet, take};

/// Bytes of `struct signalfd_siginfo`.
const RECORD: usize = 128;

struct SignalFile {
    set: AtomicU64,
    _open: Open,
}

/// A new signal file for the set, open.
pub fn new(set: SigSet, flags: u32) -> Result<Arc<File>> {
    let inode = fixed::anonymous(b"anon_inode:[signalfd]")?;
    let file = Box::try_new(SignalFile {
        set: AtomicU64::new(set.blockable().0),
        _open: Open::new(),
    })?;
    File::new(inode, Opened::Stream(file), flags)
}

impl SignalFile {
    fn set(&self) -> SigSet {
        SigSet(self.set.load(Ordering::Relaxed))
    }
}

impl Stream for SignalFile {
    /// As many records as there are signals and room; waits for the first one.
    fn read(&self, dst: &mut Dst<'_>, nonblock: bool) -> Result<usize> {
        if dst.left() < RECORD {
            return Err(Errno::EINVAL);
        }
        let mut next = match take::one_of(self.set()) {
            Some(info) => Some(info),
            None if nonblock => return Err(Errno::EAGAIN),
            None => {
                let process = &current().process;
                let readers = &process.signal_readers.0;
                Some(readers.wait_until(Sleep::Interruptible, || take::one_of(self.set()))?)
            }
        };
        let mut done = 0;
        while let Some(info) = next {
            if dst.put(&record(&info)) < RECORD {
                return if done > 0 {
                    Ok(done)
                } else {
                    Err(Errno::EFAULT)
                };
            }
            done += RECORD;
            let room = dst.left() >= RECORD;
            next = if room { take::one_of(self.set()) } else { None };
        }
        Ok(done)
    }

    fn poll(&self) -> PollEvents {
        match take::is_pending(self.set()) {
            true => PollEvents::IN,
            false => PollEvents::empty(),
        }
    }

    /// Those who wait look again, with the new set.
    fn set_signals(&self, set: SigSet) -> Result {
        self.set.store(set.blockable().0, Ordering::Relaxed);
        current().process.signal_readers.tell();
        Ok(())
    }

    fn seekable(&self) -> bool {
        true
    }
}

/// `struct signalfd_siginfo`: the fields of siginfo that the signal's origin fills, each in its own place.
fn record(info: &SigInfo) -> [u8; RECORD] {
    let from = info.abi_bytes();
    let mut to = [0; RECORD];
    let mut copy = |at: usize, source: usize, len: usize| {
        to[at..at + len].copy_from_slice(&from[source..source + len]);
    };
    // Number, errno, code: the same in both.
    copy(0, 0, 12);
    match Layout::of(info) {
        // pid and uid.
        Layout::Kill => copy(12, 16, 8),
        // pid and uid; value, as integer and as pointer.
        Layout::Queue => {
            copy(12, 16, 8);
            copy(44, 24, 4);
            copy(48, 24, 8);
        }
        // Timer and overrun count; value.
        Layout::Timer => {
            copy(24, 16, 4);
            copy(32, 20, 4);
            copy(44, 24, 4);
            copy(48, 24, 8);
        }
        // Band and descriptor.
        Layout::Poll => {
            copy(28, 16, 4);
            copy(20, 24, 4);
        }
        Layout::Fault => copy(72, 16, 8),
        Layout::FaultWithSize => {
            copy(72, 16, 8);
            copy(82, 24, 2);
        }
        // pid and uid; status; times.
        Layout::Child => {
            copy(12, 16, 8);
            copy(40, 24, 4);
            copy(56, 32, 16);
        }
        // Address of the call; its number; architecture.
        Layout::Syscall => {
            copy(88, 16, 8);
            copy(84, 24, 4);
            copy(96, 28, 4);
        }
    }
    to
}

const _: () = assert!(RECORD == SIGINFO_SIZE);
