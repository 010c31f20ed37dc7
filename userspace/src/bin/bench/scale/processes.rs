//! Many processes that sleep.

use crate::check::require;
use crate::{pipes, processes, sys};

/// `count` processes that sleep until the pipe's end that comes back is closed.
fn sleepers(count: usize) -> sys::Fd {
    let [from, to] = sys::pipe();
    for _ in 0..count {
        if sys::fork() == 0 {
            sys::close(to);
            sys::read(from, &mut [0]);
            sys::exit(0);
        }
    }
    // All of them have come to their sleep.
    sys::sleep_seconds(1);
    to
}

fn wake(to: sys::Fd, count: usize) {
    sys::close(to);
    for _ in 0..count {
        require(sys::wait_any() == 0, "the sleepers end");
    }
}

/// fork, exit and wait of another one.
pub fn fork(count: usize) {
    let to = sleepers(count);
    processes::forks(20);
    wake(to, count);
}

/// A byte to another one and back.
pub fn switch(count: usize) {
    let to = sleepers(count);
    pipes::ping_pong();
    wake(to, count);
}
