//! Waiting for a word of memory: wait queues found by a key, for futex(2).
//!
//! Keys are hashed to buckets. Whoever has a real-time priority stands before all with a lower one, others stand in the order in which
//! they came. A waiter looks at its word and stands in its bucket's list under the bucket's lock, and wakers take
//! waiters out under it, so that no wake-up falls between the look and the wait. Waiters live on their own stacks; nothing here
//! allocates. Whoever was taken out has `woken` set before the lock is released, and leaves its stack frame when `left` is set too, or after
//! it has had the lock itself.
//!
//! Lock ranks: FUTEX for a bucket, FUTEX_SECOND for the one with the greater index where two are held.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use intrusive_collections::{LinkedList, LinkedListAtomicLink, UnsafeRef, intrusive_adapter};

use super::timer::Deadline;
use super::wait::{NotYet, wait_to_be_woken};
use super::{Sleep, current};
use crate::sync::{IrqLock, IrqLockGuard, rank};
use crate::task::Thread;

/// What is waited for: an object and a place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub object: u64,
    pub place: u64,
}

const BUCKETS: usize = 256;

impl Key {
    fn bucket(self) -> usize {
        let mixed = (self.object ^ self.place.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ self.place).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 56) as usize % BUCKETS
    }
}

struct Waiter {
    link: LinkedListAtomicLink,
    /// The key, changed under the lock of its bucket.
    object: AtomicU64,
    place: AtomicU64,
    /// Which wake-ups are meant for the waiter: those that have a bit in common.
    mask: u32,
    /// The real-time priority that the thread had when it came, 0 without one.
    priority: u8,
    /// In which bucket the waiter stands, or stood when it was woken; changed under the locks of the old and the new one.
    bucket: AtomicUsize,
    woken: AtomicBool,
    /// It was woken, and the waker looks at it no more.
    left: AtomicBool,
    thread: Arc<Thread>,
}

intrusive_adapter!(WaiterAdapter = UnsafeRef<Waiter>: Waiter { link => LinkedListAtomicLink });

type Waiters = LinkedList<WaiterAdapter>;

static TABLE: [IrqLock<Waiters>; BUCKETS] =
    [const { IrqLock::new(rank::FUTEX, LinkedList::new(WaiterAdapter::NEW)) }; BUCKETS];

impl Waiter {
    fn new(key: Key, bucket: usize, mask: u32) -> Waiter {
        Waiter {
            link: LinkedListAtomicLink::new(),
            object: AtomicU64::new(key.object),
            place: AtomicU64::new(key.place),
            mask,
            priority: current().sched.level(),
            bucket: AtomicUsize::new(bucket),
            woken: AtomicBool::new(false),
            left: AtomicBool::new(false),
            thread: current().arc(),
        }
    }

    fn waits_for(&self, key: Key) -> bool {
        self.object.load(Ordering::Relaxed) == key.object
            && self.place.load(Ordering::Relaxed) == key.place
    }

    fn move_to(&self, key: Key) {
        self.object.store(key.object, Ordering::Relaxed);
        self.place.store(key.place, Ordering::Relaxed);
        self.bucket.store(key.bucket(), Ordering::Relaxed);
    }

    /// The waiter has left its list, whose lock is held.
    fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        super::wake(&self.thread);
        // The last that is done here: the waiter goes then, whoever holds the lock.
        self.left.store(true, Ordering::Release);
    }

    /// Takes the waiter out of whichever list it is in.
    fn leave(&self) {
        if self.left.load(Ordering::Acquire) {
            return;
        }
        loop {
            let bucket = self.bucket.load(Ordering::Relaxed);
            let mut waiters = TABLE[bucket].lock();
            if self.bucket.load(Ordering::Relaxed) != bucket {
                continue;
            }
            if self.link.is_linked() {
                // SAFETY: a linked waiter is in the list of the bucket that it names, whose lock is held.
                unsafe { waiters.cursor_mut_from_ptr(self) }.remove();
            }
            return;
        }
    }
}

/// Puts a waiter in its place: the last, or with a real-time priority the last of those, who stand at the front.
fn enqueue(waiters: &mut Waiters, waiter: UnsafeRef<Waiter>) {
    if waiter.priority == 0 {
        waiters.push_back(waiter);
        return;
    }
    let mut cursor = waiters.front_mut();
    while cursor
        .get()
        .is_some_and(|other| other.priority >= waiter.priority)
    {
        cursor.move_next();
    }
    cursor.insert_before(waiter);
}

/// A waiter's stay in the table.
struct Enqueued<'a>(&'a Waiter);

impl Drop for Enqueued<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Waits until somebody wakes `key` with a bit of `mask`, for signals, or until `deadline` (`None`: for ever). `check` runs under the
/// bucket's lock before the wait; it must not sleep, and its error ends the call at once. No spin lock may be held.
pub fn wait<E>(
    key: Key,
    mask: u32,
    deadline: Option<Deadline>,
    check: impl FnOnce() -> Result<(), E>,
) -> Result<Result<(), NotYet>, E> {
    let bucket = key.bucket();
    let waiter = Waiter::new(key, bucket, mask);
    let mut waiters = TABLE[bucket].lock_irq();
    check()?;
    // SAFETY: the waiter outlives `enqueued`, whose drop takes it out of its list and waits for whoever is just doing that.
    enqueue(&mut waiters, unsafe { UnsafeRef::from_raw(&waiter) });
    drop(waiters);
    let enqueued = Enqueued(&waiter);
    let woken = || waiter.woken.load(Ordering::Acquire).then_some(());
    let outcome = wait_to_be_woken(Sleep::Interruptible, deadline, woken);
    drop(enqueued);
    // A wake-up is never lost to a signal or a time-out that came at the same time: the waker has counted it.
    Ok(if waiter.woken.load(Ordering::Acquire) {
        Ok(())
    } else {
        outcome
    })
}

/// Wakes up to `max` waiters of `key` whose masks have a bit in common with `mask`; how many. Those of the highest real-time priority come
/// first, then those who wait longest.
pub fn wake(key: Key, max: usize, mask: u32) -> usize {
    wake_in(&mut TABLE[key.bucket()].lock_irq(), key, max, mask)
}

fn wake_in(waiters: &mut Waiters, key: Key, max: usize, mask: u32) -> usize {
    let mut woken = 0;
    let mut cursor = waiters.front_mut();
    while let Some(waiter) = cursor.get() {
        if woken == max {
            break;
        }
        if !waiter.waits_for(key) || waiter.mask & mask == 0 {
            cursor.move_next();
            continue;
        }
        if let Some(waiter) = cursor.remove() {
            waiter.wake();
            woken += 1;
        }
    }
    woken
}

/// The buckets of two keys, locked.
pub struct Two {
    first: Key,
    second: Key,
    /// `None`: both keys are in one bucket. Before `low`, so that it is released first: a guard restores the interrupt state that it found.
    high: Option<IrqLockGuard<'static, Waiters>>,
    low: IrqLockGuard<'static, Waiters>,
}

impl Two {
    /// Locks the buckets of both keys. Wakers and waiters of either wait for it, so it may not sleep while it has them.
    pub fn lock(first: Key, second: Key) -> Two {
        let (a, b) = (first.bucket(), second.bucket());
        let low = TABLE[a.min(b)].lock();
        let high = (a != b).then(|| TABLE[a.max(b)].lock_nested(rank::FUTEX_SECOND));
        Two {
            first,
            second,
            high,
            low,
        }
    }

    fn waiters(&mut self, key: Key) -> &mut Waiters {
        let is_low = key.bucket() == self.first.bucket().min(self.second.bucket());
        match &mut self.high {
            Some(high) if !is_low => high,
            _ => &mut self.low,
        }
    }

    /// Wakes up to `max` waiters of the first key; how many.
    pub fn wake_first(&mut self, max: usize) -> usize {
        let key = self.first;
        wake_in(self.waiters(key), key, max, !0)
    }

    /// Wakes up to `max` waiters of the second key; how many.
    pub fn wake_second(&mut self, max: usize) -> usize {
        let key = self.second;
        wake_in(self.waiters(key), key, max, !0)
    }

    /// Lets up to `max` waiters of the first key wait for the second one from now on; how many.
    pub fn requeue(&mut self, max: usize) -> usize {
        let (from, to) = (self.first, self.second);
        let mut moving = LinkedList::new(WaiterAdapter::NEW);
        let mut moved = 0;
        let mut cursor = self.waiters(from).front_mut();
        while let Some(waiter) = cursor.get() {
            if moved == max {
                break;
            }
            if !waiter.waits_for(from) {
                cursor.move_next();
                continue;
            }
            if let Some(waiter) = cursor.remove() {
                moving.push_back(waiter);
                moved += 1;
            }
        }
        let target = self.waiters(to);
        while let Some(waiter) = moving.pop_front() {
            waiter.move_to(to);
            enqueue(target, waiter);
        }
        moved
    }
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::arch::sim::machine::run_test;
    use crate::arch::time;
    use crate::sched::change_parameters;
    use crate::sched::policy::{Parameters, Policy};
    use crate::sched::wait::sleep_until;
    use crate::task::kernel_thread;

    const A: Key = Key {
        object: 1,
        place: 64,
    };
    const B: Key = Key {
        object: 2,
        place: 128,
    };

    static WOKEN: AtomicU32 = AtomicU32::new(0);

    fn wait_for_a() {
        assert_eq!(wait(A, !0, None, || Ok::<_, ()>(())), Ok(Ok(())));
        WOKEN.fetch_add(1, Ordering::Relaxed);
    }

    fn start_waiters(count: usize) {
        WOKEN.store(0, Ordering::Relaxed);
        for _ in 0..count {
            kernel_thread("waiter", wait_for_a).expect("memory");
        }
        let_others_run();
    }

    fn let_others_run() {
        let soon = time::now_ns() + 1_000_000;
        sleep_until(Sleep::Uninterruptible, soon).expect("nothing interrupts");
    }

    fn woken() -> u32 {
        let_others_run();
        WOKEN.load(Ordering::Relaxed)
    }

    #[test]
    fn wakes_as_many_as_asked_and_nobody_else() {
        run_test(|| {
            start_waiters(3);
            assert_eq!(wake(B, 10, !0), 0);
            assert_eq!(wake(A, 1, !0), 1);
            assert_eq!(woken(), 1);
            assert_eq!(wake(A, 10, !0), 2);
            assert_eq!(woken(), 3);
            assert_eq!(wake(A, 10, !0), 0);
        });
    }

    static ORDER: AtomicU64 = AtomicU64::new(0);

    fn wait_with_priority(priority: u8) {
        let parameters = Parameters {
            policy: if priority == 0 {
                Policy::Other
            } else {
                Policy::Fifo
            },
            priority,
            ..Parameters::DEFAULT
        };
        change_parameters(&current().arc(), |_| Ok::<_, ()>(parameters)).expect("allowed");
        wait_for_a();
        let order = ORDER.load(Ordering::Relaxed);
        ORDER.store(order * 10 + u64::from(priority), Ordering::Relaxed);
    }

    #[test]
    fn the_highest_priority_is_woken_first_and_then_who_waits_longest() {
        run_test(|| {
            WOKEN.store(0, Ordering::Relaxed);
            ORDER.store(0, Ordering::Relaxed);
            let waiters: [fn(); 5] = [
                || wait_with_priority(0),
                || wait_with_priority(3),
                || wait_with_priority(5),
                || wait_with_priority(3),
                || wait_with_priority(0),
            ];
            for waiter in waiters {
                kernel_thread("waiter", waiter).expect("memory");
                let_others_run();
            }
            let mut both = Two::lock(A, B);
            assert_eq!(both.requeue(2), 2);
            drop(both);
            for _ in 0..3 {
                assert_eq!(wake(A, 1, !0), 1);
                let_others_run();
            }
            assert_eq!(ORDER.load(Ordering::Relaxed), 300);
            assert_eq!(wake(B, 2, !0), 2);
            let_others_run();
            assert_eq!(ORDER.load(Ordering::Relaxed), 30053);
        });
    }

    #[test]
    fn requeued_waiters_are_found_at_the_new_key_only() {
        run_test(|| {
            start_waiters(4);
            let mut both = Two::lock(A, B);
            assert_eq!(both.wake_first(1), 1);
            assert_eq!(both.requeue(2), 2);
            drop(both);
            assert_eq!(woken(), 1);
            assert_eq!(wake(A, 10, !0), 1);
            assert_eq!(wake(B, 10, !0), 2);
            assert_eq!(woken(), 4);
        });
    }

    #[test]
    fn a_refused_or_timed_out_wait_leaves_nobody_behind() {
        run_test(|| {
            assert_eq!(wait(A, !0, None, || Err(7)), Err(7));
            let soon = Some(Deadline::Monotonic(time::now_ns() + 1000));
            let outcome = wait(A, !0, soon, || Ok::<_, ()>(()));
            assert_eq!(outcome, Ok(Err(NotYet::TimedOut)));
            assert_eq!(wake(A, 10, !0), 0);
        });
    }
}
