//! An interrupt at every step: sleeps, wake-ups, futexes and locks on the simulated machine, in every order that there is.
//!
//! One CPU runs and the kernel is not preempted inside itself, so what can come in between is an interrupt, wherever they are on:
//! after every release of an [`IrqLock`](crate::sync::IrqLock), around every spin lock, before and after every look at what is waited
//! for, and while nobody runs. At each of those steps the machine, which runs the kernel's own code, asks [`shuttle`] which of two threads
//! goes on, the CPU or the device that interrupts it. Shuttle's depth-first search takes every decision both ways: so within a scenario it
//! is complete.

use std::boxed::Box;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use super::keyed::{self, Key, Two};
use super::timer::Deadline;
use super::wait::{NotYet, sleep_until};
use super::{RwSleepLock, Sleep, WaitQueue, current};
use crate::arch::sim::irq;
use crate::arch::sim::machine::run_test;
use crate::arch::time;
use crate::signal::{Action, SigInfo, SigSet, Signal, send};
use crate::task::thread::flag;
use crate::task::{Process, kernel_thread};

/// An interrupt of a scenario.
pub(crate) type Interrupt = fn();

/// When each interrupt of the run came, ns since boot; 0: not yet.
static CAME: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// When interrupt `n` came, if it did.
pub(crate) fn came(n: usize) -> Option<u64> {
    Some(CAME[n].load(Ordering::Relaxed)).filter(|&at| at != 0)
}

/// What the machine tells shuttle's thread for the CPU.
enum Told {
    /// It has come to a step.
    Step,
    /// The scenario has ended, well or not.
    End(bool),
}

/// What it is told by that thread.
enum Answer {
    /// The scenario begins.
    Begin,
    /// So many interrupts have come.
    Came(usize),
}

type Line = Mutex<(Receiver<Told>, Sender<Answer>)>;

/// Runs one schedule. The CPU's thread gives way at each step; the device's thread interrupts, one time after the other.
fn execute(line: &Line, interrupts: usize) {
    let line = line.lock().expect("never poisoned");
    let tell = |answer| line.1.send(answer).expect("the machine listens");
    let came = Arc::new(AtomicUsize::new(0));
    let device = came.clone();
    let device = shuttle::thread::spawn(move || {
        for n in 0..interrupts {
            if n > 0 {
                shuttle::thread::yield_now();
            }
            device.fetch_add(1, Ordering::Relaxed);
        }
    });
    tell(Answer::Begin);
    loop {
        match line.0.recv().expect("the machine tells") {
            Told::Step => {
                shuttle::thread::yield_now();
                tell(Answer::Came(came.load(Ordering::Relaxed)));
            }
            Told::End(well) => {
                assert!(well, "the scenario failed in this schedule");
                break;
            }
        }
    }
    device.join().expect("it only counts");
}

/// Where interrupts come from in one schedule.
fn source(
    interrupts: &[Interrupt],
    told: &Sender<Told>,
    answers: &Arc<Mutex<Receiver<Answer>>>,
) -> irq::Source {
    let (interrupts, told, answers) = (interrupts.to_vec(), told.clone(), answers.clone());
    let (mut came, mut run) = (0, 0);
    let mut asked = false;
    Box::new(move || {
        // When all have come there is nothing to ask any more.
        if !asked && came < interrupts.len() {
            told.send(Told::Step).expect("shuttle listens");
            let Ok(Answer::Came(now)) = answers.lock().expect("never poisoned").recv() else {
                return None;
            };
            came = now;
        }
        asked = run < came;
        if !asked {
            return None;
        }
        let (n, interrupt) = (run, interrupts[run]);
        run += 1;
        Some(Box::new(move || {
            CAME[n].store(time::now_ns(), Ordering::Relaxed);
            interrupt();
        }))
    })
}

/// Runs `scenario` with one or two interrupts, the second never before the first, at every step. Prints and returns how many schedules there
/// were. A scenario that fails does so with its own words, after shuttle has said in which schedule.
pub(crate) fn at_every_step(name: &str, interrupts: &[Interrupt], scenario: impl Fn()) -> usize {
    let (tell, told) = channel();
    let (answer, answers) = channel();
    let answers = Arc::new(Mutex::new(answers));
    let line = Mutex::new((told, answer));
    let count = interrupts.len();
    let search = std::thread::spawn(move || {
        shuttle::check_dfs(move || execute(&line, count), None);
    });
    let mut runs = 0;
    loop {
        let next = answers.lock().expect("never poisoned").recv();
        let Ok(Answer::Begin) = next else {
            break;
        };
        runs += 1;
        CAME.iter()
            .for_each(|came| came.store(0, Ordering::Relaxed));
        irq::inject(source(interrupts, &tell, &answers));
        let outcome = catch_unwind(AssertUnwindSafe(&scenario));
        irq::disarm();
        let _ = tell.send(Told::End(outcome.is_ok()));
        if let Err(panic) = outcome {
            let _ = search.join();
            resume_unwind(panic);
        }
    }
    search.join().expect("all schedules were searched");
    // Not through the test's captured output: the number is to be seen.
    let _ = writeln!(std::io::stderr(), "{name}: {runs} schedules");
    assert!(runs > 5, "{name}: there were steps");
    runs
}

static SUBJECT: Mutex<Option<std::sync::Arc<Process>>> = Mutex::new(None);

/// SIGUSR1 for the process under test.
pub(crate) fn send_usr1() {
    let subject = SUBJECT.lock().expect("never poisoned").clone();
    send::send_to_process(
        &subject.expect("a test runs"),
        SigInfo::kernel(Signal::SIGUSR1),
    );
}

/// Makes the current process the one under test; SIGUSR1 has a handler.
pub(crate) fn become_subject() {
    let process = current().process.clone();
    let action = Action {
        handler: 0x1000,
        ..Action::DEFAULT
    };
    process
        .signals
        .lock()
        .replace_action(Signal::SIGUSR1, action);
    *SUBJECT.lock().expect("never poisoned") = Some(process);
}

/// Asserts that the signal is pending exactly if it was sent, and takes it.
pub(crate) fn signal_came_once(sent: bool) {
    let thread = current();
    assert_eq!(thread.has_flag(flag::SIGPENDING), sent);
    let mut signals = thread.process.signals.lock();
    let pending = signals.pending.set();
    let one = SigSet::of(&[Signal::SIGUSR1]);
    assert_eq!(pending, if sent { one } else { SigSet::EMPTY });
    signals.pending.flush(SigSet(!0));
    assert_eq!(thread.signals.lock().pending.set(), SigSet::EMPTY);
    thread.clear_flag(flag::SIGPENDING);
}

static QUEUE: WaitQueue = WaitQueue::new();
static HAPPENED: AtomicBool = AtomicBool::new(false);
const PATIENCE_NS: u64 = 1_000_000;

fn make_it_happen() {
    HAPPENED.store(true, Ordering::Relaxed);
    QUEUE.wake_all();
}

/// A sleep with a deadline. `signal` and `wake` say which interrupt is which.
fn sleep(signal: Option<usize>, wake: Option<usize>) {
    HAPPENED.store(false, Ordering::Relaxed);
    let deadline = time::now_ns() + PATIENCE_NS;
    let outcome = QUEUE.wait_until_deadline(Sleep::Interruptible, Some(deadline), || {
        // Between the sleeping state and the look, and between the look and the sleep.
        irq::step();
        let happened = HAPPENED.load(Ordering::Relaxed);
        irq::step();
        happened.then_some(())
    });
    irq::disarm();
    let ended = time::now_ns();
    let in_time = |n: Option<usize>| n.and_then(came).is_some_and(|at| at < deadline);
    // Nobody runs meanwhile, so time stands still until the next timer.
    let ends_it = in_time(signal) || in_time(wake);
    assert!(!ends_it || ended < deadline, "it was slept through");
    let sent = signal.and_then(came).is_some();
    match outcome {
        Ok(()) => assert!(wake.and_then(came).is_some(), "it has happened"),
        Err(NotYet::Interrupted) => assert!(sent, "a signal was sent"),
        Err(NotYet::TimedOut) => {
            assert!(!in_time(signal), "the signal was lost");
            assert!(!in_time(wake), "the wake-up was lost");
        }
    }
    assert!(QUEUE.is_empty(), "nobody was left behind");
    signal_came_once(sent);
}

#[test]
fn a_signal_at_every_step_of_a_sleep_is_not_lost() {
    run_test(|| {
        become_subject();
        at_every_step("sleep, signal", &[send_usr1], || sleep(Some(0), None));
    });
}

#[test]
fn a_wake_up_and_a_signal_at_every_step_of_a_sleep_are_not_lost() {
    run_test(|| {
        become_subject();
        at_every_step("sleep, wake-up", &[make_it_happen], || sleep(None, Some(0)));
        let name = "sleep, signal and wake-up";
        at_every_step(name, &[send_usr1, make_it_happen], || {
            sleep(Some(0), Some(1));
        });
        let name = "sleep, wake-up and signal";
        at_every_step(name, &[make_it_happen, send_usr1], || {
            sleep(Some(1), Some(0));
        });
    });
}

const A: Key = Key {
    object: 71,
    place: 64,
};
const B: Key = Key {
    object: 72,
    place: 128,
};
static WORD: AtomicUsize = AtomicUsize::new(0);
static WOKEN: AtomicUsize = AtomicUsize::new(0);
static MOVED: AtomicUsize = AtomicUsize::new(0);

fn change_and_wake_a() {
    WORD.store(1, Ordering::Relaxed);
    WOKEN.fetch_add(keyed::wake(A, 10, !0), Ordering::Relaxed);
}

fn move_a_to_b() {
    MOVED.store(Two::lock(A, B).requeue(10), Ordering::Relaxed);
}

fn wake_b() {
    WOKEN.fetch_add(keyed::wake(B, 10, !0), Ordering::Relaxed);
}

/// A futex wait; what it came to, and whether the word had changed before it began.
fn futex_wait() -> (u64, Result<Result<(), NotYet>, ()>) {
    for counter in [&WORD, &WOKEN, &MOVED] {
        counter.store(0, Ordering::Relaxed);
    }
    let deadline = time::now_ns() + PATIENCE_NS;
    let look = || match WORD.load(Ordering::Relaxed) {
        0 => Ok(()),
        _ => Err(()),
    };
    let outcome = keyed::wait(A, !0, Some(Deadline::Monotonic(deadline)), look);
    irq::disarm();
    assert_eq!(keyed::wake(A, 10, !0) + keyed::wake(B, 10, !0), 0);
    (deadline, outcome)
}

/// Who wakes and who is woken agree.
fn futex(signal: Option<usize>, wake: usize) {
    let (deadline, outcome) = futex_wait();
    let ended = time::now_ns();
    let in_time = |n: Option<usize>| n.and_then(came).is_some_and(|at| at < deadline);
    let ends_it = in_time(signal) || in_time(Some(wake));
    assert!(!ends_it || ended < deadline, "it was slept through");
    let sent = signal.and_then(came).is_some();
    let woken = WOKEN.load(Ordering::Relaxed);
    match outcome {
        Err(()) => assert_eq!(woken, 0),
        Ok(Ok(())) => assert_eq!(woken, 1),
        Ok(Err(NotYet::Interrupted)) => assert!(sent && woken == 0),
        Ok(Err(NotYet::TimedOut)) => {
            assert_eq!(woken, 0);
            assert!(came(wake).is_none_or(|at| at >= deadline), "a lost wake-up");
        }
    }
    signal_came_once(sent);
}

#[test]
fn futex_wake_ups_at_every_step_are_counted_by_both_sides() {
    run_test(|| {
        become_subject();
        at_every_step("futex, wake-up", &[change_and_wake_a], || futex(None, 0));
        let name = "futex, signal and wake-up";
        at_every_step(name, &[send_usr1, change_and_wake_a], || futex(Some(0), 1));
        let name = "futex, wake-up and signal";
        at_every_step(name, &[change_and_wake_a, send_usr1], || futex(Some(1), 0));
    });
}

#[test]
fn a_futex_requeued_at_every_step_is_found_where_it_is() {
    run_test(|| {
        become_subject();
        at_every_step("futex, requeue and wake-up", &[move_a_to_b, wake_b], || {
            let (deadline, outcome) = futex_wait();
            let (moved, woken) = (MOVED.load(Ordering::Relaxed), WOKEN.load(Ordering::Relaxed));
            let in_time = came(1).is_some_and(|at| at < deadline);
            assert_eq!(woken == 1, outcome == Ok(Ok(())));
            assert!(moved == 1 || woken == 0, "who was not moved is not found");
            assert!(
                !(moved == 1 && in_time) || woken == 1,
                "who was moved is found"
            );
        });
    });
}

static LOCK: RwSleepLock<u64> = RwSleepLock::new(0);
static HOLDS: AtomicBool = AtomicBool::new(false);
static HAS_READ: AtomicBool = AtomicBool::new(false);

fn pause_ns(ns: u64) {
    let until = time::now_ns() + ns;
    sleep_until(Sleep::Uninterruptible, until).expect("nothing interrupts");
}

/// Holds the lock for a while.
fn holder() {
    let mut value = LOCK.write(Sleep::Uninterruptible).expect("no signal");
    HOLDS.store(true, Ordering::Relaxed);
    pause_ns(PATIENCE_NS);
    *value += 1;
}

fn reader() {
    let _value = LOCK.read(Sleep::Uninterruptible).expect("no signal");
    HAS_READ.store(true, Ordering::Relaxed);
}

#[test]
fn a_signal_at_every_step_of_a_wait_for_a_lock_stops_nobody_else() {
    run_test(|| {
        become_subject();
        at_every_step("rw lock, signal", &[send_usr1], || {
            HOLDS.store(false, Ordering::Relaxed);
            HAS_READ.store(false, Ordering::Relaxed);
            irq::hold(true);
            kernel_thread("holder", holder).expect("memory");
            while !HOLDS.load(Ordering::Relaxed) {
                pause_ns(1000);
            }
            irq::hold(false);
            // The reader comes while a writer waits, and must not be kept out by one that has given up.
            kernel_thread("reader", reader).expect("memory");
            let outcome = LOCK
                .write(Sleep::Interruptible)
                .map(|mut value| *value += 1);
            irq::disarm();
            let sent = came(0).is_some();
            assert!(outcome.is_ok() || sent, "only a signal ends the wait");
            signal_came_once(sent);
            pause_ns(10 * PATIENCE_NS);
            assert!(HAS_READ.load(Ordering::Relaxed), "the reader had its turn");
            let _free = LOCK.write(Sleep::Uninterruptible).expect("no signal");
        });
    });
}
