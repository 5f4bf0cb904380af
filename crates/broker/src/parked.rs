//! What was put aside, for an operator: look at it, put it back to work, or drop it. Refuses to
//! change anything that was only looked at.

use async_trait::async_trait;
use bytes::Bytes;

/// One message that was put aside.
#[derive(Clone)]
pub struct ParkedMessage {
    /// Its place in this look; what the other calls name it by.
    pub place: usize,
    /// The `message_id` property.
    pub id: Option<String>,
    /// The event's type.
    pub kind: Option<String>,
    /// Why it was put aside.
    pub reason: String,
    /// When, in milliseconds since the epoch, if the engine kept it.
    pub parked_at_ms: Option<i64>,
    /// How often it went through a wait queue before.
    pub retries: u32,
    /// The document. It may hold anything: it is for reading the parts in clear, never to be shown.
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

/// The parked queue could not be read or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the dead-letter queue cannot be reached: {0}")]
pub struct ParkedError(pub &'static str);

/// One look into the parked queue of a lane. Dropped, everything that was not replayed or
/// discarded is where it was.
#[async_trait]
pub trait ParkedLook: Send {
    /// The messages, oldest first; at most as many as were asked for.
    fn messages(&self) -> &[ParkedMessage];

    /// Puts a message back into its lane, confirmed, and then out of the parked queue.
    async fn replay(&mut self, place: usize) -> Result<(), ParkedError>;

    /// Drops a message.
    async fn discard(&mut self, place: usize) -> Result<(), ParkedError>;

    /// Ends the look.
    async fn close(self: Box<Self>) -> Result<(), ParkedError>;
}
