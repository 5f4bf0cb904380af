//! `watchword.delivery.updated.v1`: a delivery has a new outcome. No code, no recipient.

use serde::{Deserialize, Serialize};
use watchword_core::{
    AttemptClass, Channel, DeliveryId, DeliveryOutcome, ProviderName, ReceiptState, ServiceName,
    VerificationId,
};

use crate::EventData;

/// The data of the event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryUpdated {
    /// Which delivery.
    pub delivery_id: DeliveryId,
    /// The verification it belongs to.
    pub verification_id: VerificationId,
    /// Whose it is.
    pub service: ServiceName,
    /// By which channel.
    pub channel: Channel,
    /// What became of it.
    pub outcome: DeliveryOutcome,
    /// Attempts so far.
    pub attempts: u32,
    /// The provider of the last attempt, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderName>,
    /// How the last attempt ended, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<AttemptClass>,
    /// The provider's later word, if it is what this event is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<ReceiptState>,
    /// The trace of the request it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

impl EventData for DeliveryUpdated {
    const TYPE: &'static str = "watchword.delivery.updated.v1";
}
