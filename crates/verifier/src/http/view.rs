//! The representation of a verification in the API, with masked recipient and times in RFC 3339.

use serde::Serialize;
use watchword_core::{Channel, VerificationId, VerificationStatus};

use crate::store::StoredVerification;

/// The response to a request for a code, and the first part of a status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerificationView {
    /// The id of the verification.
    pub id: VerificationId,
    /// The status as the store knows it.
    pub status: VerificationStatus,
    /// The channel of the request.
    pub channel: Channel,
    /// The recipient of the request, masked.
    pub to: String,
    /// When the code expires.
    pub expires_at: String,
    /// The earliest time of the next message.
    pub resend_after: String,
    /// The number of messages so far.
    pub sends: u8,
}

impl From<&StoredVerification> for VerificationView {
    fn from(stored: &StoredVerification) -> Self {
        Self {
            id: stored.id.clone(),
            status: stored.status,
            channel: stored.channel,
            to: stored.masked_to.clone(),
            expires_at: stored.expires_at.to_rfc3339(),
            resend_after: stored.resend_after.to_rfc3339(),
            sends: stored.sends,
        }
    }
}
