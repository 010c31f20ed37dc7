//! Threads and futexes.

use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use linux_raw_sys::general as abi;

use crate::check::{Counter, done, require};
use crate::measure::SAMPLES;
use crate::memory::{PAGE, Region};
use crate::sys::{self, Pid};

/// Size of a thread's stack in bytes.
const STACK: usize = 8 * PAGE;

/// What pthread_create(3) shares, with the word that becomes 0 when the thread is gone.
const FLAGS: u32 = abi::CLONE_VM
    | abi::CLONE_FS
    | abi::CLONE_FILES
    | abi::CLONE_SIGHAND
    | abi::CLONE_THREAD
    | abi::CLONE_SYSVSEM
    | abi::CLONE_PARENT_SETTID
    | abi::CLONE_CHILD_CLEARTID;

/// A thread and its stack.
pub struct Thread {
    stack: Region,
    id: Pid,
}

impl Thread {
    /// Starts `function(argument)` on a stack of its own.
    pub fn start(function: extern "C" fn(usize), argument: usize) -> Self {
        let stack = Region::anonymous(STACK);
        stack.fill(0);
        let id = Self::start_on(&stack, function, argument);
        Self { stack, id }
    }

    /// Starts it on `stack`; gives the thread's number.
    #[inline(always)]
    fn start_on(stack: &Region, function: extern "C" fn(usize), argument: usize) -> Pid {
        let top = (stack.address() + STACK) as *mut usize;
        // SAFETY: the last two words of the stack, which is the new thread's alone; its first word is [`Self::running`].
        let id = unsafe {
            let start = top.sub(2);
            start.write(function as usize);
            start.add(1).write(argument);
            sys::bench_clone(FLAGS as usize, start, Self::word(stack))
        };
        done(id, "a thread starts")
    }

    /// The word at the far end of the stack that is 0 after the thread's end.
    #[inline(always)]
    fn word(stack: &Region) -> *mut u32 {
        stack.address() as *mut u32
    }

    /// Waits for the thread on `stack` to end.
    #[inline(always)]
    fn join_on(stack: &Region, id: Pid) {
        // SAFETY: a word of our own, which the kernel writes.
        let word = unsafe { AtomicU32::from_ptr(Self::word(stack)) };
        while word.load(SeqCst) != 0 {
            wait(word, id as u32, false);
        }
    }

    /// Waits for its end.
    pub fn join(self) {
        Self::join_on(&self.stack, self.id);
    }
}

/// futex(2): sleeps while the word has this value.
#[inline(always)]
fn wait(word: &AtomicU32, value: u32, private: bool) {
    let flag = if private { abi::FUTEX_PRIVATE_FLAG } else { 0 };
    // SAFETY: a word of our own.
    unsafe {
        sys::call4(
            abi::__NR_futex,
            ptr::from_ref(word).addr(),
            (abi::FUTEX_WAIT | flag) as usize,
            value as usize,
            0,
        );
    }
}

/// futex(2): wakes one that sleeps on the word.
#[inline(always)]
fn wake(word: &AtomicU32) {
    // SAFETY: a word of our own.
    unsafe {
        sys::call3(
            abi::__NR_futex,
            ptr::from_ref(word).addr(),
            (abi::FUTEX_WAKE | abi::FUTEX_PRIVATE_FLAG) as usize,
            1,
        );
    }
}

static RAN: Counter = Counter::new();

extern "C" fn count(argument: usize) {
    RAN.set(RAN.get() + argument as u64);
}

/// A thread that ends at once, on a stack that is there, and the wait for its end.
pub fn create_and_join() {
    const ROUNDS: usize = 200;
    let stack = Region::anonymous(STACK);
    stack.fill(0);
    for _ in 0..ROUNDS {
        SAMPLES.time(|| {
            let id = Thread::start_on(&stack, count, 3);
            Thread::join_on(&stack, id);
        });
    }
    require(RAN.get() == 3 * ROUNDS as u64, "every thread ran");
}

const PING_PONGS: u32 = 500;
static TURN: AtomicU32 = AtomicU32::new(0);

extern "C" fn answer(_: usize) {
    for round in 0..PING_PONGS {
        while TURN.load(SeqCst) != 2 * round + 1 {
            wait(&TURN, 2 * round, true);
        }
        TURN.store(2 * round + 2, SeqCst);
        wake(&TURN);
    }
}

/// The turn given to another thread and back, by a futex.
pub fn ping_pong() {
    let other = Thread::start(answer, 0);
    // It is to sleep when the first turn comes.
    sys::sched_yield();
    for round in 0..PING_PONGS {
        require(TURN.load(SeqCst) == 2 * round, "it is this thread's turn");
        SAMPLES.time(|| {
            TURN.store(2 * round + 1, SeqCst);
            wake(&TURN);
            while TURN.load(SeqCst) == 2 * round + 1 {
                wait(&TURN, 2 * round + 1, true);
            }
        });
    }
    other.join();
}
