//! What each operation executes of the instructions that take hardware long, and the host's time for it.
//!
//! A mark of its own comes before each operation. At the end there is a line `operation WINDOWS NANOSECONDS` for each, with the number of
//! times that both marks were passed and the median of the time in between, each followed by lines `slow COUNT KIND`.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::fmt::Write;
use std::sync::Mutex;
use std::time::Instant;

use crate::slow;

#[derive(Default)]
struct Operation {
    /// The host's time for each window, nanoseconds.
    times: Vec<u64>,
    slow: BTreeMap<&'static str, u64>,
}

struct Tally {
    operations: Vec<Operation>,
    began: Option<Instant>,
}

static TALLY: Mutex<Tally> = Mutex::new(Tally {
    operations: Vec::new(),
    began: None,
});

/// Whether an instruction is counted: its kind, for [`count`]. What locks a cache line is no slower than a few others.
pub fn counted(bytes: &[u8]) -> Option<*mut c_void> {
    let kind = slow::kind(bytes);
    // It is never freed: translated code refers to it.
    (kind != "-" && kind != "locked").then(|| Box::into_raw(Box::new(kind)).cast())
}

fn with(f: impl FnOnce(&mut Tally)) {
    f(&mut TALLY.lock().expect("no holder panics"));
}

/// An operation begins.
pub fn next() {
    with(|tally| tally.operations.push(Operation::default()));
}

/// A window begins.
pub fn begin() {
    with(|tally| tally.began = Some(Instant::now()));
}

/// A window ends.
pub fn end() {
    let now = Instant::now();
    with(|tally| {
        if let (Some(began), Some(operation)) = (tally.began.take(), tally.operations.last_mut()) {
            let time = now.duration_since(began).as_nanos();
            operation.times.push(time.try_into().unwrap_or(u64::MAX));
        }
    });
}

/// An instruction is executed in a window.
///
/// # Safety
/// `kind` is from [`counted`].
pub unsafe fn count(kind: *mut c_void) {
    // SAFETY: the caller's promise.
    let kind = unsafe { *kind.cast::<&'static str>() };
    with(|tally| {
        if let Some(operation) = tally.operations.last_mut() {
            *operation.slow.entry(kind).or_insert(0) += 1;
        }
    });
}

/// Adds the lines.
pub fn write(text: &mut String) {
    with(|tally| {
        for operation in &mut tally.operations {
            operation.times.sort_unstable();
            let windows = operation.times.len();
            let median = operation.times.get(windows / 2).copied().unwrap_or(0);
            let _ = writeln!(text, "operation {windows} {median}");
            for (kind, count) in &operation.slow {
                let _ = writeln!(text, "slow {count} {kind}");
            }
        }
    });
}
