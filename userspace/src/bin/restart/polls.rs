//! Calls that wait for one of several descriptors.

use std::mem::zeroed;
use std::ptr::null_mut;

use libc::{c_int, c_long};

use crate::files::{eventfd, write_one};
use crate::harness::{Row, result, row};
use crate::waits::{LONG, signal_set};

/// How a descriptor is waited for.
#[derive(Clone, Copy)]
pub enum Call {
    Poll(c_int),
    Ppoll,
    Select,
    Pselect,
    EpollWait,
    EpollPwait,
}

pub fn poll(how: Call) -> Row {
    let fd = eventfd(0);
    row(move || poll_once(how, fd), move || write_one(fd))
}

fn poll_once(how: Call, fd: c_int) -> c_long {
    let none = signal_set(0);
    let mut polled = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: all that the calls are given lives as long as they do.
    unsafe {
        let mut set: libc::fd_set = zeroed();
        libc::FD_SET(fd, &mut set);
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: 0,
        };
        let epoll = || {
            let epoll = libc::epoll_create1(0);
            libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &mut event.clone());
            epoll
        };
        result(match how {
            Call::Poll(timeout) => libc::poll(&mut polled, 1, timeout),
            Call::Ppoll => libc::ppoll(&mut polled, 1, &LONG, &none),
            Call::Select => {
                let mut time = libc::timeval {
                    tv_sec: 20,
                    tv_usec: 0,
                };
                libc::select(fd + 1, &mut set, null_mut(), null_mut(), &mut time)
            }
            Call::Pselect => libc::pselect(fd + 1, &mut set, null_mut(), null_mut(), &LONG, &none),
            Call::EpollWait => libc::epoll_wait(epoll(), &mut event, 1, 20_000),
            Call::EpollPwait => libc::epoll_pwait(epoll(), &mut event, 1, 20_000, &none),
        })
    }
}
