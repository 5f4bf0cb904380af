//! The send limits on Redis: one sorted set a recipient, one counter a service, each with a time
//! to live; one script a call. A service with many requests gets leave for some at once, so that
//! most of them ask nobody. Refuses to decide: the scripts do.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use watchword_core::{SendLimits, ServiceName, SubjectTag, Timestamp};
use watchword_storage::redis::Value;
use watchword_storage::{Redis, Script, StorageError};

use super::window::{DAY_MINUTES, MINUTE_MS, bounded_moment, bounded_span};
use super::{Permit, Reservation, SendLimiter};

/// How long a service's counter is kept from the first request of its minute on: that minute and
/// one more, for issuers whose clock lags.
const COUNTER_TTL_MS: u32 = 120_000;

/// Leave is taken for this part of a service's limit at once, and for so many at most. What a
/// process has left of it at the end of the minute was counted for nothing: of a limit below 128
/// nothing is, and never more than is allowed is granted.
const LEAVE_SHARE: u32 = 64;
const MOST_LEAVE: u32 = 64;

/// The send limits on Redis.
#[derive(Debug)]
pub struct RedisLimiter {
    redis: Redis,
    admit: Script,
    reserve: Script,
    leave: Mutex<HashMap<ServiceName, Leave>>,
}

/// Requests that are counted already.
#[derive(Debug, Clone, Copy)]
struct Leave {
    minute: i64,
    left: u32,
}

impl RedisLimiter {
    /// A limiter over this connection.
    pub fn new(redis: Redis) -> Self {
        Self {
            redis,
            admit: Script::new("limits.admit", include_str!("lua/admit.lua")),
            reserve: Script::new("limits.reserve", include_str!("lua/reserve.lua")),
            leave: Mutex::default(),
        }
    }

    /// Uses up one request that was counted in this minute, if there is one; or in a later one,
    /// where the script goes on for a clock that lags behind another's.
    fn is_left(&self, service: &ServiceName, minute: i64) -> bool {
        let mut leave = self.leave.lock().unwrap_or_else(PoisonError::into_inner);
        match leave.get_mut(service) {
            Some(leave)
                if (minute..=minute + DAY_MINUTES).contains(&leave.minute) && leave.left > 0 =>
            {
                leave.left -= 1;
                true
            }
            _ => false,
        }
    }

    fn keep(&self, service: &ServiceName, taken: Leave) {
        let mut leave = self.leave.lock().unwrap_or_else(PoisonError::into_inner);
        leave
            .entry(service.clone())
            .and_modify(|kept| {
                // Others may have taken some of the same minute meanwhile.
                let left = if kept.minute == taken.minute {
                    kept.left
                } else {
                    0
                };
                *kept = Leave {
                    left: left + taken.left,
                    ..taken
                };
            })
            .or_insert(taken);
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
        let now = bounded_moment(now).as_millis();
        if self.is_left(service, now.div_euclid(MINUTE_MS)) {
            return Ok(Permit::Granted);
        }
        let wanted = (limits.service_per_minute / LEAVE_SHARE).clamp(1, MOST_LEAVE);
        let args = vec![
            text(now),
            text(limits.service_per_minute),
            text(COUNTER_TTL_MS),
            text(wanted),
        ];
        let keys = [service_key(service)];
        let Value::Array(answer) = self.redis.script(&self.admit, &keys, args).await? else {
            return Err(unreadable());
        };
        let [Value::Int(minute), Value::Int(granted)] = answer[..] else {
            return Err(unreadable());
        };
        if granted == 0 {
            let until = Timestamp::from_millis(minute.saturating_mul(MINUTE_MS));
            return Ok(Permit::Refused { until });
        }
        let left = u32::try_from(granted - 1).map_err(|_| unreadable())?;
        self.keep(service, Leave { minute, left });
        Ok(Permit::Granted)
    }

    async fn reserve(&self, reservation: Reservation) -> Result<Permit, StorageError> {
        let args = vec![
            text(bounded_moment(reservation.now).as_millis()),
            text(&reservation.delivery),
            text(bounded_span(reservation.cooldown_ms())),
            text(reservation.limits.per_hour),
            text(reservation.limits.per_day),
        ];
        let keys = [recipient_key(reservation.recipient)];
        match self.redis.script(&self.reserve, &keys, args).await? {
            Value::BulkString(answer) => permit(&answer),
            _ => Err(unreadable()),
        }
    }
}
