//! How many signals each user may have queued (RLIMIT_SIGPENDING, `getrlimit(2)`).
//!
//! Counted are real-time signals, over all processes whose real user it is. Standard ones need no memory, so they cost nothing here;
//! Linux counts them too.

use crate::task::quota::Quota;

static QUEUED: Quota = Quota::new();

/// One queued signal of a user's; given back when it goes.
#[must_use]
pub struct Charge {
    uid: u32,
}

impl Charge {
    /// `None` if the user has `limit` queued already, or there is no memory.
    pub fn new(uid: u32, limit: u64) -> Option<Charge> {
        // Made only if it was taken, as it gives back when it goes.
        QUEUED.take(uid, 1, limit).then(|| Charge { uid })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        QUEUED.give_back(self.uid, 1);
    }
}

/// Signals that the user has queued now, for `SigQ` in /proc/PID/status.
pub fn queued(uid: u32) -> u64 {
    QUEUED.taken(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg_attr(not(target_os = "none"), test)]
    #[cfg_attr(target_os = "none", test_case)]
    fn what_was_refused_gives_nothing_back() {
        const UID: u32 = 4_000_010;
        let first = Charge::new(UID, 2).unwrap();
        let second = Charge::new(UID, 2).unwrap();
        assert!(Charge::new(UID, 2).is_none());
        assert!(Charge::new(UID, 2).is_none());
        assert_eq!(queued(UID), 2);
        drop((first, second));
        assert_eq!(queued(UID), 0);
    }
}
