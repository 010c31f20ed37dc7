//! A child that looks at its copy of the memory and changes it, and a parent that sees what of that reaches it.

use std::sync::OnceLock;

use userspace::memory::Region;
use userspace::process;
use userspace::rng::Rng;

use super::Run;

/// Bytes of a child's log at most.
const ROOM: usize = 64 << 10;

/// Where children leave their logs: 8 bytes for the length, and the text.
fn shared_log() -> &'static Region {
    static LOG: OnceLock<SharedLog> = OnceLock::new();
    &LOG.get_or_init(|| SharedLog(Region::shared(ROOM).expect("mmap")))
        .0
}

struct SharedLog(Region);

// SAFETY: the program has one thread.
unsafe impl Send for SharedLog {}
// SAFETY: as above.
unsafe impl Sync for SharedLog {}

impl Run {
    /// The child makes a few steps of its own, without children. Only one of the two runs at a time.
    pub fn fork(&mut self) {
        let log = shared_log();
        let (steps, seed) = (self.rng.below(10), self.rng.bits());
        let pid = process::child(|| {
            self.rng = Rng::new(seed);
            self.log = String::from("child\n");
            self.areas();
            for _ in 0..steps {
                match self.rng.below(8) {
                    0..=2 => self.store(),
                    3..=4 => self.load(),
                    5 => self.sync(),
                    _ => self.other_step(),
                }
            }
            self.areas();
            let text = self.log.as_bytes();
            let text = &text[..text.len().min(ROOM - 8)];
            log.write_u64(0, text.len() as u64);
            for (at, &byte) in text.iter().enumerate() {
                log.write(8 + at, byte);
            }
            0
        });
        let ended = process::wait(pid.expect("fork")).expect("wait");
        let len = log.read_u64(0) as usize;
        self.log += &String::from_utf8_lossy(&log.bytes(8, len));
        self.log += &format!("child {ended}\n");
    }

    fn other_step(&mut self) {
        match self.rng.below(7) {
            0 => self.map_anonymous(),
            1 => self.unmap(),
            2..=3 => self.protect(),
            4 => self.advise(),
            5 => self.lock(),
            _ if self.old => self.file_access(),
            _ => self.remap(),
        }
    }
}
