//! The traits that both engines implement, and their errors, divided by how the caller reacts.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use watchword_core::Rung;
use watchword_events::Lane;

use crate::dead_letter::DeadLetterReason;
use crate::message::{Outbound, Received};
use crate::parked::{ParkedError, ParkedLook};

/// An error of a publish.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// There is no connection, or too many messages are unconfirmed. The message was not published;
    /// try again later.
    #[error("the broker is not available")]
    Unavailable,
    /// The broker refuses publishes because of an alarm (memory, disk). The message was not
    /// published.
    #[error("the broker refuses publishes for now")]
    Blocked,
    /// The broker rejected the message because its queue is full. The message was not kept.
    #[error("the queue is full")]
    Rejected,
    /// No queue is bound to the message's route. The message was not kept; the topology is being
    /// restored.
    #[error("the message reached no queue")]
    Unroutable,
    /// No confirm arrived in time: the broker may or may not have the message. Publishing it again
    /// is safe because its id stays the same.
    #[error("the broker did not confirm in time")]
    Unconfirmed,
}

/// An error of settling a message. The broker will deliver the message again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the message could not be settled and will be redelivered")]
pub struct SettleError;

/// The state of the link to the broker, for readiness and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// Publishing and consuming work.
    Up,
    /// Connected, but the broker refuses publishes.
    Blocked,
    /// Not connected; the engine is reconnecting.
    Down,
}

/// Publishes messages with confirmation. Success means that a durable queue holds the message.
#[async_trait]
pub trait Publisher: Send + Sync {
    /// Publishes `message` and waits for the confirm, at most `deadline`. Calls may run
    /// concurrently.
    async fn publish(&self, message: Outbound, deadline: Duration) -> Result<(), PublishError>;

    /// Returns the link's state as it concerns publishing.
    fn state(&self) -> LinkState;
}

/// Receives messages of one queue kind.
#[async_trait]
pub trait Consumer: Send {
    /// Returns the next message, waiting through lost connections, or `None` once the broker is
    /// closed. The method is cancel safe: no message is lost.
    async fn receive(&mut self) -> Option<Received>;

    /// Stops receiving. Messages that the caller holds can still be settled; messages that were
    /// read ahead go back to their queue.
    async fn stop(&mut self);

    /// Returns the link's state as it concerns consuming.
    fn state(&self) -> LinkState;
}

/// Settles one received message. Callers use the methods of [`Received`].
#[async_trait]
pub trait Settle: Send + Sync {
    /// Returns whether the message can still be settled; see [`Received::is_held`].
    fn is_held(&self) -> bool {
        true
    }
    /// Acknowledges the message; see [`Received::ack`].
    async fn ack(self: Box<Self>) -> Result<(), SettleError>;
    /// Schedules a retry; see [`Received::retry`]. Fails for a queue whose messages are not
    /// republished.
    async fn retry(self: Box<Self>, rung: Rung) -> Result<(), SettleError>;
    /// Dead-letters the message; see [`Received::dead_letter`]. Fails for a queue whose messages are not
    /// republished.
    async fn dead_letter(self: Box<Self>, reason: DeadLetterReason) -> Result<(), SettleError>;
    /// Returns the message to its queue; see [`Received::requeue`].
    async fn requeue(self: Box<Self>) -> Result<(), SettleError>;
}

/// An engine: creates publishers and consumers and keeps their link alive.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Returns the publisher, which the whole process shares.
    fn publisher(&self) -> Arc<dyn Publisher>;

    /// Starts a consumer of `lane` that holds at most `prefetch` unsettled messages, plus up to 32
    /// that expired ([`Outbound::ttl`]) and, of requests, up to 16 from the queue of each service.
    async fn consume(&self, lane: Lane, prefetch: u16) -> Box<dyn Consumer>;

    /// Opens the dead-letter queue of `lane` and reads up to `limit` messages.
    async fn parked(&self, lane: Lane, limit: usize) -> Result<Box<dyn ParkedLook>, ParkedError>;

    /// Closes the link: publishes fail and consumers end. Unsettled messages are redelivered later.
    async fn close(&self);
}
