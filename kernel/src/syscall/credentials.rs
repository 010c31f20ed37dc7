//! System calls on user and group numbers (`credentials(7)`).

use crate::errno::{Errno, Result};
use crate::mm::uaccess::UserPtr;
use crate::sched::current;
use crate::task::credentials::{Identity, MAX_GROUPS, optional_id};

type Args = [usize; 6];

fn own() -> Identity {
    current().process.credentials.get()
}

fn change(f: impl FnOnce(&mut Identity, bool) -> Result) -> Result<usize> {
    current().process.credentials.change(|identity| {
        let privileged = identity.is_privileged();
        f(identity, privileged)
    })?;
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
