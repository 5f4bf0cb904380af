//! `watchword audit`: does what was accepted add up with what became of it?

use std::collections::BTreeSet;
use std::path::Path;

use watchword_broker::Broker;
use watchword_core::Channel;
use watchword_events::Lane;
use watchword_verifier::audit::{Audit, audit};

use crate::needs::Needs;
use crate::run::operator;

/// Parked messages looked at in a lane: all that the queue can hold.
const MOST: usize = 100_000;
/// Open and lost messages that are named.
const NAMED: usize = 20;

/// Compares and prints; an error if a message is lost.
pub async fn run(path: &Path) -> anyhow::Result<()> {
    let shared = operator(path, Needs::QUEUES).await?;
    let engine = &shared.engine;
    let mut parked = BTreeSet::new();
    for channel in Channel::ALL {
        parked.extend(parked_ids(engine.queues()?.as_ref(), channel).await?);
    }
    let now = shared.clock.now();
    let found = audit(
        engine.verifications.as_ref(),
        engine.ledger.as_ref(),
        &parked,
        now,
    )
    .await?;
    engine.close().await;
    print(&found);
    anyhow::ensure!(
        found.lost.is_empty(),
        "it does not balance: {} accepted messages have no end",
        found.lost.len()
    );
    Ok(())
}

async fn parked_ids(broker: &dyn Broker, channel: Channel) -> anyhow::Result<Vec<String>> {
    let look = broker.parked(Lane::Send(channel), MOST).await?;
    let ids = look
        .messages()
        .iter()
        .filter_map(|message| message.id.clone());
    let ids = ids.collect();
    look.close().await?;
    Ok(ids)
}

fn print(audit: &Audit) {
    println!("verifications {}", audit.verifications);
    println!("accepted      {}", audit.accepted);
    for (outcome, count) in &audit.ended {
        println!("  {outcome:<11} {count}");
    }
    println!("  {:<11} {}", "open", audit.open.len());
    for (id, outcome) in audit.open.iter().take(NAMED) {
        println!("    {id} {outcome}");
    }
    println!("  {:<11} {}", "lost", audit.lost.len());
    for id in audit.lost.iter().take(NAMED) {
        println!("    {id}");
    }
}
