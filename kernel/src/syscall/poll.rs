//! poll(2), select(2) and their kin.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::Cell;

use linux_raw_sys::general as abi;

use super::args::{Args, max_files};
use super::time::read_timeout;
use crate::arch::time;
use crate::errno::{Errno, Result};
use crate::fs::stream::PollEvents;
use crate::fs::{self, File};
use crate::mm::uaccess::{self, UserPtr};
use crate::sched::current;
use crate::sched::timer::Deadline;
use crate::signal::{SigSet, send};
use crate::task::thread::RestartBlock;

/// One file that is polled.
struct Polled {
    file: Option<Arc<File>>,
    wanted: PollEvents,
    found: Cell<PollEvents>,
}

impl Polled {
    /// Looks at the file; whether there is something to tell.
    fn look(&self) -> bool {
        if let Some(file) = &self.file {
            let always = PollEvents::ERR | PollEvents::HUP | PollEvents::NVAL;
            self.found.set(file.poll() & (self.wanted | always));
        }
        !self.found.get().is_empty()
    }
}

/// Waits until a file is ready; how many are. 0 at the deadline. `EINTR` if a signal came.
fn wait(polled: &[Polled], deadline_ns: Option<u64>) -> Result<usize> {
    let files = polled.iter().filter_map(|polled| polled.file.as_ref());
    let deadline = deadline_ns.map(Deadline::Monotonic);
    let ready = fs::poll::wait(files, deadline, || {
        let ready = polled.iter().filter(|polled| polled.look()).count();
        (ready > 0).then_some(ready)
    })?;
    Ok(ready.unwrap_or(0))
}

/// Bytes of `struct pollfd`.
const POLLFD_SIZE: usize = size_of::<abi::pollfd>();

/// Reads an array of `struct pollfd`. `EINVAL` if it is longer than there can be files.
fn read_pollfds(fds: usize, count: usize) -> Result<Vec<Polled>> {
    if count as u64 > max_files() {
        return Err(Errno::EINVAL);
    }
    let mut polled = Vec::new();
    polled.try_reserve_exact(count)?;
    for n in 0..count {
        let bytes = UserPtr::<[u8; POLLFD_SIZE]>::new(fds).at(n).read()?;
        let fd = i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let wanted = PollEvents::from_bits_retain(u16::from_ne_bytes([bytes[4], bytes[5]]));
        let file = if fd < 0 {
            None
        } else {
            current().files().get(fd).ok()
        };
        let found = if fd >= 0 && file.is_none() {
            PollEvents::NVAL
        } else {
            PollEvents::empty()
        };
        polled.push(Polled {
            file,
            wanted,
            found: Cell::new(found),
        });
    }
    Ok(polled)
}

/// Polls and writes the answers. `EINTR` if a signal came first.
fn poll_once(fds: usize, count: usize, deadline_ns: Option<u64>) -> Result<usize> {
    let polled = read_pollfds(fds, count)?;
    let ready = wait(&polled, deadline_ns)?;
    for (n, polled) in polled.iter().enumerate() {
        UserPtr::<u16>::new(fds.wrapping_add(n * POLLFD_SIZE + 6))
            .write(polled.found.get().bits())?;
    }
    Ok(ready)
}

/// poll(2) with a deadline in ns since boot; goes on through restart_syscall(2) if a signal without a handler ends it.
pub fn poll_until(fds: usize, count: usize, deadline_ns: Option<u64>) -> Result<usize> {
    match poll_once(fds, count, deadline_ns) {
        Err(Errno::EINTR) => {
            *current().restart.lock() = RestartBlock::Poll {
                fds,
                nfds: count,
                deadline_ns,
            };
            Err(Errno::ERESTART_RESTARTBLOCK)
        }
        outcome => outcome,
    }
}

/// poll(2).
pub fn sys_poll(&[fds, count, timeout_ms, ..]: &Args) -> Result<usize> {
    let timeout = u64::try_from(timeout_ms as i32).ok();
    let deadline = timeout.map(|ms| time::now_ns() + ms * 1_000_000);
    poll_until(fds, count as u32 as usize, deadline)
}

/// Runs `call` with a signal mask of its own. When a signal ends it the mask stays until that is delivered.
pub(super) fn with_own_mask(
    mask: Option<SigSet>,
    call: impl FnOnce() -> Result<usize>,
) -> Result<usize> {
    let Some(mask) = mask else {
        return call();
    };
    send::set_temporary_mask(mask);
    let outcome = call();
    if outcome != Err(Errno::EINTR) {
        send::restore_mask();
    }
    outcome
}

/// The same for a call that is made again if no handler runs.
fn with_mask(mask: Option<SigSet>, call: impl FnOnce() -> Result<usize>) -> Result<usize> {
    with_own_mask(mask, call).map_err(|error| match error {
        Errno::EINTR => Errno::ERESTARTNOHAND,
        error => error,
    })
}

/// A signal mask from user memory. `EINVAL` unless it has the size of the kernel's.
pub(super) fn read_mask(mask: usize, size: usize) -> Result<Option<SigSet>> {
    match UserPtr::<u64>::optional(mask) {
        None => Ok(None),
        Some(_) if size != 8 => Err(Errno::EINVAL),
        Some(pointer) => pointer.read().map(|bits| Some(SigSet(bits))),
    }
}

/// Writes back what is left of a timeout, in seconds and units of `unit_ns`.
fn write_rest(timeout: usize, deadline_ns: Option<u64>, unit_ns: u64) {
    if let Some(deadline) = deadline_ns {
        let rest = deadline.saturating_sub(time::now_ns());
        let pair = [
            (rest / 1_000_000_000) as i64,
            (rest % 1_000_000_000 / unit_ns) as i64,
        ];
        // As on Linux, a timeout in read-only memory is no error.
        let _ = UserPtr::<[i64; 2]>::new(timeout).write(pair);
    }
}

/// ppoll(2).
pub fn sys_ppoll(&[fds, count, timeout, mask, mask_size, ..]: &Args) -> Result<usize> {
    let deadline = read_timeout(timeout)?;
    let mask = read_mask(mask, mask_size)?;
    let outcome = with_mask(mask, || poll_once(fds, count as u32 as usize, deadline));
    write_rest(timeout, deadline, 1);
    outcome
}

/// The sets of select(2), in the order of its arguments, and what puts a file into each.
const SETS: [PollEvents; 3] = [
    PollEvents::READABLE
        .union(PollEvents::HUP)
        .union(PollEvents::ERR),
    PollEvents::WRITABLE.union(PollEvents::ERR),
    PollEvents::PRI,
];

/// What files must be polled for to fill each set.
const WANTED: [PollEvents; 3] = [PollEvents::READABLE, PollEvents::WRITABLE, PollEvents::PRI];

/// Most descriptors that select(2) looks at: bits of a kernel-side set.
const SELECT_MAX: usize = crate::fs::table::MAX_FILES;
const SET_BYTES: usize = SELECT_MAX / 8;

fn select(count: usize, sets: [usize; 3], deadline_ns: Option<u64>) -> Result<usize> {
    let count = usize::try_from(count as i32)
        .map_err(|_| Errno::EINVAL)?
        .min(SELECT_MAX);
    let bytes = count.div_ceil(64) * 8;
    let mut bits: Vec<u8> = Vec::new();
    bits.try_reserve_exact(3 * SET_BYTES)?;
    bits.resize(3 * SET_BYTES, 0);
    for (set, &addr) in sets.iter().enumerate().filter(|(_, addr)| **addr != 0) {
        uaccess::read_bytes(addr, &mut bits[set * SET_BYTES..][..bytes])?;
    }
    let has = |set: usize, fd: usize| bits[set * SET_BYTES + fd / 8] & 1 << (fd % 8) != 0;
    let mut polled: Vec<Polled> = Vec::new();
    let mut numbers: Vec<usize> = Vec::new();
    for fd in 0..count {
        let sets = (0..3)
            .filter(|&set| has(set, fd))
            .fold(PollEvents::empty(), |all, set| all | WANTED[set]);
        if sets.is_empty() {
            continue;
        }
        polled.try_reserve(1)?;
        numbers.try_reserve(1)?;
        let file = current().files().get(fd as i32)?;
        polled.push(Polled {
            file: Some(file),
            wanted: sets,
            found: Cell::new(PollEvents::empty()),
        });
        numbers.push(fd);
    }
    wait(&polled, deadline_ns)?;
    let mut answer = [0usize; 3];
    let mut out: Vec<u8> = Vec::new();
    out.try_reserve_exact(3 * SET_BYTES)?;
    out.resize(3 * SET_BYTES, 0);
    for (polled, &fd) in polled.iter().zip(&numbers) {
        for set in (0..3).filter(|&set| has(set, fd) && polled.found.get().intersects(SETS[set])) {
            out[set * SET_BYTES + fd / 8] |= 1 << (fd % 8);
            answer[set] += 1;
        }
    }
    for (set, &addr) in sets.iter().enumerate().filter(|(_, addr)| **addr != 0) {
        uaccess::write_bytes(addr, &out[set * SET_BYTES..][..bytes])?;
    }
    Ok(answer.iter().sum())
}

/// pselect6(2). The last argument points to the mask's address and size.
pub fn sys_pselect6(&[count, read, write, except, timeout, mask]: &Args) -> Result<usize> {
    let deadline = read_timeout(timeout)?;
    let mask = match UserPtr::<[usize; 2]>::optional(mask) {
        Some(pair) => {
            let [mask, size] = pair.read()?;
            read_mask(mask, size)?
        }
        None => None,
    };
    let outcome = with_mask(mask, || select(count, [read, write, except], deadline));
    write_rest(timeout, deadline, 1);
    outcome
}

/// select(2): the timeout is a struct timeval, whose microseconds may make up whole seconds.
pub fn sys_select(&[count, read, write, except, timeout, ..]: &Args) -> Result<usize> {
    let deadline = match UserPtr::<[i64; 2]>::optional(timeout) {
        None => None,
        Some(pointer) => {
            let [sec, usec] = pointer.read()?;
            let (sec, usec) = (u64::try_from(sec), u64::try_from(usec));
            let (Ok(sec), Ok(usec)) = (sec, usec) else {
                return Err(Errno::EINVAL);
            };
            let ns = sec
                .saturating_mul(1_000_000_000)
                .saturating_add(usec.saturating_mul(1000));
            Some(time::now_ns().saturating_add(ns))
        }
    };
    let outcome = with_mask(None, || select(count, [read, write, except], deadline));
    write_rest(timeout, deadline, 1000);
    outcome
}
