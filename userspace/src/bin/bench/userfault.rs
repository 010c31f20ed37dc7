//! Page faults that another thread answers.

use core::ffi::{c_int, c_void};
use core::mem::{MaybeUninit, size_of};

use linux_raw_sys::general as abi;
use linux_raw_sys::ioctl;

use crate::check::{Counter, done, require};
use crate::measure::{self, SAMPLES};
use crate::memory::{PAGE, Region};
use crate::sys::{self, Fd};
use crate::threads::Thread;

const PAGES: usize = 256;

static UFFD: Counter = Counter::new();
static VICTIM: Counter = Counter::new();
static SENT: Counter = Counter::new();
static HANDLED: Counter = Counter::new();

fn request<T>(fd: Fd, number: u32, argument: &mut T) -> isize {
    // SAFETY: each request has an argument of its own type.
    unsafe {
        sys::call3(
            abi::__NR_ioctl,
            fd,
            number as usize,
            &raw mut *argument as usize,
        )
    }
}

pub fn watch(region: &Region) -> Fd {
    // SAFETY: it makes a descriptor.
    let fd = done(
        unsafe { sys::call1(abi::__NR_userfaultfd, 0) },
        "userfaultfd",
    );
    let mut api = abi::uffdio_api {
        api: u64::from(abi::UFFD_API),
        features: 0,
        ioctls: 0,
    };
    done(request(fd, ioctl::UFFDIO_API, &mut api), "UFFDIO_API");
    let mut register = abi::uffdio_register {
        range: abi::uffdio_range {
            start: region.address() as u64,
            len: (region.pages() * PAGE) as u64,
        },
        mode: u64::from(abi::UFFDIO_REGISTER_MODE_MISSING),
        ioctls: 0,
    };
    done(
        request(fd, ioctl::UFFDIO_REGISTER, &mut register),
        "UFFDIO_REGISTER",
    );
    fd
}

/// Waits for a fault; its address.
#[inline(always)]
fn fault(fd: Fd) -> usize {
    let mut message = MaybeUninit::<abi::uffd_msg>::zeroed();
    // SAFETY: the message's own bytes.
    let bytes = unsafe {
        core::slice::from_raw_parts_mut(message.as_mut_ptr().cast(), size_of::<abi::uffd_msg>())
    };
    let count = sys::read(fd, bytes);
    require(
        count == size_of::<abi::uffd_msg>() as isize,
        "a fault is reported",
    );
    // SAFETY: any bytes are a message; one of a fault has an address.
    unsafe { message.assume_init().arg.pagefault.address as usize }
}

#[inline(always)]
pub fn fill(fd: Fd, address: usize, contents: &[u8; PAGE]) {
    let mut copy = abi::uffdio_copy {
        dst: (address & !(PAGE - 1)) as u64,
        src: contents.as_ptr().addr() as u64,
        len: PAGE as u64,
        mode: 0,
        copy: 0,
    };
    request(fd, ioctl::UFFDIO_COPY, &mut copy);
    require(copy.copy == PAGE as i64, "UFFDIO_COPY");
}

extern "C" fn answer(base: usize) {
    let fd = UFFD.get() as usize;
    let mut contents = [0; PAGE];
    for page in 0..PAGES {
        contents[0] = page as u8;
        let address = fault(fd);
        require(
            address & !(PAGE - 1) == base + page * PAGE,
            "the fault is on the page",
        );
        fill(fd, address, &contents);
    }
}

/// A read of a missing page, and another thread's copy for it.
pub fn copy() {
    let region = Region::anonymous(PAGES * PAGE);
    UFFD.set(watch(&region) as u64);
    let handler = Thread::start(answer, region.address());
    // It waits for faults when the first one comes.
    sys::sched_yield();
    for page in 0..PAGES {
        let value = SAMPLES.time(|| region.read(page));
        require(value == page as u8, "the handler's contents are there");
    }
    handler.join();
}

extern "C" fn caught(_: c_int, _: *mut abi::siginfo_t, _: *mut c_void) {
    HANDLED.set(measure::stop());
}

extern "C" fn signal_first(_: usize) {
    let fd = UFFD.get() as usize;
    let contents = [5; PAGE];
    for _ in 0..PAGES {
        let first = fault(fd);
        SENT.set(measure::start());
        sys::signal_thread(VICTIM.get() as usize, abi::SIGUSR1);
        // The access is made again after the handler.
        require(fault(fd) == first, "the same page is missing again");
        fill(fd, first, &contents);
    }
}

/// From a signal to its handler, in a thread whose fault waits.
pub fn signal() {
    let region = Region::anonymous(PAGES * PAGE);
    UFFD.set(watch(&region) as u64);
    VICTIM.set(sys::gettid() as u64);
    sys::on(abi::SIGUSR1, caught, 0);
    let handler = Thread::start(signal_first, 0);
    sys::sched_yield();
    for page in 0..PAGES {
        require(region.read(page) == 5, "the handler's contents are there");
        require(HANDLED.get() > SENT.get(), "the signal's handler ran");
        SAMPLES.add(HANDLED.get() - SENT.get());
    }
    handler.join();
}
