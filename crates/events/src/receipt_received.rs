//! `watchword.receipt.received.v1`: a provider's verified word on a message it took, on its way to
//! the ledger. No recipient, no text: of what the provider sent only this is kept.

use serde::{Deserialize, Serialize};
use watchword_core::{DeliveryId, ProviderName, ReceiptState};

use crate::EventData;

/// The data of the event. At least one of `delivery_id` and `message_id` is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptReceived {
    /// Whose word it is.
    pub provider: ProviderName,
    /// The delivery, if the provider gave our reference back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_id: Option<DeliveryId>,
    /// The provider's id for the message, if the receipt has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// What it says.
    pub state: ReceiptState,
    /// The provider's error code, if it gave one: at most 32 printable characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl EventData for ReceiptReceived {
    const TYPE: &'static str = "watchword.receipt.received.v1";
}
