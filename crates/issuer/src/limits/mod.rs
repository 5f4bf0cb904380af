//! Send limits, counted before a message is published. Messages to one recipient are counted
//! exactly, in a sliding window over the messages themselves ([`window`]). Messages that share a
//! subject, a block of numbers, a client, a country or the service are counted in each process and
//! reported to the store in batches ([`Quota`]), so that the usual message costs no call. A
//! service's requests a minute are taken in quota batches. Keys hold keyed hashes, no recipient.

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

/// A message that waits to be counted against its recipient.
#[derive(Debug, Clone)]
pub struct Reservation {
    /// The keyed hash of (service, recipient): the key, and the hash tag.
    pub recipient: SubjectTag,
    /// Which message. The same one again is granted again and not counted twice.
    pub delivery: DeliveryId,
    /// Whether the message is for a subject of its own. A message that names only its recipient
    /// gets no more than three quarters of the recipient's hour and day, so that a page without a
    /// login cannot use up all of them.
    pub names_subject: bool,
    /// Whether the least time between messages does not hold for this one (its person has just
    /// proved to hold the address).
    pub waive_cooldown: bool,
    /// The service's limits.
    pub limits: SendLimits,
    /// Now.
    pub now: Timestamp,
}

/// Which limit refuses a message or a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// A message was sent to the recipient within the cooldown.
    Cooldown,
    /// Messages to the recipient in an hour.
    RecipientHour,
    /// Messages to the recipient in a day.
    RecipientDay,
    /// Messages for the subject.
    Subject,
    /// Messages to the number's block.
    NumberBlock,
    /// Messages for the client.
    Client,
    /// Messages to the number's country.
    Country,
    /// Messages of the service in a day.
    ServiceDay,
    /// Requests of the service in a minute.
    ServiceMinute,
}

impl Limit {
    /// Every limit, for series that start at zero.
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

    /// The label, and the key in `[services.NAME.limits]` except for the policy's cooldown.
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

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// Go on; it is counted.
    Granted,
    /// The message may be sent; it was counted before.
    Repeated,
    /// Not before this moment; nothing was counted.
    Refused {
        /// When the same request would be granted if nothing else happened.
        until: Timestamp,
        /// The limit that refuses for longest.
        limit: Limit,
    },
}

/// A counter that many messages share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Messages for one subject of a service, by the subject's tag.
    Subject(SubjectTag),
    /// Messages of a service to one block of numbers, by its keyed hash.
    NumberBlock(SubjectTag),
    /// Messages of a service for one client, by its keyed hash.
    Client(SubjectTag),
    /// Messages of a service to one country; without one, to the numbers of none.
    Country(ServiceName, Option<String>),
    /// Messages of a service.
    Service(ServiceName),
}

impl Counter {
    /// The limit it is held to.
    pub const fn limit(&self) -> Limit {
        match self {
            Self::Subject(_) => Limit::Subject,
            Self::NumberBlock(_) => Limit::NumberBlock,
            Self::Client(_) => Limit::Client,
            Self::Country(..) => Limit::Country,
            Self::Service(_) => Limit::ServiceDay,
        }
    }

    /// Its limit among these; 0 is none.
    pub const fn most(&self, limits: &SendLimits) -> u32 {
        match self {
            Self::Subject(_) => limits.subject_per_hour,
            Self::NumberBlock(_) => limits.number_block_per_hour,
            Self::Client(_) => limits.client_per_hour,
            Self::Country(..) => limits.country_per_day,
            Self::Service(_) => limits.service_per_day,
        }
    }

    /// Its limit for a message that is for a subject of its own, or for its recipient as such: the
    /// latter gets no more than three quarters of a block and a country, so that a page without a
    /// login cannot use up all of them.
    pub const fn share(&self, limits: &SendLimits, names_subject: bool) -> u32 {
        let is_kept = matches!(self, Self::NumberBlock(_) | Self::Country(..));
        window::share(self.most(limits), names_subject || !is_kept)
    }

    /// How long a message counts.
    pub const fn span(&self) -> Span {
        match self {
            Self::Subject(_) | Self::NumberBlock(_) | Self::Client(_) => Span::Hour,
            Self::Country(..) | Self::Service(_) => Span::Day,
        }
    }
}

impl fmt::Display for Counter {
    /// The key in the store.
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

    /// Whether this message to the recipient was reserved before.
    async fn is_reserved(
        &self,
        recipient: SubjectTag,
        delivery: &DeliveryId,
        now: Timestamp,
    ) -> Result<bool, StorageError>;

    /// Forgets the messages to a recipient: an operator unlocks it. Returns whether there were any.
    async fn forget_recipient(&self, recipient: SubjectTag) -> Result<bool, StorageError>;

    /// Adds `messages` to `counter` and returns what counts in it now. Below zero it corrects what
    /// was added before; 0 only reads.
    async fn count(
        &self,
        counter: &Counter,
        messages: i32,
        now: Timestamp,
    ) -> Result<Tally, StorageError>;

    /// Forgets the messages of `counter`. Returns whether there were any.
    async fn forget(&self, counter: &Counter) -> Result<bool, StorageError>;
}
