//! The send limits on Redis: a string per recipient, a string per service for its minute, and a
//! hash per [`Counter`], all with a time-to-live. A recipient's string is created if the key is
//! free, or replaced with compare-and-swap after [`super::window`] decided about the value that was
//! read. A process takes a service's requests in quota batches, so that most requests need no call.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use watchword_core::{DeliveryId, SendLimits, ServiceName, SubjectTag, Timestamp};
use watchword_storage::redis::{Value, cmd};
use watchword_storage::{Arg, Redis, Script, StorageError};

use super::tally::{PARTS, Tally};
use super::window::{AHEAD_MINUTES, DAY_MS, MINUTE_MS, bounded_moment, is_live, reserve};
use super::{Counter, Limit, Permit, Reservation, SendLimiter};

/// Time-to-live of a service's counter after the first request of its minute: that minute, and one
/// more for issuers whose clock lags.
const COUNTER_TTL_MS: u32 = 120_000;

/// A quota batch is this fraction of a service's limit, and at most [`LARGEST_BATCH`] requests.
/// When the minute ends, a process loses the rest of its batch. Limits below 128 have batches of
/// one and lose nothing. The total stays within the limit.
const BATCH_SHARE: u32 = 64;
const LARGEST_BATCH: u32 = 64;

/// Maximum number of compare-and-swap attempts. Losing one means that another reservation for the
/// recipient was granted, and the limits allow few of those.
const ROUNDS: u32 = 64;

/// The send limits on Redis.
#[derive(Debug)]
pub struct RedisLimiter {
    redis: Redis,
    admit: Script,
    count: Script,
    batches: Mutex<HashMap<ServiceName, Batch>>,
}

/// A quota batch: requests that the store has already counted.
#[derive(Debug, Clone, Copy)]
struct Batch {
    minute: i64,
    left: u32,
}

impl RedisLimiter {
    /// Creates a limiter over `redis`.
    pub fn new(redis: Redis) -> Self {
        Self {
            redis,
            admit: Script::new("limits.admit", include_str!("lua/admit.lua")),
            count: Script::new("limits.count", include_str!("lua/count.lua")),
            batches: Mutex::default(),
        }
    }

    /// Takes one request from the batch, if it has any left for `minute` or a later minute, in
    /// which the script continues for a clock that lags.
    fn is_left(&self, service: &ServiceName, minute: i64) -> bool {
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        match batches.get_mut(service) {
            Some(batch)
                if (minute..=minute + AHEAD_MINUTES).contains(&batch.minute) && batch.left > 0 =>
            {
                batch.left -= 1;
                true
            }
            _ => false,
        }
    }

    /// Deletes `key` and returns whether it existed.
    async fn delete(&self, key: String) -> Result<bool, StorageError> {
        let command = cmd("DEL").arg(key).to_owned();
        let deleted = self.redis.command(&command).await?;
        Ok(matches!(deleted, Value::Int(1..)))
    }

    fn keep(&self, service: &ServiceName, taken: Batch) {
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        batches
            .entry(service.clone())
            .and_modify(|kept| {
                // Another request may have taken a batch of the same minute at the same time.
                let left = if kept.minute == taken.minute {
                    kept.left
                } else {
                    0
                };
                *kept = Batch {
                    left: left + taken.left,
                    ..taken
                };
            })
            .or_insert(taken);
    }
}

/// Error for a stored value or a script answer in an unknown format.
const fn unreadable() -> StorageError {
    StorageError::Rejected("a counter cannot be read")
}

fn recipient_key(recipient: SubjectTag) -> String {
    format!("ww:{{{recipient}}}:r")
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
        let wanted = (limits.service_per_minute / BATCH_SHARE).clamp(1, LARGEST_BATCH);
        let args = [
            now.into(),
            limits.service_per_minute.into(),
            COUNTER_TTL_MS.into(),
            wanted.into(),
        ];
        let keys = [service_key(service)];
        let Value::Array(answer) = self.redis.script(&self.admit, &keys, &args).await? else {
            return Err(unreadable());
        };
        let [Value::Int(minute), Value::Int(granted)] = answer[..] else {
            return Err(unreadable());
        };
        if granted == 0 {
            let until = Timestamp::from_millis(minute.saturating_mul(MINUTE_MS));
            let limit = Limit::ServiceMinute;
            return Ok(Permit::Refused { until, limit });
        }
        let left = u32::try_from(granted - 1).map_err(|_| unreadable())?;
        self.keep(service, Batch { minute, left });
        Ok(Permit::Granted)
    }

    async fn reserve(&self, reservation: Reservation) -> Result<Permit, StorageError> {
        let now = bounded_moment(reservation.now);
        let own = reservation.delivery.own_bytes();
        let decide = |live: &[Timestamp]| reserve(live, &reservation);
        let key = recipient_key(reservation.recipient);
        // The usual case: nothing was sent to this recipient within a day.
        let first = decide(&[]);
        if first != Permit::Granted {
            return Ok(first);
        }
        let alone = Sent(vec![(now, own)]).encode();
        let Some(mut stored) = self.redis.insert(&key, &alone, DAY_MS).await? else {
            return Ok(Permit::Granted);
        };
        for _ in 0..ROUNDS {
            let mut sent = Sent::decode(&stored)?;
            sent.0.retain(|(at, _)| is_live(*at, now));
            if sent.0.iter().any(|(_, other)| *other == own) {
                return Ok(Permit::Repeated);
            }
            let moments: Vec<_> = sent.0.iter().map(|(at, _)| *at).collect();
            let permit = decide(&moments);
            if permit != Permit::Granted {
                return Ok(permit);
            }
            let later = sent.0.partition_point(|(at, _)| *at <= now);
            sent.0.insert(later, (now, own));
            let more = sent.encode();
            let swapped = self.redis.swap(key.clone(), &stored, &more, Some(DAY_MS));
            if swapped.await? {
                return Ok(Permit::Granted);
            }
            // Another reservation for the recipient was faster. Read the new value, or start again
            // if it is gone.
            match self.redis.insert(&key, &alone, DAY_MS).await? {
                Some(newer) => stored = newer,
                None => return Ok(Permit::Granted),
            }
        }
        Err(StorageError::Unavailable(
            "a recipient's messages change too often",
        ))
    }

    async fn is_reserved(
        &self,
        recipient: SubjectTag,
        delivery: &DeliveryId,
        now: Timestamp,
    ) -> Result<bool, StorageError> {
        let command = cmd("GET").arg(recipient_key(recipient)).to_owned();
        let stored = match self.redis.command(&command).await? {
            Value::Nil => return Ok(false),
            Value::BulkString(stored) => stored,
            _ => return Err(unreadable()),
        };
        let (own, now) = (delivery.own_bytes(), bounded_moment(now));
        let sent = Sent::decode(&stored)?.0;
        let is_it = |(at, other): &(Timestamp, [u8; 11])| *other == own && is_live(*at, now);
        Ok(sent.iter().any(is_it))
    }

    async fn forget_recipient(&self, recipient: SubjectTag) -> Result<bool, StorageError> {
        self.delete(recipient_key(recipient)).await
    }

    async fn count(
        &self,
        counter: &Counter,
        messages: i32,
        now: Timestamp,
    ) -> Result<Tally, StorageError> {
        let span = counter.span();
        let part = span.part(bounded_moment(now));
        let args = [
            part.into(),
            i64::from(messages).into(),
            span.kept_ms().into(),
            Arg::Unsigned(PARTS as u64),
        ];
        let keys = [counter.to_string()];
        let Value::Array(answer) = self.redis.script(&self.count, &keys, &args).await? else {
            return Err(unreadable());
        };
        let (pairs, []) = answer.as_chunks::<2>() else {
            return Err(unreadable());
        };
        let pairs = pairs.iter().map(|pair| match pair {
            [Value::Int(part), Value::Int(messages)] => Ok((*part, *messages)),
            _ => Err(unreadable()),
        });
        Ok(Tally::read(pairs.collect::<Result<Vec<_>, _>>()?, part))
    }

    async fn forget(&self, counter: &Counter) -> Result<bool, StorageError> {
        self.delete(counter.to_string()).await
    }
}

/// The reservations of one recipient, oldest first. Each takes [`ENTRY`] bytes: the moment in
/// milliseconds (6 bytes, big-endian), then the bytes that identify the delivery.
#[derive(Debug, PartialEq, Eq)]
struct Sent(Vec<(Timestamp, [u8; 11])>);

/// The first byte of the value: the version of its layout.
const FORMAT: u8 = 1;
const ENTRY: usize = 17;

impl Sent {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + self.0.len() * ENTRY);
        bytes.push(FORMAT);
        for (at, own) in &self.0 {
            bytes.extend_from_slice(&at.as_millis().to_be_bytes()[2..]);
            bytes.extend_from_slice(own);
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, StorageError> {
        let Some((&FORMAT, entries)) = bytes.split_first() else {
            return Err(unreadable());
        };
        let (entries, []) = entries.as_chunks::<ENTRY>() else {
            return Err(unreadable());
        };
        let entry = |entry: &[u8; ENTRY]| {
            let (mut at, mut own) = ([0; 8], [0; 11]);
            at[2..].copy_from_slice(&entry[..6]);
            own.copy_from_slice(&entry[6..]);
            (Timestamp::from_millis(i64::from_be_bytes(at)), own)
        };
        Ok(Self(entries.iter().map(entry).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_are_read_as_they_were_written_and_nothing_else_is() {
        let at = |ms| Timestamp::from_millis(ms);
        let sent = Sent(vec![(at(0), [1; 11]), (at((1 << 48) - 1), [2; 11])]);
        let bytes = sent.encode();
        assert_eq!(bytes.len(), 1 + 2 * ENTRY);
        assert_eq!(Sent::decode(&bytes), Ok(sent));
        assert_eq!(Sent::decode(&[FORMAT]), Ok(Sent(Vec::new())));
        for foreign in [&[][..], &[2], &bytes[1..], &bytes[..ENTRY], b"1 2"] {
            assert_eq!(Sent::decode(foreign), Err(unreadable()), "{foreign:?}");
        }
    }
}
