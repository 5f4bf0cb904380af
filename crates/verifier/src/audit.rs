//! The conservation check: every message whose publish was confirmed must have ended, be in flight
//! or be dead-lettered. It reads both stores side by side, changes nothing, and reports messages
//! that are none of these.

use std::collections::{BTreeMap, BTreeSet};

use watchword_core::{DeliveryId, DeliveryOutcome, Timestamp};
use watchword_ledger::{LedgerError, LedgerStore};

use crate::store::{StoreError, VerificationStore};

/// How long after its deadline a message must have ended: the longest retry delay, and time to
/// record the outcome.
const GRACE_MS: u64 = 60_000;
/// Verifications read per step.
const PAGE: usize = 500;

/// The result of the check. It balances if `lost` is empty and `accepted` is the sum of the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    /// Verifications in the store.
    pub verifications: u64,
    /// Messages whose publish was confirmed.
    pub accepted: u64,
    /// Messages that ended, by outcome; `parked` counts dead-lettered ones.
    pub ended: BTreeMap<&'static str, u64>,
    /// Messages in flight, with their current outcome.
    pub open: Vec<(DeliveryId, DeliveryOutcome)>,
    /// Messages that are past their deadline without an outcome.
    pub lost: Vec<DeliveryId>,
}

/// An error of the check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// Code state could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The ledger could not be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Compares accepted messages with their outcomes. `parked` has the ids in the dead-letter queues.
pub async fn audit(
    store: &dyn VerificationStore,
    ledger: &dyn LedgerStore,
    parked: &BTreeSet<String>,
    now: Timestamp,
) -> Result<Audit, AuditError> {
    let mut audit = Audit::default();
    let mut cursor = None;
    loop {
        let (page, next) = store.sends(cursor, PAGE).await?;
        for sends in page {
            audit.verifications += 1;
            let ids: Vec<_> = (1..=sends.sends)
                .map(|send| DeliveryId::new(sends.id.clone(), send))
                .collect();
            let records = ledger.get(&ids).await?;
            for id in ids {
                let record = records.iter().find(|record| record.id == id);
                // A further message is sent only after the previous one was confirmed. The last
                // one's mark may be missing if the store was unavailable at that time; a ledger
                // record then proves that a worker received the message.
                let is_marked = id.send() < sends.sends || sends.confirmed;
                if !is_marked && record.is_none() {
                    continue;
                }
                audit.accepted += 1;
                let outcome = record.map_or(DeliveryOutcome::Queued, |record| record.outcome);
                if outcome.is_final() {
                    *audit.ended.entry(outcome.as_str()).or_default() += 1;
                } else if parked.contains(&id.to_string()) {
                    *audit.ended.entry("parked").or_default() += 1;
                } else if sends.expires_at.plus_millis(GRACE_MS) < now {
                    audit.lost.push(id);
                } else {
                    audit.open.push((id, outcome));
                }
            }
        }
        match next {
            Some(next) => cursor = Some(next),
            None => return Ok(audit),
        }
    }
}
