//! The traits both engines stand behind, and the errors by what the caller does next.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use watchword_core::Rung;
use watchword_events::Lane;

use crate::message::{Outbound, ParkReason, Received};
use crate::parked::{ParkedError, ParkedLook};

/// Why a publish did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// There is no connection, or too much is unconfirmed. It was not published; try later.
    #[error("the broker is not available")]
    Unavailable,
    /// The broker refuses publishes because of an alarm (memory, disk). It was not published.
    #[error("the broker refuses publishes for now")]
    Blocked,
    /// The broker said no: its queue is full. It was not kept.
    #[error("the queue is full")]
    Rejected,
    /// No queue is bound where it should go. It was not kept; the topology is being restored.
    #[error("the message reached no queue")]
    Unroutable,
    /// No answer in time: it may or may not have been kept. Publishing it again is safe because
    /// its id stays the same.
    #[error("the broker did not confirm in time")]
    Unconfirmed,
}

/// Settling failed: the broker will hand the message out again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the message could not be settled and will be redelivered")]
pub struct SettleError;

/// The state of the link to the queues, for readiness and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// Publishes and consumers work.
    Up,
    /// Connected, but the broker refuses publishes.
    Blocked,
    /// Not connected; reconnecting.
    Down,
}

/// Publishes with confirmation. Success means: a durable queue has it.
#[async_trait]
pub trait Publisher: Send + Sync {
    /// Publishes and waits for the confirm, at most `deadline`. Calls run side by side.
    async fn publish(&self, message: Outbound, deadline: Duration) -> Result<(), PublishError>;

    /// Whether a publish can succeed now.
    fn state(&self) -> LinkState;
}

/// Takes messages from one lane.
#[async_trait]
pub trait Consumer: Send {
    /// The next message; waits through lost connections. `None` once the broker was closed.
    /// Cancelling the call loses nothing.
    async fn receive(&mut self) -> Option<Received>;

    /// Stops taking: what was handed out stays to be settled, the rest goes back to the queue.
    async fn stop(&mut self);

    /// Whether the lane can be read now.
    fn state(&self) -> LinkState;
}

/// Settles one received message. Use the methods of [`Received`].
#[async_trait]
pub trait Settle: Send + Sync {
    /// See [`Received::is_held`].
    fn is_held(&self) -> bool {
        true
    }
    /// See [`Received::ack`].
    async fn ack(self: Box<Self>) -> Result<(), SettleError>;
    /// See [`Received::retry`]. Fails in a lane whose messages are not republished.
    async fn retry(self: Box<Self>, rung: Rung) -> Result<(), SettleError>;
    /// See [`Received::park`]. Fails in a lane whose messages are not republished.
    async fn park(self: Box<Self>, reason: ParkReason) -> Result<(), SettleError>;
    /// See [`Received::requeue`].
    async fn requeue(self: Box<Self>) -> Result<(), SettleError>;
}

/// An engine: gives publishers and consumers and keeps their link alive.
#[async_trait]
pub trait Broker: Send + Sync {
    /// The publisher; one for the process.
    fn publisher(&self) -> Arc<dyn Publisher>;

    /// A consumer of `lane` that holds at most `prefetch` unsettled messages, and beside them a few
    /// of those that were late ([`Outbound::ttl`]).
    async fn consume(&self, lane: Lane, prefetch: u16) -> Box<dyn Consumer>;

    /// A look into what was put aside of `lane`, at up to `limit` messages.
    async fn parked(&self, lane: Lane, limit: usize) -> Result<Box<dyn ParkedLook>, ParkedError>;

    /// Ends the link: publishes fail, consumers end. Unsettled messages are redelivered later.
    async fn close(&self);
}
