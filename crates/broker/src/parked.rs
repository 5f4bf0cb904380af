//! Access to dead-lettered messages for an operator: list, replay, discard. Listing changes
//! nothing.

use async_trait::async_trait;
use bytes::Bytes;

/// A dead-lettered message.
#[derive(Clone)]
pub struct ParkedMessage {
    /// Index in [`ParkedLook::messages`], for `replay` and `discard`.
    pub place: usize,
    /// The `message_id` property.
    pub id: Option<String>,
    /// The event's type.
    pub kind: Option<String>,
    /// The reason for dead-lettering: a stable word such as `broken_seal`.
    pub reason: String,
    /// Time of dead-lettering in milliseconds since the epoch, if the engine keeps it.
    pub parked_at_ms: Option<i64>,
    /// How many times the message went through a wait queue before.
    pub retries: u32,
    /// The document. It can hold anything, so read only its clear parts and never print it.
    pub body: Bytes,
}

impl std::fmt::Debug for ParkedMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParkedMessage")
            .field("id", &self.id)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

/// An error of reading or changing a dead-letter queue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the dead-letter queue cannot be reached: {0}")]
pub struct ParkedError(pub &'static str);

/// An open view of a dead-letter queue. When it is dropped, every message that was neither replayed
/// nor discarded stays in the queue.
#[async_trait]
pub trait ParkedLook: Send {
    /// Returns the messages, oldest first, at most as many as were requested.
    fn messages(&self) -> &[ParkedMessage];

    /// Publishes a message to its queue again, waits for the confirm, then removes it from the
    /// dead-letter queue.
    async fn replay(&mut self, place: usize) -> Result<(), ParkedError>;

    /// Removes a message.
    async fn discard(&mut self, place: usize) -> Result<(), ParkedError>;

    /// Closes the view and returns the remaining messages to the queue.
    async fn close(self: Box<Self>) -> Result<(), ParkedError>;
}
