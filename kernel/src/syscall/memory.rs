//! System calls on the address space.

use alloc::sync::Arc;

use linux_raw_sys::general as abi;

use crate::arch::USER_END;
use crate::errno::{Errno, Result};
use crate::fs::{File, userfaultfd};
use crate::mm::addr::{page_align_down, page_align_up};
use crate::mm::advice::Advice;
use crate::mm::fault::Access;
use crate::mm::map::Place;
use crate::mm::page_cache::Mapping;
use crate::mm::remap::Remap;
use crate::mm::reverse_map::Writer;
use crate::mm::vma::{MappedFile, Source};
use crate::mm::{Mm, PAGE_SHIFT, PAGE_SIZE, VirtAddr, VmFlags, uaccess};
use crate::sched::current;

type Args = [usize; 6];

/// Runs `f` on the current process's address space.
#[inline]
pub(super) fn with_mm<R>(f: impl FnOnce(&Mm) -> Result<R>) -> Result<R> {
    f(current().process.current_mm().ok_or(Errno::ENOMEM)?)
}

/// mmap(2). The order of the checks is Linux's: the offset, the descriptor, the place, and then what is to be mapped.
pub fn sys_mmap(&[addr, len, prot, flags, fd, offset]: &Args) -> Result<usize> {
    let flags = flags as u32;
    if offset % PAGE_SIZE != 0 {
        return Err(Errno::EINVAL);
    }
    let anonymous = flags & abi::MAP_ANONYMOUS != 0;
    let file = if anonymous {
        None
    } else {
        Some(current().files().get(fd as i32)?)
    };
    if flags & abi::MAP_HUGETLB != 0 {
        // No memory is set aside for huge pages, and no file has them.
        return Err(if anonymous {
            Errno::ENOMEM
        } else {
            Errno::EINVAL
        });
    }
    let place = match flags {
        f if f & abi::MAP_FIXED_NOREPLACE != 0 => Place::FixedNoReplace(addr),
        f if f & abi::MAP_FIXED != 0 => Place::Fixed(addr),
        f if f & abi::MAP_32BIT != 0 => Place::Low(addr),
        _ => Place::Hint(addr),
    };
    let mut vm_flags = permissions(prot) | VmFlags::MAYREAD | VmFlags::MAYWRITE | VmFlags::MAYEXEC;
    vm_flags.set(VmFlags::NORESERVE, flags & abi::MAP_NORESERVE != 0);
    vm_flags.set(VmFlags::GROWSDOWN, flags & abi::MAP_GROWSDOWN != 0);
    vm_flags.set(VmFlags::LOCKED, flags & abi::MAP_LOCKED != 0);
    // Since Linux 6.7 stacks are told from other areas by this.
    vm_flags.set(VmFlags::NOHUGEPAGE, flags & abi::MAP_STACK != 0);
    let source = match &file {
        Some(file) => file_source(file, flags, len, offset, &mut vm_flags)
            .map(|(source, writer)| (Some(source), writer)),
        None => anonymous_source(flags, len, &mut vm_flags).map(|source| (source, None)),
    };
    with_mm(|mm| {
        let (source, _writer) = match source {
            Ok(source) => source,
            Err(error) => return mm.check_map(place, len, vm_flags).and(Err(error)),
        };
        let start = mm.map(place, len, vm_flags, source)?;
        let at_once = flags & (abi::MAP_POPULATE | abi::MAP_NONBLOCK) == abi::MAP_POPULATE;
        if at_once || vm_flags.contains(VmFlags::LOCKED) || mm.locks_new() {
            mm.populate_what_can_be_had(start, len);
        }
        Ok(start)
    })
}

/// Flags that MAP_SHARED_VALIDATE accepts. MAP_FIXED_NOREPLACE is not among them on Linux either.
const KNOWN_FLAGS: u32 = abi::MAP_TYPE
    | abi::MAP_FIXED
    | abi::MAP_ANONYMOUS
    | abi::MAP_GROWSDOWN
    | abi::MAP_DENYWRITE
    | abi::MAP_EXECUTABLE
    | abi::MAP_LOCKED
    | abi::MAP_NORESERVE
    | abi::MAP_POPULATE
    | abi::MAP_NONBLOCK
    | abi::MAP_STACK
    | abi::MAP_32BIT
    | abi::MAP_ABOVE4G
    | abi::MAP_UNINITIALIZED
    | 0x1f << abi::MAP_HUGE_SHIFT;

fn permissions(prot: usize) -> VmFlags {
    let mut flags = VmFlags::empty();
    let prot = prot as u32;
    // Whatever can be written or executed can be read on this hardware, but the area says what was asked for.
    flags.set(VmFlags::READ, prot & abi::PROT_READ != 0);
    flags.set(VmFlags::WRITE, prot & abi::PROT_WRITE != 0);
    flags.set(VmFlags::EXEC, prot & abi::PROT_EXEC != 0);
    flags
}

/// What is behind anonymous memory. `EINVAL`, `ENOMEM`.
fn anonymous_source(flags: u32, len: usize, vm_flags: &mut VmFlags) -> Result<Option<Source>> {
    match flags & abi::MAP_TYPE {
        abi::MAP_PRIVATE => Ok(None),
        abi::MAP_SHARED if !vm_flags.contains(VmFlags::GROWSDOWN) => {
            vm_flags.insert(VmFlags::SHARED);
            Ok(Some(Source {
                mapping: Mapping::anonymous(len as u64)?,
                first_page: 0,
                file: None,
            }))
        }
        _ => Err(Errno::EINVAL),
    }
}

/// The source of a file mapping, what keeps it from being sealed until it is mapped, and what the file's access mode and its seals let the
/// area ever have. `EPERM`, `EOVERFLOW`, `EOPNOTSUPP`, `EACCES`,
/// `ENODEV`, `EINVAL`.
fn file_source(
    file: &Arc<File>,
    flags: u32,
    len: usize,
    offset: usize,
    vm_flags: &mut VmFlags,
) -> Result<(Source, Option<Writer>)> {
    if (offset as u64)
        .checked_add(len as u64)
        .is_none_or(|end| end > i64::MAX as u64)
    {
        return Err(Errno::EOVERFLOW);
    }
    let shared = match flags & abi::MAP_TYPE {
        abi::MAP_PRIVATE => false,
        abi::MAP_SHARED => true,
        abi::MAP_SHARED_VALIDATE if flags & !KNOWN_FLAGS != 0 => return Err(Errno::EOPNOTSUPP),
        abi::MAP_SHARED_VALIDATE => true,
        _ => return Err(Errno::EINVAL),
    };
    if shared && !file.writable() {
        if vm_flags.contains(VmFlags::WRITE) {
            return Err(Errno::EACCES);
        }
        vm_flags.remove(VmFlags::MAYWRITE);
    }
    if !file.readable() {
        return Err(Errno::EACCES);
    }
    let mapping = file.mapping().ok_or(Errno::ENODEV)?;
    if vm_flags.contains(VmFlags::GROWSDOWN) {
        return Err(Errno::EINVAL);
    }
    if let Some(node) = file.node().filter(|_| shared)
        && !node.may_map_shared(vm_flags.contains(VmFlags::WRITE))?
    {
        vm_flags.remove(VmFlags::MAYWRITE);
    }
    file.inode.accessed();
    vm_flags.set(VmFlags::SHARED, shared);
    let writer = if shared && vm_flags.contains(VmFlags::MAYWRITE) {
        Some(Writer::new(&mapping)?)
    } else {
        None
    };
    let source = Source {
        mapping,
        first_page: (offset >> PAGE_SHIFT) as u64,
        file: Some(file.clone() as Arc<dyn MappedFile>),
    };
    Ok((source, writer))
}

/// munmap(2).
pub fn sys_munmap(&[addr, len, ..]: &Args) -> Result<usize> {
    with_mm(|mm| mm.unmap(addr, len)).map(|()| 0)
}

/// mprotect(2).
pub fn sys_mprotect(&[addr, len, prot, ..]: &Args) -> Result<usize> {
    let prot_bits = prot as u32;
    let grows = prot_bits & (abi::PROT_GROWSDOWN | abi::PROT_GROWSUP);
    if grows == abi::PROT_GROWSDOWN | abi::PROT_GROWSUP || addr % PAGE_SIZE != 0 {
        return Err(Errno::EINVAL);
    }
    if len == 0 {
        return Ok(0);
    }
    if page_align_up(len)
        .and_then(|len| addr.checked_add(len))
        .is_none_or(|end| end <= addr)
    {
        return Err(Errno::ENOMEM);
    }
    let known = abi::PROT_READ | abi::PROT_WRITE | abi::PROT_EXEC | abi::PROT_SEM;
    if prot_bits & !grows & !known != 0 {
        return Err(Errno::EINVAL);
    }
    if grows == abi::PROT_GROWSUP {
        // No area grows upwards.
        let mapped = VirtAddr::new(addr)
            .is_some_and(|addr| with_mm(|mm| Ok(mm.is_mapped(addr))) == Ok(true));
        return Err(if mapped { Errno::EINVAL } else { Errno::ENOMEM });
    }
    let grows_down = grows == abi::PROT_GROWSDOWN;
    with_mm(|mm| mm.protect(addr, len, permissions(prot), grows_down)).map(|()| 0)
}

/// brk(2).
pub fn sys_brk(&[addr, ..]: &Args) -> Result<usize> {
    with_mm(|mm| {
        let before = mm.heap_range().1;
        let now = mm.set_brk(addr)?;
        if now > before && mm.locks_new() {
            let start = page_align_down(before);
            mm.populate_what_can_be_had(start, now - start);
        }
        Ok(now)
    })
}

/// mremap(2).
pub fn sys_mremap(&[addr, old_len, new_len, flags, new_addr, _]: &Args) -> Result<usize> {
    let flags = flags as u32;
    let known = abi::MREMAP_MAYMOVE | abi::MREMAP_FIXED | abi::MREMAP_DONTUNMAP;
    let has = |flag| flags & flag != 0;
    let may_move = has(abi::MREMAP_MAYMOVE);
    if flags & !known != 0 {
        return Err(Errno::EINVAL);
    }
    let how = Remap {
        may_move,
        to: has(abi::MREMAP_FIXED).then_some(new_addr),
        keep_old: has(abi::MREMAP_DONTUNMAP).then_some(new_addr),
    };
    with_mm(|mm| {
        let done = mm.remap(addr, old_len, new_len, how)?;
        if let Some((start, len)) = done.populate {
            mm.populate_what_can_be_had(start, len);
        }
        Ok(done.start)
    })
}

/// madvise(2).
pub fn sys_madvise(&[addr, len, advice, ..]: &Args) -> Result<usize> {
    let reading = VmFlags::RANDOM | VmFlags::SEQUENTIAL;
    let huge = VmFlags::HUGEPAGE | VmFlags::NOHUGEPAGE;
    let none = VmFlags::empty();
    let flags = |clear, set| Advice::Flags { clear, set };
    let advice = match advice as u32 {
        abi::MADV_NORMAL => flags(reading, none),
        abi::MADV_RANDOM => flags(reading, VmFlags::RANDOM),
        abi::MADV_SEQUENTIAL => flags(reading, VmFlags::SEQUENTIAL),
        abi::MADV_WILLNEED => Advice::WillNeed,
        abi::MADV_DONTNEED => Advice::DontNeed { locked: false },
        abi::MADV_DONTNEED_LOCKED => Advice::DontNeed { locked: true },
        abi::MADV_FREE => Advice::Free,
        abi::MADV_REMOVE => Advice::Remove,
        abi::MADV_DONTFORK => flags(none, VmFlags::DONTFORK),
        abi::MADV_DOFORK => flags(VmFlags::DONTFORK, none),
        abi::MADV_WIPEONFORK => Advice::WipeOnFork,
        abi::MADV_KEEPONFORK => flags(VmFlags::WIPEONFORK, none),
        abi::MADV_DONTDUMP => flags(none, VmFlags::DONTDUMP),
        abi::MADV_DODUMP => flags(VmFlags::DONTDUMP, none),
        abi::MADV_HUGEPAGE => flags(huge, VmFlags::HUGEPAGE),
        abi::MADV_NOHUGEPAGE => flags(huge, VmFlags::NOHUGEPAGE),
        abi::MADV_COLD | abi::MADV_PAGEOUT => Advice::Cold,
        abi::MADV_POPULATE_READ => Advice::Populate(Access::Read),
        abi::MADV_POPULATE_WRITE => Advice::Populate(Access::Write),
        _ => return Err(Errno::EINVAL),
    };
    with_mm(|mm| mm.advise(addr, len, advice)).map(|()| 0)
}

/// mincore(2).
pub fn sys_mincore(&[addr, len, vec, ..]: &Args) -> Result<usize> {
    if addr % PAGE_SIZE != 0 {
        return Err(Errno::EINVAL);
    }
    if addr.checked_add(len).is_none_or(|end| end > USER_END) {
        return Err(Errno::ENOMEM);
    }
    let pages = len.div_ceil(PAGE_SIZE);
    if vec.checked_add(pages).is_none_or(|end| end > USER_END) {
        return Err(Errno::EFAULT);
    }
    let mut done = 0;
    while done < pages {
        let mut seen = [0u8; 256];
        let part = &mut seen[..(pages - done).min(256)];
        let start = VirtAddr::new(addr + done * PAGE_SIZE).ok_or(Errno::ENOMEM)?;
        with_mm(|mm| mm.residency(start, part))?;
        uaccess::write_bytes(vec + done, part)?;
        done += part.len();
    }
    Ok(0)
}

/// msync(2).
pub fn sys_msync(&[addr, len, flags, ..]: &Args) -> Result<usize> {
    let flags = flags as u32;
    let known = abi::MS_ASYNC | abi::MS_INVALIDATE | abi::MS_SYNC;
    if flags & !known != 0
        || addr % PAGE_SIZE != 0
        || flags & (abi::MS_ASYNC | abi::MS_SYNC) == abi::MS_ASYNC | abi::MS_SYNC
    {
        return Err(Errno::EINVAL);
    }
    let has = |flag| flags & flag != 0;
    with_mm(|mm| mm.sync(addr, len, has(abi::MS_SYNC), has(abi::MS_INVALIDATE))).map(|()| 0)
}

/// mlock(2).
pub fn sys_mlock(&[addr, len, ..]: &Args) -> Result<usize> {
    lock(addr, len, VmFlags::LOCKED)
}

/// mlock2(2).
pub fn sys_mlock2(&[addr, len, flags, ..]: &Args) -> Result<usize> {
    match flags as u32 {
        0 => lock(addr, len, VmFlags::LOCKED),
        abi::MLOCK_ONFAULT => lock(addr, len, VmFlags::LOCKED | VmFlags::LOCKONFAULT),
        _ => Err(Errno::EINVAL),
    }
}

fn lock(addr: usize, len: usize, locks: VmFlags) -> Result<usize> {
    with_mm(|mm| {
        let Some((start, len)) = mm.set_locks(addr, len, locks)? else {
            return Ok(0);
        };
        // mlock(2) has its own words for what populating answers with.
        mm.populate(start, len)
            .map(|()| 0)
            .map_err(|errno| match errno {
                Errno::EFAULT => Errno::ENOMEM,
                other => other,
            })
    })
}

/// munlock(2).
pub fn sys_munlock(&[addr, len, ..]: &Args) -> Result<usize> {
    with_mm(|mm| mm.set_locks(addr, len, VmFlags::empty())).map(|_| 0)
}

/// mlockall(2).
pub fn sys_mlockall(&[flags, ..]: &Args) -> Result<usize> {
    let flags = flags as u32;
    let known = abi::MCL_CURRENT | abi::MCL_FUTURE | abi::MCL_ONFAULT;
    if flags & !known != 0 || flags & (abi::MCL_CURRENT | abi::MCL_FUTURE) == 0 {
        return Err(Errno::EINVAL);
    }
    let mut locks = VmFlags::LOCKED;
    locks.set(VmFlags::LOCKONFAULT, flags & abi::MCL_ONFAULT != 0);
    let chosen = |flag| (flags & flag != 0).then_some(locks);
    with_mm(|mm| {
        let future = chosen(abi::MCL_FUTURE).unwrap_or(VmFlags::empty());
        mm.set_all_locks(chosen(abi::MCL_CURRENT), future)?;
        if flags & abi::MCL_CURRENT != 0 {
            mm.populate_what_can_be_had(0, USER_END);
        }
        Ok(0)
    })
}

/// munlockall(2).
pub fn sys_munlockall(_: &Args) -> Result<usize> {
    with_mm(|mm| mm.set_all_locks(Some(VmFlags::empty()), VmFlags::empty())).map(|()| 0)
}

/// userfaultfd(2). `EPERM` unless the caller is privileged or takes only faults of user mode (`vm.unprivileged_userfaultfd` is 0).
pub fn sys_userfaultfd(&[flags, ..]: &Args) -> Result<usize> {
    let flags = flags as u32;
    let privileged = current().process.credentials.get().is_privileged();
    if flags & abi::UFFD_USER_MODE_ONLY == 0 && !privileged {
        return Err(Errno::EPERM);
    }
    userfaultfd::open(flags)
}
