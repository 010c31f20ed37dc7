//! Which blocking calls go on after a signal, and which end with EINTR (`signal(7)`): each one is interrupted by a handler without
//! SA_RESTART, by one with it, and by being stopped and continued.
//!
//! A helper process watches the caller's state, so that the signal comes when the call sleeps, and lets the call succeed once it sleeps
//! again. A call that returns before that was ended by the signal.

mod files;
mod harness;
mod polls;
mod queues;
mod waits;

use std::process::ExitCode;

use userspace::report::Demo;

use files::{
    flock, open_fifo, read_eventfd, read_pipe, read_terminal, read_timerfd, record_lock, recv,
    send, write_eventfd, write_pipe,
};
use harness::Outcome::{self, GoesOn, Interrupted};
use harness::{How, Row, run};
use polls::{Call, poll};
use queues::{mq_receive, mq_send, msgrcv, msgsnd, semop};
use waits::{
    LONG, clock_nanosleep, futex, nanosleep, pause, read_signalfd, sigsuspend, sigtimedwait, wait4,
    waitid,
};

/// A call's name, what prepares it, and how it comes out for each of [`WAYS`].
type Case = (&'static str, fn() -> Row, [Outcome; 3]);

/// Goes on after a handler with SA_RESTART.
const RESTARTS: [Outcome; 3] = [Interrupted, GoesOn, GoesOn];
/// Never goes on after a handler, whatever its flags.
const NO_HANDLER: [Outcome; 3] = [Interrupted, Interrupted, GoesOn];
/// Is ended even by a stop.
const NEVER: [Outcome; 3] = [Interrupted, Interrupted, Interrupted];

const CASES: &[Case] = &[
    ("read, pipe", read_pipe, RESTARTS),
    ("write, full pipe", write_pipe, RESTARTS),
    ("read, eventfd", read_eventfd, RESTARTS),
    ("write, full eventfd", write_eventfd, RESTARTS),
    ("read, timerfd", read_timerfd, RESTARTS),
    ("read, signalfd", read_signalfd, RESTARTS),
    ("read, terminal", read_terminal, RESTARTS),
    ("recv, socket", recv, RESTARTS),
    ("send, full socket", send, RESTARTS),
    ("open, FIFO", open_fifo, RESTARTS),
    ("flock", flock, RESTARTS),
    ("fcntl, record lock", record_lock, RESTARTS),
    ("mq_receive", mq_receive, RESTARTS),
    ("mq_send, full queue", mq_send, RESTARTS),
    ("msgrcv", msgrcv, NO_HANDLER),
    ("msgsnd, full queue", msgsnd, NO_HANDLER),
    ("semop", || semop(false), NEVER),
    ("semtimedop", || semop(true), NEVER),
    ("wait4", wait4, RESTARTS),
    ("waitid", waitid, RESTARTS),
    ("futex", || futex(None), RESTARTS),
    ("futex, time-out", || futex(Some(LONG)), NO_HANDLER),
    ("nanosleep", nanosleep, NO_HANDLER),
    ("clock_nanosleep", || clock_nanosleep(false), NO_HANDLER),
    (
        "clock_nanosleep, until",
        || clock_nanosleep(true),
        NO_HANDLER,
    ),
    ("pause", pause, NO_HANDLER),
    ("sigsuspend", sigsuspend, NO_HANDLER),
    ("sigtimedwait", sigtimedwait, NEVER),
    ("poll", || poll(Call::Poll(-1)), NO_HANDLER),
    ("poll, time-out", || poll(Call::Poll(20_000)), NO_HANDLER),
    ("ppoll", || poll(Call::Ppoll), NO_HANDLER),
    ("select", || poll(Call::Select), NO_HANDLER),
    ("pselect", || poll(Call::Pselect), NO_HANDLER),
    ("epoll_wait", || poll(Call::EpollWait), NEVER),
    ("epoll_pwait", || poll(Call::EpollPwait), NEVER),
];

const WAYS: [How; 3] = [
    How::Handler { restart: false },
    How::Handler { restart: true },
    How::Stop,
];

fn main() -> ExitCode {
    let mut demo = Demo::start(
        "restart",
        "which blocking calls go on after a signal, and which end with EINTR",
    );
    demo.step("interrupt each call by a handler, by one with SA_RESTART, and by a stop");
    demo.note(format_args!(
        "{:<24} {:<8} {:<8} stopped and continued",
        "", "handler", "restart"
    ));
    let mut as_expected = 0;
    for (name, prepare, expected) in CASES {
        let seen = WAYS.map(|how| run(*prepare, how));
        let [plain, restart, stop] = seen;
        demo.note(format_args!("{name:<24} {plain:<8} {restart:<8} {stop}"));
        as_expected += usize::from(seen == *expected);
    }
    demo.check_eq(
        as_expected,
        CASES.len(),
        "each call came out as signal(7) says",
    );
    demo.finish()
}
