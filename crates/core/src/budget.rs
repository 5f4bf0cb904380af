//! Limits that outlive a verification: wrong guesses per subject (R5) and messages per recipient
//! and service (R16). Numbers and pure rules; counting them atomically is the stores' work.

use crate::{ShortTag, Timestamp};

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// How many wrong guesses a subject has across verifications, resends and channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuessBudget {
    /// Wrong guesses in any 60 minutes; default 10.
    pub per_hour: u32,
    /// Wrong guesses in any 24 hours; default 20, so that guessing a 6-digit code succeeds with
    /// a chance of 20 in a million a day.
    pub per_day: u32,
    /// Wrong guesses in a row, ever: 100 (NIST SP 800-63B §3.2.2).
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

/// The wrong guesses of one subject: times of those in the last day, and how many in a row.
///
/// The right code resets the guesses in a row at the recipient that it proves, and nothing else: an
/// approval of a code sent to the attacker's own number gives back no guess at another number, and
/// none of the hour and the day.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GuessLog {
    /// When each wrong guess of the last day was made, oldest first.
    pub wrong_at: Vec<Timestamp>,
    /// Wrong guesses since the last right one, at all recipients.
    pub in_a_row: u32,
    /// The part of [`GuessLog::in_a_row`] at each recipient; at most one entry a guess.
    pub at_recipients: Vec<(ShortTag, u32)>,
}

impl GuessLog {
    /// Until when this subject may not guess, if it may not now. `i64::MAX` means: until it is
    /// bound anew.
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

    /// The log with one more wrong guess, at `recipient`, and without those older than a day.
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

    /// The log after the right code for `recipient`.
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

/// How many messages a service sends: to one recipient, for one subject, to one block of numbers,
/// for one client, to one country and in all.
///
/// 0 in a field whose doc says so means no limit. Hours and days are the last 60 minutes and the
/// last 24 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendLimits {
    /// The least time between messages to one recipient, in milliseconds; default 30 s.
    pub cooldown_ms: u64,
    /// Messages to one recipient in an hour; default 10.
    pub per_hour: u32,
    /// Messages to one recipient in a day; default 20.
    pub per_day: u32,
    /// Messages for one subject in an hour, over all its recipients; default 10, 0: no limit.
    pub subject_per_hour: u32,
    /// Messages to numbers that differ in their last four digits only, in an hour; default 100,
    /// 0: no limit.
    pub number_block_per_hour: u32,
    /// Messages for one client (IPv4 address or IPv6 /64) in an hour; default 30, 0: no limit.
    pub client_per_hour: u32,
    /// Messages to the numbers of one country in a day; default 50,000, 0: no limit.
    pub country_per_day: u32,
    /// Messages of the whole service in a day; default 100,000, 0: no limit.
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
        // Guesses of an earlier build name no recipient: no approval resets them.
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
