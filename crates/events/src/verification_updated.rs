//! `watchword.verification.updated.v1`: what became of a request for a code that came by event:
//! the verification it opened or continued, or why it was refused. Recipient masked, no code.

use serde::{Deserialize, Serialize};
use watchword_core::{Channel, Purpose, ServiceName, VerificationId, VerificationStatus};

use crate::EventData;

/// The data of the event. Exactly one of `verification_id` and `refusal` is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerificationUpdated {
    /// The id of the event that asked.
    pub request_id: String,
    /// Whose it is.
    pub service: ServiceName,
    /// The verification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification_id: Option<VerificationId>,
    /// Its status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<VerificationStatus>,
    /// The channel its code goes by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<Channel>,
    /// The recipient, masked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// What the code is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<Purpose>,
    /// When its code expires; RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// From when on another message may be asked for; RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resend_after: Option<String>,
    /// Messages so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sends: Option<u8>,
    /// Why nothing was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
}

/// The same stable code and text as the HTTP error would have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The stable code: `invalid_phone`, `rate_limited`, ….
    pub code: String,
    /// One sentence for a person; it quotes nothing from the request.
    pub detail: String,
    /// When asking again may help, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

impl EventData for VerificationUpdated {
    const TYPE: &'static str = "watchword.verification.updated.v1";
}
