//! A verification as the API shows it. Recipient masked, times in RFC 3339.

use serde::Serialize;
use watchword_core::{Channel, VerificationId, VerificationStatus};

use crate::store::StoredVerification;

/// The answer to a request for a code, and the first part of a status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerificationView {
    /// Its id.
    pub id: VerificationId,
    /// Its status.
    pub status: VerificationStatus,
    /// The channel its code goes by.
    pub channel: Channel,
    /// The recipient, masked.
    pub to: String,
    /// When its code expires.
    pub expires_at: String,
    /// From when on another message may be asked for.
    pub resend_after: String,
    /// Messages so far.
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
