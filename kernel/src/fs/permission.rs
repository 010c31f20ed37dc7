//! Who may do what with a file (`path_resolution(7)`, "Permissions"; `inode(7)`): by owner, group, the permission bits, the sticky bit.
//!
//! A [`Subject`] is who asks. User 0 may do anything but run a file that nobody may run and write to a file system that cannot be
//! written. It is taken from the process when a path walk or a call begins: a thread that changes its numbers meanwhile changes later calls.

use linux_raw_sys::general as abi;

use super::inode::{FileType, InodeRef, SetAttr, Stat};
use crate::errno::{Errno, Result};
use crate::sched::current;
use crate::task::credentials::Identity;

bitflags::bitflags! {
    /// What is to be done with a file; of a directory, `EXEC` is to look a name up in it. The values of `access(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Want: u32 {
        const EXEC = abi::X_OK;
        const WRITE = abi::W_OK;
        const READ = abi::R_OK;
    }
}

/// Changing the entries of a directory.
const CHANGE: Want = Want::WRITE.union(Want::EXEC);

/// Who asks: the numbers that count for files.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    uid: u32,
    gid: u32,
    identity: Identity,
}

impl Subject {
    /// The current process, by its file system numbers.
    pub fn current() -> Subject {
        let identity = current().process.credentials.get();
        Subject {
            uid: identity.user.file_system,
            gid: identity.group.file_system,
            identity,
        }
    }

    /// The current process by its real numbers, as access(2) asks.
    pub fn current_real() -> Subject {
        let identity = current().process.credentials.get();
        Subject {
            uid: identity.user.real,
            gid: identity.group.real,
            identity,
        }
    }

    fn is_privileged(&self) -> bool {
        self.uid == 0
    }

    fn is_in_group(&self, gid: u32) -> bool {
        gid == self.gid || self.identity.groups().contains(&gid)
    }

    /// Whether it may do with its own attributes what only the owner may.
    fn owns(&self, stat: &Stat) -> bool {
        self.is_privileged() || self.uid == stat.uid
    }

    /// Whether `want` may be done with the file. `EACCES`.
    pub fn may(&self, inode: &InodeRef, want: Want) -> Result {
        // Most walks are root's, through directories.
        if self.is_privileged() && want == Want::EXEC && inode.file_type() == FileType::Directory {
            return Ok(());
        }
        self.may_with(&inode.stat(), want)
    }

    /// The same for a file whose attributes are known.
    pub fn may_with(&self, stat: &Stat, want: Want) -> Result {
        if self.allows(stat, want) {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }

    fn allows(&self, stat: &Stat, want: Want) -> bool {
        if self.is_privileged() {
            return !want.contains(Want::EXEC)
                || stat.file_type == FileType::Directory
                || stat.mode & 0o111 != 0;
        }
        let shift = if self.uid == stat.uid {
            6
        } else if self.is_in_group(stat.gid) {
            3
        } else {
            0
        };
        Want::from_bits_truncate(stat.mode >> shift).contains(want)
    }

    /// Whether entries may be made in a directory. `EACCES`.
    pub fn may_create_in(&self, dir: &InodeRef) -> Result {
        self.may(dir, CHANGE)
    }

    /// Whether the entry `inode` of a directory may be removed or replaced. `EACCES`, `EPERM` in a sticky directory.
    pub fn may_remove_from(&self, dir: &InodeRef, inode: &InodeRef) -> Result {
        let dir = dir.stat();
        self.may_with(&dir, CHANGE)?;
        let sticky = dir.mode & abi::S_ISVTX != 0;
        if sticky && self.uid != dir.uid && !self.owns(&inode.stat()) {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    /// What chmod(2) to `mode` changes. `EPERM` for others than the owner; the set-group-ID bit is only for members of the group.
    pub fn new_mode(&self, stat: &Stat, mode: u32) -> Result<SetAttr> {
        if !self.owns(stat) {
            return Err(Errno::EPERM);
        }
        let foreign_group = !self.is_privileged() && !self.is_in_group(stat.gid);
        let lost = if foreign_group { abi::S_ISGID } else { 0 };
        Ok(SetAttr {
            mode: Some(mode & 0o7777 & !lost),
            ..SetAttr::default()
        })
    }

    /// What chown(2) changes: only root gives files away, the owner may give one to a group it is in. Privileges that the file
    /// gives are lost. `EPERM`.
    pub fn new_owner(&self, stat: &Stat, uid: Option<u32>, gid: Option<u32>) -> Result<SetAttr> {
        let own = self.uid == stat.uid;
        let user_allowed = uid.is_none_or(|uid| own && uid == stat.uid);
        let group_allowed = gid.is_none_or(|gid| own && self.is_in_group(gid));
        if !(self.is_privileged() || user_allowed && group_allowed) {
            return Err(Errno::EPERM);
        }
        let group_runs =
            stat.mode & abi::S_IXGRP != 0 || !self.is_privileged() && !self.is_in_group(stat.gid);
        let lost = match stat.file_type {
            FileType::Directory => 0,
            _ if group_runs => abi::S_ISUID | abi::S_ISGID,
            _ => abi::S_ISUID,
        };
        Ok(SetAttr {
            mode: (stat.mode & lost != 0).then_some(stat.mode & !lost),
            uid,
            gid,
            ..SetAttr::default()
        })
    }

    /// Whether the times of a file may be set: to now by who may write it (`EACCES`), to others by the owner (`EPERM`).
    pub fn may_set_times(&self, stat: &Stat, to_now: bool) -> Result {
        if self.owns(stat) || to_now && self.allows(stat, Want::WRITE) {
            Ok(())
        } else if to_now {
            Err(Errno::EACCES)
        } else {
            Err(Errno::EPERM)
        }
    }

    /// Whether it may open the file with O_NOATIME. `EPERM`.
    pub fn may_hide_reading(&self, stat: &Stat) -> Result {
        if self.owns(stat) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }
}

/// Owner and group of a file that the current process makes in a directory (`parent`, if it has one), and the mode it gets: in a
/// directory with the set-group-ID bit it belongs to the directory's group.
pub fn of_new_file(parent: Option<(u32, u32)>, file_type: FileType, mode: u32) -> (u32, u32, u32) {
    let subject = Subject::current();
    match parent {
        Some((dir_mode, dir_gid)) if dir_mode & abi::S_ISGID != 0 => {
            let inherited = if file_type == FileType::Directory {
                abi::S_ISGID
            } else {
                0
            };
            (subject.uid, dir_gid, mode | inherited)
        }
        _ => (subject.uid, subject.gid, mode),
    }
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;
    use crate::fs::inode::FileSystem;
    use crate::task::credentials::Ids;

    fn subject(uid: u32, gid: u32, groups: &[u32]) -> Subject {
        let mut identity = Identity::default();
        identity.set_groups(groups).expect("it is root");
        identity.user = Ids::all(uid);
        identity.group = Ids::all(gid);
        Subject { uid, gid, identity }
    }

    fn file(mode: u32, uid: u32, gid: u32) -> Stat {
        Stat {
            uid,
            gid,
            ..Stat::new(FileSystem::Tmp, 1, FileType::Regular, mode)
        }
    }

    #[test]
    fn the_first_class_that_fits_decides_alone() {
        let stat = file(0o047, 5, 6);
        assert_eq!(
            subject(5, 6, &[]).may_with(&stat, Want::READ),
            Err(Errno::EACCES)
        );
        assert_eq!(subject(7, 6, &[]).may_with(&stat, Want::READ), Ok(()));
        assert_eq!(
            subject(7, 1, &[6]).may_with(&stat, Want::WRITE),
            Err(Errno::EACCES)
        );
        assert_eq!(subject(7, 1, &[2]).may_with(&stat, Want::all()), Ok(()));
    }

    #[test]
    fn root_needs_only_an_x_bit_and_a_file_system_that_can_be_written() {
        let root = subject(0, 0, &[]);
        let stat = file(0, 5, 6);
        assert_eq!(root.may_with(&stat, Want::READ | Want::WRITE), Ok(()));
        assert_eq!(root.may_with(&stat, Want::EXEC), Err(Errno::EACCES));
        assert_eq!(root.may_with(&file(0o001, 5, 6), Want::EXEC), Ok(()));
    }

    #[test]
    fn attributes_are_the_owners() {
        let (owner, other) = (subject(5, 6, &[8]), subject(7, 7, &[]));
        let stat = file(0o6755, 5, 6);
        assert_eq!(
            owner.new_mode(&stat, 0o2700).expect("owner").mode,
            Some(0o2700)
        );
        assert_eq!(other.new_mode(&stat, 0o700).err(), Some(Errno::EPERM));
        assert_eq!(
            owner
                .new_mode(&file(0o755, 5, 9), 0o2700)
                .expect("owner")
                .mode,
            Some(0o700)
        );
        assert_eq!(
            owner.new_owner(&stat, Some(7), None).err(),
            Some(Errno::EPERM)
        );
        let given = owner
            .new_owner(&stat, Some(5), Some(8))
            .expect("a group of its own");
        assert_eq!((given.gid, given.mode), (Some(8), Some(0o755)));
        assert_eq!(
            owner.new_owner(&stat, None, Some(9)).err(),
            Some(Errno::EPERM)
        );
        assert_eq!(other.may_set_times(&file(0o757, 5, 6), true), Ok(()));
        assert_eq!(
            other.may_set_times(&file(0o757, 5, 6), false),
            Err(Errno::EPERM)
        );
        assert_eq!(other.may_set_times(&stat, true), Err(Errno::EACCES));
    }
}
