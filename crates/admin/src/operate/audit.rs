//! The audit: checks that every accepted message has an outcome or is in flight.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use watchword_broker::{Broker, ParkedError};
use watchword_chassis::Problem;
use watchword_core::{Channel, DeliveryId, DeliveryOutcome};
use watchword_events::Lane;
use watchword_verifier::audit::{AuditError, audit};

use super::{Operator, alone, ledger_problem, store_problem};

/// The most open and the most lost messages that a report names.
const NAMED: usize = 100;

/// Accepted messages and their outcomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReport {
    /// Verifications in the store.
    pub verifications: u64,
    /// Messages whose publish was confirmed.
    pub accepted: u64,
    /// Accepted messages that have ended, by outcome.
    pub ended: BTreeMap<String, u64>,
    /// Messages that are in flight.
    pub open: u64,
    /// The first 100 of these.
    pub open_named: Vec<OpenMessage>,
    /// Messages that should have ended by now and did not.
    pub lost: u64,
    /// The first 100 of these.
    pub lost_named: Vec<DeliveryId>,
    /// Whether the dead-letter queues were read completely. If not, messages counted as lost may
    /// be dead-lettered.
    pub dead_letters_read: bool,
}

/// A message in flight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenMessage {
    /// The id of its delivery.
    pub id: DeliveryId,
    /// Its outcome so far.
    pub outcome: DeliveryOutcome,
}

impl Operator {
    /// Compares the accepted messages in the store with their outcomes in the ledger. Reads at most
    /// `most_dead_letters` of each dead-letter queue. While the broker cannot be reached the report
    /// does without the dead letters.
    pub async fn audit(&self, most_dead_letters: usize) -> Result<AuditReport, Problem> {
        let broker = self.broker()?;
        let _one = alone(&self.auditing, "another audit is running").await?;
        let reading = self.read_dead_letters_alone().await?;
        let mut parked = BTreeSet::new();
        let mut dead_letters_read = true;
        for channel in Channel::ALL {
            match dead_letter_ids(broker, channel, most_dead_letters).await {
                Ok(ids) => {
                    dead_letters_read &= ids.len() < most_dead_letters;
                    parked.extend(ids);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot read the dead-letter queues; the audit continues without them");
                    dead_letters_read = false;
                    // The other queue would wait for the same unreachable broker.
                    break;
                }
            }
        }
        // Release the permit: comparing takes longer, and a replay need not wait for it.
        drop(reading);
        let (store, ledger) = (self.verifications.as_ref(), self.ledger.as_ref());
        let found = audit(store, ledger, &parked, self.clock.now()).await;
        let found = found.map_err(|error| match error {
            AuditError::Store(error) => store_problem(&error),
            AuditError::Ledger(_) => ledger_problem(),
        })?;
        let ended = found.ended.into_iter();
        let open = found.open.iter().take(NAMED);
        Ok(AuditReport {
            verifications: found.verifications,
            accepted: found.accepted,
            ended: ended
                .map(|(name, count)| (name.to_owned(), count))
                .collect(),
            open: found.open.len() as u64,
            open_named: open
                .map(|(id, outcome)| OpenMessage {
                    id: id.clone(),
                    outcome: *outcome,
                })
                .collect(),
            lost: found.lost.len() as u64,
            lost_named: found.lost.into_iter().take(NAMED).collect(),
            dead_letters_read,
        })
    }
}

async fn dead_letter_ids(
    broker: &dyn Broker,
    channel: Channel,
    most: usize,
) -> Result<Vec<String>, ParkedError> {
    let look = broker.parked(Lane::Send(channel), most).await?;
    let messages = look.messages().iter();
    let ids = messages.map(|message| message.id.clone().unwrap_or_default());
    let ids = ids.collect();
    look.close().await?;
    Ok(ids)
}
