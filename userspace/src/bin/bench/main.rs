//! What operations cost: each one many times, its work checked, in ticks of the time-stamp counter. On the deterministic machine these are
//! instructions, the kernel's and the program's own together.
//!
//!     bench [--disk FILE] [--scale] [FILTER...]
//!
//! runs the operations whose names contain one of the filters, or are one behind `=` (all without any), and prints a line for each ([`report`]). With `--scale` it is other operations, each among
//! more and more of something ([`scale`]). The program uses
//! neither libc nor std, so that what is measured is the kernel, and a fork has little to copy. Every operation runs in a process of its
//! own and leaves nothing to the next one. As process 1 of a machine the program turns the machine off at the end.

#![no_std]
#![no_main]

mod areas;
mod calls;
mod check;
mod faults;
mod files;
mod image;
mod measure;
mod memory;
mod operations;
mod pipes;
mod processes;
mod report;
mod runtime;
mod scale;
mod signals;
mod sys;
mod threads;
mod userfault;

use operations::Operation;
use runtime::Arguments;

/// The argument with which the program ends at once: what the operations that run a program run.
pub const LEAVE: &str = "leave";

fn main(arguments: Arguments) -> i32 {
    let (mut disk, mut scale) = (None, false);
    let mut filters = Filters::default();
    let mut words = arguments.skip(1);
    while let Some(word) = words.next() {
        match word {
            LEAVE => return 0,
            "--disk" => disk = words.next(),
            "--scale" => scale = true,
            filter => filters.add(filter),
        }
    }
    measure::settle();
    report::machine();
    let mut failed = false;
    if scale {
        for subject in scale::ALL.iter().filter(|all| filters.let_pass(all.name)) {
            for size in subject.sizes {
                failed |= !report::run(subject.name, Some(size), || (subject.run)(size), disk);
            }
        }
    } else {
        let with_disk = |all: &&Operation| disk.is_some() || !all.needs_disk;
        let chosen = operations::ALL.iter().filter(with_disk);
        for operation in chosen.filter(|all| filters.let_pass(all.name)) {
            failed |= !report::run(operation.name, None, operation.run, disk);
        }
    }
    report::end();
    if sys::getpid() == 1 {
        sys::power_off();
    }
    i32::from(failed)
}

/// What the names of the operations are to contain.
#[derive(Default)]
struct Filters {
    words: [&'static str; 16],
    count: usize,
}

impl Filters {
    fn add(&mut self, word: &'static str) {
        check::require(self.count < self.words.len(), "at most 16 filters");
        self.words[self.count] = word;
        self.count += 1;
    }

    fn let_pass(&self, tested: &str) -> bool {
        let words = &self.words[..self.count];
        words.is_empty()
            || words.iter().any(|word| match word.strip_prefix('=') {
                Some(name) => tested == name,
                None => tested.contains(word),
            })
    }
}
