//! Calls that wait for a descriptor to have or take something.

use std::mem::zeroed;
use std::ptr::null_mut;

use libc::{c_int, c_long};

use crate::harness::{NAP, Row, result, row, timed};

fn pipe() -> (c_int, c_int) {
    let mut ends = [0; 2];
    // SAFETY: a valid place for two descriptors.
    let made = unsafe { libc::pipe(ends.as_mut_ptr()) };
    assert_eq!(made, 0, "a pipe");
    (ends[0], ends[1])
}

pub fn write_one(fd: c_int) {
    let one = 1u64;
    // SAFETY: eight valid bytes.
    unsafe { libc::write(fd, (&raw const one).cast(), 8) };
}

fn read_eight(fd: c_int) -> c_long {
    let mut bytes = [0u8; 8];
    // SAFETY: eight bytes to be written.
    result(unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), 8) } as i64)
}

pub fn read_pipe() -> Row {
    let (read, write) = pipe();
    row(move || read_eight(read), move || write_one(write))
}

pub fn write_pipe() -> Row {
    let (read, write) = pipe();
    let page = [0u8; 4096];
    // SAFETY: valid descriptors and bytes.
    unsafe {
        libc::fcntl(write, libc::F_SETFL, libc::O_NONBLOCK);
        while libc::write(write, page.as_ptr().cast(), page.len()) > 0 {}
        libc::fcntl(write, libc::F_SETFL, 0);
    }
    row(
        // SAFETY: as above.
        move || result(unsafe { libc::write(write, page.as_ptr().cast(), page.len()) } as i64),
        move || {
            let mut page = [0u8; 4096];
            // SAFETY: a page to be written.
            unsafe { libc::read(read, page.as_mut_ptr().cast(), page.len()) };
        },
    )
}

pub fn eventfd(count: u32) -> c_int {
    // SAFETY: no memory is involved.
    unsafe { libc::eventfd(count, 0) }
}

pub fn read_eventfd() -> Row {
    let fd = eventfd(0);
    row(move || read_eight(fd), move || write_one(fd))
}

pub fn write_eventfd() -> Row {
    let fd = eventfd(0);
    let most = u64::MAX - 1;
    // SAFETY: eight valid bytes.
    unsafe { libc::write(fd, (&raw const most).cast(), 8) };
    row(
        move || {
            let one = 1u64;
            // SAFETY: eight valid bytes.
            result(unsafe { libc::write(fd, (&raw const one).cast(), 8) } as i64)
        },
        move || {
            read_eight(fd);
        },
    )
}

pub fn read_timerfd() -> Row {
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, 0) };
    timed(move || {
        // SAFETY: a valid value; the old one is not asked for.
        unsafe {
            let mut value: libc::itimerspec = zeroed();
            value.it_value = NAP;
            libc::timerfd_settime(fd, 0, &value, null_mut());
        }
        read_eight(fd)
    })
}

pub fn open_fifo() -> Row {
    let path = c"/tmp/restart-fifo";
    // SAFETY: a valid path.
    unsafe {
        libc::unlink(path.as_ptr());
        libc::mkfifo(path.as_ptr(), 0o600);
    }
    row(
        // SAFETY: a valid path.
        move || result(unsafe { libc::open(path.as_ptr(), libc::O_RDONLY) }),
        // SAFETY: a valid path.
        move || unsafe {
            libc::open(path.as_ptr(), libc::O_WRONLY);
        },
    )
}

/// A file that the caller locks when its helper lets go.
fn locked_file() -> c_int {
    let path = c"/tmp/restart-lock";
    // SAFETY: a valid path.
    unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o600) }
}

pub fn flock() -> Row {
    let (held, wanted) = (locked_file(), locked_file());
    // SAFETY: no memory is involved.
    unsafe { libc::flock(held, libc::LOCK_EX) };
    row(
        // SAFETY: no memory is involved.
        move || result(unsafe { libc::flock(wanted, libc::LOCK_EX) }),
        // SAFETY: no memory is involved.
        move || unsafe {
            libc::flock(held, libc::LOCK_UN);
        },
    )
}

/// Locks of open files: one process can wait for itself.
pub fn record_lock() -> Row {
    let (held, wanted) = (locked_file(), locked_file());
    let lock = |fd: c_int, kind: c_int, command: c_int| {
        // SAFETY: a valid lock: all of the file.
        unsafe {
            let mut lock: libc::flock = zeroed();
            lock.l_type = kind as libc::c_short;
            result(libc::fcntl(fd, command, &lock))
        }
    };
    lock(held, libc::F_WRLCK, libc::F_OFD_SETLK);
    row(
        move || lock(wanted, libc::F_WRLCK, libc::F_OFD_SETLKW),
        move || {
            lock(held, libc::F_UNLCK, libc::F_OFD_SETLK);
        },
    )
}

/// Both ends of a connection whose buffers are small.
fn sockets() -> (c_int, c_int) {
    let mut ends = [0; 2];
    // SAFETY: a valid place for two descriptors.
    let made = unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, ends.as_mut_ptr()) };
    assert_eq!(made, 0, "sockets");
    (ends[0], ends[1])
}

pub fn recv() -> Row {
    let (here, there) = sockets();
    row(
        move || {
            let mut bytes = [0u8; 8];
            // SAFETY: eight bytes to be written.
            result(unsafe { libc::recv(here, bytes.as_mut_ptr().cast(), 8, 0) } as i64)
        },
        move || write_one(there),
    )
}

pub fn send() -> Row {
    let (here, there) = sockets();
    let page = [0u8; 4096];
    let send = move |flags| {
        // SAFETY: valid bytes.
        result(unsafe { libc::send(here, page.as_ptr().cast(), page.len(), flags) } as i64)
    };
    while send(libc::MSG_DONTWAIT) > 0 {}
    row(
        move || send(0),
        move || {
            let mut page = [0u8; 4096];
            // SAFETY: a page to be written, until there is nothing more.
            while unsafe {
                libc::recv(
                    there,
                    page.as_mut_ptr().cast(),
                    page.len(),
                    libc::MSG_DONTWAIT,
                )
            } > 0
            {}
        },
    )
}

/// A terminal that nobody types at.
pub fn read_terminal() -> Row {
    // SAFETY: the name that is opened is a valid one.
    let (master, terminal) = unsafe {
        let master = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY);
        libc::unlockpt(master);
        (
            master,
            libc::open(libc::ptsname(master), libc::O_RDWR | libc::O_NOCTTY),
        )
    };
    row(
        move || read_eight(terminal),
        // SAFETY: one valid byte.
        move || unsafe {
            libc::write(master, b"\n".as_ptr().cast(), 1);
        },
    )
}
