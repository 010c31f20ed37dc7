//! Threads that take turns: one works, the others wait in futex(2), where signals find them.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use super::handler::INDEX;
use super::log::THREADS;

/// What a thread is asked to do: 0 nothing, 1 show that it is there, 2 make the step.
static ORDERS: [AtomicU32; THREADS] = [const { AtomicU32::new(0) }; THREADS];
/// Linux's number of each thread.
pub static TIDS: [AtomicU32; THREADS] = [const { AtomicU32::new(0) }; THREADS];

const NOTHING: u32 = 0;
const SHOW: u32 = 1;
const WORK: u32 = 2;

fn wait_while(word: &AtomicU32, value: u32) {
    while word.load(SeqCst) == value {
        // SAFETY: waits on a word that lives for ever; signals and spurious ends are looked at again.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                word,
                libc::FUTEX_WAIT,
                value,
                std::ptr::null::<libc::timespec>(),
            )
        };
    }
}

fn set(word: &AtomicU32, value: u32) {
    word.store(value, SeqCst);
    // SAFETY: wakes who waits on the word.
    unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, i32::MAX) };
}

/// The life of a thread other than the first: follows orders. `work` makes the step.
pub fn follow(index: usize, work: fn()) -> ! {
    INDEX.set(index);
    // SAFETY: no arguments.
    TIDS[index].store(unsafe { libc::gettid() } as u32, SeqCst);
    set(&ORDERS[index], NOTHING);
    loop {
        wait_while(&ORDERS[index], NOTHING);
        if ORDERS[index].load(SeqCst) == WORK {
            work();
        }
        set(&ORDERS[index], NOTHING);
    }
}

/// Before the thread is made: it will say when it is ready.
pub fn announce(index: usize) {
    ORDERS[index].store(SHOW, SeqCst);
}

/// Has a thread do something, and waits until it is done. From the first thread.
fn order(index: usize, what: u32) {
    set(&ORDERS[index], what);
    wait_while(&ORDERS[index], what);
}

pub fn wait_for_start(index: usize) {
    wait_while(&ORDERS[index], SHOW);
}

/// The thread makes the step.
pub fn work(index: usize) {
    order(index, WORK);
}

/// The thread has been in user mode once: whatever it had to take it has taken.
pub fn settle(index: usize) {
    order(index, SHOW);
}
