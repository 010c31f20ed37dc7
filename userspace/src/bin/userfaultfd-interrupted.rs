//! A fault waits for a userfaultfd's handler, and a signal comes. User code's wait ends, the signal's handler runs, and the access is made
//! again. The wait of a system call goes on, as nothing would begin it again; only a deadly signal ends it.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SaFlags, Signal, kill};
use userfaultfd::{Event, Uffd, UffdBuilder};
use userspace::memory::{PAGE, RW, Region};
use userspace::process::{self, Ended};
use userspace::report::Demo;
use userspace::signals::{self, Caught, Slot};
use userspace::time::ms;

const MESSAGE: &[u8; 32] = b"thirty-two bytes through a pipe.";
const BYTE: u8 = b'*';
/// How long a system call is left waiting with a signal pending.
const WHILE: Duration = Duration::from_millis(500);

static CAUGHT: Slot = Slot::new();
static PAGE_CAME: AtomicBool = AtomicBool::new(false);
static RAN_BEFORE_PAGE: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    RAN_BEFORE_PAGE.store(!PAGE_CAME.load(SeqCst), SeqCst);
    // SAFETY: the kernel's own pointers.
    CAUGHT.store(&unsafe { Caught::read(info, context) });
}

fn main() -> ExitCode {
    let mut demo = Demo::start(
        "userfaultfd-interrupted",
        "a signal comes while a fault waits for a handler in user space",
    );
    let region = Region::anonymous(4 * PAGE, RW).expect("mmap");
    let uffd = open(&region);
    signals::on(Signal::SIGUSR1, SaFlags::empty(), on_signal).expect("sigaction");
    in_user_code(&mut demo, &uffd, &region);
    in_a_system_call(&mut demo, &uffd, &region);
    killed(&mut demo);
    demo.finish()
}

fn open(region: &Region) -> Uffd {
    let uffd = UffdBuilder::new()
        .user_mode_only(false)
        .create()
        .expect("userfaultfd");
    uffd.register(region.ptr(0).cast(), region.len())
        .expect("register");
    uffd
}

/// Waits for a fault; which page of the region it is on.
fn fault(uffd: &Uffd, base: usize) -> usize {
    match uffd.read_event() {
        Ok(Some(Event::Pagefault { addr, .. })) => (addr as usize - base) / PAGE,
        other => panic!("no fault: {other:?}"),
    }
}

fn fill(uffd: &Uffd, base: usize, page: usize) {
    let contents = [BYTE; PAGE];
    PAGE_CAME.store(true, SeqCst);
    let target = (base + page * PAGE) as *mut libc::c_void;
    // SAFETY: a registered page without contents.
    unsafe { uffd.copy(contents.as_ptr().cast(), target, PAGE, true) }.expect("copy");
}

/// The main thread, as others see it.
#[derive(Clone, Copy)]
struct Victim {
    thread: libc::pthread_t,
    clock: libc::clockid_t,
}

impl Victim {
    fn current() -> Victim {
        let mut clock = 0;
        // SAFETY: the current thread, and a valid place for the clock.
        let thread = unsafe { libc::pthread_self() };
        // SAFETY: as above.
        let failed = unsafe { libc::pthread_getcpuclockid(thread, &mut clock) };
        assert_eq!(failed, 0, "pthread_getcpuclockid");
        Victim { thread, clock }
    }

    fn signal(self) {
        // SAFETY: the main thread lives as long as the others.
        unsafe { libc::pthread_kill(self.thread, libc::SIGUSR1) };
    }

    fn cpu_time(self) -> Duration {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: a clock of a thread that lives, and a valid place for the time.
        unsafe { libc::clock_gettime(self.clock, &mut time) };
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
}

fn in_user_code(demo: &mut Demo, uffd: &Uffd, region: &Region) {
    demo.step("touch a page; the other thread answers with a signal first");
    let (victim, base) = (Victim::current(), region.addr());
    let pages = thread::scope(|scope| {
        let other = scope.spawn(move || {
            let first = fault(uffd, base);
            victim.signal();
            let second = fault(uffd, base);
            fill(uffd, base, second);
            (first, second)
        });
        let value = region.read(0);
        demo.check_eq(value, BYTE, "the access gave what the handler filled in");
        other.join().expect("the other thread")
    });
    demo.check_eq(
        CAUGHT.take().map(|caught| caught.signo),
        Some(libc::SIGUSR1),
        "the signal's handler ran",
    );
    demo.check(RAN_BEFORE_PAGE.load(SeqCst), "it ran before the page came");
    demo.check_eq(
        pages,
        (0, 0),
        "the access was made again, and asked for the page again",
    );
}

fn in_a_system_call(demo: &mut Demo, uffd: &Uffd, region: &Region) {
    demo.step("the same with read(2), whose buffer is a page that is not there");
    PAGE_CAME.store(false, SeqCst);
    let (victim, base) = (Victim::current(), region.addr());
    let (from, mut to) = process::pipe().expect("pipe");
    to.write_all(MESSAGE).expect("write");
    let (spent, ran) = thread::scope(|scope| {
        let other = scope.spawn(move || {
            let page = fault(uffd, base);
            victim.signal();
            let before = victim.cpu_time();
            thread::sleep(WHILE);
            let waited = (victim.cpu_time() - before, CAUGHT.count());
            fill(uffd, base, page);
            waited
        });
        // SAFETY: the page is ours; the kernel's access is what fills it.
        let count = unsafe { libc::read(from.as_raw_fd(), region.ptr(PAGE).cast(), 100) };
        demo.check_eq(count, MESSAGE.len() as isize, "the call was not cut short");
        other.join().expect("the other thread")
    });
    demo.varies(format_args!(
        "in {} ms of waiting with a signal pending the thread used {} ms of CPU",
        ms(WHILE),
        ms(spent)
    ));
    demo.note("(here it sleeps; Linux goes round in circles, as it does not take the signal that keeps it awake)");
    demo.check_eq(ran, 0, "the signal's handler did not run meanwhile");
    demo.check_eq(CAUGHT.count(), 1, "it ran when the call returned");
    CAUGHT.take();
    demo.check(
        region.bytes(PAGE, MESSAGE.len()) == *MESSAGE,
        "the bytes are there",
    );
    demo.check_eq(
        region.read(PAGE + MESSAGE.len()),
        BYTE,
        "and behind them what the handler filled in",
    );
}

fn killed(demo: &mut Demo) {
    demo.step("a child waits like that for a handler that never answers, and is killed");
    let (mut line, mut other) = process::Line::pair().expect("pipes");
    let child = process::child(|| {
        let region = Region::anonymous(PAGE, RW).expect("mmap");
        let uffd = open(&region);
        let base = region.addr();
        let (from, mut to) = process::pipe().expect("pipe");
        to.write_all(MESSAGE).expect("write");
        thread::spawn(move || {
            fault(&uffd, base);
            other.signal().expect("pipe");
            loop {
                thread::park();
            }
        });
        // SAFETY: as above.
        unsafe { libc::read(from.as_raw_fd(), region.ptr(0).cast(), 100) };
        1
    })
    .expect("fork");
    line.wait().expect("the child's fault");
    let start = Instant::now();
    kill(child, Signal::SIGKILL).expect("kill");
    let ended = process::wait(child).expect("wait");
    demo.check_eq(
        ended,
        Ended::Killed(libc::SIGKILL),
        "it ended by the signal",
    );
    demo.check(start.elapsed() < Duration::from_secs(2), "at once");
}
