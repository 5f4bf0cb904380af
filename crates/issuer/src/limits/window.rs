//! The rule of the send limits over the reservations of one recipient, and of the counter of one
//! service. The `SQLite` limiter runs it inside a transaction, the Redis limiter before it compares
//! and sets; `lua/admit.lua` says the same of the counter and is held to it by a shared suite; the
//! simulation runs it over a map. Refuses I/O.

use watchword_core::{SendLimits, Timestamp};

use super::Permit;

/// A minute of the clock.
pub const MINUTE_MS: i64 = 60_000;
const HOUR_MS: u64 = 3_600_000;
/// The longest window. A reservation that is this old is forgotten; so is one that lies this far
/// ahead, for the clock that wrote it has been mended since.
pub const DAY_MS: u64 = 24 * HOUR_MS;
/// A day of such minutes: a counter further ahead was written by a clock that was mended since.
pub const DAY_MINUTES: i64 = 1_440;
/// The latest moment both stores can count with: 2^48 - 1 ms, in the year 10889.
const LATEST_MS: i64 = (1 << 48) - 1;

/// The moment as both stores can count with it.
pub fn bounded_moment(at: Timestamp) -> Timestamp {
    Timestamp::from_millis(at.as_millis().clamp(0, LATEST_MS))
}

/// A span of configuration as both stores can count with it.
pub fn bounded_span(ms: u64) -> u64 {
    ms.min(LATEST_MS.unsigned_abs())
}

/// Whether a reservation made at `at` still counts at `now`.
pub fn is_live(at: Timestamp, now: Timestamp) -> bool {
    at.as_millis().abs_diff(now.as_millis()) < DAY_MS
}

/// Whether one more message may go to a recipient whose other live reservations were made at
/// `live`, oldest first. `cooldown_ms` is 0 when it is waived.
pub fn reserve(live: &[Timestamp], limits: SendLimits, cooldown_ms: u64, now: Timestamp) -> Permit {
    let window = |span_ms: u64, limit: u32| {
        let first = live.partition_point(|at| at.plus_millis(span_ms) <= now);
        let inside = &live[first..];
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let excess = inside.len().checked_sub(limit)?;
        // Of none at all there is no end: the refusal lasts a window from now on.
        let oldest = inside.get(excess).copied().unwrap_or(now);
        Some(oldest.plus_millis(span_ms))
    };
    // A message that lies further ahead was sent by a clock that has been corrected since: it
    // counts for the hour and the day, and no wait is longer than the cooldown.
    let cooled_by = now.plus_millis(cooldown_ms);
    let last = live.iter().rfind(|at| **at <= cooled_by);
    let cooling = last
        .map(|at| at.plus_millis(cooldown_ms).min(cooled_by))
        .filter(|&until| cooldown_ms > 0 && until > now);
    let until = window(HOUR_MS, limits.per_hour)
        .max(window(DAY_MS, limits.per_day))
        .max(cooling);
    until.map_or(Permit::Granted, |until| Permit::Refused { until })
}

/// The requests of one service in one minute of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Minute {
    /// Minutes since the epoch.
    pub number: i64,
    /// Requests counted in it.
    pub count: u32,
}

/// One more request; `Ok` is the minute to store.
pub fn admit(stored: Option<Minute>, limit: u32, now: Timestamp) -> Result<Minute, Permit> {
    let current = now.as_millis().div_euclid(MINUTE_MS);
    // A clock that steps back goes on in the minute it was in, so that it grants no more.
    let minute = stored
        .filter(|minute| (current..=current + DAY_MINUTES).contains(&minute.number))
        .unwrap_or(Minute {
            number: current,
            count: 0,
        });
    if minute.count >= limit {
        let until = Timestamp::from_millis((minute.number + 1) * MINUTE_MS);
        return Err(Permit::Refused { until });
    }
    Ok(Minute {
        count: minute.count + 1,
        ..minute
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
    const LIMITS: SendLimits = SendLimits {
        cooldown_ms: 30_000,
        per_hour: 2,
        per_day: 3,
        service_per_minute: 2,
    };

    fn at(ago_ms: &[u64]) -> Vec<Timestamp> {
        ago_ms.iter().map(|&ms| NOW.minus_millis(ms)).collect()
    }

    #[test]
    fn the_latest_of_the_violated_limits_decides() {
        let until = |after_ms| Permit::Refused {
            until: NOW.plus_millis(after_ms),
        };
        let table = [
            (vec![], 30_000, Permit::Granted),
            (vec![30_000], 30_000, Permit::Granted),
            (vec![29_999], 30_000, until(1)),
            (vec![29_999], 0, Permit::Granted),
            (vec![HOUR_MS - 5, 10], 30_000, until(29_990)),
            (vec![HOUR_MS - 5, 10], 0, until(5)),
            (vec![HOUR_MS, 10], 0, Permit::Granted),
            (
                vec![DAY_MS - 1_000_000, HOUR_MS - 5, 10],
                30_000,
                until(1_000_000),
            ),
        ];
        for (ago, cooldown, expected) in table {
            assert_eq!(
                reserve(&at(&ago), LIMITS, cooldown, NOW),
                expected,
                "{ago:?} {cooldown}"
            );
        }
    }

    #[test]
    fn a_corrected_clock_leaves_no_wait_longer_than_the_cooldown() {
        let wide = SendLimits {
            per_hour: 10,
            per_day: 10,
            ..LIMITS
        };
        let refused = |after_ms| Permit::Refused {
            until: NOW.plus_millis(after_ms),
        };
        // Messages by how far they lie ahead of now, oldest first, and the answer.
        let table = [
            (&[10_000][..], refused(30_000)),
            (&[30_000], refused(30_000)),
            (&[30_001], Permit::Granted),
            (&[7_200_000], Permit::Granted),
            (&[-10_000, 7_200_000], refused(20_000)),
        ];
        for (ahead, expected) in table {
            let at = |ms: &i64| Timestamp::from_millis(NOW.as_millis() + ms);
            let live: Vec<_> = ahead.iter().map(at).collect();
            assert_eq!(reserve(&live, wide, 30_000, NOW), expected, "{ahead:?}");
        }
    }

    #[test]
    fn a_limit_of_none_refuses_everything() {
        let none = SendLimits {
            per_hour: 0,
            ..LIMITS
        };
        let until = NOW.plus_millis(HOUR_MS);
        assert_eq!(reserve(&[], none, 0, NOW), Permit::Refused { until });
        assert!(admit(None, 0, NOW).is_err());
    }

    #[test]
    fn a_minute_counts_to_its_limit_and_a_clock_that_steps_back_stays_in_it() {
        let first = admit(None, 2, NOW).unwrap();
        let second = admit(Some(first), 2, NOW.minus_millis(600_000)).unwrap();
        assert_eq!(second.count, 2);
        let until = NOW.plus_millis(60_000);
        assert_eq!(
            admit(Some(second), 2, NOW.minus_millis(600_000)),
            Err(Permit::Refused { until })
        );
        assert_eq!(admit(Some(second), 2, until).unwrap().count, 1);
        let mended = NOW.minus_millis(DAY_MS + 60_000);
        assert_eq!(admit(Some(second), 2, mended).unwrap().count, 1);
    }
}
