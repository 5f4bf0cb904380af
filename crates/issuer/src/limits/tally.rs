//! The rule of the counters that many messages share: of a subject, a block of numbers, a client, a
//! country and a service. A counter keeps messages by time part, a sixth of its span. The rule is
//! pure: the stores keep the parts, and [`super::quota`] applies the rule.

use watchword_core::Timestamp;

/// The time for which a message counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// 60 minutes, in parts of 10 minutes.
    Hour,
    /// 24 hours, in parts of 4 hours.
    Day,
}

/// Number of parts that count: the current one and six before it. Together they cover the whole
/// span at any moment.
pub const PARTS: usize = 7;
/// [`PARTS`] as a difference of part numbers.
const LIVE: i64 = 7;

impl Span {
    const fn part_ms(self) -> i64 {
        match self {
            Self::Hour => 600_000,
            Self::Day => 14_400_000,
        }
    }

    /// Returns the number of the part that contains `at`.
    pub fn part(self, at: Timestamp) -> i64 {
        at.as_millis().div_euclid(self.part_ms())
    }

    /// Returns the time from which messages of `part` no longer count.
    pub fn end_of(self, part: i64) -> Timestamp {
        Timestamp::from_millis(part.saturating_add(LIVE).saturating_mul(self.part_ms()))
    }

    /// Returns how long a store keeps a counter after its last message, in milliseconds.
    pub fn kept_ms(self) -> u64 {
        self.part_ms().unsigned_abs() * PARTS as u64
    }
}

/// Whether messages of `part` count in part `now`. A part up to a span ahead comes from a faster
/// clock and counts; one further ahead comes from a wrong clock and does not.
pub fn is_live(part: i64, now: i64) -> bool {
    now.abs_diff(part) < PARTS as u64
}

/// The messages of one counter, by age of their part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    newest: i64,
    by_age: [u32; PARTS],
}

impl Tally {
    /// Computes the tally at part `now` from the pairs of part and count that the store returned.
    /// Negative counts are corrections of other parts.
    pub fn read(parts: impl IntoIterator<Item = (i64, i64)>, now: i64) -> Self {
        let mut sums = [0_i64; PARTS];
        for (part, count) in parts {
            if let Some(age) = age(part, now) {
                sums[age] = sums[age].saturating_add(count);
            }
        }
        // A negative remainder reduces the next older part.
        let mut owed = 0;
        let by_age = sums.map(|sum| {
            let rest = sum.saturating_add(owed);
            owed = rest.min(0);
            u32::try_from(rest.max(0)).unwrap_or(u32::MAX)
        });
        Self {
            newest: now,
            by_age,
        }
    }

    /// Returns the tally with `more` messages added in part `now`.
    #[must_use]
    pub fn plus(&self, more: i32, now: i64) -> Self {
        let parts = (self.newest.saturating_sub(LIVE - 1)..=self.newest)
            .rev()
            .zip(self.by_age)
            .map(|(part, count)| (part, i64::from(count)));
        Self::read(parts.chain([(now, i64::from(more))]), now)
    }

    /// Returns the time from which one more message fits, if `more` messages are added in part
    /// `now` and none fits now. Returns `None` if one fits.
    pub fn full_until(&self, more: i32, limit: u32, span: Span, now: i64) -> Option<Timestamp> {
        let current = self.plus(more, now);
        let total: u64 = current.by_age.iter().copied().map(u64::from).sum();
        let mut excess = (total + 1)
            .checked_sub(u64::from(limit))
            .filter(|&n| n > 0)?;
        let ages = current.by_age.iter().enumerate().rev();
        for (age, &count) in ages {
            excess = excess.saturating_sub(count.into());
            if excess == 0 {
                let part = now.saturating_sub(i64::try_from(age).unwrap_or(LIVE));
                return Some(span.end_of(part));
            }
        }
        // With a limit of 0 no part ever frees a place, so report one span from now.
        Some(span.end_of(now))
    }
}

fn age(part: i64, now: i64) -> Option<usize> {
    is_live(part, now).then(|| usize::try_from(now - part).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    const T0: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    #[test]
    fn a_counter_is_full_until_its_oldest_part_leaves() {
        let now = Span::Hour.part(T0);
        let tally = Tally::read([(now, 3), (now - 6, 1), (now - 7, 9), (now - 3, 2)], now);
        let full = |more, limit| tally.full_until(more, limit, Span::Hour, now);
        assert_eq!(full(0, 7), None);
        assert_eq!(full(1, 7), Some(Span::Hour.end_of(now - 6)));
        assert_eq!(full(0, 5), Some(Span::Hour.end_of(now - 3)));
        assert_eq!(full(0, 1), Some(Span::Hour.end_of(now)));
        assert_eq!(full(-1, 6), None);
        // An hour later all parts have expired.
        assert_eq!(tally.full_until(0, 1, Span::Hour, now + 7), None);
    }

    #[test]
    fn a_clock_that_was_ahead_counts_for_a_span_and_no_longer() {
        let now = Span::Day.part(T0);
        let ahead = |parts| Tally::read([(now + parts, 5)], now).full_until(0, 5, Span::Day, now);
        assert_eq!(ahead(6), Some(Span::Day.end_of(now)));
        assert_eq!(ahead(7), None);
    }

    #[test]
    fn corrections_lower_older_parts() {
        let now = Span::Hour.part(T0);
        let tally = Tally::read([(now, -2), (now - 1, 3)], now);
        assert_eq!(tally.full_until(0, 2, Span::Hour, now), None);
        assert!(tally.full_until(0, 1, Span::Hour, now).is_some());
    }

    proptest! {
        /// No pattern of requests gets more messages in any span than the limit, and a refusal ends
        /// at the time it reports.
        #[test]
        fn no_pattern_beats_the_limit(waits in prop::collection::vec(0_u64..HOUR_MS / 4, 1..200), limit in 1_u32..12) {
            let (mut sent, mut now) = (Vec::<Timestamp>::new(), T0);
            let tally = |sent: &[Timestamp], now: Timestamp| {
                let parts = sent.iter().map(|at| (Span::Hour.part(*at), 1));
                Tally::read(parts, Span::Hour.part(now))
            };
            for wait in waits {
                now = now.plus_millis(wait);
                let part = Span::Hour.part(now);
                match tally(&sent, now).full_until(0, limit, Span::Hour, part) {
                    None => sent.push(now),
                    Some(until) => {
                        prop_assert!(until > now && until.millis_since(now) <= Span::Hour.kept_ms());
                        let later = tally(&sent, until);
                        prop_assert_eq!(later.full_until(0, limit, Span::Hour, Span::Hour.part(until)), None);
                    }
                }
            }
            for (index, first) in sent.iter().enumerate() {
                let inside = sent[index..].iter().filter(|at| at.millis_since(*first) < HOUR_MS);
                prop_assert!(inside.count() <= limit as usize);
            }
        }
    }
}
