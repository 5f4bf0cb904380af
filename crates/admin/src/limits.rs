//! Rate limits of the admin API: two token buckets per key (requests and look-ups), and one bucket
//! for all callers with an unknown key.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use watchword_chassis::{Problem, ProblemCode};
use watchword_core::KeyId;

/// The size and the refill rate of a token bucket.
#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: f64,
    per_second: f64,
}

const REQUESTS: Rate = Rate {
    burst: 30.0,
    per_second: 10.0,
};
/// Look-ups by subject or recipient: 30 at once and 30 a minute, so that the API cannot be used to
/// search for a list of numbers.
const LOOKUPS: Rate = Rate {
    burst: 30.0,
    per_second: 0.5,
};
const FAILURES: Rate = Rate {
    burst: 30.0,
    per_second: 1.0,
};

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Problem> {
        let passed = now.saturating_duration_since(self.filled_at);
        self.tokens = (self.tokens + passed.as_secs_f64() * rate.per_second).min(rate.burst);
        self.filled_at = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 2 seconds"
        )]
        let wait = ((1.0 - self.tokens) / rate.per_second).ceil() as u64;
        let detail = "too many requests; wait for `Retry-After`";
        Err(Problem::new(ProblemCode::TooManyRequests, detail).retry_after(wait))
    }
}

/// The buckets: by key and by whether they count look-ups, and the bucket of unknown keys. Their
/// number is bounded, because only a configured key has a name.
#[derive(Debug, Default)]
pub(crate) struct Limits(Mutex<HashMap<(KeyId, bool), Bucket>>, Mutex<Option<Bucket>>);

impl Limits {
    /// Counts a request of `key`, or returns the problem if it exceeds the limit.
    pub(crate) fn request(&self, key: &KeyId, now: Instant) -> Result<(), Problem> {
        self.take(key, false, REQUESTS, now)
    }

    /// Counts a look-up of `key`, in addition to its request.
    pub(crate) fn lookup(&self, key: &KeyId, now: Instant) -> Result<(), Problem> {
        self.take(key, true, LOOKUPS, now)
    }

    /// Counts a request with an unknown key.
    pub(crate) fn failure(&self, now: Instant) -> Result<(), Problem> {
        let mut bucket = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = bucket.get_or_insert(Bucket {
            tokens: FAILURES.burst,
            filled_at: now,
        });
        bucket.take(FAILURES, now).map_err(|mut problem| {
            "too many requests had an unknown key".clone_into(&mut problem.detail);
            problem
        })
    }

    fn take(&self, key: &KeyId, is_lookup: bool, rate: Rate, now: Instant) -> Result<(), Problem> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry((key.clone(), is_lookup)).or_insert(Bucket {
            tokens: rate.burst,
            filled_at: now,
        });
        bucket.take(rate, now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_key_has_its_own_burst_and_gets_more_with_time() {
        let (limits, begun) = (Limits::default(), Instant::now());
        let (jane, joe): (KeyId, KeyId) = ("jane".parse().unwrap(), "joe".parse().unwrap());
        let granted = |key: &KeyId, at: Instant| {
            (0..1_000)
                .take_while(|_| limits.lookup(key, at).is_ok())
                .count()
        };
        assert_eq!(granted(&jane, begun), 30);
        let refused = limits.lookup(&jane, begun).unwrap_err();
        assert_eq!(refused.code, ProblemCode::TooManyRequests);
        assert_eq!(refused.retry_after_seconds, Some(2));
        assert_eq!(granted(&joe, begun), 30);
        assert_eq!(granted(&jane, begun + Duration::from_secs(10)), 5);
        assert_eq!(granted(&jane, begun + Duration::from_secs(3_600)), 30);
        // Requests and look-ups are counted apart.
        assert!(limits.request(&jane, begun).is_ok());
    }

    #[test]
    fn unknown_keys_share_one_bucket() {
        let (limits, begun) = (Limits::default(), Instant::now());
        let granted = (0..1_000).take_while(|_| limits.failure(begun).is_ok());
        assert_eq!(granted.count(), 30);
    }
}
