//! Signals among threads: which thread takes one, whom it was meant for, and what the others see of it.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread;

use nix::sys::signal::{SaFlags, SigSet, SigmaskHow, Signal, kill, pthread_sigmask};
use nix::unistd::getpid;
use userspace::report::Demo;
use userspace::signals;

const USR1: Signal = Signal::SIGUSR1;
const USR2: Signal = Signal::SIGUSR2;
/// Signals sent to each thread in the crowd.
const EACH: usize = 50;

fn main() -> ExitCode {
    let mut demo = Demo::start(
        "thread-directed",
        "a signal for one thread, for any, and for the one that waits",
    );
    for signal in [USR1, USR2, Signal::SIGSEGV] {
        signals::on(signal, SaFlags::empty(), handler).expect("sigaction");
    }
    to_one(&mut demo);
    with_a_value(&mut demo);
    to_any(&mut demo);
    to_a_waiter(&mut demo);
    of_its_own(&mut demo);
    crowd(&mut demo);
    demo.finish()
}

/// The handler's last visit: who, si_code, si_value.
static VISITOR: AtomicI32 = AtomicI32::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);
static VALUE: AtomicU64 = AtomicU64::new(0);
static VISITS: AtomicU64 = AtomicU64::new(0);

fn tid() -> i32 {
    nix::unistd::gettid().as_raw()
}

extern "C" fn handler(signo: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel's siginfo is valid while the handler runs.
    let (code, value) = unsafe { ((*info).si_code, (*info).si_value().sival_ptr) };
    VISITOR.store(tid(), SeqCst);
    CODE.store(code, SeqCst);
    VALUE.store(value.addr() as u64, SeqCst);
    VISITS.fetch_add(1, SeqCst);
    if signo == libc::SIGSEGV {
        FAULTED.store(true, SeqCst);
        // SAFETY: makes the fault go away; the page is this program's own.
        unsafe {
            libc::mprotect(
                PAGE.load(SeqCst) as *mut libc::c_void,
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
            )
        };
    }
}

/// Waits for the handler's `count`th visit.
fn wait_for(count: u64) {
    while VISITS.load(SeqCst) < count {
        thread::yield_now();
    }
}

/// A thread that lives until the returned channel goes, and what names it.
fn sleeper(
    blocked: &[Signal],
) -> (
    i32,
    libc::pthread_t,
    mpsc::Sender<()>,
    thread::JoinHandle<()>,
) {
    let (told, hear) = mpsc::channel();
    let (live, life) = mpsc::channel::<()>();
    let mask: SigSet = blocked.iter().copied().collect();
    let handle = thread::spawn(move || {
        pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&mask), None).expect("sigmask");
        // SAFETY: a thread may always name itself.
        told.send((tid(), unsafe { libc::pthread_self() }))
            .expect("heard");
        let _ = life.recv();
    });
    let (tid, thread) = hear.recv().expect("told");
    (tid, thread, live, handle)
}

fn to_one(demo: &mut Demo) {
    demo.step("tgkill(2) to one of three threads.");
    let threads: Vec<_> = (0..3).map(|_| sleeper(&[])).collect();
    for (tid, ..) in &threads {
        let before = VISITS.load(SeqCst);
        // SAFETY: the call takes three numbers.
        let sent =
            unsafe { libc::syscall(libc::SYS_tgkill, getpid().as_raw(), *tid, libc::SIGUSR1) };
        wait_for(before + 1);
        demo.check(
            sent == 0 && VISITOR.load(SeqCst) == *tid,
            "that one ran the handler",
        );
        demo.check_eq(CODE.load(SeqCst), libc::SI_TKILL, "si_code is SI_TKILL");
    }
    // SAFETY: as above.
    let wrong = unsafe { libc::syscall(libc::SYS_tgkill, 1, threads[0].0, libc::SIGUSR1) };
    demo.check_eq(wrong, -1, "a thread is not found in another process");
    for (_, _, live, handle) in threads {
        drop(live);
        handle.join().expect("ends");
    }
}

fn with_a_value(demo: &mut Demo) {
    demo.step("pthread_sigqueue(3) sends a value along.");
    let (tid, thread, live, handle) = sleeper(&[]);
    let before = VISITS.load(SeqCst);
    let value = libc::sigval {
        sival_ptr: std::ptr::without_provenance_mut(4711),
    };
    // SAFETY: the thread lives until `live` goes.
    let sent = unsafe { libc::pthread_sigqueue(thread, libc::SIGUSR2, value) };
    wait_for(before + 1);
    demo.check_eq(sent, 0, "it was queued");
    demo.check_eq(VISITOR.load(SeqCst), tid, "that thread ran the handler");
    demo.check_eq(
        (CODE.load(SeqCst), VALUE.load(SeqCst)),
        (libc::SI_QUEUE, 4711),
        "SI_QUEUE, with the value",
    );
    drop(live);
    handle.join().expect("ends");
}

fn to_any(demo: &mut Demo) {
    demo.step("kill(2) for the process while only one thread does not block the signal.");
    let willing = sleeper(&[]);
    let unwilling = sleeper(&[USR1]);
    let block: SigSet = [USR1].into_iter().collect();
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&block), None).expect("sigmask");
    let before = VISITS.load(SeqCst);
    kill(getpid(), USR1).expect("kill");
    wait_for(before + 1);
    demo.check_eq(VISITOR.load(SeqCst), willing.0, "that one took it");
    demo.check_eq(CODE.load(SeqCst), libc::SI_USER, "si_code is SI_USER");
    for (_, _, live, handle) in [willing, unwilling] {
        drop(live);
        handle.join().expect("ends");
    }
    demo.note("now all block it");
    kill(getpid(), USR1).expect("kill");
    demo.check_eq(VISITS.load(SeqCst), before + 1, "it waits for the process");
    pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&block), None).expect("sigmask");
    demo.check_eq(
        VISITOR.load(SeqCst),
        tid(),
        "who unblocks it takes it, before the call returns",
    );
}

fn to_a_waiter(demo: &mut Demo) {
    demo.step("A thread that waits with sigwait(3) takes it without a handler.");
    let block: SigSet = [USR2].into_iter().collect();
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&block), None).expect("sigmask");
    let before = VISITS.load(SeqCst);
    let waiter = thread::spawn(move || block.wait());
    kill(getpid(), USR2).expect("kill");
    demo.check_eq(waiter.join().expect("ends"), Ok(USR2), "it was told which");
    demo.check_eq(VISITS.load(SeqCst), before, "no handler ran");
    pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&block), None).expect("sigmask");
}

static PAGE: AtomicU64 = AtomicU64::new(0);
static FAULTED: AtomicBool = AtomicBool::new(false);

fn of_its_own(demo: &mut Demo) {
    demo.step("A thread's bad access is its own affair.");
    // SAFETY: a new mapping of its own.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    PAGE.store(page.addr() as u64, SeqCst);
    let at = page.addr();
    let faulting = thread::spawn(move || {
        // SAFETY: the page is there; its protection is repaired by the handler.
        unsafe { std::ptr::with_exposed_provenance_mut::<u8>(at).write_volatile(1) };
        tid()
    });
    let own = faulting.join().expect("ends");
    demo.check(FAULTED.load(SeqCst), "SIGSEGV was handled");
    demo.check_eq(VISITOR.load(SeqCst), own, "by the thread that faulted");
}

static COUNTS: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];
thread_local! {
    static PLACE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

extern "C" fn count(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    COUNTS[PLACE.get()].fetch_add(1, SeqCst);
}

fn crowd(demo: &mut Demo) {
    demo.step("Eight threads get fifty real-time signals each.");
    // SAFETY: the handler touches atomics and a thread's own cell without a destructor.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigaction(libc::SIGRTMIN(), &action, std::ptr::null_mut());
    }
    let (told, hear) = mpsc::channel();
    let threads: Vec<_> = (0..COUNTS.len())
        .map(|place| {
            let told = told.clone();
            thread::spawn(move || {
                PLACE.set(place);
                // SAFETY: a thread may always name itself.
                told.send(unsafe { libc::pthread_self() }).expect("heard");
                while COUNTS[place].load(SeqCst) < EACH as u64 {
                    thread::yield_now();
                }
            })
        })
        .collect();
    let targets: Vec<_> = (0..COUNTS.len())
        .map(|_| hear.recv().expect("told"))
        .collect();
    let mut refused = 0;
    for _ in 0..EACH {
        for &target in &targets {
            // SAFETY: the thread lives until it has got them all.
            while unsafe { libc::pthread_kill(target, libc::SIGRTMIN()) } != 0 {
                refused += 1;
                thread::yield_now();
            }
        }
    }
    let ended = threads.into_iter().all(|thread| thread.join().is_ok());
    demo.varies(format_args!("{refused} times the queue was full"));
    demo.check(ended, "all ended");
    let counts: Vec<u64> = COUNTS.iter().map(|count| count.load(SeqCst)).collect();
    demo.check_eq(
        counts,
        vec![EACH as u64; COUNTS.len()],
        "none was lost or doubled",
    );
}
