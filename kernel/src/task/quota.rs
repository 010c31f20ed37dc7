//! How much of something each user has, for limits that are a user's and not a process's (`getrlimit(2)`).
//!
//! Lock rank: LEAF. Cost: O(log users that have some).

use alloc::boxed::Box;
use core::cell::Cell;

use intrusive_collections::{KeyAdapter, RBTree, RBTreeAtomicLink, intrusive_adapter};

use crate::sync::{IrqLock, rank};

/// A user who has some.
struct User {
    uid: u32,
    taken: Cell<u64>,
    link: RBTreeAtomicLink,
}

intrusive_adapter!(ByUid = Box<User>: User { link => RBTreeAtomicLink });

impl<'a> KeyAdapter<'a> for ByUid {
    type Key = u32;
    fn get_key(&self, user: &'a User) -> u32 {
        user.uid
    }
}

/// What the users have of one thing.
pub struct Quota(IrqLock<RBTree<ByUid>>);

impl Default for Quota {
    fn default() -> Self {
        Quota::new()
    }
}

impl Quota {
    pub const fn new() -> Quota {
        Quota(IrqLock::new(rank::LEAF, RBTree::new(ByUid::NEW)))
    }

    /// Gives a user `amount`, more than 0, if it has at most `limit` then; whether it did. Not without memory either.
    #[must_use]
    #[inline]
    pub fn take(&self, uid: u32, amount: u64, limit: u64) -> bool {
        let mut users = self.0.lock();
        let fits = |taken: u64| taken.checked_add(amount).filter(|&sum| sum <= limit);
        if let Some(user) = users.find(&uid).get() {
            let Some(sum) = fits(user.taken.get()) else {
                return false;
            };
            user.taken.set(sum);
            return true;
        }
        let Some(sum) = fits(0) else {
            return false;
        };
        let user = Box::try_new(User {
            uid,
            taken: Cell::new(sum),
            link: RBTreeAtomicLink::new(),
        });
        user.map(|user| users.insert(user)).is_ok()
    }

    /// Takes back what [`Quota::take`] gave.
    #[inline]
    pub fn give_back(&self, uid: u32, amount: u64) {
        let mut users = self.0.lock();
        let mut user = users.find_mut(&uid);
        let Some(taken) = user.get().map(|user| &user.taken) else {
            return;
        };
        taken.set(taken.get() - amount);
        let last = taken.get() == 0;
        let gone = if last { user.remove() } else { None };
        drop(users);
        drop(gone);
    }

    /// What the user has now.
    pub fn taken(&self, uid: u32) -> u64 {
        let users = self.0.lock();
        users.find(&uid).get().map_or(0, |user| user.taken.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg_attr(not(target_os = "none"), test)]
    #[cfg_attr(target_os = "none", test_case)]
    fn a_user_gets_what_the_limit_says_and_again_what_was_given_back() {
        const UID: u32 = 4_000_000;
        let quota = Quota::new();
        assert!(!quota.take(UID, 1, 0));
        assert!(quota.take(UID, 4, 5));
        assert!(!quota.take(UID, 2, 5));
        assert!(!quota.take(UID, u64::MAX, u64::MAX));
        assert!(quota.take(UID + 1, 1, 5));
        assert!(quota.take(UID, 1, 5));
        quota.give_back(UID, 4);
        assert_eq!((quota.taken(UID), quota.taken(UID + 1)), (1, 1));
        quota.give_back(UID, 1);
        quota.give_back(UID + 1, 1);
        assert_eq!((quota.taken(UID), quota.taken(UID + 1)), (0, 0));
    }
}
