//! The clock of the embedded file, which does not run backwards. Redis has a clock of its own
//! beside the callers'; here the newest time that was written replaces it.

use std::sync::atomic::{AtomicI64, Ordering};

use watchword_core::Timestamp;

/// If the clock is set back by more, it was wrong before and is right now.
const MOST_BACK_MS: u64 = 30_000;

/// The newest time that was written.
#[derive(Debug)]
pub(super) struct Newest(AtomicI64);

impl Default for Newest {
    fn default() -> Self {
        Self(AtomicI64::new(i64::MIN))
    }
}

impl Newest {
    /// The time that decides for a caller's `now`.
    pub(super) fn later(&self, now: Timestamp) -> Timestamp {
        later(Timestamp::from_millis(self.0.load(Ordering::Acquire)), now)
    }

    /// Returns [`Newest::later`] and keeps it, for a call whose decision is written with it.
    pub(super) fn write(&self, now: Timestamp) -> Timestamp {
        let later = self.later(now);
        self.0.store(later.as_millis(), Ordering::Release);
        later
    }
}

fn later(newest: Timestamp, now: Timestamp) -> Timestamp {
    if newest.millis_since(now) <= MOST_BACK_MS {
        newest.max(now)
    } else {
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_run_backwards_unless_it_was_corrected() {
        let (newest, at) = (Newest::default(), Timestamp::from_millis);
        let table = [
            (100_000, 100_000),
            (70_000, 100_000),
            (100_001, 100_001),
            (70_000, 70_000),
            (60_000, 70_000),
        ];
        for (now, expected) in table {
            assert_eq!(newest.later(at(now)), at(expected), "{now}");
            assert_eq!(newest.write(at(now)), at(expected), "{now}");
        }
    }
}
