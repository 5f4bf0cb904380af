//! The retry schedule: which retry delay follows which attempt, as a pure function.

use crate::Timestamp;

/// A retry delay. The broker has a wait queue for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rung {
    /// How long a message waits here, in milliseconds.
    pub delay_ms: u64,
    /// The suffix of the queue name: `1s`, `5s`, ….
    pub name: &'static str,
}

/// A fixed set of retry delays, shortest first. The set is closed because the broker keeps one wait
/// queue per delay.
#[derive(Debug, Clone, Copy)]
pub struct Ladder {
    rungs: &'static [Rung],
}

impl Ladder {
    /// 1, 5, 15 and 45 s: four retries within the default lifetime of a code (300 s). The last
    /// delay repeats while time is left.
    pub const STANDARD: Self = Self {
        rungs: &[
            Rung {
                delay_ms: 1_000,
                name: "1s",
            },
            Rung {
                delay_ms: 5_000,
                name: "5s",
            },
            Rung {
                delay_ms: 15_000,
                name: "15s",
            },
            Rung {
                delay_ms: 45_000,
                name: "45s",
            },
        ],
    };

    /// Returns all retry delays, shortest first.
    pub const fn rungs(self) -> &'static [Rung] {
        self.rungs
    }

    /// Returns the shortest delay of at least `at_least_ms`, or the longest delay if none is long
    /// enough.
    pub fn covering(self, at_least_ms: u64) -> Option<Rung> {
        self.rungs
            .iter()
            .find(|rung| rung.delay_ms >= at_least_ms)
            .or(self.rungs.last())
            .copied()
    }

    /// Returns the delay after failed attempt number `attempt` (from 1), or `None` if less than
    /// `attempt_ms` would be left until `deadline` when the message returns.
    ///
    /// `at_least_ms` is a provider's `Retry-After`: the delay is the first one of at least that
    /// length. If none is long enough, the longest is used, and the circuit breaker keeps the
    /// provider out of use until the time is over. If the deadline comes before that time, the
    /// result is `None`.
    pub fn next(
        self,
        attempt: u32,
        at_least_ms: u64,
        now: Timestamp,
        deadline: Timestamp,
        attempt_ms: u64,
    ) -> Option<Rung> {
        let index = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
        let scheduled = self.rungs.get(index).or(self.rungs.last())?;
        let rung = self.covering(scheduled.delay_ms.max(at_least_ms))?;
        let back = now.plus_millis(rung.delay_ms.max(at_least_ms));
        (deadline.millis_since(back) >= attempt_ms.max(1)).then_some(rung)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn next(attempt: u32, at_least_ms: u64, left_ms: u64) -> Option<&'static str> {
        let deadline = NOW.plus_millis(left_ms);
        Ladder::STANDARD
            .next(attempt, at_least_ms, NOW, deadline, 2_000)
            .map(|rung| rung.name)
    }

    #[test]
    fn waits_grow_and_the_last_one_repeats() {
        let waits: Vec<_> = (1..=6)
            .filter_map(|attempt| next(attempt, 0, 300_000))
            .collect();
        assert_eq!(waits, ["1s", "5s", "15s", "45s", "45s", "45s"]);
    }

    #[test]
    fn a_retry_after_lengthens_the_wait_or_ends_the_attempts() {
        assert_eq!(next(1, 4_000, 300_000), Some("5s"));
        assert_eq!(next(1, 60_000, 300_000), Some("45s"));
        assert_eq!(next(1, 298_000, 300_000), Some("45s"));
        assert_eq!(next(1, 298_001, 300_000), None);
    }

    #[test]
    fn a_wait_covers_what_it_is_asked_for_as_far_as_the_ladder_goes() {
        let covering = |ms| Ladder::STANDARD.covering(ms).map(|rung| rung.name);
        assert_eq!(
            [covering(0), covering(1_001), covering(99_000)],
            [Some("1s"), Some("5s"), Some("45s")]
        );
    }

    #[test]
    fn nothing_waits_past_the_deadline() {
        assert_eq!(next(1, 0, 2_999), None);
        assert_eq!(next(1, 0, 3_000), Some("1s"));
        assert_eq!(next(4, 0, 0), None);
    }

    proptest! {
        #[test]
        fn a_message_comes_back_in_time_or_not_at_all(
            attempt in 0_u32.., at_least in 0_u64..100_000, now in any::<i64>(), left in any::<i64>(), need in 0_u64..60_000,
        ) {
            let (now, deadline) = (Timestamp::from_millis(now), Timestamp::from_millis(left));
            if let Some(rung) = Ladder::STANDARD.next(attempt, at_least, now, deadline, need) {
                let wait = rung.delay_ms.max(at_least);
                prop_assert!(now.plus_millis(wait).plus_millis(need) <= deadline);
                prop_assert!(rung.delay_ms >= at_least || rung.name == "45s");
            }
        }
    }
}
