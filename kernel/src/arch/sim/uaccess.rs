//! Simulated accesses to user memory, by user code and by the kernel.

use super::frames::frame_ptr;
use super::mmu::{fault, translate};
use super::{PtRegs, USER_END};
use crate::mm::PAGE_SIZE;
use crate::mm::fault::{Access, FaultInfo, FaultVerdict, handle_page_fault};
use crate::mm::pte::{Pte, PteFlags};
use crate::signal::Signal;

/// How often an access is made again before it counts as a livelock.
const MAX_FAULTS: usize = 1000;

/// Why an access of simulated user code did not succeed. Signals are reported, not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserFault {
    Signal(Signal, i32),
    /// The fault ended for a pending signal: it would be delivered now.
    Interrupted,
}

/// Finds the memory behind one address, faulting as hardware would.
fn resolve(regs: &mut PtRegs, address: usize, access: Access) -> Result<*mut u8, FaultVerdict> {
    for _ in 0..MAX_FAULTS {
        let pte = translate(address);
        let permits = |pte: &Pte| match access {
            // As on x86, what is present can be read.
            Access::Read => true,
            Access::Write => pte.flags.contains(PteFlags::WRITE),
            Access::Execute => pte.flags.contains(PteFlags::EXEC),
        };
        if let Some(pte) = pte.filter(permits) {
            // SAFETY: the offset lies in the frame.
            return Ok(unsafe { frame_ptr(pte.frame).add(address % PAGE_SIZE) });
        }
        fault(address);
        let verdict = handle_page_fault(
            regs,
            FaultInfo {
                address,
                access,
                present: pte.is_some(),
            },
        );
        let interrupted = regs.user_mode()
            && verdict == FaultVerdict::Resume
            && crate::signal::signal_pending(&crate::sched::current());
        if verdict != FaultVerdict::Resume || interrupted {
            return Err(verdict);
        }
    }
    panic!("{access:?} of {address:#x} faults for ever");
}

fn user_access(address: usize, access: Access) -> Result<*mut u8, UserFault> {
    let mut regs = PtRegs::new_user(0, 0);
    resolve(&mut regs, address, access).map_err(|verdict| match verdict {
        FaultVerdict::Signal { signal, code } => UserFault::Signal(signal, code),
        _ => UserFault::Interrupted,
    })
}

/// A byte read by user code.
pub fn user_read(address: usize) -> Result<u8, UserFault> {
    // SAFETY: a pointer into a frame that is mapped; only one simulated CPU runs.
    user_access(address, Access::Read).map(|byte| unsafe { *byte })
}

/// A byte written by user code.
pub fn user_write(address: usize, value: u8) -> Result<(), UserFault> {
    // SAFETY: as in `user_read`.
    user_access(address, Access::Write).map(|byte| unsafe { *byte = value })
}

/// Makes `f` with the memory of each byte of a user range until one cannot be had; how many are left.
fn each_byte(start: usize, len: usize, access: Access, mut f: impl FnMut(usize, *mut u8)) -> usize {
    let mut regs = PtRegs::kernel();
    for done in 0..len {
        let address = start
            .checked_add(done)
            .filter(|&address| address < USER_END);
        match address.map(|address| resolve(&mut regs, address, access)) {
            Some(Ok(byte)) => f(done, byte),
            _ => return len - done,
        }
    }
    0
}

/// # Safety
/// `dst` has room for `len` bytes.
pub unsafe fn copy_from_user(dst: *mut u8, src: usize, len: usize) -> usize {
    // SAFETY: the caller's `dst` has room for index `at` below `len`.
    each_byte(src, len, Access::Read, |at, byte| unsafe {
        *dst.add(at) = *byte
    })
}

/// # Safety
/// `src` is readable for `len` bytes.
pub unsafe fn copy_to_user(dst: usize, src: *const u8, len: usize) -> usize {
    // SAFETY: the caller's `src` is readable at index `at` below `len`.
    each_byte(dst, len, Access::Write, |at, byte| unsafe {
        *byte = *src.add(at)
    })
}

/// # Safety
/// `dst` has room for `size` bytes.
pub unsafe fn get_user(dst: *mut u8, src: usize, size: usize) -> bool {
    // SAFETY: the caller's promise.
    unsafe { copy_from_user(dst, src, size) == 0 }
}

/// # Safety
/// `src` is readable for `size` bytes.
pub unsafe fn put_user(dst: usize, src: *const u8, size: usize) -> bool {
    // SAFETY: the caller's promise.
    unsafe { copy_to_user(dst, src, size) == 0 }
}

/// Puts `new` at an aligned user address if `expected` is there; what was found.
pub fn compare_exchange_user(address: usize, expected: u32, new: u32) -> Option<u32> {
    if !address.is_multiple_of(4) || address >= USER_END {
        return None;
    }
    let word = resolve(&mut PtRegs::kernel(), address, Access::Write).ok()?;
    // SAFETY: an aligned word lies in one frame, which is mapped; only one simulated CPU runs.
    unsafe {
        let word = word.cast::<u32>();
        let found = word.read();
        if found == expected {
            word.write(new);
        }
        Some(found)
    }
}

/// Writes zeros.
pub fn clear_user(dst: usize, len: usize) -> usize {
    // SAFETY: a pointer into a mapped frame.
    each_byte(dst, len, Access::Write, |_, byte| unsafe { *byte = 0 })
}
