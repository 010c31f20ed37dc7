//! The run queue against a model that searches lists.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::super::policy::{Parameters, Policy};
use super::*;
use crate::arch::sim::machine::run_test;
use crate::task::idle_test_thread;

#[derive(Clone, Debug)]
enum Step {
    /// The running thread runs for so many ns, then whoever is first goes on.
    Run(u64),
    Yield,
    /// The running thread waits.
    Sleep,
    /// One of those that wait wakes up.
    Wake(usize),
    /// One of all gets other parameters.
    Change(usize, Parameters),
}

fn parameters() -> impl Strategy<Value = Parameters> {
    let fair = prop_oneof![Just(Policy::Other), Just(Policy::Batch), Just(Policy::Idle)];
    let real_time = prop_oneof![Just(Policy::Fifo), Just(Policy::RoundRobin)];
    prop_oneof![
        (fair, -20..=19i8).prop_map(|(policy, nice)| Parameters {
            policy,
            nice,
            ..Parameters::DEFAULT
        }),
        (real_time, 1..=4u8).prop_map(|(policy, priority)| Parameters {
            policy,
            priority,
            ..Parameters::DEFAULT
        }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4_000_000u64).prop_map(Step::Run),
        1 => Just(Step::Yield),
        2 => Just(Step::Sleep),
        3 => any::<usize>().prop_map(Step::Wake),
        1 => (any::<usize>(), parameters()).prop_map(|(n, p)| Step::Change(n, p)),
    ]
}

/// What the model knows of a thread.
struct Known {
    thread: Arc<Thread>,
    cpu_ns: u64,
}

struct Model {
    known: Vec<Known>,
    queue: RunQueue,
    now: u64,
    running: Option<usize>,
    /// Who is ready under each real-time priority, first the next one.
    levels: [VecDeque<usize>; 5],
    fair: Vec<usize>,
    waiting: Vec<usize>,
}

impl Model {
    fn entity(&self, n: usize) -> &Entity {
        &self.known[n].thread.sched
    }

    /// Puts a thread into both.
    fn insert(&mut self, n: usize, arrival: Arrival) {
        let thread = self.known[n].thread.clone();
        let level = thread.sched.level() as usize;
        let used_up = thread.sched.has_policy(Policy::RoundRobin)
            && thread.sched.slice.load(Ordering::Relaxed) <= 0;
        match level {
            0 => self.fair.push(n),
            _ if arrival == Arrival::Preempted && !used_up => self.levels[level].push_front(n),
            _ => self.levels[level].push_back(n),
        }
        self.queue.insert(thread, arrival);
    }

    /// Takes the next thread from both; they agree.
    fn next(&mut self) {
        let expected = (1..5)
            .rev()
            .find_map(|level| self.levels[level].pop_front());
        let next = self.queue.pop(self.now);
        let known = |thread: &Arc<Thread>| {
            self.known
                .iter()
                .position(|known| Arc::ptr_eq(&known.thread, thread))
        };
        self.running = next.as_ref().and_then(known);
        if expected.is_some() {
            assert_eq!(self.running, expected, "the first of the highest priority");
        } else if let Some(n) = self.running {
            let least = self.fair.iter().map(|&n| self.entity(n).vruntime()).min();
            assert_eq!(
                Some(self.entity(n).vruntime()),
                least,
                "the least virtual time"
            );
            self.fair.retain(|&other| other != n);
        } else {
            assert!(self.fair.is_empty());
        }
    }

    /// The running thread runs.
    fn run(&mut self, ns: u64) {
        self.now += ns;
        let Some(n) = self.running else { return };
        let before = self.entity(n).vruntime();
        self.queue.charge(&self.known[n].thread.sched, self.now);
        self.known[n].cpu_ns += ns;
        let entity = self.entity(n);
        assert_eq!(entity.cpu_time_ns(), self.known[n].cpu_ns);
        if entity.level() == 0 {
            let exact = ns as f64 * 1024.0 / f64::from(entity.parameters().weight());
            let charged = (entity.vruntime() - before) as f64;
            assert!(
                (charged - exact).abs() <= exact / 500.0 + 2.0,
                "{charged} for {exact}"
            );
        }
    }

    fn reschedule(&mut self, yields: bool) {
        let Some(n) = self.running else {
            return self.next();
        };
        if self.queue.has_better(self.entity(n), yields) {
            let arrival = if yields {
                Arrival::Yielded
            } else {
                Arrival::Preempted
            };
            self.insert(n, arrival);
            self.next();
            assert!(
                yields || self.running != Some(n),
                "somebody better was there"
            );
        } else {
            let level = self.entity(n).level() as usize;
            assert!((level + 1..5).all(|level| self.levels[level].is_empty()));
        }
    }

    fn change(&mut self, n: usize, parameters: Parameters) {
        let thread = self.known[n].thread.clone();
        let level = thread.sched.level() as usize;
        let queued = self.queue.remove(&thread).is_some();
        let expected = self.fair.contains(&n) || self.levels.iter().any(|l| l.contains(&n));
        assert_eq!(queued, expected);
        self.fair.retain(|&other| other != n);
        self.levels[level].retain(|&other| other != n);
        thread.sched.set_parameters(parameters);
        if queued {
            self.insert(n, Arrival::Woken);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Run(ns) => {
                self.run(ns);
                self.reschedule(false);
            }
            Step::Yield => self.reschedule(true),
            Step::Sleep => {
                self.waiting.extend(self.running.take());
                self.next();
            }
            Step::Wake(which) if !self.waiting.is_empty() => {
                let n = self.waiting.swap_remove(which % self.waiting.len());
                self.insert(n, Arrival::Woken);
                if self.running.is_none() {
                    self.next();
                }
            }
            Step::Wake(_) => {}
            Step::Change(which, parameters) => self.change(which % self.known.len(), parameters),
        }
        let ready = self.fair.len() + self.levels.iter().map(VecDeque::len).sum::<usize>();
        assert_eq!(self.queue.is_empty(), ready == 0);
    }

    fn new(parameters: Vec<Parameters>) -> Model {
        let known = |parameters| {
            let thread = idle_test_thread();
            thread.sched.set_parameters(parameters);
            Known { thread, cpu_ns: 0 }
        };
        let mut model = Model {
            known: parameters.into_iter().map(known).collect(),
            queue: RunQueue::new(),
            now: 1,
            running: None,
            levels: Default::default(),
            fair: Vec::new(),
            waiting: Vec::new(),
        };
        (0..model.known.len()).for_each(|n| model.insert(n, Arrival::Woken));
        model.next();
        model
    }

    /// Takes everybody out.
    fn end(mut self) {
        while self.running.is_some() {
            self.next();
        }
        assert!(self.queue.is_empty());
    }
}

#[test]
fn the_queue_does_what_the_model_does() {
    run_test(|| {
        let threads = proptest::collection::vec(parameters(), 1..8);
        let steps = proptest::collection::vec(step(), 0..200);
        let config = ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(200)
        };
        proptest::test_runner::TestRunner::new(config)
            .run(&(threads, steps), |(threads, steps)| {
                let mut model = Model::new(threads);
                steps.into_iter().for_each(|step| model.step(step));
                model.end();
                Ok(())
            })
            .unwrap();
    });
}

fn nice(nice: i8) -> Parameters {
    Parameters {
        nice,
        ..Parameters::DEFAULT
    }
}

/// Lets the threads run for ten seconds with a tick each millisecond; the CPU time of each, ns.
fn shares(parameters: Vec<Parameters>) -> Vec<u64> {
    let mut model = Model::new(parameters);
    for _ in 0..10_000 {
        model.run(1_000_000);
        model.queue.begin_period(model.now);
        let n = model.running.expect("they only run");
        if model.queue.tick_ends_turn(model.entity(n)) {
            // The model's own lists do not know of the throttle.
            let thread = model.known[n].thread.clone();
            model.queue.insert(thread, Arrival::Preempted);
            let next = model.queue.pop(model.now).expect("they only run");
            model.running = model
                .known
                .iter()
                .position(|known| Arc::ptr_eq(&known.thread, &next));
        }
    }
    let all = model.known.iter().map(|known| known.cpu_ns).collect();
    while model.queue.pop(model.now).is_some() {}
    all
}

#[test]
fn the_cpu_is_shared_by_weight() {
    run_test(|| {
        let parameters = vec![nice(0), nice(0), nice(5), nice(-5)];
        let weights: u32 = parameters.iter().map(|p| p.weight()).sum();
        for (ns, parameters) in shares(parameters.clone()).into_iter().zip(parameters) {
            let fair = 1e10 * f64::from(parameters.weight()) / f64::from(weights);
            let off = (ns as f64 - fair).abs();
            assert!(off < 2.0 * SLICE_NS as f64, "{parameters:?}: {off} ns off");
        }
    });
}

#[test]
fn real_time_threads_leave_a_little_to_others() {
    run_test(|| {
        let fifo = Parameters {
            policy: Policy::Fifo,
            priority: 3,
            ..Parameters::DEFAULT
        };
        let ran = shares(vec![fifo, nice(0)]);
        let share = ran[1] as f64 / 1e10;
        assert!((0.04..0.06).contains(&share), "{share}");
        // Alone it has all.
        assert_eq!(shares(vec![fifo]), [10_000_000_000]);
    });
}

#[test]
fn round_robin_goes_on_after_its_slice_and_first_come_first_served_does_not() {
    run_test(|| {
        let of = |policy| Parameters {
            policy,
            priority: 3,
            ..Parameters::DEFAULT
        };
        let rr = shares(vec![of(Policy::RoundRobin); 2]);
        assert_eq!(rr[0], rr[1]);
        assert_eq!(shares(vec![of(Policy::Fifo); 2])[1], 0);
    });
}
