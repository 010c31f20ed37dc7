//! Queues, the choice of a thread and the order of delivery against a model that keeps plain lists and searches them.
//!
//! The model follows `signal(7)` and Linux's `kernel/signal.c`; besides that it agrees with the real code, no signal may wait that a
//! thread could take but none knows of.

use std::sync::Arc;
use std::vec::Vec;

use proptest::prelude::*;

use super::action::{Action, STOP};
use super::deliver::dequeue;
use super::info::{Detail, SigInfo, code};
use super::send::{begin_exit, recalculate, send_to_process, send_to_thread, set_blocked_of};
use super::set::{SigSet, Signal};
use crate::arch::sim::machine::run_test;
use crate::task::thread::flag;
use crate::task::{Process, Thread, idle_test_process};

/// Synchronous ones, ordinary ones, some that are ignored by default, a stop signal and its opposite, and real-time ones.
const USED: [u8; 12] = [5, 10, 11, 12, 15, 17, 18, 20, 23, 34, 35, 64];
const IGNORED_BY_DEFAULT: [u8; 3] = [17, 18, 23];

#[derive(Clone, Debug)]
enum Step {
    /// kill(2).
    ToProcess(usize),
    /// tgkill(2): thread, signal.
    ToThread(usize, usize),
    /// sigprocmask(2): thread, members of [`USED`].
    Mask(usize, u16),
    /// The thread is on its way to user mode, for one signal.
    Take(usize),
    /// The thread's own instruction causes a SIGSEGV.
    Fault(usize),
    /// The thread begins to end.
    Exit(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let n = any::<usize>;
    prop_oneof![
        6 => n().prop_map(Step::ToProcess),
        4 => (n(), n()).prop_map(|(t, s)| Step::ToThread(t, s)),
        4 => (n(), any::<u16>()).prop_map(|(t, m)| Step::Mask(t, m)),
        6 => n().prop_map(Step::Take),
        1 => n().prop_map(Step::Fault),
        1 => n().prop_map(Step::Exit),
    ]
}

/// A pending signal: its number, and the sender's, which tells instances apart; `None` for a fault.
type Instance = (Signal, Option<u32>);

#[derive(Default)]
struct ModelThread {
    blocked: Vec<Signal>,
    queue: Vec<Instance>,
    /// It knows that there is something to take.
    told: bool,
    exiting: bool,
}

struct Model {
    threads: Vec<ModelThread>,
    shared: Vec<Instance>,
    ignored: Vec<Signal>,
    turn: usize,
}

/// Which of `queue` is taken first by who blocks `blocked`: a fault, a synchronous signal, the lowest number; the oldest of those.
fn first_of(queue: &[Instance], blocked: &[Signal]) -> Option<usize> {
    let urgency = |&(signal, sender): &Instance| {
        let synchronous = SigSet::SYNCHRONOUS.contains(signal);
        (sender.is_some(), !synchronous, signal)
    };
    let ready = queue
        .iter()
        .enumerate()
        .filter(|(_, (signal, _))| !blocked.contains(signal));
    ready
        .min_by_key(|(n, instance)| (urgency(instance), *n))
        .map(|(n, _)| n)
}

impl Model {
    fn queues(&mut self) -> impl Iterator<Item = &mut Vec<Instance>> {
        let own = self.threads.iter_mut().map(|thread| &mut thread.queue);
        own.chain([&mut self.shared])
    }

    fn wants(&self, t: usize, signal: Signal) -> bool {
        let thread = &self.threads[t];
        !thread.exiting && !thread.told && !thread.blocked.contains(&signal)
    }

    fn send(&mut self, target: Option<usize>, signal: Signal, sender: u32) {
        let cont = SigSet::of(&[Signal::SIGCONT]);
        let opposite = match signal {
            Signal::SIGCONT => STOP,
            signal if STOP.contains(signal) => cont,
            _ => SigSet::EMPTY,
        };
        for queue in self.queues() {
            queue.retain(|(pending, _)| !opposite.contains(*pending));
        }
        let named = target.unwrap_or(0);
        if self.ignored.contains(&signal) && !self.threads[named].blocked.contains(&signal) {
            return;
        }
        let queue = match target {
            Some(t) => &mut self.threads[t].queue,
            None => &mut self.shared,
        };
        if !signal.is_realtime() && queue.iter().any(|(pending, _)| *pending == signal) {
            return;
        }
        queue.push((signal, Some(sender)));
        let count = self.threads.len();
        let in_turn = (0..count).map(|n| (self.turn + n) % count);
        let taker = match target {
            Some(t) => Some(t).filter(|&t| self.wants(t, signal)),
            None if self.wants(0, signal) => Some(0),
            None => in_turn
                .into_iter()
                .find(|&t| self.wants(t, signal))
                .inspect(|&t| self.turn = t),
        };
        if let Some(t) = taker {
            self.threads[t].told = true;
        }
    }

    fn has_something(&self, t: usize) -> bool {
        let thread = &self.threads[t];
        let mut all = thread.queue.iter().chain(&self.shared);
        all.any(|(signal, _)| !thread.blocked.contains(signal))
    }

    /// Others are told of shared signals in `left`, which `from` does not take any more.
    fn retarget(&mut self, from: usize, left: impl Fn(&Signal) -> bool) {
        let mut left: Vec<Signal> = self
            .shared
            .iter()
            .map(|(signal, _)| *signal)
            .filter(left)
            .collect();
        for (t, thread) in self.threads.iter_mut().enumerate() {
            let before = left.len();
            if t != from && !thread.exiting {
                left.retain(|signal| thread.blocked.contains(signal));
                thread.told |= left.len() < before;
            }
        }
    }

    fn mask(&mut self, t: usize, mask: Vec<Signal>) {
        let old = core::mem::replace(&mut self.threads[t].blocked, mask.clone());
        let now = self.has_something(t);
        let was_told = core::mem::replace(&mut self.threads[t].told, now);
        if was_told {
            self.retarget(t, |signal| mask.contains(signal) && !old.contains(signal));
        }
    }

    fn take(&mut self, t: usize) -> Option<Instance> {
        let thread = &mut self.threads[t];
        let taken = match first_of(&thread.queue, &thread.blocked) {
            Some(n) => Some(thread.queue.remove(n)),
            None => first_of(&self.shared, &thread.blocked).map(|n| self.shared.remove(n)),
        };
        self.threads[t].told = self.has_something(t);
        taken
    }

    fn fault(&mut self, t: usize) {
        let thread = &mut self.threads[t];
        thread
            .queue
            .retain(|(signal, _)| *signal != Signal::SIGSEGV);
        thread.queue.push((Signal::SIGSEGV, None));
        thread.told = true;
    }

    fn exit(&mut self, t: usize) {
        self.threads[t].exiting = true;
        let blocked = self.threads[t].blocked.clone();
        self.retarget(t, |signal| !blocked.contains(signal));
    }
}

/// The real ones.
struct Real {
    process: Arc<Process>,
    threads: Vec<Arc<Thread>>,
}

impl Real {
    fn new(threads: usize) -> Real {
        let (process, threads) = idle_test_process(threads);
        Real { process, threads }
    }

    fn take(&self, t: usize) -> Option<Instance> {
        let thread = &self.threads[t];
        let mut signals = self.process.signals.lock();
        let mut own = thread.signals.lock();
        let mut info = SigInfo::lost(Signal::SIGHUP);
        let taken = dequeue(&mut signals, &mut own, &mut info);
        recalculate(thread, &signals, &own);
        let sender = match info.detail {
            Detail::Sender { pid, .. } => Some(pid),
            _ => None,
        };
        taken.then_some((info.signal, sender))
    }

    fn fault(&self, t: usize) {
        let info = SigInfo::fault(Signal::SIGSEGV, code::SEGV_MAPERR, 8);
        self.threads[t].signals.lock().pending.force(info);
        self.threads[t].set_flag(flag::SIGPENDING);
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        // Process and threads keep each other.
        let taken = core::mem::take(&mut self.process.signals.lock().threads);
        drop(taken);
    }
}

struct Both {
    model: Model,
    real: Real,
    sent: u32,
}

fn nth(n: usize) -> Signal {
    Signal::new(USED[n % USED.len()].into()).expect("a signal")
}

fn set_of(signals: impl IntoIterator<Item = Signal>) -> SigSet {
    signals.into_iter().fold(SigSet::EMPTY, SigSet::with)
}

impl Both {
    /// `ignore`: members of [`USED`] that the process ignores; all others have handlers, but for some with their default.
    fn new(threads: usize, ignore: u16) -> Both {
        let real = Real::new(threads);
        let mut ignored = Vec::new();
        for (n, number) in USED.iter().enumerate() {
            let by_default = IGNORED_BY_DEFAULT.contains(number) && ignore & 0x8000 != 0;
            let handler = match ignore >> n & 1 != 0 {
                _ if by_default => 0,
                true => 1,
                false => 0x1000,
            };
            if handler <= 1 {
                ignored.push(nth(n));
            }
            let action = Action {
                handler,
                ..Action::DEFAULT
            };
            real.process.signals.lock().replace_action(nth(n), action);
        }
        let model = Model {
            threads: (0..threads).map(|_| ModelThread::default()).collect(),
            shared: Vec::new(),
            ignored,
            turn: 0,
        };
        Both {
            model,
            real,
            sent: 0,
        }
    }

    fn next_info(&mut self, signal: Signal) -> SigInfo {
        self.sent += 1;
        SigInfo {
            signal,
            code: code::SI_USER,
            detail: Detail::Sender {
                pid: self.sent,
                uid: 0,
            },
        }
    }

    fn step(&mut self, step: Step) {
        let count = self.real.threads.len();
        match step {
            Step::ToProcess(n) => {
                let info = self.next_info(nth(n));
                send_to_process(&self.real.process, info);
                self.model.send(None, nth(n), self.sent);
            }
            Step::ToThread(t, n) => {
                let info = self.next_info(nth(n));
                if !self.model.threads[t % count].exiting {
                    send_to_thread(&self.real.threads[t % count], info);
                    self.model.send(Some(t % count), nth(n), self.sent);
                }
            }
            Step::Mask(t, members) => {
                let mask: Vec<Signal> = (0..USED.len())
                    .filter(|n| members >> n & 1 != 0)
                    .map(nth)
                    .collect();
                let bits = set_of(mask.iter().copied());
                if !self.model.threads[t % count].exiting {
                    set_blocked_of(&self.real.threads[t % count], |_| bits);
                    self.model.mask(t % count, mask);
                }
            }
            Step::Take(t) => {
                if !self.model.threads[t % count].exiting {
                    let expected = self.model.take(t % count);
                    assert_eq!(self.real.take(t % count), expected);
                }
            }
            Step::Fault(t) => {
                let thread = &self.model.threads[t % count];
                if !thread.exiting && !thread.blocked.contains(&Signal::SIGSEGV) {
                    self.real.fault(t % count);
                    self.model.fault(t % count);
                }
            }
            Step::Exit(t) => {
                // The first thread stays, as the others' number depends on it.
                if t % count != 0 && !self.model.threads[t % count].exiting {
                    begin_exit(&self.real.threads[t % count]);
                    self.model.exit(t % count);
                }
            }
        }
        self.compare();
    }

    fn compare(&self) {
        let of = |queue: &[Instance]| set_of(queue.iter().map(|(signal, _)| *signal));
        let shared = self.real.process.signals.lock().pending.set();
        assert_eq!(shared, of(&self.model.shared));
        for (thread, model) in self.real.threads.iter().zip(&self.model.threads) {
            let own = thread.signals.lock().pending.set();
            assert_eq!(own, of(&model.queue));
            assert_eq!(thread.has_flag(flag::SIGPENDING), model.told);
            let blocked = thread.signals.lock().blocked;
            assert!(
                own.minus(blocked).is_empty() || model.told || model.exiting,
                "a thread does not know of its own signal"
            );
        }
        for &(signal, _) in &self.model.shared {
            let takers = || {
                let alive = self.model.threads.iter().filter(|thread| !thread.exiting);
                alive.filter(|thread| !thread.blocked.contains(&signal))
            };
            assert!(
                takers().next().is_none() || takers().any(|thread| thread.told),
                "nobody knows of a signal that somebody could take"
            );
        }
    }
}

#[test]
fn signals_go_where_the_model_sends_them_and_none_is_forgotten() {
    run_test(|| {
        let steps = proptest::collection::vec(step(), 0..150);
        let config = ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(2000)
        };
        proptest::test_runner::TestRunner::new(config)
            .run(
                &(1..5usize, any::<u16>(), steps),
                |(threads, ignore, steps)| {
                    let mut both = Both::new(threads, ignore);
                    steps.into_iter().for_each(|step| both.step(step));
                    Ok(())
                },
            )
            .unwrap();
    });
}
