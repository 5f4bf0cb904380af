//! How a received message is settled.

use watchword_core::{Ladder, Rung};

use crate::dead_letter::DeadLetterReason;

/// How to settle a received message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// The outcome is recorded: acknowledge the message.
    Ack,
    /// Deliver the message again after this delay.
    Retry(Rung),
    /// The message cannot be processed: move it to the dead-letter queue.
    DeadLetter(DeadLetterReason),
    /// Return the message to its queue for immediate redelivery.
    Requeue,
}

impl Disposition {
    /// Returns a retry after the shortest delay of at least `delay_ms`. If no delay is long enough,
    /// uses the longest one.
    pub fn retry_after_ms(delay_ms: u64) -> Self {
        Ladder::STANDARD
            .covering(delay_ms)
            .map_or(Self::Requeue, Self::Retry)
    }

    /// Returns the word for logs and traces; for a dead letter, its reason.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Retry(_) => "retry",
            Self::DeadLetter(reason) => reason.as_str(),
            Self::Requeue => "requeue",
        }
    }
}
