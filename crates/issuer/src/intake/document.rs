//! Documents that the intake publishes: the answer to a request, and the note that replaces a
//! dead-lettered one.

use bytes::Bytes;
use watchword_broker::DeadLetterReason;
use watchword_core::{RequestId, Timestamp};
use watchword_events::{CloudEvent, EventData, Refusal, RequestParked, VerificationUpdated};
use watchword_verifier::store::StoredVerification;

use super::Request;
use crate::IssueError;

const SOURCE: &str = "/watchword/issuer";

impl From<IssueError> for Refusal {
    fn from(error: IssueError) -> Self {
        Self {
            code: error.code().as_str().to_owned(),
            detail: error.to_string(),
            retry_after_seconds: error.retry_after_seconds(),
        }
    }
}

/// Creates the answer to `request`.
pub(super) fn answer_document(
    request: &Request,
    issued: Result<StoredVerification, IssueError>,
    now: Timestamp,
) -> Result<String, IssueError> {
    let mut data = VerificationUpdated {
        request_id: request.id.to_string(),
        service: request.service.name.clone(),
        verification_id: None,
        status: None,
        channel: None,
        to: None,
        purpose: None,
        expires_at: None,
        resend_after: None,
        sends: None,
        refusal: None,
    };
    match issued {
        Ok(verification) => {
            data.verification_id = Some(verification.id);
            data.status = Some(verification.status);
            data.channel = Some(verification.channel);
            data.to = Some(verification.masked_to);
            data.purpose = Some(verification.purpose);
            data.expires_at = Some(verification.expires_at.to_rfc3339());
            data.resend_after = Some(verification.resend_after.to_rfc3339());
            data.sends = Some(verification.sends);
        }
        Err(error) => data.refusal = Some(error.into()),
    }
    let word = if data.refusal.is_some() {
        "refused"
    } else {
        "opened"
    };
    let event = CloudEvent {
        id: format!("{}.{word}", request.id),
        source: SOURCE.to_owned(),
        time: now,
        data,
    };
    let internal = || IssueError::Internal("the answer could not be written");
    let bytes = event.encode().map_err(|_| internal())?;
    String::from_utf8(bytes).map_err(|_| internal())
}

/// Returns the event id of a remembered answer.
pub(super) fn document_id(document: &str) -> String {
    CloudEvent::<VerificationUpdated>::decode(document.as_bytes())
        .map_or_else(|_| "unknown".to_owned(), |event| event.id)
}

/// A note about a dead-lettered message. It has no content, because that holds a recipient in
/// clear.
#[derive(Clone)]
pub(super) struct Note {
    pub(super) id: String,
    pub(super) reason: DeadLetterReason,
    pub(super) body: Bytes,
}

impl Note {
    /// Creates a note about a message of `bytes` bytes that `user` published under `id`.
    pub(super) fn new(
        reason: DeadLetterReason,
        id: Option<&str>,
        user: Option<String>,
        bytes: usize,
        now: Timestamp,
    ) -> Self {
        let id = id.and_then(|id| id.parse::<RequestId>().ok());
        let id = id.as_ref().map_or("unknown", RequestId::as_str);
        let note = CloudEvent {
            id: format!("{id}.parked"),
            source: SOURCE.to_owned(),
            time: now,
            data: RequestParked {
                reason: reason.as_str().to_owned(),
                user,
                bytes,
            },
        };
        Self {
            body: Bytes::from(note.encode().unwrap_or_default()),
            id: note.id,
            reason,
        }
    }

    /// The AMQP `type` property of a note.
    pub(super) const KIND: &'static str = RequestParked::TYPE;
}
