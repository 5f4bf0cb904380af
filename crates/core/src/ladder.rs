//! The retry schedule: which wait follows which attempt, as a pure function. Refuses to wait.

use crate::Timestamp;

/// One wait of the ladder, which is one wait queue of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rung {
    /// How long a message rests here, in milliseconds.
    pub delay_ms: u64,
    /// The rung's name in queue names: `1s`, `5s`, ….
    pub name: &'static str,
}

/// Fixed waits, short first. A broker keeps one queue a wait (R46), so the set is closed.
#[derive(Debug, Clone, Copy)]
pub struct Ladder {
    rungs: &'static [Rung],
}

impl Ladder {
    /// 1, 5, 15 and 45 s: four retries inside the 300 s a code lives by default, the last wait
    /// repeated while there is time.
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

    /// All rungs, short first.
    pub const fn rungs(self) -> &'static [Rung] {
        self.rungs
    }

    /// The shortest wait of at least `at_least_ms`, or the longest there is.
    pub fn covering(self, at_least_ms: u64) -> Option<Rung> {
        self.rungs
            .iter()
            .find(|rung| rung.delay_ms >= at_least_ms)
            .or(self.rungs.last())
            .copied()
    }

    /// The wait after failed attempt number `attempt` (from 1), or `None` when the message would
    /// come back too late to be tried: with less than `attempt_ms` left until `deadline`.
    ///
    /// A provider's `Retry-After` of `at_least_ms` lengthens the wait to the first rung that
    /// honours it. Where none does the last is taken; whoever has heard of it leaves the provider alone
    /// until then. A time so long that the deadline comes first: `None`.
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
