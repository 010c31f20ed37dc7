//! System calls on the address space.

use alloc::sync::Arc;

use linux_raw_sys::general as abi;

use crate::errno::{Errno, Result};
use crate::fs::File;
use crate::mm::map::Place;
use crate::mm::page_cache::Mapping;
use crate::mm::vma::{MappedFile, Source};
use crate::mm::{Mm, PAGE_SHIFT, PAGE_SIZE, VmFlags};
use crate::sched::current;

type Args = [usize; 6];

/// Runs `f` on the current process's address space.
fn with_mm<R>(f: impl FnOnce(&Mm) -> Result<R>) -> Result<R> {
    f(current().process.current_mm().ok_or(Errno::ENOMEM)?)
}

/// mmap(2).
pub fn sys_mmap(&[addr, len, prot, flags, fd, offset]: &Args) -> Result<usize> {
    let flags = flags as u32;
    if offset % PAGE_SIZE != 0 {
        return Err(Errno::EINVAL);
    }
    let place = match flags {
        f if f & abi::MAP_FIXED_NOREPLACE != 0 => Place::FixedNoReplace(addr),
        f if f & abi::MAP_FIXED != 0 => Place::Fixed(addr),
        _ => Place::Hint(addr),
    };
    let mut vm_flags = permissions(prot) | VmFlags::MAYREAD | VmFlags::MAYWRITE | VmFlags::MAYEXEC;
    let shared = match flags & abi::MAP_TYPE {
        abi::MAP_PRIVATE => false,
        abi::MAP_SHARED => true,
        abi::MAP_SHARED_VALIDATE if flags & !KNOWN_FLAGS == 0 => true,
        abi::MAP_SHARED_VALIDATE => return Err(Errno::EOPNOTSUPP),
        _ => return Err(Errno::EINVAL),
    };
    vm_flags.set(VmFlags::SHARED, shared);
    vm_flags.set(VmFlags::NORESERVE, flags & abi::MAP_NORESERVE != 0);
    let source = if flags & abi::MAP_ANONYMOUS != 0 {
        vm_flags.set(VmFlags::GROWSDOWN, flags & abi::MAP_GROWSDOWN != 0);
        if shared {
            Some(shared_memory(len)?)
        } else {
            None
        }
    } else {
        let file = current().process.files.get(fd as i32)?;
        Some(file_source(&file, offset, shared, &mut vm_flags)?)
    };
    let start = with_mm(|mm| mm.map(place, len, vm_flags, source))?;
    if flags & abi::MAP_POPULATE != 0 && vm_flags.contains(VmFlags::READ) {
        populate(start, len, vm_flags.contains(VmFlags::WRITE) && !shared);
    }
    Ok(start)
}

/// Flags that MAP_SHARED_VALIDATE accepts.
const KNOWN_FLAGS: u32 = abi::MAP_TYPE
    | abi::MAP_FIXED
    | abi::MAP_FIXED_NOREPLACE
    | abi::MAP_ANONYMOUS
    | abi::MAP_GROWSDOWN
    | abi::MAP_DENYWRITE
    | abi::MAP_EXECUTABLE
    | abi::MAP_LOCKED
    | abi::MAP_NORESERVE
    | abi::MAP_POPULATE
    | abi::MAP_NONBLOCK
    | abi::MAP_STACK;

fn permissions(prot: usize) -> VmFlags {
    let mut flags = VmFlags::empty();
    let prot = prot as u32;
    // Whatever can be written or executed can be read on this hardware, but the area says what was asked for.
    flags.set(VmFlags::READ, prot & abi::PROT_READ != 0);
    flags.set(VmFlags::WRITE, prot & abi::PROT_WRITE != 0);
    flags.set(VmFlags::EXEC, prot & abi::PROT_EXEC != 0);
    flags
}

fn shared_memory(len: usize) -> Result<Source> {
    Ok(Source {
        mapping: Mapping::anonymous(len as u64)?,
        first_page: 0,
        file: None,
    })
}

/// The source of a file mapping, and what the file's access mode lets the area ever have. `EACCES`, `ENODEV`, `EOVERFLOW`.
fn file_source(
    file: &Arc<File>,
    offset: usize,
    shared: bool,
    flags: &mut VmFlags,
) -> Result<Source> {
    let mapping = file.mapping().ok_or(Errno::ENODEV)?;
    if !file.readable() {
        return Err(Errno::EACCES);
    }
    if shared && !file.writable() {
        if flags.contains(VmFlags::WRITE) {
            return Err(Errno::EACCES);
        }
        flags.remove(VmFlags::MAYWRITE);
    }
    Ok(Source {
        mapping,
        first_page: (offset >> PAGE_SHIFT) as u64,
        file: Some(file.clone() as Arc<dyn MappedFile>),
    })
}

/// MAP_POPULATE: touches every page; what cannot be had now is left to faults.
fn populate(start: usize, len: usize, write: bool) {
    for page in (start..start.saturating_add(len)).step_by(PAGE_SIZE) {
        let present = if write {
            crate::mm::uaccess::fault_in_writeable(page)
        } else {
            crate::mm::uaccess::fault_in_readable(page)
        };
        if present.is_err() {
            return;
        }
    }
}

/// munmap(2).
pub fn sys_munmap(&[addr, len, ..]: &Args) -> Result<usize> {
    with_mm(|mm| mm.unmap(addr, len)).map(|()| 0)
}

/// mprotect(2).
pub fn sys_mprotect(&[addr, len, prot, ..]: &Args) -> Result<usize> {
    if prot as u32 & !(abi::PROT_READ | abi::PROT_WRITE | abi::PROT_EXEC | abi::PROT_SEM) != 0 {
        return Err(Errno::EINVAL);
    }
    with_mm(|mm| mm.protect(addr, len, permissions(prot))).map(|()| 0)
}

/// brk(2).
pub fn sys_brk(&[addr, ..]: &Args) -> Result<usize> {
    with_mm(|mm| mm.set_brk(addr))
}

/// madvise(2): MADV_DONTNEED has an effect; advice without a meaning here is accepted, other advice is `EINVAL`.
pub fn sys_madvise(&[addr, len, advice, ..]: &Args) -> Result<usize> {
    match advice as u32 {
        abi::MADV_DONTNEED => with_mm(|mm| mm.discard(addr, len)).map(|()| 0),
        abi::MADV_NORMAL
        | abi::MADV_RANDOM
        | abi::MADV_SEQUENTIAL
        | abi::MADV_WILLNEED
        | abi::MADV_HUGEPAGE
        | abi::MADV_NOHUGEPAGE
        | abi::MADV_DONTDUMP
        | abi::MADV_DODUMP
        | abi::MADV_COLD
        | abi::MADV_PAGEOUT
            if addr % PAGE_SIZE == 0 =>
        {
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}
