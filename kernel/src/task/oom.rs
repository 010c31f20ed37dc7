//! Out of memory: who pays.
//!
//! User memory that ran out is looked for in the page cache first. When nothing is left there, the process with the most memory is
//! killed, and everybody who needs memory waits until that one is gone: one victim at a time.
//!
//! Called with no lock held, from threads that may sleep.

use alloc::sync::{Arc, Weak};

use super::{Process, table};
use crate::arch::time;
use crate::mm::{frame, reclaim};
use crate::sched::wait::sleep_until;
use crate::sched::{Sleep, SleepMutex, current};
use crate::signal::{SigInfo, Signal, fatal_signal_pending, send};

/// How long a thread waits before it looks again whether the victim is gone.
const PATIENCE_NS: u64 = 1_000_000;

/// The last process that was killed for its memory.
static VICTIM: SleepMutex<Weak<Process>> = SleepMutex::new(Weak::new());

/// The current process is being killed, and needs no more memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dying;

/// Makes user memory free, or waits for some: afterwards it is worth trying again. [`Dying`] if the current process is the one that
/// pays, or is being killed anyway.
pub fn make_room() -> Result<(), Dying> {
    if fatal_signal_pending(&current()) {
        return Err(Dying);
    }
    if frame::user_memory_left() || reclaim::reclaim() > 0 {
        return Ok(());
    }
    kill_largest();
    if fatal_signal_pending(&current()) {
        return Err(Dying);
    }
    sleep_until(Sleep::Killable, time::now_ns() + PATIENCE_NS).map_err(|_| Dying)
}

/// Kills the process with the most memory, unless the last victim still has its own.
fn kill_largest() {
    let mut victim = VICTIM.lock();
    if victim.upgrade().is_some_and(|last| last.mm().is_some()) {
        return;
    }
    let Some((process, pages)) = largest() else {
        return;
    };
    log::error!(
        "out of memory: killed process {} with {pages} pages",
        process.pid
    );
    *victim = Arc::downgrade(&process);
    send::send_to_process(&process, SigInfo::kernel(Signal::SIGKILL));
}

/// The process with the most memory, page tables among it; of several the one that began last.
fn largest() -> Option<(Arc<Process>, u64)> {
    let mut largest: Option<(Arc<Process>, u64)> = None;
    let mut pid = 0;
    while let Some(process) = table::next_above(pid) {
        pid = process.pid;
        let Some(pages) = process
            .mm()
            .map(|mm| mm.resident_pages() + mm.table_pages())
        else {
            continue;
        };
        if largest.as_ref().is_none_or(|(_, most)| pages >= *most) {
            largest = Some((process, pages));
        }
    }
    largest
}
