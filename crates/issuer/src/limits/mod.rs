//! Send limits, counted before a message is published.
//!
//! - Messages to one recipient are counted exactly, in a sliding window over the messages
//!   themselves ([`window`]).
//! - Messages that share a subject, a block of numbers, a client, a country or the service are
//!   counted in each process and reported to the store in batches ([`Quota`]), so that the usual
//!   message costs no call.
//! - Requests of a service per minute are taken in quota batches.
//!
//! Keys hold keyed hashes, no recipient.

mod quota;
mod redis;
mod sqlite;
pub mod tally;
pub mod window;

use std::fmt;

pub use quota::Quota;
pub use redis::RedisLimiter;
pub use sqlite::{MIGRATIONS, SqliteLimiter};

use async_trait::async_trait;
use watchword_core::{DeliveryId, SendLimits, ServiceName, SubjectTag, Timestamp};
use watchword_storage::StorageError;

use tally::{Span, Tally};

/// A message to count against its recipient.
#[derive(Debug, Clone)]
pub struct Reservation {
    /// A keyed hash of (service, recipient): the key, and the Redis hash tag.
    pub recipient: SubjectTag,
    /// The delivery of the message. Reserving it again succeeds and does not count again.
    pub delivery: DeliveryId,
    /// Whether the request names a subject. A message without one gets at most three quarters of
    /// the recipient's hour and day, so that a page without a login cannot use up all of them.
    pub names_subject: bool,
    /// Whether to skip the cooldown, because the person has just proved to hold the address.
    pub waive_cooldown: bool,
    /// The limits of the service.
    pub limits: SendLimits,
    /// The current time.
    pub now: Timestamp,
}

/// The limit that refuses a message or a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// A message was sent to the recipient within the cooldown.
    Cooldown,
    /// Messages to the recipient in an hour.
    RecipientHour,
    /// Messages to the recipient in a day.
    RecipientDay,
    /// Messages for the subject in an hour.
    Subject,
    /// Messages to the number's block in an hour.
    NumberBlock,
    /// Messages for the client in an hour.
    Client,
    /// Messages to the number's country in a day.
    Country,
    /// Messages of the service in a day.
    ServiceDay,
    /// Requests of the service in a minute.
    ServiceMinute,
}

impl Limit {
    /// All limits, for metric series that start at zero.
    pub const ALL: [Self; 9] = [
        Self::Cooldown,
        Self::RecipientHour,
        Self::RecipientDay,
        Self::Subject,
        Self::NumberBlock,
        Self::Client,
        Self::Country,
        Self::ServiceDay,
        Self::ServiceMinute,
    ];

    /// Returns the metric label. It is also the key in `[services.NAME.limits]`, except for the
    /// policy's cooldown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cooldown => "cooldown",
            Self::RecipientHour => "recipient_per_hour",
            Self::RecipientDay => "recipient_per_day",
            Self::Subject => "subject_per_hour",
            Self::NumberBlock => "number_block_per_hour",
            Self::Client => "client_per_hour",
            Self::Country => "country_per_day",
            Self::ServiceDay => "service_per_day",
            Self::ServiceMinute => "service_per_minute",
        }
    }
}

/// The answer of a limiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// Granted and counted.
    Granted,
    /// Granted; the message was counted before.
    Repeated,
    /// Refused; nothing was counted.
    Refused {
        /// The time at which the same request would be granted if nothing else is counted until
        /// then.
        until: Timestamp,
        /// The limit whose refusal lasts longest.
        limit: Limit,
    },
}

/// A counter that many messages share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Messages of a service for one subject, by the subject's tag.
    Subject(SubjectTag),
    /// Messages of a service to one block of numbers, by its keyed hash.
    NumberBlock(SubjectTag),
    /// Messages of a service for one client, by its keyed hash.
    Client(SubjectTag),
    /// Messages of a service to one country, or to numbers without a country.
    Country(ServiceName, Option<String>),
    /// All messages of a service.
    Service(ServiceName),
}

impl Counter {
    /// Returns the limit that applies to the counter.
    pub const fn limit(&self) -> Limit {
        match self {
            Self::Subject(_) => Limit::Subject,
            Self::NumberBlock(_) => Limit::NumberBlock,
            Self::Client(_) => Limit::Client,
            Self::Country(..) => Limit::Country,
            Self::Service(_) => Limit::ServiceDay,
        }
    }

    /// Returns the counter's value in `limits`; 0 means no limit.
    pub const fn most(&self, limits: &SendLimits) -> u32 {
        match self {
            Self::Subject(_) => limits.subject_per_hour,
            Self::NumberBlock(_) => limits.number_block_per_hour,
            Self::Client(_) => limits.client_per_hour,
            Self::Country(..) => limits.country_per_day,
            Self::Service(_) => limits.service_per_day,
        }
    }

    /// Returns the limit for a message whose request names a subject or not. Without a subject it
    /// is at most three quarters of a block or a country, so that a page without a login cannot use
    /// up all of them.
    pub const fn share(&self, limits: &SendLimits, names_subject: bool) -> u32 {
        let is_kept = matches!(self, Self::NumberBlock(_) | Self::Country(..));
        window::share(self.most(limits), names_subject || !is_kept)
    }

    /// Returns how long a message counts.
    pub const fn span(&self) -> Span {
        match self {
            Self::Subject(_) | Self::NumberBlock(_) | Self::Client(_) => Span::Hour,
            Self::Country(..) | Self::Service(_) => Span::Day,
        }
    }
}

impl fmt::Display for Counter {
    /// Formats the counter's key in the store.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subject(tag) => write!(f, "ww:{{{tag}}}:sent"),
            Self::NumberBlock(tag) => write!(f, "ww:{{{tag}}}:block"),
            Self::Client(tag) => write!(f, "ww:{{{tag}}}:client"),
            Self::Country(service, country) => {
                let country = country.as_deref().unwrap_or("none");
                write!(f, "ww:{{{service}}}:country:{country}")
            }
            Self::Service(service) => write!(f, "ww:{{{service}}}:day"),
        }
    }
}

/// Counts messages and requests. Each call is one atomic step.
#[async_trait]
pub trait SendLimiter: Send + Sync {
    /// Counts one request of `service` against `limits.service_per_minute`, per minute of the
    /// clock.
    async fn admit(
        &self,
        service: &ServiceName,
        limits: SendLimits,
        now: Timestamp,
    ) -> Result<Permit, StorageError>;

    /// Reserves one message to one recipient, against cooldown, hour and day. A refusal names the
    /// one of the three that lasts longest.
    async fn reserve(&self, reservation: Reservation) -> Result<Permit, StorageError>;

    /// Returns whether this message to the recipient was reserved before.
    async fn is_reserved(
        &self,
        recipient: SubjectTag,
        delivery: &DeliveryId,
        now: Timestamp,
    ) -> Result<bool, StorageError>;

    /// Forgets the messages to a recipient, when an operator unlocks it. Returns whether there were
    /// any.
    async fn forget_recipient(&self, recipient: SubjectTag) -> Result<bool, StorageError>;

    /// Adds `messages` to `counter` and returns its current tally. A negative number corrects an
    /// earlier report; 0 only reads.
    async fn count(
        &self,
        counter: &Counter,
        messages: i32,
        now: Timestamp,
    ) -> Result<Tally, StorageError>;

    /// Forgets the messages of `counter`. Returns whether there were any.
    async fn forget(&self, counter: &Counter) -> Result<bool, StorageError>;
}
