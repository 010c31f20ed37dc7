//! Restartable sequences (`rseq(2)` in Linux's `include/uapi/linux/rseq.h`): user code that is sent to its abort handler when it was
//! interrupted in a marked stretch.
//!
//! A thread registers a structure of its own, in which the kernel keeps the CPU's number, and the user the address of a description of
//! the stretch. It is looked at on the way to user mode after the CPU was given to another thread, and before a signal's frame is
//! built. The description is the user's and may be anything.

use core::sync::atomic::Ordering;

use super::Thread;
use crate::arch::{PtRegs, USER_END};
use crate::errno::{Errno, Result};
use crate::mm::uaccess::UserPtr;
use crate::sched::current;
use crate::signal::{SigInfo, Signal, code, send};

/// Bytes of the first version of the structure, which has to be aligned to as many.
pub const SIZE: usize = 32;
/// Bytes of it that are used.
pub const FEATURE_SIZE: usize = 28;
/// Offsets in the structure: cpu_id_start, cpu_id (32 bits each), rseq_cs (64), flags, node_id, mm_cid (32 each).
mod at {
    pub const CPU: usize = 0;
    pub const DESCRIPTION: usize = 8;
    pub const NODE: usize = 20;
}
const UNREGISTER: u32 = 1;
/// cpu_id of a structure that is not registered.
const UNINITIALIZED: u32 = !0;

/// rseq(2). `EINVAL`, `EPERM` for another signature, `EBUSY` if it is registered already, `EFAULT`.
pub fn register(address: usize, len: usize, flags: u32, signature: u32) -> Result {
    let thread = current();
    let own = thread.rseq.load(Ordering::Relaxed) as usize;
    let own_signature = thread.rseq_signature.load(Ordering::Relaxed);
    let own_len = thread.rseq_len.load(Ordering::Relaxed) as usize;
    if flags & UNREGISTER != 0 {
        if flags != UNREGISTER || own == 0 || own != address || own_len != len {
            return Err(Errno::EINVAL);
        }
        if own_signature != signature {
            return Err(Errno::EPERM);
        }
        write_cpu(address, 0, UNINITIALIZED)?;
        forget(&thread);
        return Ok(());
    }
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    if own != 0 {
        return Err(match () {
            () if own != address || own_len != len => Errno::EINVAL,
            () if own_signature != signature => Errno::EPERM,
            () => Errno::EBUSY,
        });
    }
    if len < SIZE || !address.is_multiple_of(SIZE) {
        return Err(Errno::EINVAL);
    }
    if address >= USER_END || USER_END - address < len {
        return Err(Errno::EFAULT);
    }
    // As on Linux, what was left there is no reason to abort anything.
    UserPtr::<u64>::new(address + at::DESCRIPTION).write(0)?;
    write_cpu(address, 0, 0)?;
    thread.rseq_len.store(len as u32, Ordering::Relaxed);
    thread.rseq_signature.store(signature, Ordering::Relaxed);
    thread.rseq.store(address as u64, Ordering::Relaxed);
    Ok(())
}

/// The one CPU there is, or none.
fn write_cpu(address: usize, start: u32, id: u32) -> Result {
    UserPtr::<[u32; 2]>::new(address + at::CPU).write([start, id])?;
    UserPtr::<[u32; 2]>::new(address + at::NODE).write([0, 0])
}

/// The thread has no structure any more: it has called exec, or runs in another's memory.
pub(super) fn forget(thread: &Thread) {
    thread.rseq.store(0, Ordering::Relaxed);
}

/// A child with memory of its own has its parent's registration.
pub(super) fn inherit(child: &Thread, parent: &Thread) {
    let load = |word: &core::sync::atomic::AtomicU32| word.load(Ordering::Relaxed);
    child
        .rseq_len
        .store(load(&parent.rseq_len), Ordering::Relaxed);
    child
        .rseq_signature
        .store(load(&parent.rseq_signature), Ordering::Relaxed);
    child
        .rseq
        .store(parent.rseq.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// Before user code goes on at `regs`, or a signal's frame is built for it: a stretch that it is in is aborted. What is wrong with the
/// structure is a SIGSEGV.
#[inline]
pub fn abort_if_inside(regs: &mut PtRegs) {
    let address = current().rseq.load(Ordering::Relaxed) as usize;
    if address != 0 {
        abort(regs, address);
    }
}

#[inline(never)]
fn abort(regs: &mut PtRegs, address: usize) {
    if fix(regs, address).is_err() {
        send::force(SigInfo {
            code: code::SI_KERNEL,
            ..SigInfo::kernel(Signal::SIGSEGV)
        });
    }
}

fn fix(regs: &mut PtRegs, address: usize) -> Result {
    let place = UserPtr::<u64>::new(address + at::DESCRIPTION);
    let description = place.read()? as usize;
    if description == 0 {
        return Ok(());
    }
    // version and flags, start_ip, post_commit_offset, abort_ip.
    let [version_and_flags, start, len, abort] = UserPtr::<[u64; 4]>::new(description).read()?;
    let end = USER_END as u64;
    let inside = |ip: u64| ip.wrapping_sub(start) < len;
    let sound = start < end && start.checked_add(len).is_some_and(|last| last < end);
    if !sound || abort >= end || abort < 4 || inside(abort) || version_and_flags as u32 != 0 {
        return Err(Errno::EINVAL);
    }
    let signature = UserPtr::<u32>::new(abort as usize - 4).read()?;
    if signature != current().rseq_signature.load(Ordering::Relaxed) {
        return Err(Errno::EINVAL);
    }
    place.write(0)?;
    if inside(regs.ip() as u64) {
        if version_and_flags >> 32 != 0 {
            return Err(Errno::EINVAL);
        }
        regs.set_ip(abort as usize);
    }
    Ok(())
}
