//! How many threads each user has, over all processes (RLIMIT_NPROC, `getrlimit(2)`). A process whose threads have all ended counts as one
//! until it has been waited for. Root's are not counted, as nothing limits them.
//!
//! A process knows for whom it counts. That changes, like its number of threads, under the lock of its signals.

use core::sync::atomic::Ordering;

use super::Process;
use super::quota::Quota;
use crate::errno::{Errno, Result};
use crate::signal::ProcessSignals;

static TASKS: Quota = Quota::new();
/// For whom nothing is counted.
const ROOT: u32 = 0;

/// What a user who is not root has.
pub fn of(user: u32) -> u64 {
    TASKS.taken(user)
}

/// The first thread of a new process. `EAGAIN` without memory.
#[inline]
pub(super) fn first(process: &Process) -> Result {
    let user = process.credentials.user().real;
    take(user, 1)?;
    process.counted_for.store(user, Ordering::Relaxed);
    Ok(())
}

/// Another thread of the process, whose signals are locked. `EAGAIN` without memory.
#[inline]
pub(super) fn more(process: &Process, _locked: &ProcessSignals) -> Result {
    take(process.counted_for.load(Ordering::Relaxed), 1)
}

/// A thread less, which was not the last one. The process's signals are locked.
#[inline]
pub(super) fn less(process: &Process, _locked: &ProcessSignals) {
    give_back(process.counted_for.load(Ordering::Relaxed), 1);
}

/// The process was waited for.
#[inline]
pub(super) fn gone(process: &Process) {
    give_back(process.counted_for.swap(ROOT, Ordering::Relaxed), 1);
}

/// The process's real user may be another one. Without memory it does not count any more.
pub fn user_changed(process: &Process) {
    let signals = process.signals.lock();
    let after = process.credentials.user().real;
    let before = process.counted_for.load(Ordering::Relaxed);
    if after != before {
        let threads = u64::from(process.nr_threads());
        let counted = take(after, threads).map_or(ROOT, |()| after);
        process.counted_for.store(counted, Ordering::Relaxed);
        give_back(before, threads);
    }
    drop(signals);
}

#[inline]
fn take(user: u32, threads: u64) -> Result {
    match user == ROOT {
        true => Ok(()),
        false => take_counted(user, threads),
    }
}

#[inline(never)]
fn take_counted(user: u32, threads: u64) -> Result {
    match TASKS.take(user, threads, u64::MAX) {
        true => Ok(()),
        false => Err(Errno::EAGAIN),
    }
}

#[inline]
fn give_back(user: u32, threads: u64) {
    if user != ROOT {
        give_back_counted(user, threads);
    }
}

#[inline(never)]
fn give_back_counted(user: u32, threads: u64) {
    TASKS.give_back(user, threads);
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;
    use crate::arch::sim::machine::run_test;
    use crate::task::credentials::Ids;
    use crate::task::idle_test_process;

    const UID: u32 = 4_000_020;

    fn become_user(process: &Process, uid: u32) {
        let changed = process.credentials.change(|identity| {
            identity.user = Ids::all(uid);
            Ok(())
        });
        assert_eq!(changed, Ok(()));
    }

    #[test]
    fn threads_count_for_the_user_that_the_process_has() {
        run_test(|| {
            let (process, threads) = idle_test_process(1);
            become_user(&process, UID);
            assert_eq!(first(&process), Ok(()));
            process.count_threads(1);
            assert_eq!(more(&process, &process.signals.lock()), Ok(()));
            process.count_threads(1);
            assert_eq!(of(UID), 2);
            become_user(&process, UID + 1);
            user_changed(&process);
            assert_eq!((of(UID), of(UID + 1)), (0, 2));
            become_user(&process, ROOT);
            user_changed(&process);
            assert_eq!((of(UID + 1), of(ROOT)), (0, 0));
            assert_eq!(more(&process, &process.signals.lock()), Ok(()));
            process.count_threads(1);
            become_user(&process, UID);
            user_changed(&process);
            assert_eq!(of(UID), 3);
            for left in [2, 1] {
                process.count_threads(-1);
                less(&process, &process.signals.lock());
                assert_eq!(of(UID), left);
            }
            // The last one is the zombie.
            process.count_threads(-1);
            gone(&process);
            assert_eq!(of(UID), 0);
            let linked = core::mem::take(&mut process.signals.lock().threads);
            drop((linked, threads));
        });
    }
}
