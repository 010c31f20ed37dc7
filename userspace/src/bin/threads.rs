//! Threads of Rust's standard library: channels, scoped threads, park and unpark, condition variables, once, names.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, OnceLock, RwLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use userspace::report::Demo;

fn main() -> ExitCode {
    let mut demo = Demo::start("threads", "the standard library's threads");
    channels(&mut demo);
    park(&mut demo);
    locks(&mut demo);
    scopes(&mut demo);
    names(&mut demo);
    demo.finish()
}

fn channels(demo: &mut Demo) {
    demo.step("Eight threads send 500 numbers each through a bounded channel.");
    let (to, from) = mpsc::sync_channel::<u64>(16);
    let senders: Vec<_> = (0..8u64)
        .map(|base| {
            let to = to.clone();
            thread::spawn(move || (0..500).for_each(|n| to.send(base * 500 + n).expect("received")))
        })
        .collect();
    drop(to);
    let sum: u64 = from.iter().sum();
    demo.check_eq(sum, (0..4000).sum(), "every number arrives once");
    let ended = senders.into_iter().all(|sender| sender.join().is_ok());
    demo.check(ended, "every sender ends");
}

fn park(demo: &mut Demo) {
    demo.step("A parked thread goes on when it is unparked, or when its time is over.");
    let go = Arc::new(AtomicBool::new(false));
    let seen = go.clone();
    let parked = thread::spawn(move || {
        while !seen.load(Ordering::Acquire) {
            thread::park();
        }
    });
    thread::sleep(Duration::from_millis(10));
    go.store(true, Ordering::Release);
    parked.thread().unpark();
    demo.check(parked.join().is_ok(), "it was unparked");
    let begin = Instant::now();
    let limit = Duration::from_millis(20);
    while begin.elapsed() < limit {
        thread::park_timeout(limit);
    }
    demo.check(
        begin.elapsed() >= limit,
        "park_timeout does not end early for good",
    );
}

fn locks(demo: &mut Demo) {
    demo.step("A mutex, a lock for readers, a barrier and a condition variable.");
    let counter = Arc::new(Mutex::new(0u64));
    let shared = Arc::new(RwLock::new(Vec::new()));
    let barrier = Arc::new(Barrier::new(6));
    let threads: Vec<_> = (0..6u64)
        .map(|n| {
            let (counter, shared, barrier) = (counter.clone(), shared.clone(), barrier.clone());
            thread::spawn(move || {
                for _ in 0..1000 {
                    *counter.lock().expect("nobody panics") += 1;
                }
                shared.write().expect("nobody panics").push(n);
                barrier.wait();
                shared.read().expect("nobody panics").len()
            })
        })
        .collect();
    let lengths: Vec<_> = threads
        .into_iter()
        .map(|thread| thread.join().expect("no panic"))
        .collect();
    demo.check_eq(
        lengths,
        vec![6; 6],
        "after the barrier everybody sees everything",
    );
    let count = *counter.lock().expect("nobody panics");
    demo.check_eq(count, 6000, "no increment is lost");
    let pair = Arc::new((Mutex::new(0), Condvar::new()));
    let other = pair.clone();
    let waker = thread::spawn(move || {
        *other.0.lock().expect("nobody panics") = 1;
        other.1.notify_all();
    });
    let guard = pair.0.lock().expect("nobody panics");
    let guard = pair.1.wait_while(guard, |value| *value == 0);
    demo.check(guard.is_ok_and(|value| *value == 1), "the condition came");
    demo.check(waker.join().is_ok(), "its thread ended");
    let guard = pair.0.lock().expect("nobody panics");
    let outcome = pair
        .1
        .wait_timeout_while(guard, Duration::from_millis(10), |_| true);
    let timed_out = outcome.is_ok_and(|(_, outcome)| outcome.timed_out());
    demo.check(timed_out, "a wait for what never comes times out");
}

fn scopes(demo: &mut Demo) {
    demo.step("Scoped threads borrow, and initialise once.");
    static ONCE: OnceLock<usize> = OnceLock::new();
    let initialised = AtomicUsize::new(0);
    let data: Vec<usize> = (0..1000).collect();
    let sum: usize = thread::scope(|scope| {
        let parts: Vec<_> = data
            .chunks(100)
            .map(|part| {
                let initialised = &initialised;
                scope.spawn(move || {
                    ONCE.get_or_init(|| initialised.fetch_add(1, Ordering::Relaxed) + 1);
                    part.iter().sum::<usize>()
                })
            })
            .collect();
        parts
            .into_iter()
            .map(|part| part.join().expect("no panic"))
            .sum()
    });
    demo.check_eq(sum, 499_500, "the parts add up");
    demo.check_eq(initialised.into_inner(), 1, "one thread initialised");
}

fn names(demo: &mut Demo) {
    demo.step("A thread has the name and the result that it was given.");
    let named = thread::Builder::new()
        .name("by-name".into())
        .stack_size(64 << 10)
        .spawn(|| thread::current().name().map(str::to_owned));
    let name = named.map(thread::JoinHandle::join);
    let name = name.ok().and_then(Result::ok).flatten();
    demo.check_eq(name.as_deref(), Some("by-name"), "join gives the name");
}
