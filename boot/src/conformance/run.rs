//! Runs all programs on one side: in batches, several at a time. What takes a side with it costs only itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use indicatif::ProgressBar;

use super::protocol::Reports;
use super::result::{Outcome, Status};
use super::sides::Side;
use super::suite::Program;
use crate::interrupt;

/// Programs in one batch, at most: what a machine's start is spread over.
const BATCH: usize = 24;

/// How programs are run on one side.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Batches at a time.
    pub jobs: usize,
    /// For each program.
    pub limit: Duration,
    /// Whether each program's end is printed on stderr.
    pub tell: bool,
}

/// Outcomes by the programs' names.
pub type Outcomes = BTreeMap<String, Outcome>;

/// Runs `programs` on `side`.
pub fn run(
    side: &dyn Side,
    programs: &[&Program],
    pace: Pace,
    bar: &ProgressBar,
) -> Result<Outcomes> {
    let size = programs.len().div_ceil(pace.jobs.max(1)).clamp(1, BATCH);
    let queue: Mutex<VecDeque<Vec<&Program>>> =
        Mutex::new(programs.chunks(size).map(<[_]>::to_vec).collect());
    let done = Mutex::new(Outcomes::new());
    let work = || -> Result<()> {
        loop {
            let next = queue.lock().expect("no holder panics").pop_front();
            let Some(mut batch) = next else { return Ok(()) };
            // The rest of a batch is this worker's own: others may have ended when it is known.
            while !batch.is_empty() {
                interrupt::check()?;
                let outcomes = run_batch(side, &batch, pace, bar)?;
                batch.retain(|program| !outcomes.contains_key(&program.name));
                done.lock().expect("no holder panics").extend(outcomes);
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..pace.jobs).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })?;
    Ok(done.into_inner().expect("no holder panics"))
}

/// Runs one batch as far as it comes: at least its first program has an outcome afterwards. An error if not even that one started.
fn run_batch(
    side: &dyn Side,
    batch: &[&Program],
    pace: Pace,
    bar: &ProgressBar,
) -> Result<Outcomes> {
    let mut reports = Reports::default();
    let mut outcomes = Outcomes::new();
    let mut heard = |line: &str| {
        if let Some((name, outcome)) = reports.line(line) {
            if batch.iter().any(|program| program.name == name) {
                progress(side, &name, &outcome, pace, bar);
                outcomes.insert(name, outcome);
            }
        } else if let Some(name) = &reports.running {
            bar.set_message(name.clone());
        }
    };
    let died = side.run(batch, pace.limit, &mut heard)?;
    let missing = batch
        .iter()
        .find(|program| !outcomes.contains_key(&program.name));
    if let Some(first) = missing {
        let how = died.unwrap_or_else(|| "the runner ended early".into());
        ensure!(
            reports.running.is_some() || !outcomes.is_empty(),
            "no program can be run on the side {}: {how}",
            side.name()
        );
        let name = reports.running.take().unwrap_or_else(|| first.name.clone());
        let outcome = Outcome {
            status: Status::Died(how),
            output: String::new(),
            elapsed: Duration::ZERO,
            tries: 1,
        };
        progress(side, &name, &outcome, pace, bar);
        outcomes.insert(name, outcome);
    }
    Ok(outcomes)
}

/// Shows that a program has ended.
fn progress(side: &dyn Side, name: &str, outcome: &Outcome, pace: Pace, bar: &ProgressBar) {
    bar.inc(1);
    if pace.tell {
        let milliseconds = outcome.elapsed.as_millis();
        let line = format!(
            "{}: {name}: {} ({milliseconds} ms)",
            side.name(),
            outcome.status
        );
        bar.suspend(|| eprintln!("{line}"));
    }
}

/// Runs again, up to `tries` times in all, what did not pass of `programs`; a pass counts.
pub fn run_again(
    side: &dyn Side,
    programs: &[&Program],
    outcomes: &mut Outcomes,
    pace: Pace,
    tries: u32,
    bar: &ProgressBar,
) -> Result<()> {
    let mut left: Vec<&Program> = programs.to_vec();
    for attempt in 2..=tries {
        left.retain(|program| {
            outcomes
                .get(&program.name)
                .is_some_and(|outcome| !outcome.status.passes())
        });
        if left.is_empty() {
            break;
        }
        bar.inc_length(left.len() as u64);
        for (name, outcome) in run(side, &left, pace, bar)? {
            outcomes.insert(
                name,
                Outcome {
                    tries: attempt,
                    ..outcome
                },
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::result::tests::{compared, outcome};

    /// A side where programs end as their names say; it dies with `dies`, and `flaky` passes the third time.
    #[derive(Default)]
    struct Pretended {
        runs: Mutex<Vec<String>>,
    }

    impl Side for Pretended {
        fn name(&self) -> &'static str {
            "pretended"
        }

        fn run(
            &self,
            batch: &[&Program],
            _: Duration,
            heard: &mut dyn FnMut(&str),
        ) -> Result<Option<String>> {
            for program in batch {
                let name = &program.name;
                let mut runs = self.runs.lock().unwrap();
                runs.push(name.clone());
                heard(&format!("run {name}"));
                let nr_runs = runs.iter().filter(|run| *run == name).count();
                match program.interface() {
                    "dies" => return Ok(Some("kernel panic".into())),
                    "flaky" if nr_runs < 3 => heard(&format!("end {name} exit 1 5")),
                    "fails" => heard(&format!("end {name} exit 1 5")),
                    _ => heard(&format!("end {name} exit 0 5")),
                }
            }
            Ok(None)
        }
    }

    fn programs(names: &[&str]) -> Vec<Program> {
        let pass = outcome(Status::Exited(0), 1);
        names
            .iter()
            .map(|name| compared(name, pass.clone(), pass.clone()).program)
            .collect()
    }

    const PACE: Pace = Pace {
        jobs: 2,
        limit: Duration::from_secs(1),
        tell: false,
    };

    #[test]
    fn what_kills_the_side_costs_only_itself() {
        let programs = programs(&["a/1-1", "dies/1-1", "b/1-1", "dies/2-1", "fails/1-1"]);
        let programs: Vec<_> = programs.iter().collect();
        let side = Pretended::default();
        let pace = Pace { jobs: 1, ..PACE };
        let outcomes = run(&side, &programs, pace, &ProgressBar::hidden()).unwrap();
        assert_eq!(outcomes.len(), 5);
        assert_eq!(outcomes["b/1-1"].status, Status::Exited(0));
        assert_eq!(
            outcomes["dies/2-1"].status,
            Status::Died("kernel panic".into())
        );
        assert_eq!(outcomes["fails/1-1"].status, Status::Exited(1));
        assert_eq!(
            side.runs.into_inner().unwrap().len(),
            5,
            "nothing runs twice"
        );
    }

    #[test]
    fn only_what_failed_is_run_again_and_at_most_three_times() {
        let programs = programs(&["a/1-1", "flaky/1-1", "fails/1-1"]);
        let programs: Vec<_> = programs.iter().collect();
        let side = Pretended::default();
        let bar = ProgressBar::hidden();
        let mut outcomes = run(&side, &programs, PACE, &bar).unwrap();
        run_again(&side, &programs, &mut outcomes, PACE, 3, &bar).unwrap();
        assert_eq!(
            (outcomes["a/1-1"].tries, outcomes["flaky/1-1"].tries),
            (1, 3)
        );
        assert!(outcomes["flaky/1-1"].status.passes());
        assert!(!outcomes["fails/1-1"].status.passes());
        assert_eq!(side.runs.into_inner().unwrap().len(), 1 + 3 + 3);
    }
}
