//! `watchword.step.due.v1`: a verification's next channel is to be tried at that moment, unless the
//! code was used, withdrawn or sent again until then. It waits in the queues, so that no process
//! has to remember it. No code, no recipient: both lie sealed with the verification.

use serde::{Deserialize, Serialize};
use watchword_core::{DeliveryId, ServiceName, ShortTag, Timestamp, VerificationId};

use crate::{CloudEvent, EventData};

/// The data of the event. Its id is `<verification id>.step-<step>.<after_send>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepDue {
    /// The verification.
    pub verification_id: VerificationId,
    /// Whose it is.
    pub service: ServiceName,
    /// Which fallback step, from 1.
    pub step: u8,
    /// The message it follows: a later one cancels the step.
    pub after_send: u8,
    /// When; RFC 3339.
    pub due_at: String,
    /// A keyed tag of the fallback it belongs to: another fallback cancels the step. Absent in steps
    /// of an earlier build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<ShortTag>,
}

impl EventData for StepDue {
    const TYPE: &'static str = "watchword.step.due.v1";
}

impl StepDue {
    /// The event of fallback step `step`, due at `due_at` unless a message later than `after` was
    /// sent.
    pub fn event(
        source: &str,
        (service, after): (&ServiceName, &DeliveryId),
        step: u8,
        (now, due_at): (Timestamp, Timestamp),
    ) -> CloudEvent<Self> {
        let (id, send) = (after.verification(), after.send());
        CloudEvent {
            id: format!("{id}.step-{step}.{send}"),
            source: source.to_owned(),
            time: now,
            data: Self {
                verification_id: id.clone(),
                service: service.clone(),
                step,
                after_send: send,
                due_at: due_at.to_rfc3339(),
                details: None,
            },
        }
    }
}
