//! The ledger over a map: the ledger crate's own state machine decides. Every change is compared
//! with an independent table of the permitted transitions.

use std::collections::HashMap;

use async_trait::async_trait;
use watchword_core::{
    DeliveryId, DeliveryOutcome as Outcome, ProviderName, ReceiptState, Timestamp,
};
use watchword_ledger::state::{self as steps, Delivery, Step};
use watchword_ledger::{
    Claim, ClaimRequest, DeliveryRecord, Heard, LedgerError, LedgerStore, ReceiptNote, Settlement,
};
use watchword_storage::StorageError;

use crate::history::{Node, Peer};
use crate::world::{Failed, STORE_PATIENCE, Seat, State};

/// The content of the ledger, and independent counts.
#[derive(Default)]
pub struct LedgerState {
    pub deliveries: HashMap<DeliveryId, Delivery>,
    names: HashMap<(ProviderName, String), DeliveryId>,
    /// Takeovers from a holder whose lease ended.
    pub takeovers: HashMap<DeliveryId, u32>,
    /// Deliveries that a true receipt must have moved to delivered.
    pub owed: Vec<DeliveryId>,
    /// The newest write: the delivery and its state before.
    newest: Option<(DeliveryId, Option<Delivery>)>,
    /// Number of lost claims.
    pub forgotten: HashMap<DeliveryId, u32>,
}

pub struct SimLedger(pub Seat);

pub fn failed(failed: Failed) -> StorageError {
    match failed {
        Failed::Refused | Failed::Returned => StorageError::Unavailable("struck"),
        Failed::NoAnswer => StorageError::Timeout,
    }
}

/// Whether an outcome may follow another. A receipt may arrive for every attempt.
fn may_become(from: Outcome, to: Outcome) -> bool {
    match from {
        Outcome::Queued | Outcome::Sending => true,
        Outcome::Accepted => matches!(to, Outcome::Accepted | Outcome::Delivered | Outcome::Failed),
        Outcome::Failed | Outcome::Expired => to == from || to == Outcome::Delivered,
        Outcome::Parked => matches!(to, Outcome::Parked | Outcome::Delivered | Outcome::Queued),
        Outcome::Delivered => to == from,
    }
}

fn rank(delivery: &Delivery) -> u8 {
    let state = delivery.record.receipt.map(|receipt| receipt.state);
    match state {
        None => 0,
        Some(ReceiptState::InFlight) => 1,
        Some(ReceiptState::Failed | ReceiptState::Expired) => 2,
        Some(ReceiptState::Delivered) => 3,
    }
}

fn watch(state: &mut State, node: Node, old: Option<&Delivery>, new: &Delivery) {
    let name = state.name_of(&new.record.id);
    let (to, fence) = (new.record.outcome, new.fence.0);
    let from = old.map_or(Outcome::Queued, |old| old.record.outcome);
    state.say(node, || {
        format!("writes {name}: {from} -> {to}, fence {fence}")
    });
    if !may_become(from, to) {
        state.broken(format!("{name} does not become {to} after {from}"));
    }
    let Some(old) = old else { return };
    let claimed = to == Outcome::Sending;
    let grown = fence - old.fence.0;
    if claimed && grown != 1 || !claimed && grown != 0 {
        state.broken(format!(
            "the fencing token of {name} grows with each claim, and only then"
        ));
    }
    if rank(new) < rank(old) || (rank(new) == rank(old) && new.record.receipt != old.record.receipt)
    {
        state.broken(format!("the receipts of {name} only go forward"));
    }
    let kept =
        new.record.attempts.starts_with(&old.record.attempts) || new.record.attempt_count > 16;
    if !kept || new.record.attempt_count - old.record.attempt_count > 1 {
        state.broken(format!(
            "attempts of {name} are only appended, one at a time"
        ));
    }
}

fn change<T>(
    state: &mut State,
    node: Node,
    id: &DeliveryId,
    change: impl FnOnce(Option<Delivery>) -> Step<T>,
) -> T {
    let old = state.ledger.deliveries.get(id).cloned();
    let step = change(old.clone());
    if let Some(new) = step.write {
        watch(state, node, old.as_ref(), &new);
        state.ledger.newest = Some((id.clone(), old));
        state.ledger.deliveries.insert(id.clone(), new);
    }
    step.answer
}

/// Undoes the newest write if it was a claim.
pub fn forget(state: &mut State) {
    let Some((id, before)) = state.ledger.newest.take() else {
        return;
    };
    let deliveries = &mut state.ledger.deliveries;
    if deliveries[&id].record.outcome != Outcome::Sending {
        return;
    }
    match before {
        Some(before) => deliveries.insert(id.clone(), before),
        None => deliveries.remove(&id),
    };
    *state.ledger.forgotten.entry(id.clone()).or_default() += 1;
    let name = state.name_of(&id);
    state.say("ledger", || format!("forgets the claim of {name}"));
}

impl SimLedger {
    async fn call<T: Send>(
        &self,
        effect: impl FnOnce(&mut State, Node) -> T + Send,
    ) -> Result<T, LedgerError> {
        let node = self.0.node;
        let called = self
            .0
            .call(Peer::Ledger, STORE_PATIENCE, |state| effect(state, node));
        Ok(called.await.map_err(failed)?)
    }
}

#[async_trait]
impl LedgerStore for SimLedger {
    async fn claim(&self, request: ClaimRequest) -> Result<Claim, LedgerError> {
        self.call(|state, node| {
            let id = request.id.clone();
            let claim = change(state, node, &id, |old| steps::claim(old, request));
            if matches!(
                claim,
                Claim::Yours {
                    after_crash: true,
                    ..
                }
            ) {
                *state.ledger.takeovers.entry(id).or_default() += 1;
            }
            claim
        })
        .await
    }

    async fn settle(&self, settlement: Settlement) -> Result<DeliveryRecord, LedgerError> {
        self.call(|state, node| {
            let settlement = steps::bounded(settlement);
            let id = settlement.id.clone();
            let old = state.ledger.deliveries.get(&id).cloned();
            let Some(step) = steps::settle(old, settlement) else {
                return Err(LedgerError::FenceLost);
            };
            Ok(change(state, node, &id, |_| step))
        })
        .await?
    }

    async fn receipt(&self, note: ReceiptNote) -> Result<Heard, LedgerError> {
        self.call(|state, node| {
            let id = note.id.clone();
            change(state, node, &id, |old| steps::receipt(old, &note))
        })
        .await
    }

    async fn reopen(&self, id: &DeliveryId, now: Timestamp) -> Result<bool, LedgerError> {
        self.call(|state, node| change(state, node, id, |old| steps::reopen(old, now)))
            .await
    }

    async fn name(
        &self,
        provider: &ProviderName,
        message_id: &str,
        id: &DeliveryId,
        _now: Timestamp,
    ) -> Result<(), LedgerError> {
        let key = (provider.clone(), message_id.to_owned());
        self.call(|state, _| {
            state.ledger.names.insert(key, id.clone());
        })
        .await
    }

    async fn named(
        &self,
        provider: &ProviderName,
        message_id: &str,
    ) -> Result<Option<DeliveryId>, LedgerError> {
        let key = (provider.clone(), message_id.to_owned());
        self.call(|state, _| state.ledger.names.get(&key).cloned())
            .await
    }

    async fn get(&self, ids: &[DeliveryId]) -> Result<Vec<DeliveryRecord>, LedgerError> {
        self.call(|state, _| {
            let held = ids.iter().filter_map(|id| state.ledger.deliveries.get(id));
            held.map(|delivery| delivery.record.clone()).collect()
        })
        .await
    }
}

impl LedgerState {
    /// Whether the ledger knows a delivery with this message id.
    pub fn is_named(&self, message_id: &str) -> bool {
        self.names.keys().any(|(_, named)| named == message_id)
    }
}
