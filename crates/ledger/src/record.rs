//! The record of a delivery as the ledger returns it. It holds no code, recipient or message text.

use serde::{Deserialize, Serialize};
use watchword_core::{
    AttemptClass, Channel, DeliveryId, DeliveryOutcome, ProviderName, ReceiptState, ServiceName,
    Timestamp, TraceId,
};

/// An attempt to deliver by a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The provider that was called. `None` for an attempt whose worker crashed, and for one that
    /// ended before a call (`text_fault`).
    pub provider: Option<ProviderName>,
    /// The outcome class of the attempt.
    pub class: AttemptClass,
    /// The provider's message id, if it returned one; at most 128 characters.
    pub provider_message_id: Option<String>,
    /// Start of the call, in milliseconds since the epoch.
    pub at_ms: i64,
    /// Duration of the call, in milliseconds.
    pub took_ms: u64,
}

/// The latest receipt that changed a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The state that the receipt reports.
    pub state: ReceiptState,
    /// The time at which the ledger applied it.
    pub at: Timestamp,
}

/// A delivery with its outcome and attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryRecord {
    /// The id of the delivery.
    pub id: DeliveryId,
    /// The channel of the delivery.
    pub channel: Channel,
    /// The outcome so far.
    pub outcome: DeliveryOutcome,
    /// The attempts, oldest first; the newest 16 are kept.
    pub attempts: Vec<Attempt>,
    /// Number of all attempts, including those not kept (up to 65,535).
    pub attempt_count: u32,
    /// The service that requested the code; `None` until a worker claims the delivery.
    pub service: Option<ServiceName>,
    /// The trace id of the request.
    pub trace_id: Option<TraceId>,
    /// The latest receipt that was applied.
    pub receipt: Option<Receipt>,
    /// The time of the last change.
    pub updated_at: Timestamp,
}
