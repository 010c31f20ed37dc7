//! System V shared memory: shmget(2), shmat(2), shmdt(2), shmctl(2).

use alloc::sync::Arc;

use super::args::Args;
use super::memory::with_mm;
use crate::errno::{Errno, Result};
use crate::ipc::abi;
use crate::ipc::permission;
use crate::ipc::settings::{SHMALL, SHMMAX, SHMMNI};
use crate::ipc::shared_memory::{self, Attachment, SHMMIN, Status};
use crate::mm::addr::page_align_down;
use crate::mm::map::Place;
use crate::mm::reverse_map::Writer;
use crate::mm::uaccess::UserPtr;
use crate::mm::vma::Source;
use crate::mm::{PAGE_SIZE, VmFlags};

/// shmget(2).
pub fn sys_shmget(&[key, size, flags, ..]: &Args) -> Result<usize> {
    shared_memory::get(key as i32, size as u64, flags as u32).map(|id| id as usize)
}

/// shmat(2). The order of the checks is Linux's: the address, the segment, and then whether there is room.
pub fn sys_shmat(&[id, addr, flags, ..]: &Args) -> Result<usize> {
    let flags = flags as u32;
    let place = place(id as i32, addr, flags)?;
    let mut vm_flags =
        VmFlags::SHARED | VmFlags::COUNTED | VmFlags::READ | VmFlags::MAYREAD | VmFlags::MAYEXEC;
    let mut wanted = permission::READ;
    if flags & abi::SHM_RDONLY == 0 {
        vm_flags |= VmFlags::WRITE | VmFlags::MAYWRITE;
        wanted |= permission::WRITE;
    }
    if flags & abi::SHM_EXEC != 0 {
        vm_flags |= VmFlags::EXEC;
        wanted |= permission::EXEC;
    }
    let attachment = Attachment::new(id as i32, wanted)?;
    let attached = attach(&attachment, place, vm_flags);
    attachment.settle();
    attached
}

/// Where shmat(2) puts a segment. `EINVAL`.
fn place(id: i32, addr: usize, flags: u32) -> Result<Place> {
    if id < 0 {
        return Err(Errno::EINVAL);
    }
    let remap = flags & abi::SHM_REMAP != 0;
    if addr == 0 {
        return if remap {
            Err(Errno::EINVAL)
        } else {
            Ok(Place::Hint(0))
        };
    }
    let start = page_align_down(addr);
    if start != addr && flags & abi::SHM_RND == 0 || start == 0 && remap {
        return Err(Errno::EINVAL);
    }
    Ok(if remap {
        Place::Fixed(start)
    } else {
        Place::FixedNoReplace(start)
    })
}

fn attach(attachment: &Arc<Attachment>, place: Place, vm_flags: VmFlags) -> Result<usize> {
    let mapping = attachment.mapping().clone();
    let len = mapping.size() as usize;
    if let Place::FixedNoReplace(addr) = place
        && addr.checked_add(len).is_none()
    {
        return Err(Errno::EINVAL);
    }
    let _writer = vm_flags
        .contains(VmFlags::MAYWRITE)
        .then(|| Writer::new(&mapping))
        .transpose()?;
    let source = Source {
        mapping,
        first_page: 0,
        file: Some(attachment.clone()),
    };
    with_mm(|mm| {
        let start = mm
            .map(place, len, vm_flags, Some(source))
            .map_err(|error| match error {
                Errno::EEXIST => Errno::EINVAL,
                other => other,
            })?;
        if mm.locks_new() {
            mm.populate_what_can_be_had(start, len);
        }
        Ok(start)
    })
}

/// shmdt(2).
pub fn sys_shmdt(&[addr, ..]: &Args) -> Result<usize> {
    if addr % PAGE_SIZE != 0 {
        return Err(Errno::EINVAL);
    }
    with_mm(|mm| mm.detach(addr)).map(|()| 0)
}

/// shmctl(2).
pub fn sys_shmctl(&[id, command, buf, ..]: &Args) -> Result<usize> {
    let (id, command) = (id as i32, command as u32);
    if command as i32 >= 0 && id >= 0 {
        control(id, command, buf)
    } else {
        Err(Errno::EINVAL)
    }
}

fn control(id: i32, command: u32, buf: usize) -> Result<usize> {
    match command {
        abi::IPC_INFO => {
            // `struct shminfo64`.
            let limits = [
                SHMMAX.get(),
                SHMMIN,
                SHMMNI.get(),
                SHMMNI.get(),
                SHMALL.get(),
            ];
            let mut info = [0; 9];
            info[..5].copy_from_slice(&limits);
            UserPtr::<[u64; 9]>::new(buf).write(info)?;
            Ok(shared_memory::SEGMENTS.highest_place())
        }
        abi::SHM_INFO => {
            // `struct shm_info`; nothing is swapped.
            let totals = shared_memory::totals();
            let info = [totals.segments, totals.pages, totals.resident, 0, 0, 0];
            UserPtr::<[u64; 6]>::new(buf).write(info)?;
            Ok(totals.highest)
        }
        abi::IPC_STAT => tell(&shared_memory::SEGMENTS.status(id)?, buf).map(|()| 0),
        abi::SHM_STAT | abi::SHM_STAT_ANY => {
            let status = shared_memory::SEGMENTS.status_at(id, command == abi::SHM_STAT_ANY)?;
            tell(&status, buf)?;
            Ok(status.id as usize)
        }
        abi::IPC_SET => {
            let new = UserPtr::<[u64; 14]>::new(buf).read()?;
            shared_memory::set(id, [new[0], new[1], new[2], 0, 0, 0]).map(|()| 0)
        }
        abi::IPC_RMID => shared_memory::remove(id).map(|()| 0),
        abi::SHM_LOCK | abi::SHM_UNLOCK => {
            shared_memory::lock(id, command == abi::SHM_LOCK).map(|()| 0)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// Writes a `struct shmid64_ds`.
fn tell(status: &Status, buf: usize) -> Result {
    let mut words = [0; 14];
    words[..6].copy_from_slice(&status.permission.to_abi(status.key, status.sequence));
    words[6..12].copy_from_slice(&[
        status.size,
        status.attach_time as u64,
        status.detach_time as u64,
        status.change_time as u64,
        u64::from(status.maker) | u64::from(status.last_pid) << 32,
        status.attached,
    ]);
    UserPtr::<[u64; 14]>::new(buf).write(words)
}
