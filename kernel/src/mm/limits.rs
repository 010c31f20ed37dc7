//! How much memory a process may map and lock: RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK (not for root), and the guess that refuses what can never
//! be there (`vm.overcommit_memory` 0).

use super::addr::PAGE_SHIFT;
use super::frame;
use super::space::Areas;
use super::vma::{VmFlags, Vma};
use crate::errno::{Errno, Result};
use crate::sched::current;
use crate::task::rlimit::Resource;

/// A soft limit in whole pages.
fn pages_allowed(resource: Resource) -> u64 {
    current().process.rlimits.soft(resource) >> PAGE_SHIFT
}

fn hard_pages_allowed(resource: Resource) -> u64 {
    let limit = current().process.rlimits.get(resource as usize);
    limit.map_or(0, |limit| limit.hard >> PAGE_SHIFT)
}

/// Whether `len` more bytes may be mapped with `flags`, after `replaced` pages of the address space have gone. `ENOMEM`.
pub fn may_expand(areas: &Areas, flags: VmFlags, len: usize, replaced: u64) -> Result {
    let pages = (len >> PAGE_SHIFT) as u64;
    let total = (areas.pages() - replaced).saturating_add(pages);
    if total > pages_allowed(Resource::AddressSpace) {
        return Err(Errno::ENOMEM);
    }
    if !Vma::is_data(flags) {
        return Ok(());
    }
    let data = areas.data().saturating_add(pages);
    let soft = pages_allowed(Resource::Data);
    // A soft limit of 0 does not count: Linux lets programs live that set it for brk(2) alone.
    if data > soft && !(soft == 0 && data <= hard_pages_allowed(Resource::Data)) {
        return Err(Errno::ENOMEM);
    }
    Ok(())
}

/// Whether private writable memory of `len` bytes could ever be there: not more than the machine has. `ENOMEM`.
pub fn may_charge(len: usize) -> Result {
    if len >> PAGE_SHIFT > frame::total_frames() {
        Err(Errno::ENOMEM)
    } else {
        Ok(())
    }
}

/// Whether `pages` more may be locked: `EPERM` if none may be, `too_many` over RLIMIT_MEMLOCK.
pub fn may_lock(areas: &Areas, pages: u64, too_many: Errno) -> Result {
    can_lock()?;
    if !is_root() && areas.locked().saturating_add(pages) > pages_allowed(Resource::LockedMemory) {
        Err(too_many)
    } else {
        Ok(())
    }
}

/// Whether the current process may lock as much as it likes (CAP_IPC_LOCK) and map the lowest pages (CAP_SYS_RAWIO).
pub fn is_root() -> bool {
    current().process.credentials.get().is_privileged()
}

/// `EPERM` if RLIMIT_MEMLOCK is 0.
pub fn can_lock() -> Result {
    if !is_root() && current().process.rlimits.soft(Resource::LockedMemory) == 0 {
        Err(Errno::EPERM)
    } else {
        Ok(())
    }
}

/// Whether the whole address space may be locked. `EPERM`, `ENOMEM`.
pub fn may_lock_all(areas: &Areas) -> Result {
    can_lock()?;
    if !is_root() && areas.pages() > pages_allowed(Resource::LockedMemory) {
        Err(Errno::ENOMEM)
    } else {
        Ok(())
    }
}
