//! Who may use an object, and who owns it (`ipcperms` in Linux's `ipc/util.c`): as for files, but the one who made it has the owner's
//! rights for ever, and the effective user counts.

use linux_raw_sys::general as abi;

use crate::errno::{Errno, Result};
use crate::sched::current;

/// To read an object, for all three classes at once.
pub const READ: u32 = abi::S_IRUSR | abi::S_IRGRP | abi::S_IROTH;
/// To change it.
pub const WRITE: u32 = abi::S_IWUSR | abi::S_IWGRP | abi::S_IWOTH;
pub const EXEC: u32 = abi::S_IXUSR | abi::S_IXGRP | abi::S_IXOTH;
/// The bits of a mode that IPC_SET changes.
pub const ALL: u32 = READ | WRITE | EXEC;

/// Owner, maker and mode of an object.
#[derive(Clone, Copy, Debug)]
pub struct Permission {
    pub uid: u32,
    pub gid: u32,
    maker_uid: u32,
    maker_gid: u32,
    pub mode: u32,
}

impl Permission {
    /// Of an object that the current process makes.
    pub fn new(mode: u32) -> Permission {
        let identity = current().process.credentials.get();
        let (uid, gid) = (identity.user.effective, identity.group.effective);
        Permission {
            uid,
            gid,
            maker_uid: uid,
            maker_gid: gid,
            mode: mode & ALL,
        }
    }

    /// Whether the current process may do what `wanted` says, in any of its three classes. `EACCES`.
    pub fn check(&self, wanted: u32) -> Result {
        let identity = current().process.credentials.get();
        let in_group = |gid| gid == identity.group.file_system || identity.groups().contains(&gid);
        let shift = if self.is_owner(identity.user.effective) {
            6
        } else if in_group(self.maker_gid) || in_group(self.gid) {
            3
        } else {
            0
        };
        let wanted = wanted >> 6 | wanted >> 3 | wanted;
        let missing = wanted & !(self.mode >> shift) & 0o7;
        if missing == 0 || identity.is_privileged() {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }

    fn is_owner(&self, uid: u32) -> bool {
        uid == self.uid || uid == self.maker_uid
    }

    /// Whether the current process may change or remove the object. `EPERM`.
    pub fn check_owner(&self) -> Result {
        let identity = current().process.credentials.get();
        if self.is_owner(identity.user.effective) || identity.is_privileged() {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    /// IPC_SET with a `struct ipc64_perm`. `EINVAL` for a number that nobody has.
    pub fn set(&mut self, [first, second, third, ..]: [u64; 6]) -> Result {
        let (uid, gid) = ((first >> 32) as u32, second as u32);
        if uid == u32::MAX || gid == u32::MAX {
            return Err(Errno::EINVAL);
        }
        (self.uid, self.gid) = (uid, gid);
        self.mode = self.mode & !ALL | (third >> 32) as u32 & ALL;
        Ok(())
    }

    /// As `struct ipc64_perm`; `sequence` is a part of the object's number.
    pub fn to_abi(self, key: i32, sequence: u32) -> [u64; 6] {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        [
            pair(key as u32, self.uid),
            pair(self.gid, self.maker_uid),
            pair(self.maker_gid, self.mode),
            u64::from(sequence as u16),
            0,
            0,
        ]
    }

    /// Who owns and who made the object, as the files of /proc/sysvipc show it: uid, gid, cuid, cgid.
    pub fn numbers(&self) -> [u32; 4] {
        [self.uid, self.gid, self.maker_uid, self.maker_gid]
    }
}
