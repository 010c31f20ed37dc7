//! Out of memory: who pays.
//!
//! User memory that ran out is looked for in the page cache first. When nothing is left there, the process with the highest badness is
//! killed, and everybody who needs memory waits until that one is gone: one victim at a time. The victim itself gets what it needs to end.
//!
//! Called with no lock held, from threads that may sleep.

use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU64, Ordering};

use super::{Process, table};
use crate::arch::time;
use crate::errno::{Errno, Result};
use crate::mm::{PAGE_SIZE, frame, reclaim};
use crate::sched::wait::sleep_until;
use crate::sched::{Sleep, SleepMutex, current};
use crate::signal::{SigInfo, Signal, fatal_signal_pending, send};

/// How long a thread waits before it looks again whether the victim is gone.
const PATIENCE_NS: u64 = 1_000_000;

/// Highest adjustment, which makes a process the first to go; the lowest exempts it (`OOM_SCORE_ADJ_MIN`).
const ADJUSTMENT_MAX: i32 = 1000;
const ADJUSTMENT_MIN: i32 = -1000;

/// The last process that was killed for its memory.
static VICTIM: SleepMutex<Weak<Process>> = SleepMutex::new(Weak::new());

/// Processes that were killed for their memory.
pub static KILLS: AtomicU64 = AtomicU64::new(0);

/// The current process is being killed, and needs no more memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dying;

/// Makes user memory free, or waits for some: afterwards it is worth trying again. [`Dying`] if the current process is the one that
/// pays, or is being killed anyway.
pub fn make_room() -> core::result::Result<(), Dying> {
    if fatal_signal_pending(&current()) {
        return Err(Dying);
    }
    if frame::user_memory_left() || reclaim::reclaim() > 0 {
        return Ok(());
    }
    kill_worst();
    if fatal_signal_pending(&current()) {
        return Err(Dying);
    }
    sleep_until(Sleep::Killable, time::now_ns() + PATIENCE_NS).map_err(|_| Dying)
}

/// Kills the process with the highest badness, unless the last victim still has its memory.
fn kill_worst() {
    let mut victim = VICTIM.lock();
    if victim.upgrade().is_some_and(|last| last.mm().is_some()) {
        return;
    }
    let Some(process) = worst() else {
        return;
    };
    report(&process);
    KILLS.fetch_add(1, Ordering::Relaxed);
    *victim = Arc::downgrade(&process);
    kill_with_sharers(&process);
}

/// The facts that Linux logs about a victim.
fn report(process: &Process) {
    let Some(mm) = process.mm() else {
        return;
    };
    let kib = |pages: u64| pages * (PAGE_SIZE as u64 / 1024);
    let (totals, resident) = (mm.totals(), mm.resident());
    let name = *process.name.lock();
    let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
    log::error!(
        "Out of memory: Killed process {} ({}) total-vm:{}kB, anon-rss:{}kB, file-rss:{}kB, shmem-rss:{}kB, UID:{} pgtables:{}kB oom_score_adj:{}",
        process.pid,
        name.escape_ascii(),
        kib(totals.pages),
        kib(resident.anonymous),
        kib(resident.file),
        kib(resident.shared_memory),
        process.credentials.get().user.real,
        kib(mm.table_pages()),
        process.oom_adjustment()
    );
}

/// Kills a process and all others that use the same memory, which would not come back otherwise.
fn kill_with_sharers(process: &Arc<Process>) {
    let Some(mm) = process.mm() else {
        return;
    };
    let mut pid = 0;
    while let Some(other) = table::next_above(pid) {
        pid = other.pid;
        if other.mm().is_some_and(|its| Arc::ptr_eq(&its, &mm)) {
            send::send_to_process(&other, SigInfo::kernel(Signal::SIGKILL));
        }
    }
}

/// How much memory a process would give back, in pages, with its adjustment (`oom_badness` in Linux's `mm/oom_kill.c`); `None` if it is
/// not to be killed.
fn badness(process: &Process) -> Option<i64> {
    let adjustment = process.oom_adjustment();
    if adjustment == ADJUSTMENT_MIN {
        return None;
    }
    let mm = process.mm()?;
    let points = (mm.resident_pages() + mm.table_pages()) as i64;
    Some(points + i64::from(adjustment) * frame::total_frames() as i64 / 1000)
}

/// The process with the highest badness; of several the one that began last.
fn worst() -> Option<Arc<Process>> {
    let mut worst: Option<(Arc<Process>, i64)> = None;
    let mut pid = 0;
    while let Some(process) = table::next_above(pid) {
        pid = process.pid;
        let Some(points) = badness(&process) else {
            continue;
        };
        if worst.as_ref().is_none_or(|(_, most)| points >= *most) {
            worst = Some((process, points));
        }
    }
    worst.map(|(process, _)| process)
}

/// `oom_score`: the badness in thousandths of all memory, scaled to 0..=2000.
pub fn score(process: &Process) -> i64 {
    let total = frame::total_frames().max(1) as i64;
    badness(process).map_or(0, |points| (1000 + points * 1000 / total) * 2 / 3)
}

/// What is written to oom_score_adj: a number from -1000 to 1000. `EINVAL`; `EACCES` if it is lower than root ever made it, and the
/// writer is not root.
pub fn set_adjustment(process: &Process, bytes: &[u8]) -> Result {
    let value: i32 = core::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or(Errno::EINVAL)?;
    if !(ADJUSTMENT_MIN..=ADJUSTMENT_MAX).contains(&value) {
        return Err(Errno::EINVAL);
    }
    let privileged = current().process.credentials.get().is_privileged();
    if !privileged && value < process.oom_adjustment_min.load(Ordering::Relaxed) {
        return Err(Errno::EACCES);
    }
    process.oom_adjustment.store(value, Ordering::Relaxed);
    if privileged {
        process.oom_adjustment_min.store(value, Ordering::Relaxed);
    }
    Ok(())
}
