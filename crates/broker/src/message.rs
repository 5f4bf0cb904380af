//! What is published and what is received. Refuses to look into bodies.

use std::time::Duration;

use bytes::Bytes;
use watchword_core::{Rung, ServiceName};
use watchword_events::Lane;

use crate::port::{Settle, SettleError};

/// A message to publish.
#[derive(Clone)]
pub struct Outbound {
    /// The event's id; confirms and returns are matched by it.
    pub id: String,
    /// The event's type, for the `type` property.
    pub kind: &'static str,
    /// Where it goes.
    pub route: Route,
    /// The `CloudEvents` document.
    pub body: Bytes,
    /// W3C trace context to carry along.
    pub traceparent: Option<String>,
    /// How long it is wanted, in a lane that has a late queue: what still waits then is handed out
    /// after everything that is not late, by the same consumer.
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

/// Where a published message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// To the readers of a lane. It must arrive in a queue, or the publish fails.
    Lane(Lane),
    /// To the lane's parked queue, with the reason: for a document about a message that must not
    /// be kept as it is (a request with a recipient in clear).
    Parked(Lane, ParkReason),
    /// To whoever listens, by topic routing key; nobody listening is no failure.
    Event(String),
}

/// Why a message was put aside: a stable word (`unknown_type`, `broken_seal`, …).
pub type ParkReason = &'static str;

/// Why a message comes from its lane's late queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// It waited past its deadline.
    Expired,
    /// The broker delivered it as often as the queue allows, and no consumer settled it. Only
    /// requests are handed out then ([`Lane::is_republished`]); other messages are dead-lettered.
    DeliveryLimit,
}

/// A message that was taken from a lane and waits to be settled. Dropped unsettled, it is
/// redelivered once its connection or lease ends: that is what a crash does.
pub struct Received {
    /// The `message_id` property, if the publisher set one.
    pub id: Option<String>,
    /// The document as it came; not checked in any way.
    pub body: Bytes,
    /// How often it went through a wait queue, from 0, by our own header (R47).
    pub retries: u32,
    /// Whether the broker says that it was handed out before.
    pub redelivered: bool,
    /// Why the broker moved it to the lane's late queue, if it did.
    pub late: Option<Late>,
    /// The service whose own request queue it comes from; `None` from a queue that services share.
    pub service: Option<ServiceName>,
    /// The publisher's user name, validated by the broker.
    pub user: Option<String>,
    /// W3C trace context, if it fits that form.
    pub traceparent: Option<String>,
    /// How to settle it.
    pub settle: Box<dyn Settle>,
}

impl Received {
    /// Whether this process can still settle the message. `false` once its connection is lost: the
    /// broker then delivers the message again, so further work on it has no effect.
    pub fn is_held(&self) -> bool {
        self.settle.is_held()
    }

    /// Its work is recorded: forget the message.
    pub async fn ack(self) -> Result<(), SettleError> {
        self.settle.ack().await
    }

    /// Bring it back after `rung`: published to the wait queue and confirmed, then acked.
    pub async fn retry(self, rung: Rung) -> Result<(), SettleError> {
        self.settle.retry(rung).await
    }

    /// Put it aside for an operator: published to the parked queue and confirmed, then acked.
    pub async fn park(self, reason: ParkReason) -> Result<(), SettleError> {
        self.settle.park(reason).await
    }

    /// Hand it back unprocessed, at once.
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
