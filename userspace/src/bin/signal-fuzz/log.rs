//! Logs: one of each thread, which signal handlers write to as well, and the committed one in shared memory.

use std::cell::UnsafeCell;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// Threads, the first included.
pub const THREADS: usize = 3;

const SHARED: usize = 1 << 20;
const OWN: usize = 1 << 16;

/// The committed log, which outlives the process that writes it.
#[derive(Clone, Copy)]
pub struct Shared(*mut u8);

impl Shared {
    pub fn new() -> Shared {
        // SAFETY: a new mapping.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                SHARED,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert!(memory != libc::MAP_FAILED, "mmap");
        Shared(memory.cast())
    }

    fn len(&self) -> &AtomicUsize {
        // SAFETY: the mapping begins with the length.
        unsafe { &*self.0.cast() }
    }

    pub fn committed(&self) -> String {
        let len = self.len().load(SeqCst);
        // SAFETY: so many bytes were written behind the length.
        let bytes = unsafe { std::slice::from_raw_parts(self.0.add(8), len) };
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// Adds the logs of all threads, and empties them. While no other thread runs.
    pub fn commit(&self) {
        for log in &LOGS {
            let text = log.take();
            let at = self.len().load(SeqCst);
            if at + text.len() + 8 <= SHARED {
                // SAFETY: there is room, and this process alone writes.
                unsafe {
                    std::ptr::copy_nonoverlapping(text.as_ptr(), self.0.add(8 + at), text.len())
                };
                self.len().store(at + text.len(), SeqCst);
            }
        }
    }

    pub fn unmap(self) {
        // SAFETY: the mapping of `new`, which nobody uses any more.
        unsafe { libc::munmap(self.0.cast(), SHARED) };
    }
}

/// One thread's log of the step that is being made.
struct Log {
    len: AtomicUsize,
    bytes: UnsafeCell<[u8; OWN]>,
}

// SAFETY: written by its own thread and the handlers on it, which nest; read while no other thread runs.
unsafe impl Sync for Log {}

static LOGS: [Log; THREADS] = [const {
    Log {
        len: AtomicUsize::new(0),
        bytes: UnsafeCell::new([0; OWN]),
    }
}; THREADS];

impl Log {
    fn take(&self) -> &[u8] {
        let len = self.len.swap(0, SeqCst);
        // SAFETY: the bytes up to `len` were written, and nobody writes now.
        unsafe { &(&*self.bytes.get())[..len] }
    }
}

/// Writes to a thread's log, without memory of its own: for handlers too.
struct Writer(usize);

impl fmt::Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let log = &LOGS[self.0];
        let at = log.len.load(SeqCst);
        if at + text.len() <= OWN {
            // SAFETY: this thread's own log, and a handler that interrupts has finished before this goes on.
            unsafe {
                (&mut *log.bytes.get())[at..at + text.len()].copy_from_slice(text.as_bytes())
            };
            log.len.store(at + text.len(), SeqCst);
        }
        Ok(())
    }
}

/// Adds a line to the log of thread `index`.
pub fn line(index: usize, text: fmt::Arguments<'_>) {
    use fmt::Write;
    let _ = writeln!(Writer(index), "t{index} {text}");
}
