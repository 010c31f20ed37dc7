//! The page fault path: from a decoded fault to a verdict.
//!
//! [`handle_page_fault`] is the generic loop that every architecture enters. Each round looks the address up under the
//! read side of `mmap_lock`, lets [`handle_mm_fault`](handler) make the page-table entry agree with the area or say why it cannot, and
//! then checks, in an order that the types of [`outcome`] enforce: a signal that ends the fault, an error, the need of another
//! round. A round may release the lock and wait, and then everything is looked up again.
//!
//! Locks, outermost first: `mmap_lock`, PAGE, PAGE_TABLE. Nothing is allocated from the heap.

mod around;
mod flags;
mod handler;
pub mod outcome;
mod signal;
#[cfg(all(test, not(target_os = "none")))]
mod tests;

use core::sync::atomic::Ordering;

pub use flags::{Access, FaultFlags, FaultInfo, FaultVerdict, VmFault};
pub(super) use handler::reusable;
pub use handler::{LockedVma, handle_mm_fault, wait_kind};

use super::addr::VirtAddr;
use super::remote::Rules;
use super::space::{Mm, MmapReadGuard};
use super::stack;
use super::vma::{VmFlags, Vma};
use crate::arch::{PtRegs, USER_END};
use crate::errno::{Errno, Result};
use crate::sched::{Interrupted, Sleep, current};
use crate::signal::{Signal, code};
use crate::task::oom;
use outcome::{FaultError, Last};

/// Why there is no area in which the access is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BadArea {
    /// Nothing is mapped there.
    NotMapped,
    /// The area does not permit the access.
    NotPermitted,
    /// A fatal signal came while waiting for `mmap_lock`.
    Killed,
}

/// Decides what becomes of a page fault on a user address, in user mode or in the kernel's user copies.
///
/// Called by the architecture with interrupts as they were before the fault, and no spin lock held. May sleep, unless
/// [`super::uaccess::NoFault`] is held. Part of its caller, as every call is a part of the price of each fault.
#[inline(always)]
pub fn handle_page_fault(regs: &mut PtRegs, info: FaultInfo) -> FaultVerdict {
    let user = regs.user_mode();
    let thread = current();
    let address = VirtAddr::new(info.address).filter(|address| address.get() < USER_END);
    let (Some(mm), Some(address)) = (thread.process.current_mm(), address) else {
        return bad_area(BadArea::NotMapped, user);
    };
    if thread.pagefault_disabled.load(Ordering::Relaxed) != 0 {
        return bad_area(BadArea::NotMapped, user);
    }
    let flags = first_flags(info.access, user);
    resolve(mm, regs, address, flags, |vma| permits(vma, info))
}

/// The same for those who make a fault by hand.
#[inline(never)]
fn handle_made_fault(regs: &mut PtRegs, info: FaultInfo) -> FaultVerdict {
    handle_page_fault(regs, info)
}

/// The rounds of a fault at `address` in `mm`, where `permits` says whether an area allows the access.
#[inline(always)]
fn resolve(
    mm: &Mm,
    regs: &PtRegs,
    address: VirtAddr,
    mut flags: FaultFlags,
    permits: impl Fn(&Vma) -> bool,
) -> FaultVerdict {
    let user = regs.user_mode();
    loop {
        let locked = match find_area(mm, address, &permits) {
            Ok(locked) => locked,
            Err(bad) => return bad_area(bad, user),
        };
        let outcome = handle_mm_fault(locked, address, flags);
        let Ok(outcome) = outcome.check_signal(regs) else {
            return if user {
                FaultVerdict::Resume
            } else {
                FaultVerdict::Fixup
            };
        };
        let outcome = match outcome.check_error() {
            Ok(outcome) => outcome,
            Err(FaultError::OutOfMemory) => match oom::make_room() {
                Ok(()) => continue,
                Err(oom::Dying) => return bad_area(BadArea::Killed, user),
            },
            Err(FaultError::Bus) => return failed(code::BUS_ADRERR, Signal::SIGBUS, user),
            Err(FaultError::Segv) => return failed(code::SEGV_MAPERR, Signal::SIGSEGV, user),
        };
        match outcome.finish() {
            Last::Finished => return FaultVerdict::Resume,
            Last::TryAgain => flags |= FaultFlags::TRIED,
        }
    }
}

/// User-mode waits end for any signal, kernel-mode ones only for a fatal one: as [`fault_signal_pending`] will look at it.
fn first_flags(access: Access, user: bool) -> FaultFlags {
    let always = FaultFlags::ALLOW_RETRY | FaultFlags::KILLABLE;
    let who = match user {
        true => FaultFlags::USER | FaultFlags::INTERRUPTIBLE,
        false => FaultFlags::empty(),
    };
    let what = match access {
        Access::Read => FaultFlags::empty(),
        Access::Write => FaultFlags::WRITE,
        Access::Execute => FaultFlags::INSTRUCTION,
    };
    always | who | what
}

/// The area for an access, with `mmap_lock` held for reading; grows a stack that the address is below.
#[inline(always)]
fn find_area(
    mm: &Mm,
    address: VirtAddr,
    permits: impl Fn(&Vma) -> bool,
) -> core::result::Result<LockedVma<'_>, BadArea> {
    loop {
        let guard = mm
            .read(Sleep::Killable)
            .map_err(|Interrupted| BadArea::Killed)?;
        if let Some(vma) = guard.find(address) {
            if !permits(&vma) {
                return Err(BadArea::NotPermitted);
            }
            return Ok(LockedVma::new(mm, guard, vma));
        }
        grow_stack(mm, guard, address)?;
    }
}

/// Grows the stack that `address`, where nothing is, lies below.
#[cold]
#[inline(never)]
fn grow_stack(
    mm: &Mm,
    guard: MmapReadGuard<'_>,
    address: VirtAddr,
) -> core::result::Result<(), BadArea> {
    let below_stack = guard
        .find_at_or_above(address)
        .is_some_and(|vma| vma.flags.contains(VmFlags::GROWSDOWN));
    drop(guard);
    if !below_stack {
        return Err(BadArea::NotMapped);
    }
    stack::grow_to(mm, address).map_err(|errno| match errno {
        Errno::EINTR => BadArea::Killed,
        _ => BadArea::NotMapped,
    })
}

/// Whether the area permits the access (`access_error` in Linux's `arch/x86/mm/fault.c`): writing needs the permission; a present
/// entry that refused a read or a jump is final; an absent one is filled if the area can be accessed at all.
fn permits(vma: &Vma, info: FaultInfo) -> bool {
    match info.access {
        Access::Write => vma.flags.contains(VmFlags::WRITE),
        Access::Read | Access::Execute => {
            !info.present && vma.flags.intersects(VmFlags::PERMISSIONS)
        }
    }
}

fn bad_area(bad: BadArea, user: bool) -> FaultVerdict {
    match (user, bad) {
        (false, _) => FaultVerdict::Fixup,
        // The signal that killed the wait is taken on the way out.
        (true, BadArea::Killed) => FaultVerdict::Resume,
        (true, BadArea::NotMapped) => FaultVerdict::Signal {
            signal: Signal::SIGSEGV,
            code: code::SEGV_MAPERR,
        },
        (true, BadArea::NotPermitted) => FaultVerdict::Signal {
            signal: Signal::SIGSEGV,
            code: code::SEGV_ACCERR,
        },
    }
}

fn failed(code: i32, signal: Signal, user: bool) -> FaultVerdict {
    if user {
        FaultVerdict::Signal { signal, code }
    } else {
        FaultVerdict::Fixup
    }
}

/// Makes the page at `addr` present for `access`, without touching it: for copies that are made with faults disabled, and for memory
/// that is wanted early. `EFAULT`. May sleep.
pub fn fault_in(addr: usize, access: Access) -> Result {
    let mut regs = PtRegs::kernel();
    let info = FaultInfo {
        address: addr,
        access,
        present: false,
    };
    match handle_made_fault(&mut regs, info) {
        FaultVerdict::Resume => Ok(()),
        _ => Err(Errno::EFAULT),
    }
}

/// Makes the page at `address` of any address space present for `access`, under `rules`. `EFAULT`. May sleep.
pub fn fault_in_remote(mm: &Mm, address: VirtAddr, access: Access, rules: Rules) -> Result {
    if address.get() >= USER_END {
        return Err(Errno::EFAULT);
    }
    let flags = first_flags(access, false) | FaultFlags::REMOTE;
    let verdict = resolve(mm, &PtRegs::kernel(), address, flags, |vma| {
        rules.permit(vma, access)
    });
    match verdict {
        FaultVerdict::Resume => Ok(()),
        _ => Err(Errno::EFAULT),
    }
}
