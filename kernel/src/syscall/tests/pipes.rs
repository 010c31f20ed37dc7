//! Pipes, event counters and poll.

use linux_raw_sys::general as abi;

use crate::arch::sim::machine::run_test;
use crate::arch::time;
use crate::errno::{Errno, Result};
use crate::fs::testing::{USER, USER_LEN, get, mount_once, put, user_memory};
use crate::sched::current;
use crate::signal::Signal;
use crate::syscall::{fd, io, poll};
use crate::task::thread::flag;

const OUT: usize = 1 << 18;

fn test(body: impl FnOnce() + Send + 'static) {
    run_test(|| {
        mount_once();
        user_memory();
        body();
    });
}

fn pipe(flags: u32) -> (usize, usize) {
    fd::sys_pipe2(&[USER, flags as usize, 0, 0, 0, 0]).expect("room");
    let bytes = get(0, 8);
    (bytes[0] as usize, bytes[4] as usize)
}

fn write(fd: usize, len: usize) -> Result<usize> {
    io::sys_write(&[fd, USER, len, 0, 0, 0])
}

fn read(fd: usize, len: usize) -> Result<usize> {
    io::sys_read(&[fd, USER + OUT, len, 0, 0, 0])
}

fn close(fd: usize) {
    fd::sys_close(&[fd, 0, 0, 0, 0, 0]).expect("it is open");
}

/// The events that poll(2) tells of one descriptor without waiting.
fn events(fd: usize) -> u16 {
    let wanted = abi::POLLIN as u16 | abi::POLLOUT as u16;
    put(
        64,
        &[
            &(fd as u32).to_ne_bytes()[..],
            &wanted.to_ne_bytes(),
            &[0, 0],
        ]
        .concat(),
    );
    poll::sys_poll(&[USER + 64, 1, 0, 0, 0, 0]).expect("no error");
    let bytes = get(70, 2);
    u16::from_ne_bytes([bytes[0], bytes[1]])
}

#[test]
fn bytes_come_out_in_order() {
    test(|| {
        let (reader, writer) = pipe(0);
        put(0, b"abcdefgh");
        assert_eq!(write(writer, 8), Ok(8));
        assert_eq!(read(reader, 3), Ok(3));
        assert_eq!(get(OUT, 3), b"abc");
        assert_eq!(write(writer, 2), Ok(2));
        assert_eq!(read(reader, 100), Ok(7));
        assert_eq!(get(OUT, 7), b"defghab");
        close(writer);
        assert_eq!(read(reader, 100), Ok(0));
        assert_eq!(read(writer, 1), Err(Errno::EBADF));
    });
}

#[test]
fn full_and_empty_without_waiting() {
    test(|| {
        let (reader, writer) = pipe(abi::O_NONBLOCK);
        assert_eq!(read(reader, 1), Err(Errno::EAGAIN));
        assert_eq!(events(reader), 0);
        assert_eq!(events(writer), abi::POLLOUT as u16);
        assert_eq!(write(writer, 100_000), Ok(65536));
        assert_eq!(write(writer, 1), Err(Errno::EAGAIN));
        assert_eq!(events(writer), 0);
        assert_eq!(read(reader, 100), Ok(100));
        // A short write is whole or nothing, a long one takes what room there is.
        assert_eq!(write(writer, 4096), Err(Errno::EAGAIN));
        assert_eq!(write(writer, 5000), Ok(100));
        assert_eq!(
            fd::sys_fcntl(&[writer, abi::F_SETPIPE_SZ as usize, 4096, 0, 0, 0]),
            Err(Errno::EBUSY)
        );
        assert_eq!(
            fd::sys_fcntl(&[writer, abi::F_SETPIPE_SZ as usize, 100_000, 0, 0, 0]),
            Ok(131_072)
        );
        assert_eq!(write(writer, 100_000), Ok(65536));
    });
}

#[test]
fn no_reader_is_epipe_and_sigpipe() {
    test(|| {
        let (reader, writer) = pipe(0);
        assert_eq!(write(writer, 0), Ok(0));
        close(reader);
        assert_eq!(
            events(writer),
            (abi::POLLERR | abi::POLLOUT) as u16 & events(writer) | abi::POLLERR as u16
        );
        current().process.signals.lock().replace_action(
            Signal::SIGPIPE,
            crate::signal::Action {
                handler: 0x1000,
                ..crate::signal::Action::DEFAULT
            },
        );
        assert_eq!(write(writer, 1), Err(Errno::EPIPE));
        assert!(current().has_flag(flag::SIGPENDING));
        assert!(
            current()
                .signals
                .lock()
                .pending
                .set()
                .contains(Signal::SIGPIPE)
        );
    });
}

#[test]
fn a_bad_pointer_loses_nothing() {
    test(|| {
        let (reader, writer) = pipe(0);
        let end = USER + USER_LEN;
        put(USER_LEN - 10, b"0123456789");
        assert_eq!(
            io::sys_write(&[writer, end - 10, 20, 0, 0, 0]),
            Err(Errno::EFAULT)
        );
        // A write that is not atomic keeps what could be read.
        assert_eq!(io::sys_write(&[writer, end - 10, 5000, 0, 0, 0]), Ok(10));
        assert_eq!(io::sys_read(&[reader, end, 5, 0, 0, 0]), Err(Errno::EFAULT));
        assert_eq!(io::sys_read(&[reader, end - 4, 10, 0, 0, 0]), Ok(4));
        assert_eq!(read(reader, 100), Ok(6));
        assert_eq!(get(OUT, 6), b"456789");
    });
}

#[test]
fn a_write_faults_in_the_pages_it_needs() {
    test(|| {
        let (reader, writer) = pipe(0);
        // Never touched until now: the copy under the pipe's lock cannot bring these pages in.
        let fresh = USER + USER_LEN / 2;
        assert_eq!(
            io::sys_write(&[writer, fresh + 4000, 4096, 0, 0, 0]),
            Ok(4096)
        );
        assert_eq!(
            io::sys_write(&[writer, fresh + 16384, 50_000, 0, 0, 0]),
            Ok(50_000)
        );
        assert_eq!(
            io::sys_read(&[reader, fresh + 100_000, 54_096, 0, 0, 0]).map(|got| got > 0),
            Ok(true)
        );
    });
}

#[test]
fn poll_waits_until_its_deadline() {
    test(|| {
        let (reader, _writer) = pipe(0);
        put(
            64,
            &[&(reader as u32).to_ne_bytes()[..], &[1, 0, 0, 0]].concat(),
        );
        let before = time::now_ns();
        assert_eq!(poll::sys_poll(&[USER + 64, 1, 30, 0, 0, 0]), Ok(0));
        assert!(time::now_ns() - before >= 30_000_000);
        put(128, &1000i64.to_ne_bytes());
        assert_eq!(
            poll::sys_poll(&[USER + 64, 2000, 0, 0, 0, 0]),
            Err(Errno::EINVAL)
        );
    });
}

#[test]
fn select_tells_which() {
    test(|| {
        let (reader, writer) = pipe(0);
        let set = |fds: &[usize]| {
            fds.iter()
                .fold(0u64, |bits, fd| bits | 1 << fd)
                .to_ne_bytes()
        };
        put(256, &set(&[reader]));
        put(264, &set(&[reader, writer]));
        put(272, &[0; 16]);
        assert_eq!(
            poll::sys_select(&[10, USER + 256, USER + 264, 0, USER + 272, 0]),
            Ok(1)
        );
        assert_eq!(get(256, 16), [set(&[]), set(&[writer])].concat());
        write(writer, 1).expect("room");
        put(256, &set(&[reader]));
        assert_eq!(
            poll::sys_select(&[10, USER + 256, USER + 264, 0, USER + 272, 0]),
            Ok(2)
        );
        put(256, &set(&[20]));
        assert_eq!(
            poll::sys_select(&[64, USER + 256, 0, 0, USER + 272, 0]),
            Err(Errno::EBADF)
        );
    });
}

#[test]
fn event_counters() {
    test(|| {
        let counter = fd::sys_eventfd2(&[3, abi::EFD_NONBLOCK as usize, 0, 0, 0, 0]).expect("room");
        assert_eq!(read(counter, 8), Ok(8));
        assert_eq!(get(OUT, 8), 3u64.to_ne_bytes());
        assert_eq!(read(counter, 8), Err(Errno::EAGAIN));
        assert_eq!(read(counter, 7), Err(Errno::EINVAL));
        put(0, &u64::MAX.to_ne_bytes());
        assert_eq!(write(counter, 8), Err(Errno::EINVAL));
        put(0, &(u64::MAX - 1).to_ne_bytes());
        assert_eq!(write(counter, 8), Ok(8));
        assert_eq!(write(counter, 8), Err(Errno::EAGAIN));
        assert_eq!(events(counter), abi::POLLIN as u16);
        let semaphore = fd::sys_eventfd2(&[
            2,
            (abi::EFD_SEMAPHORE | abi::EFD_NONBLOCK) as usize,
            0,
            0,
            0,
            0,
        ])
        .expect("room");
        assert_eq!(read(semaphore, 8), Ok(8));
        assert_eq!(get(OUT, 8), 1u64.to_ne_bytes());
        assert_eq!(events(semaphore), (abi::POLLIN | abi::POLLOUT) as u16);
    });
}
