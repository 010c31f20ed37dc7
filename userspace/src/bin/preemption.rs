//! Nobody keeps the CPU: two processes that never make a system call share it, and a third one's timer fires all the while.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{SaFlags, Signal, kill};
use nix::unistd::Pid;
use userspace::memory::{PAGE, Region};
use userspace::process::{self, Ended};
use userspace::report::Demo;
use userspace::{signals, time};

/// Ticks of the third process's timer.
const TICKS: usize = 20;
const INTERVAL: Duration = Duration::from_millis(50);

static TICKED: AtomicU64 = AtomicU64::new(0);

extern "C" fn tick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    TICKED.fetch_add(1, SeqCst);
}

fn main() -> ExitCode {
    let mut demo = Demo::start(
        "preemption",
        "two spinning processes share one CPU while a third one's timer fires",
    );
    let counters = Region::shared(PAGE).expect("mmap");

    demo.step("keep to one CPU");
    demo.varies(one_cpu());

    demo.step("start two children that only count, and a third one that waits for its timer");
    let spinners = [0, 1].map(|i| process::child(|| spin(counters.atomic(8 * i))).expect("fork"));
    let timed = process::child(|| sample(&counters)).expect("fork");

    demo.step(format_args!("the third one has its {TICKS} ticks and ends"));
    let ended = process::wait(timed).expect("wait");
    demo.check_eq(
        ended,
        Ended::Exited(0),
        "its handler ran for each tick although two others spin",
    );

    let samples: Vec<[u64; 2]> = (0..=TICKS)
        .map(|i| [0, 1].map(|who| sampled(&counters, i, who).load(SeqCst)))
        .collect();
    let total = [0, 1].map(|who| samples[TICKS][who] - samples[0][who]);
    let moved = [0, 1].map(|who| {
        samples
            .windows(2)
            .filter(|pair| pair[1][who] > pair[0][who])
            .count()
    });
    demo.varies(format_args!(
        "the spinners counted {} and {}",
        total[0], total[1]
    ));
    demo.varies(format_args!(
        "they ran in {} and {} of the {TICKS} intervals",
        moved[0], moved[1]
    ));
    demo.check(
        moved.iter().all(|&intervals| intervals >= TICKS / 2),
        "both ran in at least every second interval",
    );
    demo.check(
        total.iter().all(|&count| count > 0)
            && total[0].max(total[1]) / 3 <= total[0].min(total[1]),
        "neither got more than three times the other's share",
    );

    demo.step("kill the spinners");
    for spinner in spinners {
        kill(spinner, Signal::SIGKILL).expect("kill");
        let ended = process::wait(spinner).expect("wait");
        demo.check_eq(
            ended,
            Ended::Killed(libc::SIGKILL),
            "a process that makes no system calls can be killed",
        );
    }
    demo.finish()
}

/// Restricts this process and its children to one CPU of those that it may use.
fn one_cpu() -> String {
    let chosen = sched_getaffinity(Pid::this()).ok().and_then(|allowed| {
        let cpu = (0..CpuSet::count()).find(|&cpu| allowed.is_set(cpu).unwrap_or(false))?;
        let mut one = CpuSet::new();
        one.set(cpu).ok()?;
        sched_setaffinity(Pid::this(), &one).ok()?;
        Some(cpu)
    });
    chosen.map_or_else(
        || "this kernel chooses no CPUs".into(),
        |cpu| format!("CPU {cpu}"),
    )
}

/// Counts for ever, without a system call.
fn spin(counter: &AtomicU64) -> i32 {
    loop {
        counter.fetch_add(1, SeqCst);
    }
}

/// Notes both counters at each tick; status 0 if all ticks came within a minute.
fn sample(counters: &Region) -> i32 {
    let run = || -> std::io::Result<()> {
        signals::on(Signal::SIGALRM, SaFlags::empty(), tick)?;
        time::set_timer(INTERVAL, INTERVAL)?;
        let mut noted = 0;
        while noted <= TICKS {
            nix::unistd::pause();
            if TICKED.load(SeqCst) > noted as u64 {
                (0..2).for_each(|who| {
                    sampled(counters, noted, who)
                        .store(counters.atomic(8 * who).load(SeqCst), SeqCst)
                });
                noted += 1;
            }
        }
        time::stop_timer()
    };
    i32::from(run().is_err())
}

/// Where sample `index` of spinner `who` is kept, behind the counters themselves.
fn sampled(counters: &Region, index: usize, who: usize) -> &AtomicU64 {
    counters.atomic(64 + 16 * index + 8 * who)
}
