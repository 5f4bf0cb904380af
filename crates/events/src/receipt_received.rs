//! `watchword.receipt.received.v1`: a provider's verified receipt for a message, from the SMS
//! worker to the ledger. It keeps only these fields of the provider's request: no recipient, no
//! text.

use serde::{Deserialize, Serialize};
use watchword_core::{DeliveryId, ProviderName, ReceiptState};

use crate::EventData;

/// The data of the event. It has `delivery_id`, `message_id` or both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptReceived {
    /// The provider that sent the receipt.
    pub provider: ProviderName,
    /// The delivery, if the provider returned our reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_id: Option<DeliveryId>,
    /// The provider's message id, if the receipt has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// The state that the receipt reports.
    pub state: ReceiptState,
    /// The provider's error code, if it gave one: at most 32 printable characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl EventData for ReceiptReceived {
    const TYPE: &'static str = "watchword.receipt.received.v1";
}
