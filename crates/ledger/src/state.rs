//! The state machine of a delivery, without I/O. The `SQLite` store runs its steps inside a
//! transaction, the simulation runs them over a map, and the Lua scripts of the Redis store
//! implement the same rules; one test suite holds both stores to them.

use watchword_core::{
    AttemptClass, Channel, DeliveryId, DeliveryOutcome, ReceiptState, ServiceName, Timestamp,
    TraceId,
};

use crate::codec::{KEPT_ATTEMPTS, LATEST, LONGEST_MS, MESSAGE_ID_CHARS};
use crate::record::{Attempt, DeliveryRecord, Receipt};
use crate::store::{Claim, ClaimRequest, Fence, Heard, ReceiptNote, Settlement};

/// A delivery as it is stored: its record and the claim on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The fence of the newest claim; 0 if the delivery was never claimed.
    pub fence: Fence,
    /// The end of the newest claim's lease, while the outcome is `sending`.
    pub lease_until: Timestamp,
    /// The record that readers see.
    pub record: DeliveryRecord,
}

/// The result of a step: the answer, and the delivery to write.
#[derive(Debug)]
pub struct Step<T> {
    /// The answer to the caller.
    pub answer: T,
    /// The delivery to store; `None` if it did not change.
    pub write: Option<Delivery>,
}

/// Clamps a moment to the range that both stores can write.
pub fn bounded_moment(at: Timestamp) -> Timestamp {
    at.clamp(Timestamp::from_millis(0), LATEST)
}

/// Bounds a settlement to values that both stores can write: moments up to 2^48 - 1 ms, durations
/// up to 2^24 - 1 ms, message ids up to 128 characters, no empty id.
///
/// `Sending` becomes `Queued`, because a settlement ends the claim.
pub fn bounded(mut settlement: Settlement) -> Settlement {
    settlement.now = bounded_moment(settlement.now);
    if settlement.outcome == DeliveryOutcome::Sending {
        settlement.outcome = DeliveryOutcome::Queued;
    }
    settlement.attempt = settlement.attempt.map(|attempt| Attempt {
        provider_message_id: attempt
            .provider_message_id
            .map(|id| id.chars().take(MESSAGE_ID_CHARS).collect())
            .filter(|id: &String| !id.is_empty()),
        at_ms: attempt.at_ms.clamp(0, LATEST.as_millis()),
        took_ms: attempt.took_ms.min(LONGEST_MS),
        ..attempt
    });
    settlement
}

impl Delivery {
    fn unclaimed(
        id: DeliveryId,
        channel: Channel,
        (service, trace_id): (Option<ServiceName>, Option<TraceId>),
        now: Timestamp,
    ) -> Self {
        Self {
            fence: Fence(0),
            lease_until: now,
            record: DeliveryRecord {
                id,
                channel,
                outcome: DeliveryOutcome::Queued,
                attempts: Vec::new(),
                attempt_count: 0,
                service,
                trace_id,
                receipt: None,
                updated_at: now,
            },
        }
    }

    fn append(&mut self, attempt: Attempt) {
        let record = &mut self.record;
        if record.attempts.len() == KEPT_ATTEMPTS {
            record.attempts.remove(0);
        }
        record.attempts.push(attempt);
        record.attempt_count = (record.attempt_count + 1).min(u32::from(u16::MAX));
    }
}

/// Implements [`crate::LedgerStore::claim`]; `old` is the stored delivery.
pub fn claim(old: Option<Delivery>, request: ClaimRequest) -> Step<Claim> {
    let now = bounded_moment(request.now);
    let mut delivery = old.unwrap_or_else(|| {
        let origin = (Some(request.service), request.trace_id);
        Delivery::unclaimed(request.id, request.channel, origin, now)
    });
    if delivery.record.outcome.is_final() {
        return Step {
            answer: Claim::Ended(delivery.record),
            write: None,
        };
    }
    let mut after_crash = false;
    if delivery.record.outcome == DeliveryOutcome::Sending {
        if delivery.lease_until > now {
            return Step {
                answer: Claim::Held {
                    until: delivery.lease_until,
                },
                write: None,
            };
        }
        // The holder's lease ended without a settlement: record an attempt that began with the
        // claim and has an unknown outcome.
        delivery.append(Attempt {
            provider: None,
            class: AttemptClass::UnknownOutcome,
            provider_message_id: None,
            at_ms: delivery.record.updated_at.as_millis(),
            took_ms: 0,
        });
        after_crash = true;
    }
    delivery.fence = Fence(delivery.fence.0 + 1);
    delivery.lease_until = bounded_moment(now.plus_millis(request.lease_ms));
    delivery.record.outcome = DeliveryOutcome::Sending;
    delivery.record.updated_at = now;
    Step {
        answer: Claim::Yours {
            fence: delivery.fence,
            record: delivery.record.clone(),
            after_crash,
        },
        write: Some(delivery),
    }
}

/// Implements [`crate::LedgerStore::settle`] for the result of [`bounded`]. Returns `None` if the
/// fence is lost.
pub fn settle(old: Option<Delivery>, settlement: Settlement) -> Option<Step<DeliveryRecord>> {
    let unchanged = |delivery: Delivery| {
        Some(Step {
            answer: delivery.record,
            write: None,
        })
    };
    let mut delivery = match (settlement.fence, old) {
        (Some(fence), Some(held)) if held.fence == fence => {
            if held.record.outcome != DeliveryOutcome::Sending {
                // Settled already. A repeat of the same outcome succeeds, another outcome does not.
                let repeated = held.record.outcome == settlement.outcome;
                return repeated.then(|| unchanged(held)).flatten();
            }
            held
        }
        (Some(_), _) => return None,
        (None, Some(other)) if other.record.outcome != DeliveryOutcome::Queued => {
            return unchanged(other);
        }
        (None, Some(queued)) => queued,
        (None, None) => Delivery::unclaimed(
            settlement.id,
            settlement.channel,
            (None, None),
            settlement.now,
        ),
    };
    if let Some(attempt) = settlement.attempt {
        delivery.append(attempt);
    }
    delivery.record.outcome = settlement.outcome;
    delivery.record.updated_at = settlement.now;
    Some(Step {
        answer: delivery.record.clone(),
        write: Some(delivery),
    })
}

/// Implements [`crate::LedgerStore::receipt`].
pub fn receipt(old: Option<Delivery>, note: &ReceiptNote) -> Step<Heard> {
    let nothing = |answer| Step {
        answer,
        write: None,
    };
    let Some(mut delivery) = old else {
        return nothing(Heard::Unknown);
    };
    let record = &delivery.record;
    if record.outcome == DeliveryOutcome::Sending {
        return nothing(Heard::Early);
    }
    let by_this = |attempt: &&Attempt| {
        attempt.provider.as_ref() == Some(&note.provider)
            && match (&attempt.provider_message_id, &note.message_id) {
                (Some(own), Some(told)) => own == told,
                _ => true,
            }
    };
    if !record.attempts.iter().any(|attempt| by_this(&attempt)) {
        return nothing(if record.outcome == DeliveryOutcome::Queued {
            Heard::Early
        } else {
            Heard::Unknown
        });
    }
    let is_accepted = record
        .attempts
        .last()
        .filter(by_this)
        .is_some_and(|attempt| attempt.class == AttemptClass::Accepted);
    // Believe a delivery from any provider that was called, but a failure only from the provider
    // that accepted the message.
    let counts = note.state == ReceiptState::Delivered || is_accepted;
    let heard = record.receipt.map_or(0, |receipt| receipt.state.rank());
    if !counts || note.state.rank() <= heard {
        return nothing(Heard::Repeated);
    }
    let now = bounded_moment(note.now);
    delivery.record.receipt = Some(Receipt {
        state: note.state,
        at: now,
    });
    delivery.record.updated_at = now;
    let outcome = delivery.record.outcome;
    delivery.record.outcome = match note.state {
        ReceiptState::Delivered => DeliveryOutcome::Delivered,
        ReceiptState::Failed | ReceiptState::Expired if outcome == DeliveryOutcome::Accepted => {
            DeliveryOutcome::Failed
        }
        _ => outcome,
    };
    Step {
        answer: Heard::Counted(delivery.record.clone()),
        write: Some(delivery),
    }
}

/// Implements [`crate::LedgerStore::reopen`].
pub fn reopen(old: Option<Delivery>, now: Timestamp) -> Step<bool> {
    let parked = old.filter(|delivery| delivery.record.outcome == DeliveryOutcome::Parked);
    let reopened = parked.map(|mut delivery| {
        delivery.record.outcome = DeliveryOutcome::Queued;
        delivery.record.updated_at = bounded_moment(now);
        delivery
    });
    Step {
        answer: reopened.is_some(),
        write: reopened,
    }
}
