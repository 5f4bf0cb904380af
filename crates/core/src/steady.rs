//! Time that never runs backwards: the wall clock, held to the machine's time since boot.

use crate::Timestamp;

/// A wall clock that lags by more than this was corrected, and a new epoch begins.
const MOST_BEHIND_MS: u64 = 30_000;

/// A reading of a wall clock and of the time since boot.
///
/// Within an epoch, `now` advances at least as fast as the time since boot, so a deadline set in
/// this epoch is reached in time even if the wall clock is set back. Jumps forward are followed. If
/// the wall clock lags by more than 30 s, the earlier time was wrong: a new epoch begins at the
/// wall clock's time, and deadlines of earlier epochs are no longer reliable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SteadyTime {
    /// The current time, by which deadlines are judged.
    pub now: Timestamp,
    /// The time since boot at which `now` was read.
    pub uptime: Timestamp,
    /// How many times the clock was corrected.
    pub epoch: u32,
}

impl SteadyTime {
    /// Returns the reading that follows this one, from new values of both clocks.
    #[must_use]
    pub fn next(self, wall: Timestamp, uptime: Timestamp) -> Self {
        let expected = self.now.plus_millis(uptime.millis_since(self.uptime));
        let is_corrected = expected.millis_since(wall) > MOST_BEHIND_MS;
        Self {
            now: if is_corrected {
                wall
            } else {
                expected.max(wall)
            },
            uptime: uptime.max(self.uptime),
            epoch: self.epoch.saturating_add(u32::from(is_corrected)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: SteadyTime = SteadyTime {
        now: Timestamp::from_millis(1_700_000_000_000),
        uptime: Timestamp::from_millis(1_000),
        epoch: 0,
    };

    #[test]
    fn a_wall_clock_is_held_followed_or_begins_an_epoch() {
        // Milliseconds that passed, and the wall clock relative to the start; expected: the steady
        // time relative to the start, and the epoch.
        let table = [
            (0, 0, 0, 0),
            (10, 10, 10, 0),
            // Set back by 30 s: held, and it keeps advancing.
            (0, -29_990, 10, 0),
            (5_000, -24_990, 5_010, 0),
            // Set back by 1 ms more.
            (0, -24_991, -24_991, 1),
            // An hour ahead: followed.
            (1_000, 3_600_000, 3_600_000, 1),
            // Corrected; 10 years ahead and corrected.
            (1_000, -22_991, -22_991, 2),
            (1_000, 315_360_000_000, 315_360_000_000, 2),
            (1_000, -20_991, -20_991, 3),
            // The machine paused, or the wall clock was slewed: followed.
            (1_000, 60_000, 60_000, 3),
        ];
        let mut steady = START;
        for (passed, wall, now, epoch) in table {
            let at = |ms: i64| Timestamp::from_millis(START.now.as_millis() + ms);
            steady = steady.next(at(wall), steady.uptime.plus_millis(passed));
            assert_eq!((steady.now, steady.epoch), (at(now), epoch), "{wall}");
        }
    }

    #[test]
    fn a_time_since_boot_that_runs_backwards_counts_as_none() {
        let back = START.next(START.now, Timestamp::from_millis(0));
        assert_eq!(back, START);
    }

    proptest! {
        /// However the wall clock changes: within one epoch the time never runs backwards and is
        /// never slower than the time since boot, and it is never more than 30 s ahead of the wall
        /// clock.
        #[test]
        fn no_deadline_of_an_epoch_arrives_late(
            steps in prop::collection::vec((0_u64..600_000, -4_000_000_i64..4_000_000), 1..60),
        ) {
            let (mut steady, mut offset) = (START, 0_i64);
            let mut true_ms = 0_u64;
            for (passed, step) in steps {
                true_ms += passed;
                // Most steps are small, some are an hour.
                offset += if step % 3 == 0 { step } else { step / 100 };
                let wall = Timestamp::from_millis(
                    START.now.plus_millis(true_ms).as_millis() + offset,
                );
                let next = steady.next(wall, START.uptime.plus_millis(true_ms));
                if next.epoch == steady.epoch {
                    prop_assert!(next.now >= steady.now.plus_millis(passed));
                }
                prop_assert!(next.now >= wall);
                prop_assert!(next.now.millis_since(wall) <= MOST_BEHIND_MS);
                steady = next;
            }
        }
    }
}
