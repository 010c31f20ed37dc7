//! pthread_cancel(3): the C library ends a thread by a signal, wherever it waits in the kernel.
//!
//! The stack of a cancelled thread is unwound, which Rust code does not allow here: the threads' bodies are functions of the C library
//! that wait. What is to happen inside such a thread does so in a signal handler, which interrupts the wait and returns.

use std::ffi::c_void;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use nix::sys::signal::{SaFlags, Signal};
use userspace::report::Demo;
use userspace::signals;

/// A thread's body, as pthread_create(3) wants it.
type Body = extern "C" fn(*mut c_void) -> *mut c_void;

unsafe extern "C" {
    fn pause() -> i32;
    fn sleep(seconds: u32) -> u32;
    fn getc(stream: *mut libc::FILE) -> i32;
    fn pthread_cancel(thread: libc::pthread_t) -> i32;
    fn pthread_setcancelstate(state: i32, old: *mut i32) -> i32;
}

const CANCEL_DISABLE: i32 = 1;
/// What a cancelled thread gives back (`PTHREAD_CANCELED`).
const CANCELED: usize = usize::MAX;

/// The key of the thread-specific data, and whether its destructor ran.
static KEY: AtomicUsize = AtomicUsize::new(0);
static CLEANED: AtomicBool = AtomicBool::new(false);
static HANDLED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let mut demo = Demo::start("cancellation", "a thread is ended wherever it waits");
    let mut key = 0;
    // SAFETY: the destructor only stores.
    unsafe { libc::pthread_key_create(&mut key, Some(clean)) };
    KEY.store(key as usize, SeqCst);
    demo.step("Blocked in pause(2), nanosleep(2), and on a semaphore (futex(2)).");
    let nothing = std::ptr::null_mut();
    // SAFETY: each is called as the C library would be by a program that gives the same argument: a number, or what the demo owns.
    unsafe {
        cancelled(&mut demo, "pause", body(pause as *const ()), nothing);
        let long = std::ptr::without_provenance_mut(1000);
        cancelled(&mut demo, "sleep", body(sleep as *const ()), long);
        let semaphore: *mut libc::sem_t = Box::leak(Box::new(std::mem::zeroed()));
        libc::sem_init(semaphore, 0, 0);
        let wait = body(libc::sem_wait as *const ());
        cancelled(&mut demo, "sem_wait", wait, semaphore.cast());
    }
    if let Err(error) = reading(&mut demo) {
        demo.check(false, format_args!("everything works: {error}"));
    }
    demo.finish()
}

/// # Safety
/// The function takes at most one word and returns at most one.
unsafe fn body(function: *const ()) -> Body {
    // SAFETY: as the caller promises; both are passed in the registers of a pointer.
    unsafe { std::mem::transmute(function) }
}

extern "C" fn clean(_: *mut c_void) {
    CLEANED.store(true, SeqCst);
}

/// Starts a thread, and gives it the time to fall asleep.
fn start(body: Body, argument: *mut c_void) -> libc::pthread_t {
    let mut thread = 0;
    // SAFETY: no attributes; what the argument is belongs to the body.
    let made = unsafe { libc::pthread_create(&mut thread, std::ptr::null(), body, argument) };
    assert_eq!(made, 0, "pthread_create");
    std::thread::sleep(Duration::from_millis(20));
    thread
}

fn join(thread: libc::pthread_t) -> usize {
    let mut result = std::ptr::null_mut();
    // SAFETY: the thread was made by `start`, and is joined once.
    let joined = unsafe { libc::pthread_join(thread, &mut result) };
    assert_eq!(joined, 0, "pthread_join");
    result.addr()
}

fn cancel(thread: libc::pthread_t) -> i32 {
    // SAFETY: the thread was not joined yet.
    unsafe { pthread_cancel(thread) }
}

fn cancelled(demo: &mut Demo, what: &str, body: Body, argument: *mut c_void) {
    let thread = start(body, argument);
    demo.check_eq(
        (cancel(thread), join(thread)),
        (0, CANCELED),
        format_args!("{what} was cancelled"),
    );
}

extern "C" fn sets_data(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
    let value = std::ptr::without_provenance::<c_void>(1);
    // SAFETY: the key was made before the first thread.
    unsafe { libc::pthread_setspecific(KEY.load(SeqCst) as libc::pthread_key_t, value) };
    HANDLED.store(true, SeqCst);
}

extern "C" fn switches_off(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: takes a number.
    unsafe { pthread_setcancelstate(CANCEL_DISABLE, std::ptr::null_mut()) };
    HANDLED.store(true, SeqCst);
}

/// Lets the thread handle a signal.
fn interrupt(thread: libc::pthread_t, signal: Signal) {
    HANDLED.store(false, SeqCst);
    // SAFETY: the thread was not joined yet.
    unsafe { libc::pthread_kill(thread, signal as i32) };
    while !HANDLED.load(SeqCst) {
        std::thread::yield_now();
    }
}

fn reading(demo: &mut Demo) -> std::io::Result<()> {
    signals::on(Signal::SIGUSR1, SaFlags::SA_RESTART, sets_data)?;
    signals::on(Signal::SIGUSR2, SaFlags::SA_RESTART, switches_off)?;
    let mut pipe = [0; 2];
    // SAFETY: two places for two descriptors; the stream takes the first.
    let stream = unsafe {
        libc::pipe(pipe.as_mut_ptr());
        libc::fdopen(pipe[0], c"r".as_ptr())
    };
    // SAFETY: takes a stream and returns a number.
    let getc = unsafe { body(getc as *const ()) };

    demo.step("Cancellation switched off by the handler of a signal that interrupts read(2).");
    let thread = start(getc, stream.cast());
    interrupt(thread, Signal::SIGUSR2);
    demo.check_eq(cancel(thread), 0, "it is asked to end");
    std::thread::sleep(Duration::from_millis(20));
    // SAFETY: one byte of a constant.
    unsafe { libc::write(pipe[1], c"x".as_ptr().cast(), 1) };
    demo.check_eq(
        join(thread),
        usize::from(b'x'),
        "and goes on reading, as the read was restarted",
    );

    demo.step("Thread-specific data set by the handler of such a signal.");
    let thread = start(getc, stream.cast());
    interrupt(thread, Signal::SIGUSR1);
    demo.check_eq(
        (cancel(thread), join(thread)),
        (0, CANCELED),
        "the restarted read was cancelled",
    );
    demo.check(CLEANED.load(SeqCst), "the destructor ran");
    Ok(())
}
