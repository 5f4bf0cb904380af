//! A delivery as the ledger tells it. Refuses codes, recipients and message texts.

use serde::{Deserialize, Serialize};
use watchword_core::{
    AttemptClass, Channel, DeliveryId, DeliveryOutcome, ProviderName, ReceiptState, ServiceName,
    Timestamp, TraceId,
};

/// One call of one provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The provider that was called; `None` for an attempt that a crash left without an ending, and
    /// for one that ended before a provider was called (`text_fault`).
    pub provider: Option<ProviderName>,
    /// How it ended.
    pub class: AttemptClass,
    /// The provider's id for the message, if it gave one; at most 128 characters.
    pub provider_message_id: Option<String>,
    /// When the call began, in milliseconds since the epoch.
    pub at_ms: i64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// A provider's later word on a message it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// What it says.
    pub state: ReceiptState,
    /// When it was heard.
    pub at: Timestamp,
}

/// One delivery: what became of it and by which attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryRecord {
    /// Which delivery.
    pub id: DeliveryId,
    /// By which channel.
    pub channel: Channel,
    /// What became of it so far.
    pub outcome: DeliveryOutcome,
    /// The attempts, oldest first; at most 16 are kept, the newest.
    pub attempts: Vec<Attempt>,
    /// Attempts made in all.
    pub attempt_count: u32,
    /// Whose it is; `None` if no worker claimed it yet.
    pub service: Option<ServiceName>,
    /// The trace of the request it came from.
    pub trace_id: Option<TraceId>,
    /// The provider's latest word on it that counted.
    pub receipt: Option<Receipt>,
    /// When this last changed.
    pub updated_at: Timestamp,
}
