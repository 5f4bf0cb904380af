//! `watchword.delivery.updated.v1`: a delivery has a new outcome. It holds no code and no
//! recipient.

use serde::{Deserialize, Serialize};
use watchword_core::{
    AttemptClass, Channel, DeliveryId, DeliveryOutcome, ProviderName, ReceiptState, ServiceName,
    VerificationId,
};

use crate::EventData;

/// The data of the event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryUpdated {
    /// The delivery that changed.
    pub delivery_id: DeliveryId,
    /// The verification that it belongs to.
    pub verification_id: VerificationId,
    /// The service that requested the code.
    pub service: ServiceName,
    /// The channel of the delivery.
    pub channel: Channel,
    /// The new outcome.
    pub outcome: DeliveryOutcome,
    /// Attempts so far.
    pub attempts: u32,
    /// The provider of the last attempt, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderName>,
    /// The outcome class of the last attempt, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<AttemptClass>,
    /// The state reported by a receipt, if a receipt caused this event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<ReceiptState>,
    /// The trace id of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

impl EventData for DeliveryUpdated {
    const TYPE: &'static str = "watchword.delivery.updated.v1";
}
