//! System calls on user and group numbers (`credentials(7)`).

use super::process::process_or_self;
use crate::errno::{Errno, Result};
use crate::mm::uaccess::UserPtr;
use crate::sched::current;
use crate::task::credentials::{Identity, MAX_GROUPS, optional_id};
use crate::task::user_tasks;

type Args = [usize; 6];

fn own() -> Identity {
    current().process.credentials.get()
}

fn change(f: impl FnOnce(&mut Identity, bool) -> Result) -> Result<usize> {
    let process = &current().process;
    process.credentials.change(|identity| {
        let privileged = identity.is_privileged();
        f(identity, privileged)
    })?;
    user_tasks::user_changed(process);
    Ok(0)
}

/// getuid(2).
pub fn sys_getuid(_: &Args) -> Result<usize> {
    Ok(own().user.real as usize)
}

/// geteuid(2).
pub fn sys_geteuid(_: &Args) -> Result<usize> {
    Ok(own().user.effective as usize)
}

/// getgid(2).
pub fn sys_getgid(_: &Args) -> Result<usize> {
    Ok(own().group.real as usize)
}

/// getegid(2).
pub fn sys_getegid(_: &Args) -> Result<usize> {
    Ok(own().group.effective as usize)
}

/// setuid(2).
pub fn sys_setuid(&[id, ..]: &Args) -> Result<usize> {
    let id = optional_id(id).ok_or(Errno::EINVAL)?;
    change(|identity, privileged| identity.user.set(id, privileged))
}

/// setgid(2).
pub fn sys_setgid(&[id, ..]: &Args) -> Result<usize> {
    let id = optional_id(id).ok_or(Errno::EINVAL)?;
    change(|identity, privileged| identity.group.set(id, privileged))
}

/// setreuid(2).
pub fn sys_setreuid(&[real, effective, ..]: &Args) -> Result<usize> {
    let (real, effective) = (optional_id(real), optional_id(effective));
    change(|identity, privileged| {
        identity
            .user
            .set_real_effective(real, effective, privileged)
    })
}

/// setregid(2).
pub fn sys_setregid(&[real, effective, ..]: &Args) -> Result<usize> {
    let (real, effective) = (optional_id(real), optional_id(effective));
    change(|identity, privileged| {
        identity
            .group
            .set_real_effective(real, effective, privileged)
    })
}

/// setresuid(2).
pub fn sys_setresuid(&[real, effective, saved, ..]: &Args) -> Result<usize> {
    let new = [real, effective, saved].map(optional_id);
    change(|identity, privileged| identity.user.set_all(new, privileged))
}

/// setresgid(2).
pub fn sys_setresgid(&[real, effective, saved, ..]: &Args) -> Result<usize> {
    let new = [real, effective, saved].map(optional_id);
    change(|identity, privileged| identity.group.set_all(new, privileged))
}

/// setfsuid(2): gives the number before, whether it changed or not.
pub fn sys_setfsuid(&[id, ..]: &Args) -> Result<usize> {
    let mut before = 0;
    change(|identity, privileged| {
        before = identity.user.set_file_system(id as u32, privileged);
        Ok(())
    })?;
    Ok(before as usize)
}

/// setfsgid(2).
pub fn sys_setfsgid(&[id, ..]: &Args) -> Result<usize> {
    let mut before = 0;
    change(|identity, privileged| {
        before = identity.group.set_file_system(id as u32, privileged);
        Ok(())
    })?;
    Ok(before as usize)
}

fn write_three(pointers: [usize; 3], values: [u32; 3]) -> Result<usize> {
    for (pointer, value) in pointers.into_iter().zip(values) {
        UserPtr::new(pointer).write(value)?;
    }
    Ok(0)
}

/// getresuid(2).
pub fn sys_getresuid(&[real, effective, saved, ..]: &Args) -> Result<usize> {
    let ids = own().user;
    write_three(
        [real, effective, saved],
        [ids.real, ids.effective, ids.saved],
    )
}

/// getresgid(2).
pub fn sys_getresgid(&[real, effective, saved, ..]: &Args) -> Result<usize> {
    let ids = own().group;
    write_three(
        [real, effective, saved],
        [ids.real, ids.effective, ids.saved],
    )
}

/// getgroups(2).
pub fn sys_getgroups(&[size, list, ..]: &Args) -> Result<usize> {
    let identity = own();
    let groups = identity.groups();
    let size = usize::try_from(size as i32).map_err(|_| Errno::EINVAL)?;
    if size == 0 {
        return Ok(groups.len());
    }
    if size < groups.len() {
        return Err(Errno::EINVAL);
    }
    for (index, &group) in groups.iter().enumerate() {
        UserPtr::<u32>::new(list).at(index).write(group)?;
    }
    Ok(groups.len())
}

/// setgroups(2).
pub fn sys_setgroups(&[size, list, ..]: &Args) -> Result<usize> {
    if !own().is_privileged() {
        return Err(Errno::EPERM);
    }
    let mut groups = [0; MAX_GROUPS];
    let groups = groups.get_mut(..size).ok_or(Errno::EINVAL)?;
    for (index, group) in groups.iter_mut().enumerate() {
        *group = UserPtr::<u32>::new(list).at(index).read()?;
    }
    change(|identity, _| identity.set_groups(groups))
}

/// All capabilities that Linux knows; there are no others.
const ALL: u64 = (1 << 41) - 1;

/// What the current process has: effective, permitted, inheritable.
fn capabilities(of: &Identity) -> [u64; 3] {
    let user = of.user;
    let is_root = |id| if id == 0 { ALL } else { 0 };
    let permitted = is_root(user.real) | is_root(user.effective) | is_root(user.saved);
    [is_root(user.effective), permitted, 0]
}

// Versions of the header, from `linux/capability.h`: the first has sets of 32 bits, the others of 64 bits in two halves.
const VERSION_1: u32 = 0x1998_0330;
const VERSION_2: u32 = 0x2007_1026;
const VERSION_3: u32 = 0x2008_0522;

/// The number of halves of each set, and the process. An unknown version is answered by the best one and `None`.
fn read_header(header: usize) -> Result<(Option<usize>, u32)> {
    let header = UserPtr::<[u32; 2]>::new(header);
    let [version, pid] = header.read()?;
    let halves = match version {
        VERSION_1 => Some(1),
        VERSION_2 | VERSION_3 => Some(2),
        _ => {
            header.write([VERSION_3, pid])?;
            None
        }
    };
    if (pid as i32) < 0 && halves.is_some() {
        return Err(Errno::EINVAL);
    }
    Ok((halves, pid))
}

/// capget(2): root has all capabilities, others none.
pub fn sys_capget(&[header, data, ..]: &Args) -> Result<usize> {
    let (Some(halves), pid) = read_header(header)? else {
        return if data == 0 { Ok(0) } else { Err(Errno::EINVAL) };
    };
    let process = process_or_self(pid as usize)?;
    let sets = capabilities(&process.credentials.get());
    for half in 0..halves {
        let part = sets.map(|set| (set >> (32 * half)) as u32);
        UserPtr::<[u32; 3]>::new(data).at(half).write(part)?;
    }
    Ok(0)
}

/// capset(2): only what the process has already, as capabilities go with the user's number. `EPERM`.
pub fn sys_capset(&[header, data, ..]: &Args) -> Result<usize> {
    let (Some(halves), pid) = read_header(header)? else {
        return Err(Errno::EINVAL);
    };
    if ![0, current().process.pid].contains(&pid) {
        return Err(Errno::EPERM);
    }
    let mut asked = [0u64; 3];
    for half in 0..halves {
        let part = UserPtr::<[u32; 3]>::new(data).at(half).read()?;
        for (set, part) in asked.iter_mut().zip(part) {
            *set |= u64::from(part) << (32 * half);
        }
    }
    if asked == capabilities(&own()) {
        Ok(0)
    } else {
        Err(Errno::EPERM)
    }
}
