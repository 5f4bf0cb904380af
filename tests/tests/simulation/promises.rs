//! The invariants that must hold once everything has healed and the queues are empty. Invariants of
//! single steps are checked where they happen: [`crate::codes`], [`crate::ledger`],
//! [`crate::gateway`], [`crate::caller`].

use std::collections::HashMap;

use watchword_core::{AttemptClass, DeliveryId, DeliveryOutcome, ReceiptState};
use watchword_ledger::state::Delivery;

use crate::gateway::Handover;
use crate::history::Gateway;
use crate::world::State;

/// Attempts of unknown outcome that may be followed by another, at gateways that do not recognize
/// repeats.
const UNKNOWN_RETRIES: u32 = 1;

/// Notes that a true receipt about a recorded attempt must decide the outcome.
pub fn owe(state: &mut State, about: &Handover, says: ReceiptState) {
    let Some(delivery) = state.ledger.deliveries.get(&about.delivery) else {
        return;
    };
    let written = delivery.record.attempts.iter().any(|attempt| {
        attempt.provider_message_id.as_ref() == Some(&about.message_id)
            && attempt.class == AttemptClass::Accepted
    });
    let is_found = about.gateway != Gateway::Two || state.ledger.is_named(&about.message_id);
    if says == ReceiptState::Delivered && written && is_found && delivery.record.outcome.is_final()
    {
        state.ledger.owed.push(about.delivery.clone());
    }
}

/// Checks all invariants.
pub fn check(state: &mut State) {
    let left = state.queues.len();
    if left > 0 {
        state.broken(format!("no message is left in a queue, and {left} are"));
    }
    let promised: Vec<_> = state.callers.promised.iter().cloned().collect();
    for id in promised {
        let is_parked = state.queues.parked.contains(&id.to_string());
        let ended = state.ledger.deliveries.get(&id);
        let has_ended = ended.is_some_and(|delivery| delivery.record.outcome.is_final());
        if !has_ended && !is_parked {
            let name = state.name_of(&id);
            state.broken(format!("{name} was promised and ends"));
        }
    }
    let mut begun: HashMap<DeliveryId, u32> = HashMap::new();
    for handover in &state.gateways.handovers {
        *begun.entry(handover.delivery.clone()).or_default() += 1;
    }
    for id in begun.keys() {
        if !state.ledger.deliveries.contains_key(id) {
            let name = state.name_of(id);
            state.broken(format!("{name} was handed over and is in the ledger"));
        }
    }
    let deliveries: Vec<_> = state.ledger.deliveries.values().cloned().collect();
    for delivery in deliveries {
        let begun = begun.get(&delivery.record.id).copied().unwrap_or(0);
        one(state, &delivery, begun);
    }
    for id in std::mem::take(&mut state.ledger.owed) {
        let outcome = state.ledger.deliveries[&id].record.outcome;
        if outcome != DeliveryOutcome::Delivered {
            let name = state.name_of(&id);
            state.broken(format!(
                "{name} has a true receipt of delivery and is {outcome}"
            ));
        }
    }
}

/// Checks a delivery that was handed over `begun` times.
fn one(state: &mut State, delivery: &Delivery, begun: u32) {
    let (id, record) = (&delivery.record.id, &delivery.record);
    let name = state.name_of(id);
    let takeovers = state.ledger.takeovers.get(id).copied().unwrap_or(0);
    let forgotten = state.ledger.forgotten.get(id).copied().unwrap_or(0);
    if !record.outcome.is_final() {
        let outcome = record.outcome;
        state.broken(format!("{name} ends and does not stay {outcome}"));
    }
    if begun > record.attempt_count + forgotten {
        state.broken(format!(
            "each hand-over of {name} is an attempt in the ledger"
        ));
    }
    // A worker that receives an acceptance records it. A second acceptance needs a holder that went
    // silent in between, or a store that lost the claim.
    let heard = state.gateways.heard.get(id).copied().unwrap_or(0);
    if heard > 1 + takeovers + forgotten {
        state.broken(format!(
            "{name} is accepted once, and once more for each takeover"
        ));
    }
    // Gateway `Two` recognizes repeats as long as it gets them itself: its consecutive attempts
    // count as one, and as none if they are the last.
    let two = Some(Gateway::Two.name());
    let is_unknown = |class| class == AttemptClass::UnknownOutcome;
    let rows: Vec<_> = (record.attempts)
        .chunk_by(|one, next| one.provider == two && next.provider == two)
        .collect();
    let unknown = rows.iter().enumerate().filter(|(place, row)| {
        let has = row.iter().any(|attempt| is_unknown(attempt.class));
        has && (row[0].provider != two || place + 1 < rows.len())
    });
    let unknown = u32::try_from(unknown.count()).unwrap();
    if unknown > 1 + UNKNOWN_RETRIES + takeovers + forgotten {
        state.broken(format!(
            "{name} is not retried without limit for unknown outcomes"
        ));
    }
    let refused = (record.attempts.iter().enumerate())
        .filter(|(_, attempt)| attempt.class == AttemptClass::DestinationRefused);
    let mut refused = refused.map(|(place, attempt)| (&attempt.provider, place));
    if refused.any(|(provider, place)| {
        let mut later = record.attempts[place + 1..].iter();
        later.any(|attempt| attempt.provider == *provider)
    }) {
        state.broken(format!(
            "{name} is not offered again to a gateway that does not deliver there"
        ));
    }
    let disturbed = &state.disturbed;
    if takeovers > 0 && !(disturbed.silence || disturbed.ledger || disturbed.clock) {
        state.broken(format!("{name} is taken over only after a disturbance"));
    }
    let is_told = state.queues.told.iter().any(|told| {
        told.strip_prefix(&id.to_string())
            .is_some_and(|rest| rest.starts_with('.'))
    });
    // If a fallback step's message is refused, the issuer records that and publishes no outcome.
    let is_refused = state.codes.by_step.contains(id) && delivery.fence.0 == 0;
    if record.outcome.is_final() && !is_told && !is_refused && !state.disturbed.publish {
        state.broken(format!("the outcome of {name} is published"));
    }
}
