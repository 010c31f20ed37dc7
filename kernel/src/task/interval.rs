//! The arithmetic of interval timers: when they ring, how often they have, and what they show (`timer_settime(2)`).

use crate::arch::time;
use crate::sched::timer::{Deadline, wall_ns};

/// What an interval timer shows and is set to, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// Until it rings next; 0: it is stopped.
    pub value: u64,
    /// From ring to ring; 0: it rings once.
    pub interval: u64,
}

/// When a timer rings. Times are in ns on whatever clock it goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The next ring; `None`: it does not run.
    pub next: Option<u64>,
    /// 0: it rings once.
    pub interval: u64,
}

impl Schedule {
    pub const STOPPED: Schedule = Schedule {
        next: None,
        interval: 0,
    };

    /// A timer that is set at `now` to `new`, whose value is a point in time if `absolute`. A value of 0 stops it.
    pub fn start(new: Setting, absolute: bool, now: u64) -> Schedule {
        if new.value == 0 {
            return Schedule::STOPPED;
        }
        Schedule {
            next: Some(match absolute {
                true => new.value,
                false => now.saturating_add(new.value),
            }),
            interval: new.interval,
        }
    }

    pub fn has_rung(&self, now: u64) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// Moves the next ring of a periodic timer behind `now`; how many rings that passes (`hrtimer_forward`). A timer that rings once
    /// stops with its ring.
    pub fn pass(&mut self, now: u64) -> u64 {
        let Some(next) = self.next.filter(|&next| next <= now) else {
            return 0;
        };
        let Some(missed) = (now - next).checked_div(self.interval) else {
            self.next = None;
            return 1;
        };
        let passed = missed + 1;
        self.next = Some(next.saturating_add(passed.saturating_mul(self.interval)));
        passed
    }

    /// What it shows at `now`: one that runs never shows zero, but `least`.
    pub fn shown(&self, now: u64, least: u64) -> Setting {
        Setting {
            value: self
                .next
                .map_or(0, |next| next.saturating_sub(now).max(least)),
            interval: self.interval,
        }
    }
}

/// A schedule on the monotonic clock or the wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    wall: bool,
    pub schedule: Schedule,
}

impl Timing {
    pub const STOPPED: Timing = Timing {
        wall: false,
        schedule: Schedule::STOPPED,
    };

    /// As [`Schedule::start`], on the wall clock if `wall`: but what is relative does not follow that when it is set.
    pub fn start(new: Setting, wall: bool, absolute: bool) -> Timing {
        let timing = Timing {
            wall: wall && absolute,
            schedule: Schedule::STOPPED,
        };
        Timing {
            schedule: Schedule::start(new, absolute, timing.now()),
            ..timing
        }
    }

    fn now(&self) -> u64 {
        if self.wall { wall_ns() } else { time::now_ns() }
    }

    pub fn is_running(&self) -> bool {
        self.schedule.next.is_some()
    }

    /// When it rings next; it runs.
    pub fn deadline(&self) -> Deadline {
        let next = self.schedule.next.unwrap_or(u64::MAX);
        match self.wall {
            true => Deadline::Wall(next),
            false => Deadline::Monotonic(next),
        }
    }

    pub fn has_rung(&self) -> bool {
        self.schedule.has_rung(self.now())
    }

    /// [`Schedule::pass`] at this moment.
    pub fn pass(&mut self) -> u64 {
        let now = self.now();
        self.schedule.pass(now)
    }

    /// What it shows now.
    pub fn shown(&self) -> Setting {
        self.schedule.shown(self.now(), 1)
    }
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    /// One ring after the other.
    fn pass_slowly(schedule: &mut Schedule, now: u64) -> u64 {
        let mut passed = 0;
        while let Some(next) = schedule.next.filter(|&next| next <= now) {
            passed += 1;
            schedule.next = (schedule.interval > 0).then(|| next + schedule.interval);
        }
        passed
    }

    /// splitmix64.
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    #[test]
    fn passing_counts_as_ringing_one_by_one_does() {
        let mut seed = 1;
        for round in 0..20_000 {
            let mut now = random(&mut seed) % 1000;
            let new = Setting {
                value: random(&mut seed) % 50,
                interval: random(&mut seed) % 20,
            };
            let absolute = random(&mut seed).is_multiple_of(2);
            let mut fast = Schedule::start(new, absolute, now);
            let mut slow = fast;
            for _ in 0..10 {
                now += random(&mut seed) % 100;
                assert_eq!(
                    fast.pass(now),
                    pass_slowly(&mut slow, now),
                    "round {round}: {new:?}"
                );
                assert_eq!(fast, slow, "round {round}");
                assert!(!fast.has_rung(now));
                let shown = fast.shown(now, 1);
                assert_eq!(shown.value == 0, fast.next.is_none());
                assert!(new.interval == 0 || shown.value <= new.value.max(new.interval).max(1100));
            }
        }
    }

    #[test]
    fn far_away_is_for_ever_and_never_wraps() {
        let new = Setting {
            value: u64::MAX,
            interval: u64::MAX,
        };
        let mut schedule = Schedule::start(new, false, 5);
        assert_eq!(schedule.next, Some(u64::MAX));
        assert_eq!(schedule.pass(u64::MAX - 1), 0);
        assert_eq!(schedule.pass(u64::MAX), 1);
        assert_eq!(schedule.next, Some(u64::MAX));
        assert_eq!(schedule.shown(7, 1).value, u64::MAX - 7);
    }
}
