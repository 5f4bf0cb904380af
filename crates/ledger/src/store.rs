//! The trait that both stores implement. Each call is one atomic step.

use async_trait::async_trait;
use watchword_core::{
    Channel, DeliveryId, DeliveryOutcome, ProviderName, ReceiptState, ServiceName, Timestamp,
    TraceId,
};
use watchword_storage::StorageError;

use crate::record::{Attempt, DeliveryRecord};

/// A fencing token. It grows by one with every claim of a delivery; only the newest may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence(pub u64);

/// A worker's request to claim a delivery.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// The delivery to claim.
    pub id: DeliveryId,
    /// The channel of the delivery.
    pub channel: Channel,
    /// The current time.
    pub now: Timestamp,
    /// Duration of the claim in milliseconds; longer than an attempt can take. If the worker does
    /// not settle until then, it is considered dead.
    pub lease_ms: u64,
    /// The service that requested the code; stored with the first claim.
    pub service: ServiceName,
    /// The trace id of the request; stored with the first claim.
    pub trace_id: Option<TraceId>,
}

/// The result of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The caller holds the delivery until its lease ends.
    Yours {
        /// The fencing token, which every write must carry.
        fence: Fence,
        /// The delivery with the earlier attempts, including one of
        /// [`watchword_core::AttemptClass::UnknownOutcome`] for each holder whose lease ended
        /// without a settlement.
        record: DeliveryRecord,
        /// Whether this claim took over from such a holder: the recipient may get the message
        /// twice.
        after_crash: bool,
    },
    /// Another worker holds the delivery.
    Held {
        /// The end of the other worker's lease.
        until: Timestamp,
    },
    /// The delivery has ended: nothing may be sent.
    Ended(DeliveryRecord),
}

/// The end of a claim: its attempt and the new outcome.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// The delivery to settle.
    pub id: DeliveryId,
    /// The channel of the delivery.
    pub channel: Channel,
    /// The fencing token of the claim. `None` ends a delivery without a claim (expired or
    /// dead-lettered before a worker took it), which changes nothing if the delivery is held or has
    /// ended.
    pub fence: Option<Fence>,
    /// The attempt, if one was made.
    pub attempt: Option<Attempt>,
    /// The new outcome; `Queued` if another attempt will follow.
    pub outcome: DeliveryOutcome,
    /// The current time.
    pub now: Timestamp,
}

/// A receipt to apply to a delivery.
#[derive(Debug, Clone)]
pub struct ReceiptNote {
    /// The delivery that the receipt is about.
    pub id: DeliveryId,
    /// The provider that sent the receipt.
    pub provider: ProviderName,
    /// The provider's message id, if the receipt has it.
    pub message_id: Option<String>,
    /// The state that the receipt reports.
    pub state: ReceiptState,
    /// The current time.
    pub now: Timestamp,
}

/// The effect of a receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The receipt was news; this is the changed record.
    Counted(DeliveryRecord),
    /// The receipt reports no more than is known: nothing changed.
    Repeated,
    /// The attempt is not recorded yet: apply the receipt again shortly.
    Early,
    /// The delivery is not known, or the provider was never called for it.
    Unknown,
}

/// The error of a ledger call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The store did not answer or rejected the call.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Another worker has claimed the delivery since; this worker may no longer write.
    #[error("the claim on the delivery was lost")]
    FenceLost,
    /// The stored record is malformed.
    #[error("the ledger holds a record that cannot be read")]
    Corrupt,
}

/// The record of deliveries. Records are kept for the retention time after their last change.
#[async_trait]
pub trait LedgerStore: Send + Sync {
    /// Claims a delivery. A repeated call by the same worker is another claim with another fence.
    async fn claim(&self, request: ClaimRequest) -> Result<Claim, LedgerError>;

    /// Records the attempt and the outcome, ends the claim, and returns the changed record.
    async fn settle(&self, settlement: Settlement) -> Result<DeliveryRecord, LedgerError>;

    /// Applies a receipt. The state only moves forward; see [`ReceiptState::rank`].
    async fn receipt(&self, note: ReceiptNote) -> Result<Heard, LedgerError>;

    /// Makes a dead-lettered delivery sendable again. Returns `false` if it is not dead-lettered.
    async fn reopen(&self, id: &DeliveryId, now: Timestamp) -> Result<bool, LedgerError>;

    /// Remembers the delivery of a provider's message id, for providers whose receipts do not
    /// return our reference.
    async fn name(
        &self,
        provider: &ProviderName,
        message_id: &str,
        id: &DeliveryId,
        now: Timestamp,
    ) -> Result<(), LedgerError>;

    /// Returns the delivery of a provider's message id.
    async fn named(
        &self,
        provider: &ProviderName,
        message_id: &str,
    ) -> Result<Option<DeliveryId>, LedgerError>;

    /// Returns the records of `ids` in their order; ids without a record are left out.
    async fn get(&self, ids: &[DeliveryId]) -> Result<Vec<DeliveryRecord>, LedgerError>;
}
