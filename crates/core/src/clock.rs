//! Wall-clock time in milliseconds, and the clock as a parameter.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Returns `duration` in milliseconds. A duration that does not fit becomes the maximum.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A moment, in milliseconds since 1970-01-01T00:00:00Z.
///
/// Arithmetic saturates, so that a hostile or stepped clock cannot panic the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Creates the moment `ms` milliseconds after the epoch.
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }

    /// Returns the milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Returns the moment `ms` milliseconds later.
    #[must_use]
    pub const fn plus_millis(self, ms: u64) -> Self {
        Self(self.0.saturating_add_unsigned(ms))
    }

    /// Returns the moment `ms` milliseconds earlier.
    #[must_use]
    pub const fn minus_millis(self, ms: u64) -> Self {
        Self(self.0.saturating_sub_unsigned(ms))
    }

    /// Returns the milliseconds from `earlier` to this moment, or 0 if `earlier` is later.
    pub const fn millis_since(self, earlier: Self) -> u64 {
        let elapsed = self.0.saturating_sub(earlier.0);
        if elapsed < 0 {
            0
        } else {
            elapsed.unsigned_abs()
        }
    }

    /// Returns the time from `earlier` to this moment, or zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.millis_since(earlier))
    }

    /// Formats the moment as RFC 3339 in UTC, always with three fractional digits, because some
    /// parsers accept only one form.
    pub fn to_rfc3339(self) -> String {
        let whole = OffsetDateTime::from_unix_timestamp(self.0.div_euclid(1_000));
        let text = whole.ok().and_then(|moment| moment.format(&Rfc3339).ok());
        match text.as_deref().and_then(|text| text.strip_suffix('Z')) {
            Some(seconds) => format!("{seconds}.{:03}Z", self.0.rem_euclid(1_000)),
            // RFC 3339 has no years before 0 or after 9999.
            None => "9999-12-31T23:59:59.999Z".to_owned(),
        }
    }

    /// Parses RFC 3339; returns `None` if `text` is malformed or out of range.
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(moment.unix_timestamp_nanos() / 1_000_000)
            .ok()
            .map(Self)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

/// A source of the current time: the system clock in production, set by hand in tests and
/// simulations.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Returns the current time.
    fn now(&self) -> Timestamp;
}

/// A clock that moves only when [`Self::advance_millis`] is called.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// Creates a clock that shows `now`.
    pub const fn at(now: Timestamp) -> Self {
        Self(AtomicI64::new(now.0))
    }

    /// Moves the clock by `ms` milliseconds; a negative value sets it back.
    pub fn advance_millis(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_round_trips_to_the_millisecond() {
        let moment = Timestamp::from_millis(1_764_000_000_123);
        assert_eq!(moment.to_rfc3339(), "2025-11-24T16:00:00.123Z");
        for ms in [
            0,
            1,
            100,
            120,
            123,
            999,
            1_000,
            -1,
            -1_000,
            1_764_000_000_760,
        ] {
            let moment = Timestamp::from_millis(ms);
            let text = moment.to_rfc3339();
            assert_eq!(text.len(), "2025-11-24T16:00:00.123Z".len(), "{text}");
            assert_eq!(Timestamp::from_rfc3339(&text), Some(moment), "{text}");
        }
        // The form that earlier versions wrote into events.
        let whole = Timestamp::from_rfc3339("2025-11-24T16:00:00Z");
        assert_eq!(whole, Some(Timestamp::from_millis(1_764_000_000_000)));
    }

    #[test]
    fn hostile_moments_neither_panic_nor_wrap() {
        let far = Timestamp::from_millis(i64::MAX);
        assert_eq!(far.plus_millis(u64::MAX), far);
        assert_eq!(Timestamp::from_millis(i64::MIN).millis_since(far), 0);
        assert_eq!(far.to_rfc3339(), "9999-12-31T23:59:59.999Z");
        assert_eq!(Timestamp::from_rfc3339("tomorrow"), None);
    }
}
