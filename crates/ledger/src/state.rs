//! The life of one delivery as plain steps. The `SQLite` store runs them inside a transaction; the
//! scripts of the Redis store say the same and are held to it by a shared suite. Refuses I/O.

use watchword_core::{AttemptClass, Channel, DeliveryId, DeliveryOutcome, Timestamp};

use crate::codec::{KEPT_ATTEMPTS, LATEST, LONGEST_MS, MESSAGE_ID_CHARS};
use crate::record::{Attempt, DeliveryRecord};
use crate::store::{Claim, ClaimRequest, Fence, Settlement};

/// A delivery as it is stored: its record and who may write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// The newest claim's; 0 if never claimed.
    pub fence: Fence,
    /// The end of the newest claim while the outcome is `sending`.
    pub lease_until: Timestamp,
    /// What the world sees.
    pub record: DeliveryRecord,
}

/// The answer of a step, and the delivery to write if it changed.
pub(crate) struct Step<T> {
    pub answer: T,
    pub write: Option<Delivery>,
}

/// The moment as both stores can write it.
pub(crate) fn bounded_moment(at: Timestamp) -> Timestamp {
    at.clamp(Timestamp::from_millis(0), LATEST)
}

/// The settlement as both stores can write it: moments up to 2^48 - 1 ms, attempts up to 2^24 - 1
/// ms, ids up to 128 characters, no empty id. `Sending` becomes `Queued`: a settlement ends the
/// claim, and a delivery that nobody holds is not being sent.
pub(crate) fn bounded(mut settlement: Settlement) -> Settlement {
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
    fn unclaimed(id: DeliveryId, channel: Channel, now: Timestamp) -> Self {
        Self {
            fence: Fence(0),
            lease_until: now,
            record: DeliveryRecord {
                id,
                channel,
                outcome: DeliveryOutcome::Queued,
                attempts: Vec::new(),
                attempt_count: 0,
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

/// See [`crate::LedgerStore::claim`]; `old` is what the store holds.
pub(crate) fn claim(old: Option<Delivery>, request: ClaimRequest) -> Step<Claim> {
    let now = bounded_moment(request.now);
    let mut delivery = old.unwrap_or_else(|| Delivery::unclaimed(request.id, request.channel, now));
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
        // The holder went silent. When it began is known, how it ended is not.
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
            attempt_count: delivery.record.attempt_count,
            after_crash,
        },
        write: Some(delivery),
    }
}

/// See [`crate::LedgerStore::settle`]; `None` when the fence is lost. Takes what [`bounded`] gives.
pub(crate) fn settle(
    old: Option<Delivery>,
    settlement: Settlement,
) -> Option<Step<DeliveryRecord>> {
    let unchanged = |delivery: Delivery| {
        Some(Step {
            answer: delivery.record,
            write: None,
        })
    };
    let mut delivery = match (settlement.fence, old) {
        (Some(fence), Some(held)) if held.fence == fence => {
            if held.record.outcome != DeliveryOutcome::Sending {
                // Settled already: a repeat of the same word is heard, another word is not.
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
        (None, None) => Delivery::unclaimed(settlement.id, settlement.channel, settlement.now),
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
