//! `watchword.step.due.v1`: try a verification's next channel at that time, unless the code was
//! used, withdrawn or sent again before. The event waits in the queues, so that no process has to
//! remember it. It holds no code and no recipient; both are stored, sealed, with the verification.

use serde::{Deserialize, Serialize};
use watchword_core::{DeliveryId, ServiceName, ShortTag, Timestamp, VerificationId};

use crate::{CloudEvent, EventData};

/// The data of the event. Its id is `<verification id>.step-<step>.<after_send>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepDue {
    /// The verification that the step belongs to.
    pub verification_id: VerificationId,
    /// The service that requested the code.
    pub service: ServiceName,
    /// The number of the fallback step, from 1.
    pub step: u8,
    /// The number of the message that the step follows. A later message cancels the step.
    pub after_send: u8,
    /// The time at which the step is due; RFC 3339.
    pub due_at: String,
    /// A keyed tag of the fallback that the step belongs to. A request with another fallback
    /// cancels the step. Steps published by an earlier build have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<ShortTag>,
}

impl EventData for StepDue {
    const TYPE: &'static str = "watchword.step.due.v1";
}

impl StepDue {
    /// Creates the event of fallback step `step`, due at `due_at` unless a message later than
    /// `after` was sent.
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
