//! Rules of the sliding window over one recipient's reservations, and of one service's counter per
//! minute. They are pure functions: the `SQLite` limiter calls them inside a transaction, the Redis
//! limiter before a compare-and-swap, and the simulation over a map. `lua/admit.lua` implements the
//! same counter, and a shared test suite holds both to the same answers.

use watchword_core::Timestamp;

use super::{Limit, Permit, Reservation};

/// Milliseconds of a minute of the clock.
pub const MINUTE_MS: i64 = 60_000;
const HOUR_MS: u64 = 3_600_000;
/// The longest window, in milliseconds. Older reservations are forgotten, and so are those further
/// ahead than this, which a wrong clock wrote.
pub const DAY_MS: u64 = 24 * HOUR_MS;
/// How many minutes a service's counter may be ahead of now, so that clocks that differ a little
/// count in the same minute. A counter further ahead was written before a clock correction; if it
/// counted, a full one would refuse every request of the service.
pub const AHEAD_MINUTES: i64 = 2;
/// The latest moment that both stores can handle: 2^48 - 1 ms, in the year 10889.
const LATEST_MS: i64 = (1 << 48) - 1;

/// Clamps a moment to the range that both stores can handle.
pub fn bounded_moment(at: Timestamp) -> Timestamp {
    Timestamp::from_millis(at.as_millis().clamp(0, LATEST_MS))
}

/// Clamps a configured duration to the range that both stores can handle.
pub fn bounded_span(ms: u64) -> u64 {
    ms.min(LATEST_MS.unsigned_abs())
}

/// Whether a reservation made at `at` still counts at `now`.
pub fn is_live(at: Timestamp, now: Timestamp) -> bool {
    at.as_millis().abs_diff(now.as_millis()) < DAY_MS
}

/// The divisor of the reserved share: a quarter of a recipient's hour and day, and of block and
/// country counters, is reserved for requests that name a subject.
const KEPT_SHARE: u32 = 4;

/// Returns the part of `most` that is available to messages with or without a subject.
pub const fn share(most: u32, names_subject: bool) -> u32 {
    if names_subject {
        most
    } else {
        most - most / KEPT_SHARE
    }
}

/// Decides about the message of `reservation`, to a recipient whose other live reservations were
/// made at `live`, oldest first.
///
/// A refusal lasts no longer than the limit's own span: a reservation further ahead than that was
/// written by a wrong clock and does not count.
pub fn reserve(live: &[Timestamp], reservation: &Reservation) -> Permit {
    let (limits, now) = (reservation.limits, bounded_moment(reservation.now));
    let is_ahead = live.last().is_some_and(|at| *at > now);
    let window = |span_ms: u64, most: u32, limit: Limit| {
        let first = live.partition_point(|at| at.plus_millis(span_ms) <= now);
        let last = if is_ahead {
            live.partition_point(|at| *at < now.plus_millis(span_ms))
        } else {
            live.len()
        };
        let inside = live.get(first..last).unwrap_or_default();
        let most = share(most, reservation.names_subject);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let excess = inside.len().checked_sub(most)?;
        // With a limit of 0 no reservation ever expires, so report one window from now. A
        // reservation ahead of now counts as made now, so that no refusal outlasts its span.
        let oldest = inside.get(excess).map_or(now, |at| now.min(*at));
        Some((oldest.plus_millis(span_ms), limit))
    };
    let cooldown_ms = if reservation.waive_cooldown {
        0
    } else {
        bounded_span(limits.cooldown_ms)
    };
    let newest = live
        .iter()
        .rfind(|at| **at <= now.plus_millis(cooldown_ms))
        .map(|at| now.min(*at).plus_millis(cooldown_ms));
    let cooling = newest.filter(|&until| until > now);
    let longest = window(HOUR_MS, limits.per_hour, Limit::RecipientHour)
        .max(window(DAY_MS, limits.per_day, Limit::RecipientDay))
        .max(cooling.map(|until| (until, Limit::Cooldown)));
    longest.map_or(Permit::Granted, |(until, limit)| Permit::Refused {
        until,
        limit,
    })
}

/// The requests of one service in one minute of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Minute {
    /// The minute, counted since the epoch.
    pub number: i64,
    /// Requests counted in the minute.
    pub count: u32,
}

/// Counts one more request. `Ok` is the minute to store, `Err` the refusal.
pub fn admit(stored: Option<Minute>, limit: u32, now: Timestamp) -> Result<Minute, Permit> {
    let current = now.as_millis().div_euclid(MINUTE_MS);
    // A clock that steps back a little continues the minute it was in, so that it grants no more.
    let minute = stored
        .filter(|minute| (current..=current + AHEAD_MINUTES).contains(&minute.number))
        .unwrap_or(Minute {
            number: current,
            count: 0,
        });
    if minute.count >= limit {
        let until = Timestamp::from_millis((minute.number + 1) * MINUTE_MS);
        let limit = Limit::ServiceMinute;
        return Err(Permit::Refused { until, limit });
    }
    Ok(Minute {
        count: minute.count + 1,
        ..minute
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use watchword_core::{DeliveryId, SendLimits, SubjectTag};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
    const COOLDOWN_MS: u64 = 30_000;

    fn limits(per_hour: u32, per_day: u32) -> SendLimits {
        SendLimits {
            per_hour,
            per_day,
            ..SendLimits::default()
        }
    }

    fn reservation(limits: SendLimits) -> Reservation {
        Reservation {
            recipient: SubjectTag::new([1; 10]),
            delivery: DeliveryId::new("a".repeat(32).parse().unwrap(), 1),
            names_subject: true,
            waive_cooldown: false,
            limits,
            now: NOW,
        }
    }

    fn at(ago_ms: &[i64]) -> Vec<Timestamp> {
        let moment = |ms: &i64| Timestamp::from_millis(NOW.as_millis() - ms);
        ago_ms.iter().map(moment).collect()
    }

    #[test]
    fn the_limit_that_refuses_for_longest_is_named() {
        const HOUR: i64 = 3_600_000;
        const DAY: i64 = 24 * HOUR;
        let until = |after_ms, limit| Permit::Refused {
            until: NOW.plus_millis(after_ms),
            limit,
        };
        let table = [
            (vec![], false, Permit::Granted),
            (vec![30_000], false, Permit::Granted),
            (vec![29_999], false, until(1, Limit::Cooldown)),
            (vec![29_999], true, Permit::Granted),
            (vec![HOUR - 5, 10], false, until(29_990, Limit::Cooldown)),
            (vec![HOUR - 5, 10], true, until(5, Limit::RecipientHour)),
            (vec![HOUR, 10], true, Permit::Granted),
            (
                vec![DAY - 1_000_000, HOUR - 5, 10],
                false,
                until(1_000_000, Limit::RecipientDay),
            ),
            // The clock was set back by half a minute, half an hour, two hours.
            (vec![-30_000], false, until(30_000, Limit::Cooldown)),
            (vec![-1_800_000], false, Permit::Granted),
            (vec![60_000, -7_200_000], false, Permit::Granted),
            (
                vec![20_000, -1_800_000],
                false,
                until(3_580_000, Limit::RecipientHour),
            ),
        ];
        for (ago, waive_cooldown, expected) in table {
            let reservation = Reservation {
                waive_cooldown,
                ..reservation(limits(2, 3))
            };
            assert_eq!(reserve(&at(&ago), &reservation), expected, "{ago:?}");
        }
    }

    #[test]
    fn a_quarter_is_kept_for_messages_with_a_subject() {
        let sent = |count: i64, apart_ms: i64| {
            let ago: Vec<_> = (1..=count).rev().map(|n| n * apart_ms).collect();
            at(&ago)
        };
        let limits = limits(10, 20);
        let asks = |live: &[Timestamp], names_subject| {
            let reservation = Reservation {
                names_subject,
                ..reservation(limits)
            };
            match reserve(live, &reservation) {
                Permit::Refused { limit, .. } => Some(limit),
                _ => None,
            }
        };
        let hour = sent(8, 60_000);
        assert_eq!(asks(&hour[1..], false), None);
        assert_eq!(asks(&hour, false), Some(Limit::RecipientHour));
        assert_eq!(asks(&hour, true), None);
        let day = sent(15, 4_000_000);
        assert_eq!(asks(&day[1..], false), None);
        assert_eq!(asks(&day, false), Some(Limit::RecipientDay));
        assert_eq!(asks(&day, true), None);
        assert_eq!(asks(&sent(20, 4_000_000), true), Some(Limit::RecipientDay));
    }

    #[test]
    fn a_limit_of_none_refuses_everything() {
        let refused = Permit::Refused {
            until: NOW.plus_millis(HOUR_MS),
            limit: Limit::RecipientHour,
        };
        assert_eq!(reserve(&[], &reservation(limits(0, 20))), refused);
        assert!(admit(None, 0, NOW).is_err());
    }

    #[test]
    fn a_minute_counts_to_its_limit_and_a_clock_that_steps_back_stays_in_it() {
        let first = admit(None, 2, NOW).unwrap();
        let second = admit(Some(first), 2, NOW.minus_millis(120_000)).unwrap();
        assert_eq!(second.count, 2);
        let until = NOW.plus_millis(60_000);
        assert_eq!(
            admit(Some(second), 2, NOW.minus_millis(120_000)),
            Err(Permit::Refused {
                until,
                limit: Limit::ServiceMinute
            })
        );
        assert_eq!(admit(Some(second), 2, until).unwrap().count, 1);
        let corrected = NOW.minus_millis(180_000);
        assert_eq!(admit(Some(second), 2, corrected).unwrap().count, 1);
    }

    proptest! {
        /// A refusal lasts no longer than its limit, even if other processes with wrong clocks
        /// wrote reservations.
        #[test]
        fn no_refusal_outlasts_its_limit(mut ago in prop::collection::vec(-100_000_000_i64..100_000_000, 0..30)) {
            ago.sort_unstable_by_key(|ms| -ms);
            if let Permit::Refused { until, limit } = reserve(&at(&ago), &reservation(limits(3, 5))) {
                let most = match limit {
                    Limit::Cooldown => COOLDOWN_MS,
                    Limit::RecipientHour => HOUR_MS,
                    _ => DAY_MS,
                };
                prop_assert!((1..=most).contains(&until.millis_since(NOW)), "{:?}", limit);
            }
        }
    }
}
