//! The trait both stores implement, and what its calls mean. One atomic step each.

use async_trait::async_trait;
use watchword_core::{
    Channel, DeliveryId, DeliveryOutcome, ProviderName, ReceiptState, ServiceName, Timestamp,
    TraceId,
};
use watchword_storage::StorageError;

use crate::record::{Attempt, DeliveryRecord};

/// Grows by one with every claim of a delivery; only the holder of the newest may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence(pub u64);

/// A worker asks to be the one that sends.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// Which delivery.
    pub id: DeliveryId,
    /// By which channel.
    pub channel: Channel,
    /// Now.
    pub now: Timestamp,
    /// How long the claim holds, in milliseconds: longer than an attempt can take. A worker that
    /// says nothing until then is taken for dead.
    pub lease_ms: u64,
    /// Whose it is; kept from the first claim.
    pub service: ServiceName,
    /// The trace of the request; kept from the first claim.
    pub trace_id: Option<TraceId>,
}

/// The answer to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The delivery is yours until the lease ends.
    Yours {
        /// What every write must carry.
        fence: Fence,
        /// The delivery with the attempts made before, including one of
        /// [`watchword_core::AttemptClass::UnknownOutcome`] for each holder whose lease ran out
        /// without a word.
        record: DeliveryRecord,
        /// Whether such a holder was found now: the person may get the message twice.
        after_crash: bool,
    },
    /// Another worker holds it until then.
    Held {
        /// The end of the other's lease.
        until: Timestamp,
    },
    /// It has ended: nothing may be sent.
    Ended(DeliveryRecord),
}

/// How a holder gives its claim up.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// Which delivery.
    pub id: DeliveryId,
    /// By which channel.
    pub channel: Channel,
    /// The claim's fence; `None` for an ending without a claim (expired or parked before any
    /// worker took it), which changes nothing when the delivery is held or has ended.
    pub fence: Option<Fence>,
    /// The attempt that was made, if one was.
    pub attempt: Option<Attempt>,
    /// What became of the delivery; `Queued` when another attempt will follow.
    pub outcome: DeliveryOutcome,
    /// Now.
    pub now: Timestamp,
}

/// A receipt as the ledger takes it.
#[derive(Debug, Clone)]
pub struct ReceiptNote {
    /// Which delivery.
    pub id: DeliveryId,
    /// Who says so.
    pub provider: ProviderName,
    /// The provider's id for the message, if the receipt has it.
    pub message_id: Option<String>,
    /// What it says.
    pub state: ReceiptState,
    /// Now.
    pub now: Timestamp,
}

/// What a receipt changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It is news; this is the delivery now.
    Counted(DeliveryRecord),
    /// It says nothing new, or less than is known: nothing changed.
    Repeated,
    /// The attempt it is about is not written down yet: bring it again shortly.
    Early,
    /// There is no such delivery, or that provider was never asked.
    Unknown,
}

/// Why the ledger did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The store is away, slow or refuses.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Another worker has claimed the delivery since: this one's word no longer counts.
    #[error("the claim on the delivery was lost")]
    FenceLost,
    /// What the store holds is not what was written.
    #[error("the ledger holds a record that cannot be read")]
    Corrupt,
}

/// What became of deliveries. Records are kept for `retention` after their last change.
#[async_trait]
pub trait LedgerStore: Send + Sync {
    /// Claims a delivery. A repeat by the same worker is another claim with another fence.
    async fn claim(&self, request: ClaimRequest) -> Result<Claim, LedgerError>;

    /// Writes the attempt and the outcome and ends the claim. Gives the record as it is now.
    async fn settle(&self, settlement: Settlement) -> Result<DeliveryRecord, LedgerError>;

    /// Hears a receipt. The state only moves forward: see [`ReceiptState::rank`].
    async fn receipt(&self, note: ReceiptNote) -> Result<Heard, LedgerError>;

    /// Makes a parked delivery one that can be sent again; `false` if it is not parked.
    async fn reopen(&self, id: &DeliveryId, now: Timestamp) -> Result<bool, LedgerError>;

    /// Remembers which delivery a provider's message id stands for: for providers whose receipts
    /// carry nothing of ours.
    async fn name(
        &self,
        provider: &ProviderName,
        message_id: &str,
        id: &DeliveryId,
        now: Timestamp,
    ) -> Result<(), LedgerError>;

    /// The delivery of a provider's message id.
    async fn named(
        &self,
        provider: &ProviderName,
        message_id: &str,
    ) -> Result<Option<DeliveryId>, LedgerError>;

    /// The records of these deliveries, in their order; those never claimed are left out.
    async fn get(&self, ids: &[DeliveryId]) -> Result<Vec<DeliveryRecord>, LedgerError>;
}
