//! A page fault that waits for the disk is interrupted by a signal: the handler runs first, then the access is made again and finds
//! the page, whose read went on meanwhile. A signal every few milliseconds does not starve it; a blocked one does not disturb it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use nix::sys::mman::{MapFlags, ProtFlags};
use nix::sys::signal::{SaFlags, SigmaskHow, Signal};
use userspace::memory::{PAGE, Region};
use userspace::report::Demo;
use userspace::signals::{self, Caught, Slot};
use userspace::time::{ms, now_ns};
use userspace::{probe, slow, time};

static ALARM: Slot = Slot::new();
/// CLOCK_MONOTONIC when the handler first ran, 0 before.
static FIRST_RAN_NS: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_alarm(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let _ = FIRST_RAN_NS.compare_exchange(0, now_ns(), SeqCst, SeqCst);
    // SAFETY: the kernel's own pointers.
    ALARM.store(&unsafe { Caught::read(info, context) });
}

/// The slow file, mapped.
struct SlowFile {
    file: File,
    region: Region,
    /// Offsets of pages that nobody has touched.
    pages: Vec<usize>,
    extra: Option<Duration>,
}

fn main() -> ExitCode {
    let mut demo = Demo::start(
        "interrupted-fault",
        "a signal interrupts a fault that waits for the disk, and the access completes later",
    );
    demo.step("map the slow file");
    let slow = match open() {
        Ok(slow) => slow,
        Err(why) => {
            demo.check(false, why);
            return demo.finish();
        }
    };
    demo.varies(match slow.extra {
        Some(extra) => format!("each read of it takes {} ms longer", ms(extra)),
        None => "no disk is slowed down here: the page comes at once, and the order in time is not checked".into(),
    });
    signals::on(Signal::SIGALRM, SaFlags::empty(), on_alarm).expect("sigaction");
    one_signal(&mut demo, &slow);
    many_signals(&mut demo, &slow);
    blocked_signal(&mut demo, &slow);
    demo.finish()
}

fn open() -> std::io::Result<SlowFile> {
    let file = slow::slow_file()?;
    let len = usize::try_from(file.metadata()?.len()).map_err(std::io::Error::other)?;
    let pages = slow::far_pages(len, 0, 3)?;
    let region = Region::file(&file, 0, len, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE)?;
    Ok(SlowFile {
        file,
        region,
        pages,
        extra: slow::slowness(),
    })
}

fn one_signal(demo: &mut Demo, slow: &SlowFile) {
    demo.step("set a timer to a third of that and touch a page that is not in memory");
    let third = slow.extra.unwrap_or(Duration::from_millis(30)) / 3;
    let (came_ns, value) = touch(slow, 0, third, Duration::ZERO);
    wait_for_alarm();
    let handler_ns = FIRST_RAN_NS.load(SeqCst);
    let caught = ALARM.take();
    demo.check(
        caught.is_some_and(|caught| caught.signo == libc::SIGALRM),
        "the handler ran",
    );
    if let Some(extra) = slow.extra {
        demo.check_here(handler_ns < came_ns, "it ran before the page had come");
        let rip = caught.map(|caught| caught.rip);
        demo.check_here(
            rip == Some(probe::load_insn()),
            "rip in its frame is the access itself, to be made again",
        );
        demo.check_here(
            came_ns - START_NS.load(SeqCst) >= ns(extra) * 9 / 10,
            "the access took as long as the disk",
        );
    }
    demo.varies(format_args!(
        "handler after {} ms, page after {} ms",
        since_start(handler_ns),
        since_start(came_ns)
    ));
    data_is_right(demo, slow, 0, value);
}

fn many_signals(demo: &mut Demo, slow: &SlowFile) {
    demo.step("the same with a signal every few milliseconds");
    let interval = slow
        .extra
        .map_or(Duration::from_millis(5), |extra| extra / 20);
    let (came_ns, value) = touch(slow, 1, interval, interval);
    let meanwhile = ALARM.count();
    wait_for_alarm();
    time::stop_timer().expect("setitimer");
    ALARM.take();
    demo.varies(format_args!(
        "{meanwhile} signals came before the page, after {} ms",
        since_start(came_ns)
    ));
    if slow.extra.is_some() {
        demo.check_here(
            meanwhile >= 3,
            "several signals interrupted the same access",
        );
    }
    demo.note("the access completed all the same: its read belongs to the page, not to who waits");
    data_is_right(demo, slow, 1, value);
}

fn blocked_signal(demo: &mut Demo, slow: &SlowFile) {
    demo.step("the same with SIGALRM blocked");
    let third = slow.extra.unwrap_or(Duration::from_millis(30)) / 3;
    signals::mask(SigmaskHow::SIG_BLOCK, Signal::SIGALRM).expect("sigprocmask");
    let (came_ns, value) = touch(slow, 2, third, Duration::ZERO);
    let spun = Instant::now();
    while spun.elapsed() < third * 2 {
        std::hint::spin_loop();
    }
    demo.varies(format_args!("page after {} ms", since_start(came_ns)));
    demo.check_eq(ALARM.count(), 0, "no handler ran");
    signals::mask(SigmaskHow::SIG_UNBLOCK, Signal::SIGALRM).expect("sigprocmask");
    demo.check_eq(
        ALARM.count(),
        1,
        "it runs as soon as the signal is unblocked",
    );
    ALARM.take();
    data_is_right(demo, slow, 2, value);
}

static START_NS: AtomicU64 = AtomicU64::new(0);

/// Starts the timer and reads eight bytes of page number `which`: when they came, and what they are.
fn touch(slow: &SlowFile, which: usize, first: Duration, interval: Duration) -> (u64, u64) {
    let address = slow.region.addr() + slow.pages[which];
    FIRST_RAN_NS.store(0, SeqCst);
    START_NS.store(now_ns(), SeqCst);
    time::set_timer(first, interval).expect("setitimer");
    let value = probe::load(address).expect("no handler goes to the recovery");
    (now_ns(), value)
}

/// Waits for the handler if the page was faster.
fn wait_for_alarm() {
    while ALARM.count() == 0 {
        std::hint::spin_loop();
    }
}

fn data_is_right(demo: &mut Demo, slow: &SlowFile, which: usize, value: u64) {
    let offset = slow.pages[which];
    let mut expected = [0; PAGE];
    slow.file
        .read_exact_at(&mut expected, offset as u64)
        .expect("pread");
    demo.check(
        expected.starts_with(&value.to_le_bytes()),
        "the access gave the file's bytes",
    );
    demo.check(
        slow.region.bytes(offset, PAGE) == expected,
        "the whole page equals what read(2) gives",
    );
}

fn since_start(at_ns: u64) -> u64 {
    at_ns.saturating_sub(START_NS.load(SeqCst)) / 1_000_000
}

fn ns(time: Duration) -> u64 {
    time.as_nanos() as u64
}
