//! How a thread is scheduled: policy, nice value, real-time priority (`sched(7)`), and the weights that nice values stand for.

use linux_raw_sys::general as abi;

/// The scheduling policies there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Policy {
    Other = abi::SCHED_NORMAL as u8,
    /// First come, first served, at a real-time priority.
    Fifo = abi::SCHED_FIFO as u8,
    /// The same, in turns of [`RR_SLICE_NS`](super::RR_SLICE_NS) among equals.
    RoundRobin = abi::SCHED_RR as u8,
    /// As `Other`, but never preempts when it wakes.
    Batch = abi::SCHED_BATCH as u8,
    /// What hardly anybody else leaves.
    Idle = abi::SCHED_IDLE as u8,
}

impl Policy {
    pub fn from_abi(number: u32) -> Option<Policy> {
        Some(match number {
            abi::SCHED_NORMAL => Policy::Other,
            abi::SCHED_FIFO => Policy::Fifo,
            abi::SCHED_RR => Policy::RoundRobin,
            abi::SCHED_BATCH => Policy::Batch,
            abi::SCHED_IDLE => Policy::Idle,
            _ => return None,
        })
    }

    pub fn is_real_time(self) -> bool {
        matches!(self, Policy::Fifo | Policy::RoundRobin)
    }
}

/// Nice values go from the first to the second of these.
pub const NICE: (i8, i8) = (-20, 19);
/// Priorities of the real-time policies.
pub const REAL_TIME_PRIORITIES: (u8, u8) = (1, 99);

/// How a thread is scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    pub policy: Policy,
    /// -20 to 19; kept, but without effect, under a real-time policy.
    pub nice: i8,
    /// 1 to 99 under a real-time policy, else 0.
    pub priority: u8,
    /// Children start with [`Parameters::DEFAULT`] if this is special (SCHED_RESET_ON_FORK).
    pub reset_on_fork: bool,
}

impl Parameters {
    pub const DEFAULT: Parameters = Parameters {
        policy: Policy::Other,
        nice: 0,
        priority: 0,
        reset_on_fork: false,
    };

    /// Those of a new thread or process of this one.
    pub fn inherited(self) -> Parameters {
        if !self.reset_on_fork {
            return self;
        }
        match self.policy.is_real_time() {
            true => Parameters::DEFAULT,
            false => Parameters {
                nice: self.nice.max(0),
                reset_on_fork: false,
                ..self
            },
        }
    }

    /// The share of the CPU: 1024 for nice 0.
    pub fn weight(self) -> u32 {
        match self.policy {
            Policy::Idle => IDLE_WEIGHT,
            _ => WEIGHTS[(self.nice - NICE.0) as usize],
        }
    }

    pub(super) const fn pack(self) -> u32 {
        self.policy as u32
            | (self.priority as u32) << 8
            | ((self.nice - NICE.0) as u32) << 16
            | (self.reset_on_fork as u32) << 24
    }

    pub(super) fn unpack(bits: u32) -> Parameters {
        let [policy, priority, nice, reset] = bits.to_le_bytes();
        Parameters {
            policy: Policy::from_abi(u32::from(policy)).unwrap_or(Policy::Other),
            nice: nice as i8 + NICE.0,
            priority,
            reset_on_fork: reset != 0,
        }
    }
}

/// Weight of nice 0.
pub const NICE_0_WEIGHT: u32 = 1024;
/// Weight of SCHED_IDLE.
const IDLE_WEIGHT: u32 = 3;

/// Weights of nice -20 to 19: each is 1.25 times the next, as in Linux, whose documentation gives the rule
/// (`Documentation/scheduler/sched-nice-design.rst`).
const WEIGHTS: [u32; 40] = [
    88761, 71755, 56483, 46273, 36291, 29154, 23254, 18705, 14949, 11916, 9548, 7620, 6100, 4904,
    3906, 3121, 2501, 1991, 1586, 1277, 1024, 820, 655, 526, 423, 335, 272, 215, 172, 137, 110, 87,
    70, 56, 45, 36, 29, 23, 18, 15,
];

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    #[test]
    fn parameters_survive_packing() {
        for policy in [Policy::Other, Policy::Fifo, Policy::Idle] {
            for nice in NICE.0..=NICE.1 {
                let parameters = Parameters {
                    policy,
                    nice,
                    priority: 99,
                    reset_on_fork: nice % 2 == 0,
                };
                assert_eq!(Parameters::unpack(parameters.pack()), parameters);
            }
        }
    }

    #[test]
    fn five_steps_of_nice_are_a_factor_of_three() {
        for nice in NICE.0..=NICE.1 - 5 {
            let weight = |nice| {
                f64::from(
                    Parameters {
                        nice,
                        ..Parameters::DEFAULT
                    }
                    .weight(),
                )
            };
            let factor = weight(nice) / weight(nice + 5);
            assert!((2.7..3.4).contains(&factor), "nice {nice}: {factor}");
        }
    }
}
