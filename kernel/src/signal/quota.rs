//! How many signals each user may have queued (RLIMIT_SIGPENDING, `getrlimit(2)`).
//!
//! Counted are real-time signals, over all processes whose real user it is. Standard ones need no memory, so they cost nothing here;
//! Linux counts them too. Lock rank: LEAF. Cost: O(log users with queued signals).

use alloc::boxed::Box;

use intrusive_collections::{KeyAdapter, RBTree, RBTreeAtomicLink, intrusive_adapter};

use crate::sync::{IrqLock, rank};

/// A user with queued signals.
struct User {
    uid: u32,
    queued: core::cell::Cell<u64>,
    link: RBTreeAtomicLink,
}

intrusive_adapter!(ByUid = Box<User>: User { link => RBTreeAtomicLink });

impl<'a> KeyAdapter<'a> for ByUid {
    type Key = u32;
    fn get_key(&self, user: &'a User) -> u32 {
        user.uid
    }
}

static USERS: IrqLock<RBTree<ByUid>> = IrqLock::new(rank::LEAF, RBTree::new(ByUid::NEW));

/// One queued signal of a user's; given back when it goes.
#[must_use]
pub struct Charge {
    uid: u32,
}

impl Charge {
    /// `None` if the user has `limit` queued already, or there is no memory.
    pub fn new(uid: u32, limit: u64) -> Option<Charge> {
        let mut users = USERS.lock();
        if let Some(user) = users.find(&uid).get() {
            if user.queued.get() >= limit {
                return None;
            }
            user.queued.set(user.queued.get() + 1);
        } else {
            if limit == 0 {
                return None;
            }
            users.insert(
                Box::try_new(User {
                    uid,
                    queued: core::cell::Cell::new(1),
                    link: RBTreeAtomicLink::new(),
                })
                .ok()?,
            );
        }
        Some(Charge { uid })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut users = USERS.lock();
        let mut user = users.find_mut(&self.uid);
        let Some(queued) = user.get().map(|user| &user.queued) else {
            return;
        };
        queued.set(queued.get() - 1);
        let last = queued.get() == 0;
        let gone = if last { user.remove() } else { None };
        drop(users);
        drop(gone);
    }
}

/// Signals that the user has queued now, for `SigQ` in /proc/PID/status.
pub fn queued(uid: u32) -> u64 {
    let users = USERS.lock();
    users.find(&uid).get().map_or(0, |user| user.queued.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg_attr(not(target_os = "none"), test)]
    #[cfg_attr(target_os = "none", test_case)]
    fn a_user_gets_what_the_limit_says_and_again_what_was_given_back() {
        const UID: u32 = 4_000_000;
        assert!(Charge::new(UID, 0).is_none());
        let first = Charge::new(UID, 2).unwrap();
        let second = Charge::new(UID, 2).unwrap();
        assert!(Charge::new(UID, 2).is_none());
        let other = Charge::new(UID + 1, 1).unwrap();
        drop(first);
        assert_eq!((queued(UID), queued(UID + 1)), (1, 1));
        let third = Charge::new(UID, 2).unwrap();
        drop((second, third, other));
        assert_eq!((queued(UID), queued(UID + 1)), (0, 0));
    }
}
