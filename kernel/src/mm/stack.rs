//! Growth of stacks: an access below a GROWSDOWN area extends it (`expand_stack` in Linux's `mm/mmap.c`).
//!
//! The area is changed, so this takes the write side of `mmap_lock`; the fault looks everything up again afterwards.

use super::addr::{PAGE_SHIFT, VirtAddr};
use super::limits;
use super::space::{MMAP_MIN_ADDR, Mm, STACK_GUARD_GAP};
use super::vma::VmFlags;
use crate::errno::{Errno, Result};
use crate::sched::current;
use crate::task::rlimit::Resource;

/// Extends the stack above `address` down to its page. `ENOMEM` if there is none, it would come too close to what lies below,
/// or exceed RLIMIT_STACK; `EINTR` if the process is being killed. No lock may be held.
pub fn grow_to(mm: &Mm, address: VirtAddr) -> Result {
    let start = address.page();
    let mut areas = mm.write()?;
    let Some(stack) = areas
        .find_at_or_above(start)
        .filter(|vma| vma.flags.contains(VmFlags::GROWSDOWN))
    else {
        return Err(Errno::ENOMEM);
    };
    if stack.start <= start {
        // Another thread grew it meanwhile.
        return Ok(());
    }
    let limit = current().process.rlimits.soft(Resource::Stack);
    let size = (stack.end.get() - start.get()) as u64;
    if start.get() < MMAP_MIN_ADDR || size > limit {
        return Err(Errno::ENOMEM);
    }
    let too_close = areas.find_below(stack.start).is_some_and(|below| {
        let gap = start.get().saturating_sub(below.end.get());
        let guarded = below.flags.intersects(VmFlags::PERMISSIONS)
            && !below.flags.contains(VmFlags::GROWSDOWN);
        below.end > start || guarded && gap < STACK_GUARD_GAP
    });
    let grow = stack.start.get() - start.get();
    let pages = (grow >> PAGE_SHIFT) as u64;
    // Moved up by mremap(2), it may begin near the lowest page that there is.
    if too_close || stack.source.is_none() && pages > stack.own_first_page {
        return Err(Errno::ENOMEM);
    }
    limits::may_expand(&areas, stack.flags, grow, 0)?;
    if stack.flags.contains(VmFlags::LOCKED) {
        limits::may_lock(&areas, pages, Errno::ENOMEM)?;
    }
    limits::may_charge(grow)?;
    areas.prepare_anon(&stack);
    let grown = stack.part(start, stack.end, stack.flags)?;
    areas.remove(stack.start);
    areas.insert(grown);
    Ok(())
}
