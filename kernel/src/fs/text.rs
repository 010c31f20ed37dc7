//! Text in memory that may run out: what /proc and names of anonymous files are written into.

use alloc::vec::Vec;
use core::fmt;

use crate::errno::{Errno, Result};

/// What writes a text.
pub type Maker = fn(&mut Text) -> fmt::Result;

/// A growing text. Writing fails when memory runs out, and is then failed for good.
#[derive(Default)]
pub struct Text {
    bytes: Vec<u8>,
    failed: bool,
}

impl Text {
    pub const fn new() -> Text {
        Text {
            bytes: Vec::new(),
            failed: false,
        }
    }

    /// Adds bytes that need not be UTF-8.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed || self.bytes.try_reserve(bytes.len()).is_err() {
            self.failed = true;
            return;
        }
        self.bytes.extend_from_slice(bytes);
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// What was written, as far as there was memory.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// What was written. `ENOMEM` unless that is all.
    pub fn finish(self) -> Result<Vec<u8>> {
        if self.failed {
            Err(Errno::ENOMEM)
        } else {
            Ok(self.bytes)
        }
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        if self.failed { Err(fmt::Error) } else { Ok(()) }
    }
}
