//! The send limits on Redis: one sorted set a recipient, one counter a service, each with a time
//! to live; one script a call. Refuses to decide: the scripts do.

use async_trait::async_trait;
use watchword_core::{SendLimits, ServiceName, SubjectTag, Timestamp};
use watchword_storage::redis::Value;
use watchword_storage::{Redis, Script, StorageError};

use super::window::{bounded_moment, bounded_span};
use super::{Permit, Reservation, SendLimiter};

/// How long a service's counter is kept from the first request of its minute on: that minute and
/// one more, for issuers whose clock lags.
const COUNTER_TTL_MS: u32 = 120_000;

/// The send limits on Redis.
#[derive(Debug)]
pub struct RedisLimiter {
    redis: Redis,
    admit: Script,
    reserve: Script,
}

impl RedisLimiter {
    /// A limiter over this connection.
    pub fn new(redis: Redis) -> Self {
        Self {
            redis,
            admit: Script::new("limits.admit", include_str!("lua/admit.lua")),
            reserve: Script::new("limits.reserve", include_str!("lua/reserve.lua")),
        }
    }

    async fn run(
        &self,
        script: &Script,
        key: String,
        args: Vec<Vec<u8>>,
    ) -> Result<Permit, StorageError> {
        match self.redis.script(script, &[key], args).await? {
            Value::BulkString(answer) => permit(&answer),
            _ => Err(unreadable()),
        }
    }
}

/// The answer of a script that is not ours, or of another version of it.
const fn unreadable() -> StorageError {
    StorageError::Rejected("a counter cannot be read")
}

fn permit(answer: &[u8]) -> Result<Permit, StorageError> {
    let until = std::str::from_utf8(answer)
        .ok()
        .and_then(|text| text.parse().ok());
    match until {
        Some(0) => Ok(Permit::Granted),
        Some(until) => Ok(Permit::Refused {
            until: Timestamp::from_millis(until),
        }),
        None => Err(unreadable()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "numbers are copied")]
fn text(number: impl ToString) -> Vec<u8> {
    number.to_string().into_bytes()
}

fn recipient_key(recipient: SubjectTag) -> String {
    format!("ww:{{{recipient}}}:sent")
}

fn service_key(service: &ServiceName) -> String {
    format!("ww:{{{service}}}:minute")
}

#[async_trait]
impl SendLimiter for RedisLimiter {
    async fn admit(
        &self,
        service: &ServiceName,
        limits: SendLimits,
        now: Timestamp,
    ) -> Result<Permit, StorageError> {
        let args = vec![
            text(bounded_moment(now).as_millis()),
            text(limits.service_per_minute),
            text(COUNTER_TTL_MS),
        ];
        self.run(&self.admit, service_key(service), args).await
    }

    async fn reserve(&self, reservation: Reservation) -> Result<Permit, StorageError> {
        let args = vec![
            text(bounded_moment(reservation.now).as_millis()),
            text(&reservation.delivery),
            text(bounded_span(reservation.cooldown_ms())),
            text(reservation.limits.per_hour),
            text(reservation.limits.per_day),
        ];
        self.run(&self.reserve, recipient_key(reservation.recipient), args)
            .await
    }
}
