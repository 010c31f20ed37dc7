//! Page faults on mapped files.

use core::ffi::{c_int, c_void};

use linux_raw_sys::general as abi;

use crate::check::{Counter, done, require};
use crate::measure::{self, SAMPLES};
use crate::memory::{PAGE, READ, RW, Region};
use crate::report;
use crate::sys::{self, Fd};
use crate::threads::Thread;

/// Pages from one access to the next: farther than a kernel looks ahead.
const STEP: usize = 16;
const COUNT: usize = 128;
const PAGES: usize = STEP * COUNT;

/// A file in memory whose pages all begin with another byte.
fn file() -> Fd {
    const NAME: &str = "/tmp/bench-file\0";
    let flags = abi::O_CREAT | abi::O_RDWR | abi::O_TRUNC;
    let fd = done(sys::open(NAME, flags, 0o600), "a file is made");
    crate::image::remove(NAME);
    for page in 0..PAGES {
        let bytes = [byte_of(page); PAGE];
        require(sys::write(fd, &bytes) == PAGE as isize, "a file is written");
    }
    fd
}

fn byte_of(page: usize) -> u8 {
    (page % 251) as u8 + 1
}

/// A read of a page in the page cache.
pub fn read() {
    let fd = file();
    for _ in 0..4 {
        let region = Region::private_file(fd, PAGES * PAGE, READ);
        for page in (0..PAGES).step_by(STEP) {
            let value = SAMPLES.time(|| region.read(page));
            require(value == byte_of(page), "the file's contents are there");
        }
    }
}

/// A write to a page of a shared mapping.
pub fn write_shared() {
    let fd = file();
    let region = Region::shared_file(fd, PAGES * PAGE, RW);
    for page in 0..512 {
        SAMPLES.time(|| region.write(page, 0));
    }
    let mut bytes = [1; PAGE];
    for page in 0..512 {
        // SAFETY: a place for a page.
        let count = unsafe {
            sys::call4(
                abi::__NR_pread64,
                fd,
                bytes.as_mut_ptr().addr(),
                PAGE,
                page * PAGE,
            )
        };
        require(count == PAGE as isize, "the file can be read");
        let holds = bytes[0] == 0 && bytes[1..].iter().all(|&byte| byte == byte_of(page));
        require(holds, "the write is in the file");
    }
}

/// A write to a page of a private mapping.
pub fn write_private() {
    let fd = file();
    let region = Region::private_file(fd, PAGES * PAGE, RW);
    for page in 0..512 {
        SAMPLES.time(|| region.write(page, 0));
        require(region.read(page) == 0, "the write was done");
    }
    let other = Region::private_file(fd, PAGES * PAGE, READ);
    for page in 0..512 {
        require(other.read(page) == byte_of(page), "the file is as it was");
    }
}

static VICTIM: Counter = Counter::new();
static ROUND: Counter = Counter::new();
static SENT: Counter = Counter::new();
static HANDLED: Counter = Counter::new();

extern "C" fn caught(_: c_int, _: *mut abi::siginfo_t, _: *mut c_void) {
    HANDLED.set(measure::stop());
}

extern "C" fn send_once_a_round(_: usize) {
    for round in 1..=COUNT as u64 {
        while ROUND.get() < round {
            sys::sched_yield();
        }
        // The other thread comes to its access, and blocks, before this one runs again.
        sys::sched_yield();
        SENT.set(measure::start());
        sys::signal_thread(VICTIM.get() as usize, abi::SIGUSR1);
        while ROUND.get() == round && HANDLED.get() < SENT.get() {
            sys::sched_yield();
        }
    }
}

/// From a signal to its handler, in a thread that waits for a page from the disk.
pub fn signal_in_disk_fault() {
    let Some(path) = report::disk() else { return };
    let mut name = [0; 64];
    require(path.len() < name.len(), "a short name");
    name[..path.len()].copy_from_slice(path.as_bytes());
    let name = str::from_utf8(&name).unwrap_or_default();
    let fd = done(sys::open(name, abi::O_RDONLY, 0), "the file on the disk");
    let region = Region::private_file(fd, PAGES * PAGE, READ);
    VICTIM.set(sys::gettid() as u64);
    sys::on(abi::SIGUSR1, caught, 0);
    let sender = Thread::start(send_once_a_round, 0);
    for round in 1..=COUNT {
        ROUND.set(round as u64);
        let page = (round - 1) * STEP;
        let value = region.read(page);
        require(value == byte_of(page), "the disk's contents are there");
        require(
            HANDLED.get() > SENT.get(),
            "the handler ran while the page was read",
        );
        SAMPLES.add(HANDLED.get() - SENT.get());
    }
    ROUND.bump();
    sender.join();
}
