//! Many pending signals.

use linux_raw_sys::general as abi;

use crate::check::{done, require};
use crate::measure::SAMPLES;
use crate::sys;

/// The first real-time signal that a program without libc has.
const SIGNAL: u32 = 34;
/// SI_QUEUE.
const QUEUED: i32 = -1;

/// What rt_sigqueueinfo(2) takes, up to the value.
#[repr(C, align(8))]
struct Info {
    signo: i32,
    errno: i32,
    code: i32,
    padding: i32,
    pid: i32,
    uid: u32,
    value: usize,
    rest: [u64; 12],
}

/// One more queued, and the first one taken.
pub fn queue_and_take(count: usize) {
    let set: u64 = 1 << (SIGNAL - 1);
    // SAFETY: a valid set.
    let blocked = unsafe {
        sys::call4(
            abi::__NR_rt_sigprocmask,
            abi::SIG_BLOCK as usize,
            &raw const set as usize,
            0,
            sys::SIGNAL_SET,
        )
    };
    done(blocked, "rt_sigprocmask");
    for value in 0..count {
        queue(value);
    }
    for round in 0..200 {
        let first = SAMPLES.time(|| {
            queue(count + round);
            take(&set)
        });
        require(first == round, "signals are taken in their order");
    }
}

fn queue(value: usize) {
    let info = Info {
        signo: SIGNAL as i32,
        errno: 0,
        code: QUEUED,
        padding: 0,
        pid: 0,
        uid: 0,
        value,
        rest: [0; 12],
    };
    // SAFETY: a siginfo.
    let result = unsafe {
        sys::call3(
            abi::__NR_rt_sigqueueinfo,
            sys::getpid(),
            SIGNAL as usize,
            &raw const info as usize,
        )
    };
    done(result, "rt_sigqueueinfo");
}

/// Takes a signal; its value.
fn take(set: &u64) -> usize {
    let mut info = core::mem::MaybeUninit::<Info>::zeroed();
    // SAFETY: a set and a place for a siginfo.
    let (result, info) = unsafe {
        let result = sys::call4(
            abi::__NR_rt_sigtimedwait,
            &raw const *set as usize,
            info.as_mut_ptr().addr(),
            0,
            sys::SIGNAL_SET,
        );
        (result, info.assume_init())
    };
    require(result == SIGNAL as isize, "a signal is taken");
    info.value
}
