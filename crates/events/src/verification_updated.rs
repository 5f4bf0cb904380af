//! `watchword.verification.updated.v1`: the result of a request that came by event: the
//! verification that it opened or continued, or the reason for its refusal. The recipient is
//! masked; there is no code.

use serde::{Deserialize, Serialize};
use watchword_core::{Channel, Purpose, ServiceName, VerificationId, VerificationStatus};

use crate::EventData;

/// The data of the event. It has either `verification_id` or `refusal`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerificationUpdated {
    /// The id of the event that requested the code.
    pub request_id: String,
    /// The service that the request belongs to.
    pub service: ServiceName,
    /// The verification that was opened or continued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification_id: Option<VerificationId>,
    /// The status of the verification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<VerificationStatus>,
    /// The channel of the code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<Channel>,
    /// The recipient, masked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The purpose of the code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<Purpose>,
    /// The time at which the code expires; RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// The time from which another message may be requested; RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resend_after: Option<String>,
    /// Messages sent so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sends: Option<u8>,
    /// The reason why no verification was opened or continued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
}

/// A refusal, with the code and the text of the HTTP error for the same fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The stable code: `invalid_phone`, `rate_limited`, ….
    pub code: String,
    /// A sentence for people. It quotes nothing from the request.
    pub detail: String,
    /// Seconds after which a repeated request may succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

impl EventData for VerificationUpdated {
    const TYPE: &'static str = "watchword.verification.updated.v1";
}
