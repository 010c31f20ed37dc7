//! Who a process acts as (`credentials(7)`): user and group numbers, and what they allow towards other processes.
//!
//! Effective user 0 may do anything. For files the file system numbers count ([`crate::fs::permission`]).

use crate::errno::{Errno, Result};
use crate::sync::{SpinLock, rank};

/// Most supplementary groups (`NGROUPS_MAX` is larger; this is what a process can have here).
pub const MAX_GROUPS: usize = 32;

/// Real, effective and saved number of one kind, and the one that counts for files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    pub real: u32,
    pub effective: u32,
    pub saved: u32,
    /// Follows the effective one, unless setfsuid(2) or setfsgid(2) set it.
    pub file_system: u32,
}

impl Ids {
    /// The same number in all places.
    pub const fn all(id: u32) -> Ids {
        Ids {
            real: id,
            effective: id,
            saved: id,
            file_system: id,
        }
    }

    /// Whether all three numbers are `id`.
    pub fn is_all(&self, id: u32) -> bool {
        [self.real, self.effective, self.saved] == [id; 3]
    }

    /// Whether a user may send a signal to a process of the user `other` (`kill(2)`).
    pub fn may_signal(&self, other: &Ids) -> bool {
        let mine = [self.real, self.effective];
        self.effective == 0 || mine.contains(&other.real) || mine.contains(&other.saved)
    }

    fn has(&self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    /// setuid(2), setgid(2): root changes all three, others only the effective one, to one of the three. `EPERM`.
    pub fn set(&mut self, id: u32, privileged: bool) -> Result {
        match (privileged, self.has(id)) {
            (true, _) => {
                *self = Ids::all(id);
            }
            (false, true) => {
                self.effective = id;
                self.file_system = id;
            }
            (false, false) => return Err(Errno::EPERM),
        }
        Ok(())
    }

    /// setreuid(2), setregid(2): `None` leaves a number as it is. `EPERM`.
    pub fn set_real_effective(
        &mut self,
        real: Option<u32>,
        effective: Option<u32>,
        privileged: bool,
    ) -> Result {
        let real_allowed = real.is_none_or(|id| id == self.real || id == self.effective);
        let effective_allowed = effective.is_none_or(|id| self.has(id));
        if !(privileged || real_allowed && effective_allowed) {
            return Err(Errno::EPERM);
        }
        let before = *self;
        self.real = real.unwrap_or(before.real);
        self.effective = effective.unwrap_or(before.effective);
        // The saved number follows when the real one was set, or the effective one to something else than the real one was.
        if real.is_some() || effective.is_some_and(|id| id != before.real) {
            self.saved = self.effective;
        }
        self.file_system = self.effective;
        Ok(())
    }

    /// setresuid(2), setresgid(2). `EPERM`.
    pub fn set_all(&mut self, new: [Option<u32>; 3], privileged: bool) -> Result {
        if !privileged && !new.iter().flatten().all(|&id| self.has(id)) {
            return Err(Errno::EPERM);
        }
        let [real, effective, saved] = new;
        self.real = real.unwrap_or(self.real);
        self.effective = effective.unwrap_or(self.effective);
        self.saved = saved.unwrap_or(self.saved);
        self.file_system = self.effective;
        Ok(())
    }

    /// setfsuid(2), setfsgid(2): a number that may not be had, such as -1, leaves it as it is. Gives the number before.
    pub fn set_file_system(&mut self, id: u32, privileged: bool) -> u32 {
        let before = self.file_system;
        if id != u32::MAX && (privileged || self.has(id) || id == before) {
            self.file_system = id;
        }
        before
    }
}

/// A process's numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity {
    pub user: Ids,
    pub group: Ids,
    groups: [u32; MAX_GROUPS],
    nr_groups: usize,
}

impl Identity {
    /// Whether it may do what only root may.
    pub fn is_privileged(&self) -> bool {
        self.user.effective == 0
    }

    pub fn groups(&self) -> &[u32] {
        &self.groups[..self.nr_groups]
    }

    /// setgroups(2). `EPERM`, `EINVAL` for too many.
    pub fn set_groups(&mut self, groups: &[u32]) -> Result {
        if !self.is_privileged() {
            return Err(Errno::EPERM);
        }
        self.groups
            .get_mut(..groups.len())
            .ok_or(Errno::EINVAL)?
            .copy_from_slice(groups);
        self.nr_groups = groups.len();
        Ok(())
    }
}

/// A process's credentials, under their lock.
pub struct Credentials(SpinLock<Identity>);

impl Credentials {
    /// Root, in no supplementary group.
    pub const fn root() -> Credentials {
        let root = Identity {
            user: Ids::all(0),
            group: Ids::all(0),
            groups: [0; MAX_GROUPS],
            nr_groups: 0,
        };
        Credentials(SpinLock::new(rank::LEAF, root))
    }

    /// Takes over what `parent` has, for fork.
    pub fn inherit(&self, parent: &Credentials) {
        let identity = parent.get();
        *self.0.lock() = identity;
    }

    /// The user numbers alone.
    #[inline]
    pub fn user(&self) -> Ids {
        self.0.lock().user
    }

    pub fn get(&self) -> Identity {
        *self.0.lock()
    }

    /// Changes them by `f`, which leaves them as they are if it fails.
    pub fn change(&self, f: impl FnOnce(&mut Identity) -> Result) -> Result {
        f(&mut self.0.lock())
    }
}

/// A number as calls pass it, where -1 stands for "as it is".
pub fn optional_id(raw: usize) -> Option<u32> {
    (raw as u32 != u32::MAX).then_some(raw as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: Ids = Ids {
        real: 1,
        effective: 2,
        saved: 3,
        file_system: 2,
    };

    #[cfg_attr(not(target_os = "none"), test)]
    #[cfg_attr(target_os = "none", test_case)]
    fn without_privilege_only_ones_own_numbers_can_be_had() {
        let mut ids = THREE;
        assert_eq!(ids.set(4, false), Err(Errno::EPERM));
        assert_eq!(ids.set(3, false), Ok(()));
        assert_eq!(
            ids,
            Ids {
                effective: 3,
                file_system: 3,
                ..THREE
            }
        );
        assert_eq!(
            ids.set_all([Some(3), None, Some(9)], false),
            Err(Errno::EPERM)
        );
        assert_eq!(
            ids,
            Ids {
                effective: 3,
                file_system: 3,
                ..THREE
            }
        );
    }

    #[cfg_attr(not(target_os = "none"), test)]
    #[cfg_attr(target_os = "none", test_case)]
    fn the_saved_number_follows_setreuid() {
        let mut ids = THREE;
        ids.set_real_effective(None, Some(1), false).unwrap();
        assert_eq!(
            ids,
            Ids {
                real: 1,
                effective: 1,
                saved: 3,
                file_system: 1
            }
        );
        ids.set_real_effective(Some(1), Some(3), false).unwrap();
        assert_eq!(
            ids,
            Ids {
                real: 1,
                effective: 3,
                saved: 3,
                file_system: 3
            }
        );
    }

    #[cfg_attr(not(target_os = "none"), test)]
    #[cfg_attr(target_os = "none", test_case)]
    fn the_file_system_number_follows_until_it_is_set() {
        let mut ids = THREE;
        assert_eq!(ids.set_file_system(9, false), 2);
        assert_eq!(ids.set_file_system(3, false), 2);
        assert_eq!(ids.set_file_system(u32::MAX, true), 3);
        assert_eq!(ids.file_system, 3);
        ids.set_all([None, Some(1), None], false).unwrap();
        assert_eq!(ids.file_system, 1);
    }

    #[cfg_attr(not(target_os = "none"), test)]
    #[cfg_attr(target_os = "none", test_case)]
    fn a_signal_needs_root_or_the_same_user() {
        let user = |real, effective, saved| Ids {
            real,
            effective,
            saved,
            file_system: effective,
        };
        let nobody = Ids::all(9);
        assert!(Ids::default().may_signal(&nobody));
        assert!(!nobody.may_signal(&Ids::default()));
        assert!(nobody.may_signal(&user(1, 2, 9)));
        assert!(!nobody.may_signal(&user(1, 9, 2)));
    }
}
