//! futex(2): waiting for a word of user memory to change (`kernel/futex/`).
//!
//! Which word is meant is a [`Key`]: for memory of one process its address space and address, for shared memory the mapping and the
//! place in it. The word is compared under the lock that wakers take, with page faults disabled; a page that is not there is
//! brought in outside the lock, and the comparison made again.

use linux_raw_sys::general as abi;

use crate::arch::{self, USER_END};
use crate::errno::{Errno, Result};
use crate::mm::addr::{PAGE_SHIFT, PAGE_SIZE, VirtAddr};
use crate::mm::uaccess::{self, NoFault, UserPtr};
use crate::mm::vma::VmFlags;
use crate::sched::keyed::{self, Key, Two};
use crate::sched::timer::Deadline;
use crate::sched::wait::NotYet;
use crate::sched::{Sleep, current};
use crate::task::thread::RestartBlock;

/// The bit set that stands for every waiter.
pub const ANY: u32 = !0;

/// Which kind of key it is: the low bits of `Key::place`, which are zero in a word's address.
mod kind {
    /// Named by a call with FUTEX_PRIVATE_FLAG.
    pub const PRIVATE: u64 = 0;
    /// Memory of one process, named by a call without the flag.
    pub const PROCESS: u64 = 1;
    pub const MAPPING: u64 = 2;
}

/// `EINVAL` for an unaligned address, `EFAULT` for one where nothing can be.
fn check(address: usize) -> Result {
    match address {
        _ if !address.is_multiple_of(4) => Err(Errno::EINVAL),
        _ if address >= USER_END => Err(Errno::EFAULT),
        _ => Ok(()),
    }
}

/// The key of the word at `address` in the current address space.
fn key(address: usize, shared: bool) -> Result<Key> {
    check(address)?;
    let thread = current();
    let mm = thread.process.current_mm().ok_or(Errno::EFAULT)?;
    let own = |kind| Key {
        object: core::ptr::from_ref(mm).addr() as u64,
        place: address as u64 | kind,
    };
    if !shared {
        return Ok(own(kind::PRIVATE));
    }
    let page = VirtAddr::new(address).ok_or(Errno::EFAULT)?;
    let areas = mm.read(Sleep::Killable).map_err(|_| Errno::EINTR)?;
    let area = areas.find(page).ok_or(Errno::EFAULT)?;
    if !area.flags.contains(VmFlags::READ) {
        return Err(Errno::EFAULT);
    }
    match (&area.source, area.page_index_of(page)) {
        (Some(source), Some(index)) if area.is_shared() => Ok(Key {
            object: source.mapping.id(),
            place: index << PAGE_SHIFT | (address % PAGE_SIZE) as u64 | kind::MAPPING,
        }),
        _ => Ok(own(kind::PROCESS)),
    }
}

/// Reads the word without waiting for its page; `None` if that is not there.
fn read_now(address: usize) -> Option<u32> {
    let _no_fault = NoFault::new();
    UserPtr::<u32>::new(address).read().ok()
}

/// Why a wait did not begin.
enum Refused {
    /// The word's page has to be brought in.
    NotPresent,
    /// Another value is there.
    Changed,
}

/// FUTEX_WAIT: sleeps until woken, if `expected` is there. `EAGAIN` if not; `EFAULT`, `EINVAL`, `ETIMEDOUT` at `deadline`; restarted
/// after signals, with the same deadline.
pub fn wait(
    address: usize,
    shared: bool,
    expected: u32,
    bitset: u32,
    deadline: Option<Deadline>,
) -> Result<usize> {
    if bitset == 0 {
        return Err(Errno::EINVAL);
    }
    let outcome = loop {
        let key = key(address, shared)?;
        let look = || match read_now(address) {
            None => Err(Refused::NotPresent),
            Some(value) if value != expected => Err(Refused::Changed),
            Some(_) => Ok(()),
        };
        match keyed::wait(key, bitset, deadline, look) {
            Err(Refused::NotPresent) => uaccess::fault_in_readable(address)?,
            Err(Refused::Changed) => return Err(Errno::EAGAIN),
            Ok(outcome) => break outcome,
        }
    };
    match (outcome, deadline) {
        (Ok(()), _) => Ok(0),
        (Err(NotYet::TimedOut), _) => Err(Errno::ETIMEDOUT),
        (Err(NotYet::Interrupted), None) => Err(Errno::ERESTARTSYS),
        (Err(NotYet::Interrupted), Some(deadline)) => {
            *current().restart.lock() = RestartBlock::Futex {
                address,
                shared,
                expected,
                bitset,
                deadline,
            };
            Err(Errno::ERESTART_RESTARTBLOCK)
        }
    }
}

/// FUTEX_WAKE: wakes up to `max` waiters whose bit sets meet `bitset`; how many. `EINVAL`, `EFAULT`.
pub fn wake(address: usize, shared: bool, max: usize, bitset: u32) -> Result<usize> {
    if bitset == 0 {
        return Err(Errno::EINVAL);
    }
    Ok(keyed::wake(key(address, shared)?, max, bitset))
}

/// FUTEX_REQUEUE and, with `expected`, FUTEX_CMP_REQUEUE: wakes up to `wake` waiters of the word at `from` and lets up to `requeue`
/// others wait for the one at `to`; how many both together. `EAGAIN` if something else than `expected` is there.
pub fn requeue(
    from: usize,
    to: usize,
    shared: bool,
    wake: usize,
    requeue: usize,
    expected: Option<u32>,
) -> Result<usize> {
    loop {
        let (first, second) = (key(from, shared)?, key(to, shared)?);
        let mut buckets = Two::lock(first, second);
        if let Some(expected) = expected {
            match read_now(from) {
                None => {
                    drop(buckets);
                    uaccess::fault_in_readable(from)?;
                    continue;
                }
                Some(value) if value != expected => return Err(Errno::EAGAIN),
                Some(_) => {}
            }
        }
        let woken = buckets.wake_first(wake);
        return Ok(woken + buckets.requeue(requeue));
    }
}

/// FUTEX_WAKE_OP: changes the word at `second` as `operation` says, wakes up to `wake` waiters of `first`, and up to `wake_second` of
/// `second` if the old value passes the comparison. `ENOSYS` for an unknown operation.
pub fn wake_op(
    first: usize,
    second: usize,
    shared: bool,
    wake: usize,
    wake_second: usize,
    operation: u32,
) -> Result<usize> {
    let operation = Operation::decode(operation);
    loop {
        let (first_key, second_key) = (key(first, shared)?, key(second, shared)?);
        let mut buckets = Two::lock(first_key, second_key);
        let Some(old) = update_now(second, |old| operation.apply(old))? else {
            drop(buckets);
            uaccess::fault_in_writeable(second)?;
            continue;
        };
        let also_second = operation.compare(old)?;
        let mut woken = buckets.wake_first(wake);
        if also_second {
            woken += buckets.wake_second(wake_second);
        }
        return Ok(woken);
    }
}

/// Atomically changes a user word without waiting for its page: the old value, or `None` if the page is not there or not writable yet.
fn update_now(address: usize, change: impl Fn(u32) -> Result<u32>) -> Result<Option<u32>> {
    let Some(mut old) = read_now(address) else {
        return Ok(None);
    };
    let _no_fault = NoFault::new();
    loop {
        let new = change(old)?;
        match arch::compare_exchange_user(address, old, new) {
            None => return Ok(None),
            Some(found) if found == old => return Ok(Some(old)),
            Some(found) => old = found,
        }
    }
}

/// What FUTEX_WAKE_OP is to do, decoded.
struct Operation {
    operation: u32,
    operand: i32,
    comparison: u32,
    comparand: i32,
}

impl Operation {
    const SHIFTED: u32 = abi::FUTEX_OP_OPARG_SHIFT << 28;

    fn decode(bits: u32) -> Operation {
        let operand = (bits << 8) as i32 >> 20;
        Operation {
            operation: bits >> 28 & 7,
            operand: match bits & Self::SHIFTED {
                0 => operand,
                // Linux takes what does not fit modulo 32.
                _ => 1i32.wrapping_shl(operand as u32),
            },
            comparison: bits >> 24 & 15,
            comparand: (bits << 20) as i32 >> 20,
        }
    }

    fn apply(&self, old: u32) -> Result<u32> {
        let operand = self.operand as u32;
        match self.operation {
            abi::FUTEX_OP_SET => Ok(operand),
            abi::FUTEX_OP_ADD => Ok(old.wrapping_add(operand)),
            abi::FUTEX_OP_OR => Ok(old | operand),
            abi::FUTEX_OP_ANDN => Ok(old & !operand),
            abi::FUTEX_OP_XOR => Ok(old ^ operand),
            _ => Err(Errno::ENOSYS),
        }
    }

    fn compare(&self, old: u32) -> Result<bool> {
        let old = old as i32;
        match self.comparison {
            abi::FUTEX_OP_CMP_EQ => Ok(old == self.comparand),
            abi::FUTEX_OP_CMP_NE => Ok(old != self.comparand),
            abi::FUTEX_OP_CMP_LT => Ok(old < self.comparand),
            abi::FUTEX_OP_CMP_LE => Ok(old <= self.comparand),
            abi::FUTEX_OP_CMP_GT => Ok(old > self.comparand),
            abi::FUTEX_OP_CMP_GE => Ok(old >= self.comparand),
            _ => Err(Errno::ENOSYS),
        }
    }
}
