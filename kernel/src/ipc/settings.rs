//! How much there may be: numbers that root changes in /proc/sys.

use core::sync::atomic::{AtomicU64, Ordering};

use super::posix_queue::{MOST_BYTES, MOST_MESSAGES};
use super::table::PLACES;
use crate::errno::{Errno, Result};

/// A number in /proc/sys, and what it may be.
pub struct Setting {
    value: AtomicU64,
    least: u64,
    most: u64,
}

impl Setting {
    pub(super) const fn new(value: u64, least: u64, most: u64) -> Setting {
        Setting {
            value: AtomicU64::new(value),
            least,
            most,
        }
    }

    pub fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }

    /// Takes a decimal number as it is written to the file. `EINVAL`.
    pub fn set(&self, text: &[u8]) -> Result {
        let text = core::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
        let value = text.trim().parse().map_err(|_| Errno::EINVAL)?;
        if !(self.least..=self.most).contains(&value) {
            return Err(Errno::EINVAL);
        }
        self.value.store(value, Ordering::Relaxed);
        Ok(())
    }
}

/// Pages and bytes that never are reached (`SHMALL`, `SHMMAX`).
const NO_LIMIT: u64 = u64::MAX - (1 << 24);

/// Largest segment, bytes.
pub static SHMMAX: Setting = Setting::new(NO_LIMIT, 0, u64::MAX);
/// Pages of all segments.
pub static SHMALL: Setting = Setting::new(NO_LIMIT, 0, u64::MAX);
/// Segments.
pub static SHMMNI: Setting = Setting::new(4096, 0, PLACES as u64);

/// POSIX message queues: how many, and how large, who is not root may make them.
pub static QUEUES_MAX: Setting = Setting::new(256, 0, i32::MAX as u64);
pub static MSG_MAX: Setting = Setting::new(10, 1, MOST_MESSAGES);
pub static MSGSIZE_MAX: Setting = Setting::new(8192, 128, MOST_BYTES);
/// How large they are if nobody says.
pub static MSG_DEFAULT: Setting = Setting::new(10, 1, MOST_MESSAGES);
pub static MSGSIZE_DEFAULT: Setting = Setting::new(8192, 128, MOST_BYTES);

/// Names and numbers below /proc/sys/fs/mqueue.
pub const MESSAGE_QUEUES: &[(&str, &Setting)] = &[
    ("queues_max", &QUEUES_MAX),
    ("msg_max", &MSG_MAX),
    ("msgsize_max", &MSGSIZE_MAX),
    ("msg_default", &MSG_DEFAULT),
    ("msgsize_default", &MSGSIZE_DEFAULT),
];

/// System V message queues: bytes of a message, bytes of a new queue, queues.
pub static MSGMAX: Setting = Setting::new(8192, 0, i32::MAX as u64);
pub static MSGMNB: Setting = Setting::new(16384, 0, i32::MAX as u64);
pub static MSGMNI: Setting = Setting::new(32000, 0, PLACES as u64);

/// Names and numbers below /proc/sys/kernel.
pub const KERNEL: &[(&str, &Setting)] = &[
    ("shmmax", &SHMMAX),
    ("shmall", &SHMALL),
    ("shmmni", &SHMMNI),
    ("msgmax", &MSGMAX),
    ("msgmnb", &MSGMNB),
    ("msgmni", &MSGMNI),
];
