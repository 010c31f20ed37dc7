//! A byte through a pipe.

use crate::check::require;
use crate::measure::SAMPLES;
use crate::sys;

/// A byte written and read by the same process.
pub fn write_and_read() {
    let [from, to] = sys::pipe();
    for round in 0..1000 {
        let sent = [round as u8];
        let mut got = [0];
        SAMPLES.time(|| {
            sys::write(to, &sent);
            sys::read(from, &mut got);
        });
        require(got == sent, "the byte came through");
    }
}

/// A byte to another process and back.
pub fn ping_pong() {
    const ROUNDS: usize = 500;
    let [from_child, to_parent] = sys::pipe();
    let [from_parent, to_child] = sys::pipe();
    let child = sys::fork();
    if child == 0 {
        sys::close(to_child);
        let mut byte = [0];
        while sys::read(from_parent, &mut byte) == 1 {
            byte[0] = byte[0].wrapping_add(1);
            sys::write(to_parent, &byte);
        }
        sys::exit(0);
    }
    for round in 0..ROUNDS {
        let sent = [round as u8];
        let mut got = [0];
        SAMPLES.time(|| {
            sys::write(to_child, &sent);
            sys::read(from_child, &mut got);
        });
        require(
            got[0] == sent[0].wrapping_add(1),
            "the other process answers",
        );
    }
    sys::close(to_child);
    require(sys::wait(child) == 0, "the other process ends");
}
