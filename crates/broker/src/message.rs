//! Messages to publish, and received messages with the methods that settle them.

use std::time::Duration;

use bytes::Bytes;
use watchword_core::{Rung, ServiceName, TraceParent};
use watchword_events::Lane;

use crate::dead_letter::DeadLetterReason;
use crate::disposition::Disposition;
use crate::port::{Settle, SettleError};

/// A message to publish.
#[derive(Clone)]
pub struct Outbound {
    /// The event's id, unique among messages in flight: returned messages are matched by it.
    pub id: String,
    /// The event's type, sent as the `type` property.
    pub kind: &'static str,
    /// The destination.
    pub route: Route,
    /// The `CloudEvents` document.
    pub body: Bytes,
    /// W3C trace context to send along.
    pub traceparent: Option<TraceParent>,
    /// Time-to-live, for a queue kind that has a late queue. The engine moves a message that waits
    /// longer to the late queue, which the same consumer reads, so that expired messages do not
    /// delay fresh ones.
    pub ttl: Option<Duration>,
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbound")
            .field("id", &self.id)
            .field("route", &self.route)
            .finish_non_exhaustive()
    }
}

/// The destination of a published message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// The queue of a queue kind. The publish fails if no queue receives the message.
    Lane(Lane),
    /// The dead-letter queue of a queue kind, with the reason. For a note about a message that must
    /// not be kept itself, such as a request with a recipient in clear.
    Parked(Lane, DeadLetterReason),
    /// The events exchange, with this topic routing key. The publish succeeds even if no queue is
    /// bound to it.
    Event(String),
}

/// Why a message was moved to its late queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// The message passed its deadline while it waited.
    Expired,
    /// The message reached the delivery limit without being settled. Consumers hand out only
    /// requests for this reason ([`Lane::is_republished`]) and dead-letter other messages.
    DeliveryLimit,
}

/// A received message that waits to be settled. If it is dropped unsettled, as in a crash, the
/// broker redelivers it once the connection or the lease ends.
pub struct Received {
    /// The `message_id` property, if the publisher set one.
    pub id: Option<String>,
    /// The document as it arrived, not checked in any way.
    pub body: Bytes,
    /// How many times the message went through a wait queue, counted in a header of this crate.
    pub retries: u32,
    /// Whether the broker delivered the message before.
    pub redelivered: bool,
    /// Why the message comes from the late queue, if it does.
    pub late: Option<Late>,
    /// The service whose request queue the message comes from; `None` for a queue that services
    /// share.
    pub service: Option<ServiceName>,
    /// The publisher's user name, validated by the broker.
    pub user: Option<String>,
    /// W3C trace context, if the header is well-formed.
    pub traceparent: Option<TraceParent>,
    /// The engine's handle that settles the message.
    pub settle: Box<dyn Settle>,
}

impl Received {
    /// Returns whether this process can still settle the message. `false` once its connection is
    /// lost: the broker then delivers the message again, so further work on it has no effect.
    pub fn is_held(&self) -> bool {
        self.settle.is_held()
    }

    /// Settles the message as `disposition` says.
    pub async fn settle(self, disposition: Disposition) -> Result<(), SettleError> {
        match disposition {
            Disposition::Ack => self.ack().await,
            Disposition::Retry(rung) => self.retry(rung).await,
            Disposition::DeadLetter(reason) => self.dead_letter(reason).await,
            Disposition::Requeue => self.requeue().await,
        }
    }

    /// Acknowledges the message. Call it once the outcome is recorded: the broker forgets the
    /// message.
    pub async fn ack(self) -> Result<(), SettleError> {
        self.settle.ack().await
    }

    /// Schedules a retry after the delay of `rung`: publishes the message to the wait queue, waits
    /// for the confirm, then acknowledges it.
    pub async fn retry(self, rung: Rung) -> Result<(), SettleError> {
        self.settle.retry(rung).await
    }

    /// Dead-letters the message for an operator: publishes it to the dead-letter queue, waits for
    /// the confirm, then acknowledges it.
    pub async fn dead_letter(self, reason: DeadLetterReason) -> Result<(), SettleError> {
        self.settle.dead_letter(reason).await
    }

    /// Returns the message to its queue unprocessed, for immediate redelivery.
    pub async fn requeue(self) -> Result<(), SettleError> {
        self.settle.requeue().await
    }
}

impl std::fmt::Debug for Received {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Received")
            .field("id", &self.id)
            .field("retries", &self.retries)
            .finish_non_exhaustive()
    }
}
