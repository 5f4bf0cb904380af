//! Send limits, counted atomically before anything is published (R16): per recipient and service
//! a sliding window over the messages themselves, per service a counter a minute. Refuses to see
//! a recipient: its keyed hash is the key.

mod redis;
mod sqlite;
pub mod window;

pub use redis::RedisLimiter;
pub use sqlite::{MIGRATION, SqliteLimiter};

use async_trait::async_trait;
use watchword_core::{DeliveryId, SendLimits, ServiceName, SubjectTag, Timestamp};
use watchword_storage::StorageError;

/// A message that wants to go out.
#[derive(Debug, Clone)]
pub struct Reservation {
    /// The keyed hash of (service, recipient): the key, and the hash tag.
    pub recipient: SubjectTag,
    /// Which message. The same one again is granted again and not counted twice.
    pub delivery: DeliveryId,
    /// Whether the least time between messages does not hold for this one (its person has just
    /// proved to hold the address).
    pub waive_cooldown: bool,
    /// The service's limits.
    pub limits: SendLimits,
    /// Now.
    pub now: Timestamp,
}

impl Reservation {
    /// The least time to the newest other message, in milliseconds; 0 when it does not hold.
    pub fn cooldown_ms(&self) -> u64 {
        if self.waive_cooldown {
            0
        } else {
            self.limits.cooldown_ms
        }
    }
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// Go on; it is counted.
    Granted,
    /// Not before this moment; nothing was counted.
    Refused {
        /// When the same request would be granted if nothing else happened.
        until: Timestamp,
    },
}

/// Counters of messages. Each call is one atomic step.
#[async_trait]
pub trait SendLimiter: Send + Sync {
    /// Counts one request of `service` against `limits.service_per_minute`, in minutes of the clock.
    async fn admit(
        &self,
        service: &ServiceName,
        limits: SendLimits,
        now: Timestamp,
    ) -> Result<Permit, StorageError>;

    /// Reserves one message to one recipient: cooldown, then hour, then day. The latest of the
    /// three decides `until`.
    async fn reserve(&self, reservation: Reservation) -> Result<Permit, StorageError>;
}
