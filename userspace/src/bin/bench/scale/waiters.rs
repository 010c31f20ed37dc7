//! Many threads that wait for one page.

use crate::check::{Counter, require};
use crate::measure::{self, SAMPLES};
use crate::memory::{PAGE, Region};
use crate::sys;
use crate::threads::Thread;
use crate::userfault;

const ROUNDS: usize = 5;
const MOST: usize = 256;

static READ: Counter = Counter::new();

extern "C" fn read(address: usize) {
    // SAFETY: a page of the region, which stays until the thread is joined.
    let value = unsafe { (address as *const u8).read_volatile() };
    // The threads run one after the other, each until it sleeps: one CPU, and no tick is that near.
    READ.set(READ.get() + u64::from(value));
}

/// From the page's arrival until every one of them has run, by waiter.
pub fn wake(count: usize) {
    require(count <= MOST, "so many threads");
    let region = Region::anonymous(ROUNDS * PAGE);
    let fd = userfault::watch(&region);
    for round in 0..ROUNDS {
        let address = region.address() + round * PAGE;
        READ.set(0);
        let mut threads = [const { None }; MOST];
        for thread in &mut threads[..count] {
            *thread = Some(Thread::start(read, address));
        }
        for _ in 0..count {
            sys::sched_yield();
        }
        let (ticks, ()) = measure::timed(|| {
            userfault::fill(fd, address, &[1; PAGE]);
            while READ.get() < count as u64 {
                sys::sched_yield();
            }
        });
        SAMPLES.add(ticks / count as u64);
        for thread in threads.into_iter().flatten() {
            thread.join();
        }
    }
}
