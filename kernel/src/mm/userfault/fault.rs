//! The fault's side: when a handler is asked, and the wait for it (`handle_userfault` in Linux's `fs/userfaultfd.c`).

use alloc::sync::Arc;

use linux_raw_sys::general as abi;

use super::{Context, Features, Message};
use crate::mm::addr::VirtAddr;
use crate::mm::fault::outcome::{FaultError, FaultOutcome};
use crate::mm::fault::{FaultFlags, wait_kind};
use crate::mm::pte::PteFlags;
use crate::mm::space::{Mm, MmapReadGuard};
use crate::mm::vma::{VmFlags, Vma};
use crate::sched::current;
use crate::task::thread::flag;

/// Why a handler is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is no page.
    Missing,
    /// The page is protected.
    WriteProtected,
}

impl Vma {
    /// The context that takes the area's faults of the kind, which `flag` names.
    fn catching(&self, flag: VmFlags) -> Option<&Arc<Context>> {
        self.userfault
            .as_ref()
            .filter(|context| self.flags.contains(flag) && !context.is_released())
    }
}

/// Whether a handler has to be asked for a page that has no entry in the page table, in an area registered for that. Of a file in
/// memory it has to be missing from the file.
#[cold]
pub fn catches_missing(vma: &Vma, page: VirtAddr) -> bool {
    vma.catching(VmFlags::UFFD_MISSING).is_some()
        && match (&vma.source, vma.page_index_of(page)) {
            (None, _) => true,
            (Some(source), Some(index)) => {
                index < source.mapping.pages() && !source.mapping.is_cached(index)
            }
            (Some(_), None) => false,
        }
}

/// Whether a handler has to be asked before a page with UFFD_WP is written to.
#[cold]
pub fn catches_write(vma: &Vma) -> bool {
    vma.catching(VmFlags::UFFD_WP).is_some()
}

/// Asks the area's handler and waits for it, as `flags` say, with `mmap_lock` released: RETRY, whatever ended the wait. An error,
/// SIGBUS, where nobody can be asked.
#[cold]
pub fn wait<'mm>(
    mm: &'mm Mm,
    guard: MmapReadGuard<'mm>,
    vma: &Vma,
    address: VirtAddr,
    flags: FaultFlags,
    reason: Reason,
) -> FaultOutcome<'mm> {
    let Some(context) = vma.userfault.clone().filter(|it| may_wait(it, flags)) else {
        return FaultOutcome::error(FaultError::Bus, guard);
    };
    if flags.contains(FaultFlags::RETRY_NOWAIT) {
        drop(guard);
        return FaultOutcome::retry();
    }
    let message = context.message(address, flags, reason);
    let asked = || {
        let needed = is_unresolved(mm, address.page(), reason) && !context.is_released();
        drop(guard);
        if needed {
            context.readers.wake_all();
            context.watcher.message_left();
        }
        needed
    };
    let at = message.address as usize;
    context.faults.wait(at, message, wait_kind(flags), asked);
    FaultOutcome::retry()
}

/// Whether the current thread's fault may wait for the context's handler. A thread that ends may not: nobody could end its wait.
fn may_wait(context: &Context, flags: FaultFlags) -> bool {
    !current().has_flag(flag::EXITING)
        && !context.has(Features::SIGBUS)
        && (flags.contains(FaultFlags::USER) || !context.user_mode_only)
        && flags.contains(FaultFlags::ALLOW_RETRY)
}

/// Whether what the fault saw is still so: looked at after the message was queued, so that no answer is missed.
fn is_unresolved(mm: &Mm, page: VirtAddr, reason: Reason) -> bool {
    match mm.page_table.lock().get(page) {
        None => true,
        Some(pte) => reason == Reason::WriteProtected && pte.flags.contains(PteFlags::UFFD_WP),
    }
}

impl Context {
    fn message(&self, address: VirtAddr, flags: FaultFlags, reason: Reason) -> Message {
        let mut bits = 0;
        if flags.contains(FaultFlags::WRITE) {
            bits |= abi::UFFD_PAGEFAULT_FLAG_WRITE;
        }
        if reason == Reason::WriteProtected {
            bits |= abi::UFFD_PAGEFAULT_FLAG_WP;
        }
        let address = if self.has(Features::EXACT_ADDRESS) {
            address
        } else {
            address.page()
        };
        Message {
            flags: u64::from(bits),
            address: address.get() as u64,
            thread: if self.has(Features::THREAD_ID) {
                current().tid()
            } else {
                0
            },
        }
    }
}
