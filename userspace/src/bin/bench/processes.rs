//! Processes made, turned into other programs, and waited for.

use crate::check::require;
use crate::measure::SAMPLES;
use crate::memory::Region;
use crate::{LEAVE, image, sys};

/// fork, exit and wait of a small process.
pub fn fork() {
    forks(100);
}

/// The same with 16 MiB of touched memory.
pub fn fork_16m() {
    let region = Region::anonymous(16 << 20);
    region.fill(1);
    forks(12);
    require(
        (0..region.pages()).all(|page| region.read(page) == 1),
        "memory is as it was",
    );
}

pub fn forks(rounds: u32) {
    for round in 0..rounds {
        let status = SAMPLES.time(|| {
            let child = sys::fork();
            if child == 0 {
                sys::exit(round as i32);
            }
            sys::wait(child)
        });
        require(
            status == (round as i32) << 8,
            "the child's own status comes back",
        );
    }
}

/// fork, exec of this program, which ends at once, and wait.
pub fn exec() {
    const SELF: &str = "/proc/self/exe\0";
    const ITSELF: &str = "/init\0";
    const { assert!(LEAVE.len() == 5) };
    // Where there is no /proc the program is the machine's init.
    let program = if image::exists(SELF) { SELF } else { ITSELF };
    runs(program, 60, 0);
}

/// The same with a program of 2 MiB that reads from each of its pages.
pub fn exec_2m() {
    const PROGRAM: &str = "/tmp/bench-program\0";
    let status = image::write(PROGRAM, 2 << 20);
    runs(PROGRAM, 20, status);
    image::remove(PROGRAM);
}

fn runs(program: &'static str, rounds: u32, expected: i32) {
    for _ in 0..rounds {
        let status = SAMPLES.time(|| {
            let child = sys::fork();
            if child == 0 {
                sys::exec(program, "leave\0");
            }
            sys::wait(child)
        });
        require(status == expected << 8, "the program ends as it should");
    }
}
