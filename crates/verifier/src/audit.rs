//! The conservation check: every message the issuer had confirmed must have ended, be on its way,
//! or lie parked. Reads both stores side by side and names what is none of it. Refuses to change
//! anything.

use std::collections::{BTreeMap, BTreeSet};

use watchword_core::{DeliveryId, DeliveryOutcome, Timestamp};
use watchword_ledger::{LedgerError, LedgerStore};

use crate::store::{StoreError, VerificationStore};

/// How long after its deadline a message must have ended: the longest wait of the ladder, and time
/// to write it down.
const GRACE_MS: u64 = 60_000;
/// Verifications looked at in one step.
const PAGE: usize = 500;

/// What the check found. It balances when `lost` is empty and `accepted` is the sum of the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    /// Verifications that are remembered.
    pub verifications: u64,
    /// Messages whose publish was confirmed.
    pub accepted: u64,
    /// Those that ended, by outcome.
    pub ended: BTreeMap<&'static str, u64>,
    /// Those on their way, with where they stand.
    pub open: Vec<(DeliveryId, DeliveryOutcome)>,
    /// Those that should have ended by now and did not.
    pub lost: Vec<DeliveryId>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// Code state cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The ledger cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Compares what was accepted with what became of it. `parked` are the ids in the parked queues.
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
                // A further message is asked for only after the one before was confirmed. The last
                // one's mark may be missing, if the store was away just then: a worker had it.
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
