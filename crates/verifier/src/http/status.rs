//! `GET /v1/verifications/{id}`: shows a verification with its deliveries and their attempts.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use watchword_chassis::Problem;
use watchword_chassis::http::{Caller, PathText};
use watchword_core::{
    AttemptClass, Channel, DeliveryId, DeliveryOutcome, ProviderName, Purpose, ReceiptState,
    ServiceName, Timestamp, VerificationId, VerificationStatus,
};
use watchword_ledger::{Attempt, DeliveryRecord};

use super::{VerificationView, VerifierState, ledger_problem, not_found, parse_id};
use crate::store::StoredVerification;

#[derive(Serialize)]
pub(super) struct StatusView {
    id: VerificationId,
    status: VerificationStatus,
    channel: Channel,
    to: String,
    expires_at: String,
    resend_after: String,
    sends: u8,
    purpose: Purpose,
    opened_at: String,
    deliveries: Vec<DeliveryView>,
}

#[derive(Serialize)]
struct DeliveryView {
    id: DeliveryId,
    channel: Channel,
    outcome: DeliveryOutcome,
    provider: Option<ProviderName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<ReceiptView>,
    attempts: Vec<AttemptView>,
}

#[derive(Serialize)]
struct ReceiptView {
    state: ReceiptState,
    at: String,
}

#[derive(Serialize)]
struct AttemptView {
    provider: Option<ProviderName>,
    class: AttemptClass,
    provider_message_id: Option<String>,
    at: String,
    took_ms: u64,
}

pub(super) async fn status(
    State(state): State<VerifierState>,
    Caller(service): Caller,
    PathText(id): PathText,
) -> Result<Json<StatusView>, Problem> {
    let id = parse_id(&id)?;
    read_view(&state, &service.name, &id).await.map(Json)
}

/// Reads the verification and its deliveries.
async fn read_view(
    state: &VerifierState,
    service: &ServiceName,
    id: &VerificationId,
) -> Result<StatusView, Problem> {
    let verification = state
        .verifier
        .get(service, id)
        .await?
        .ok_or_else(not_found)?;
    let deliveries: Vec<_> = (1..=verification.sends)
        .map(|send| DeliveryId::new(id.clone(), send))
        .collect();
    let records = state
        .ledger
        .get(&deliveries)
        .await
        .map_err(ledger_problem)?;
    Ok(StatusView::new(&verification, deliveries, records))
}

/// Returns the status that [`status`] shows, for a verification that was pending when the store
/// counted a wrong code. Returns `pending` if the status cannot be read: the check was counted, so
/// it must be answered.
pub(super) async fn after_wrong_code(
    state: &VerifierState,
    service: &ServiceName,
    id: &VerificationId,
) -> VerificationStatus {
    match read_view(state, service, id).await {
        Ok(view) if view.status == VerificationStatus::Failed => VerificationStatus::Failed,
        _ => VerificationStatus::Pending,
    }
}

impl StatusView {
    fn new(
        verification: &StoredVerification,
        ids: Vec<DeliveryId>,
        mut records: Vec<DeliveryRecord>,
    ) -> Self {
        let view = VerificationView::from(verification);
        // A delivery that no worker has claimed yet has no record: it is queued.
        let deliveries: Vec<_> = ids
            .into_iter()
            .map(
                |id| match records.iter().position(|record| record.id == id) {
                    Some(index) => DeliveryView::from(records.swap_remove(index)),
                    None => DeliveryView {
                        id,
                        channel: verification.channel,
                        outcome: DeliveryOutcome::Queued,
                        provider: None,
                        trace_id: None,
                        receipt: None,
                        attempts: Vec::new(),
                    },
                },
            )
            .collect();
        Self {
            id: view.id,
            status: verification.status_with(deliveries.iter().map(|delivery| delivery.outcome)),
            channel: view.channel,
            to: view.to,
            expires_at: view.expires_at,
            resend_after: view.resend_after,
            sends: view.sends,
            purpose: verification.purpose.clone(),
            opened_at: verification.opened_at.to_rfc3339(),
            deliveries,
        }
    }
}

impl From<DeliveryRecord> for DeliveryView {
    fn from(record: DeliveryRecord) -> Self {
        Self {
            provider: record
                .attempts
                .last()
                .and_then(|attempt| attempt.provider.clone()),
            trace_id: record.trace_id.map(|id| id.to_string()),
            receipt: record.receipt.map(|receipt| ReceiptView {
                state: receipt.state,
                at: receipt.at.to_rfc3339(),
            }),
            id: record.id,
            channel: record.channel,
            outcome: record.outcome,
            attempts: record.attempts.into_iter().map(AttemptView::from).collect(),
        }
    }
}

impl From<Attempt> for AttemptView {
    fn from(attempt: Attempt) -> Self {
        Self {
            provider: attempt.provider,
            class: attempt.class,
            provider_message_id: attempt.provider_message_id,
            at: Timestamp::from_millis(attempt.at_ms).to_rfc3339(),
            took_ms: attempt.took_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_is_what_no_message_and_no_step_can_save() {
        use DeliveryOutcome::{Accepted, Failed, Parked, Queued};
        use VerificationStatus::{Approved, Canceled, Expired, Pending};
        let id: VerificationId = "a".repeat(32).parse().unwrap();
        let at = Timestamp::from_millis(0);
        let table = [
            (Pending, false, &[Failed][..], VerificationStatus::Failed),
            (
                Pending,
                false,
                &[Failed, Failed],
                VerificationStatus::Failed,
            ),
            (Pending, true, &[Failed], Pending),
            (Pending, false, &[Failed, Queued], Pending),
            (Pending, false, &[Accepted, Failed], Pending),
            (Pending, false, &[Parked], Pending),
            (Approved, false, &[Failed], Approved),
            (Canceled, false, &[Failed], Canceled),
            (Expired, false, &[Failed], Expired),
        ];
        for (status, awaits_step, outcomes, expected) in table {
            let verification = StoredVerification {
                id: id.clone(),
                service: "web".parse().unwrap(),
                status,
                channel: Channel::Sms,
                purpose: Purpose::login(),
                masked_to: "+49***78".to_owned(),
                opened_at: at,
                expires_at: at,
                resend_after: at,
                sends: 1,
                checks_left: 5,
                awaits_step,
            };
            let shown = verification.status_with(outcomes.iter().copied());
            assert_eq!(shown, expected, "{status} {awaits_step} {outcomes:?}");
        }
    }
}
