//! Limits that outlive a verification: wrong guesses per subject, and messages per recipient and
//! service. This module holds numbers and pure rules; the stores count atomically.

use crate::{ShortTag, Timestamp};

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// The wrong guesses allowed to a subject over all its verifications, resends and channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuessBudget {
    /// Wrong guesses in any 60 minutes; default 10.
    pub per_hour: u32,
    /// Wrong guesses in any 24 hours; default 20, so that guessing a 6-digit code succeeds with a
    /// probability of at most 20 in a million per day.
    pub per_day: u32,
    /// Consecutive wrong guesses, without a time limit; default 100 (NIST SP 800-63B §3.2.2).
    pub in_a_row: u32,
}

impl Default for GuessBudget {
    fn default() -> Self {
        Self {
            per_hour: 10,
            per_day: 20,
            in_a_row: 100,
        }
    }
}

/// The wrong guesses of one subject: their times within the last day, and the consecutive ones.
///
/// The right code resets the consecutive guesses at the recipient that it proves, and nothing else.
/// An attacker who approves a code sent to their own number gets back no guess at another number,
/// and none of the hour and the day.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GuessLog {
    /// Times of the wrong guesses of the last day, oldest first.
    pub wrong_at: Vec<Timestamp>,
    /// Consecutive wrong guesses, over all recipients.
    pub in_a_row: u32,
    /// The share of each recipient in [`GuessLog::in_a_row`]; guesses of earlier builds have none.
    pub at_recipients: Vec<(ShortTag, u32)>,
}

impl GuessLog {
    /// Returns the time until which the subject is locked, or `None` if it may guess at `now`.
    /// `i64::MAX` means that the lock does not expire: an operator must unlock the subject.
    pub fn locked_until(&self, budget: GuessBudget, now: Timestamp) -> Option<Timestamp> {
        if self.in_a_row >= budget.in_a_row {
            return Some(Timestamp::from_millis(i64::MAX));
        }
        let window = |span_ms: u64, limit: u32| {
            let recent: Vec<_> = self
                .wrong_at
                .iter()
                .filter(|at| at.plus_millis(span_ms) > now)
                .collect();
            let excess = recent.len().checked_sub(limit as usize)?;
            recent.get(excess).map(|at| at.plus_millis(span_ms))
        };
        window(HOUR_MS, budget.per_hour).max(window(DAY_MS, budget.per_day))
    }

    /// Adds a wrong guess at `recipient` and drops guesses older than a day.
    #[must_use]
    pub fn with_wrong(mut self, recipient: ShortTag, now: Timestamp) -> Self {
        self.forget(now);
        self.wrong_at.push(now);
        self.in_a_row = self.in_a_row.saturating_add(1);
        match self
            .at_recipients
            .iter_mut()
            .find(|(at, _)| *at == recipient)
        {
            Some((_, count)) => *count = count.saturating_add(1),
            None => self.at_recipients.push((recipient, 1)),
        }
        self
    }

    /// Records the right code for `recipient`: its consecutive guesses no longer count.
    #[must_use]
    pub fn with_right(mut self, recipient: ShortTag, now: Timestamp) -> Self {
        self.forget(now);
        let mut ended = 0_u32;
        self.at_recipients.retain(|(at, count)| {
            let stays = *at != recipient;
            ended = ended.saturating_add(if stays { 0 } else { *count });
            stays
        });
        self.in_a_row = self.in_a_row.saturating_sub(ended);
        self
    }

    /// Whether the log holds no guess.
    pub const fn is_empty(&self) -> bool {
        self.wrong_at.is_empty() && self.in_a_row == 0
    }

    fn forget(&mut self, now: Timestamp) {
        self.wrong_at.retain(|at| at.plus_millis(DAY_MS) > now);
    }
}

/// Send limits of a service: to one recipient, for one subject, to one block of numbers, for one
/// client, to one country and in total.
///
/// Where a field says so, 0 means no limit. Hours and days are the last 60 minutes and the last 24
/// hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendLimits {
    /// Minimum time between messages to one recipient, in milliseconds; default 30 s.
    pub cooldown_ms: u64,
    /// Messages to one recipient in an hour; default 10.
    pub per_hour: u32,
    /// Messages to one recipient in a day; default 20.
    pub per_day: u32,
    /// Messages for one subject in an hour, over all its recipients; default 10, 0 means no limit.
    pub subject_per_hour: u32,
    /// Messages in an hour to numbers that differ only in their last four digits; default 100, 0
    /// means no limit.
    pub number_block_per_hour: u32,
    /// Messages for one client (IPv4 address or IPv6 /64) in an hour; default 30, 0 means no limit.
    pub client_per_hour: u32,
    /// Messages to the numbers of one country in a day; default 50,000, 0 means no limit.
    pub country_per_day: u32,
    /// Messages of the whole service in a day; default 100,000, 0 means no limit.
    pub service_per_day: u32,
    /// Requests of the whole service in one minute; default 6,000.
    pub service_per_minute: u32,
}

impl Default for SendLimits {
    fn default() -> Self {
        Self {
            cooldown_ms: 30_000,
            per_hour: 10,
            per_day: 20,
            subject_per_hour: 10,
            number_block_per_hour: 100,
            client_per_hour: 30,
            country_per_day: 50_000,
            service_per_day: 100_000,
            service_per_minute: 6_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
    const HERS: ShortTag = ShortTag::of(&[1; 32]);
    const ANOTHER: ShortTag = ShortTag::of(&[2; 32]);

    #[test]
    fn the_right_code_ends_the_row_of_its_recipient_only() {
        let guesses = [HERS, ANOTHER, HERS, HERS];
        let log = guesses
            .iter()
            .fold(GuessLog::default(), |log, &at| log.with_wrong(at, NOW));
        assert_eq!(log.in_a_row, 4);
        let proved = log.clone().with_right(ANOTHER, NOW);
        assert_eq!((proved.in_a_row, proved.wrong_at.len()), (3, 4));
        let proved = proved.with_right(HERS, NOW);
        assert_eq!((proved.in_a_row, proved.wrong_at.len()), (0, 4));
        let day = NOW.plus_millis(DAY_MS);
        assert!(proved.with_right(HERS, day).is_empty());
        // Guesses recorded by an earlier build name no recipient, so an approval does not reset
        // them.
        let older = GuessLog {
            in_a_row: 3,
            ..GuessLog::default()
        };
        assert_eq!(older.with_right(HERS, NOW).in_a_row, 3);
    }

    #[test]
    fn the_hour_and_the_day_lock_and_release() {
        let budget = GuessBudget {
            per_hour: 2,
            per_day: 3,
            in_a_row: 100,
        };
        let log = GuessLog::default()
            .with_wrong(HERS, NOW)
            .with_wrong(HERS, NOW.plus_millis(10));
        assert_eq!(
            log.locked_until(budget, NOW.plus_millis(20)),
            Some(NOW.plus_millis(HOUR_MS))
        );
        let later = NOW.plus_millis(HOUR_MS);
        assert_eq!(log.locked_until(budget, later), None);
        let log = log.with_wrong(HERS, later);
        assert_eq!(
            log.locked_until(budget, later.plus_millis(20)),
            Some(NOW.plus_millis(DAY_MS))
        );
        assert_eq!(log.locked_until(budget, NOW.plus_millis(DAY_MS)), None);
    }

    #[test]
    fn too_many_in_a_row_lock_for_good() {
        let log = GuessLog {
            in_a_row: 100,
            ..GuessLog::default()
        };
        let locked = log.locked_until(GuessBudget::default(), NOW);
        assert_eq!(locked, Some(Timestamp::from_millis(i64::MAX)));
    }

    proptest! {
        /// No pattern of guesses, with approvals of one's own recipient in between, gives more
        /// guesses at another than the budget allows.
        #[test]
        fn no_pattern_of_guesses_beats_the_budget(steps in prop::collection::vec((0_u64..2 * HOUR_MS, any::<bool>()), 1..300)) {
            let budget = GuessBudget::default();
            let (mut log, mut now, mut made) = (GuessLog::default(), NOW, Vec::new());
            for (wait, proves_another) in steps {
                now = now.plus_millis(wait);
                if proves_another {
                    log = log.with_right(ANOTHER, now);
                }
                if log.locked_until(budget, now).is_none() {
                    log = log.with_wrong(HERS, now);
                    made.push(now);
                }
            }
            for (span, limit) in [(HOUR_MS, budget.per_hour), (DAY_MS, budget.per_day)] {
                for &start in &made {
                    let inside = made.iter().filter(|&&at| at >= start && at < start.plus_millis(span)).count();
                    prop_assert!(inside <= limit as usize);
                }
            }
            prop_assert!(made.len() <= budget.in_a_row as usize);
        }
    }
}
