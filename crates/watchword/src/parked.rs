//! `watchword parked`: what was put aside, with its reason and history, and what to do about it.
//! Refuses to print a body, and to send again what is past its deadline.

use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};
use watchword_broker::{ParkedLook, ParkedMessage};
use watchword_core::{DeliveryId, Timestamp};
use watchword_events::Lane;
use watchword_ledger::LedgerStore;

use crate::cli::{ParkedCommand, ParkedFilter};
use crate::needs::Needs;
use crate::roles::Shared;
use crate::run::operator;

/// Carries out a subcommand.
pub async fn run(path: &Path, command: ParkedCommand) -> anyhow::Result<()> {
    let shared = operator(path, Needs::QUEUES).await?;
    let result = carry_out(&shared, command).await;
    shared.engine.close().await;
    result
}

async fn carry_out(shared: &Shared, command: ParkedCommand) -> anyhow::Result<()> {
    match command {
        ParkedCommand::List(filter) => list(shared, &filter).await,
        ParkedCommand::Show { id } => show(shared, &id).await,
        ParkedCommand::Replay(filter) => change(shared, &filter, true).await,
        ParkedCommand::Discard(filter) => change(shared, &filter, false).await,
    }
}

/// What stands in clear in a parked document, without its sealed part.
struct Label {
    delivery: Option<DeliveryId>,
    service: Option<String>,
    deadline: Option<Timestamp>,
    accepted_at: Option<Timestamp>,
}

impl Label {
    /// Reads only values of known form: the rest of the document may be anything.
    fn of(message: &ParkedMessage) -> Self {
        let document: Value = serde_json::from_slice(&message.body).unwrap_or(Value::Null);
        let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
        let service = text("/data/service").and_then(|name| name.parse().ok());
        Self {
            delivery: text("/id").and_then(|id| id.parse().ok()),
            service: service.map(|name: watchword_core::ServiceName| name.to_string()),
            deadline: text("/data/deadline").and_then(Timestamp::from_rfc3339),
            accepted_at: text("/time").and_then(Timestamp::from_rfc3339),
        }
    }

    fn is_past(&self, now: Timestamp) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

/// An id that may be shown: ours, or of a form that holds no address.
fn name_of(message: &ParkedMessage) -> String {
    let plain = |id: &&String| {
        id.len() <= 64
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let id = message.id.as_ref().filter(plain);
    id.cloned().unwrap_or_else(|| "-".to_owned())
}

/// Since when it is parked, or was accepted.
fn since(message: &ParkedMessage, label: &Label) -> Option<Timestamp> {
    let parked = message.parked_at_ms.map(Timestamp::from_millis);
    parked.or(label.accepted_at)
}

/// The oldest come first: who looks at a part must know it.
fn tell_of_limit(lane: Lane, looked_at: usize, limit: usize) {
    if looked_at == limit {
        println!(
            "of {} only the oldest {limit} were looked at: see --limit",
            lane.as_str()
        );
    }
}

fn fits(filter: &ParkedFilter, message: &ParkedMessage, label: &Label, now: Timestamp) -> bool {
    let is = |wanted: &Option<String>, found: Option<&str>| {
        wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
    };
    let age = filter.older_than_seconds.is_none_or(|seconds| {
        since(message, label).is_some_and(|since| now.millis_since(since) >= seconds * 1_000)
    });
    is(&filter.reason, Some(&message.reason))
        && is(&filter.service, label.service.as_deref())
        && is(&filter.id, Some(&name_of(message)))
        && age
}

fn lanes(filter: &ParkedFilter) -> anyhow::Result<Vec<Lane>> {
    match &filter.lane {
        None => Ok(Lane::ALL.to_vec()),
        Some(word) => {
            let lane = Lane::from_word(word);
            Ok(vec![lane.context(
                "a lane is requests, sms, email, receipts or timers",
            )?])
        }
    }
}

async fn look(shared: &Shared, lane: Lane, limit: usize) -> anyhow::Result<Box<dyn ParkedLook>> {
    let look = shared.engine.queues()?.parked(lane, limit).await;
    look.with_context(|| format!("the parked queue of {}", lane.as_str()))
}

async fn list(shared: &Shared, filter: &ParkedFilter) -> anyhow::Result<()> {
    let now = shared.clock.now();
    let mut count = 0;
    for lane in lanes(filter)? {
        let look = look(shared, lane, filter.limit).await?;
        tell_of_limit(lane, look.messages().len(), filter.limit);
        for message in look.messages() {
            let label = Label::of(message);
            if !fits(filter, message, &label, now) {
                continue;
            }
            count += 1;
            let state = if lane == Lane::Requests {
                NOTE
            } else if label.is_past(now) {
                "past its deadline"
            } else {
                "can be replayed"
            };
            let age = since(message, &label).map_or_else(
                || "-".to_owned(),
                |since| format!("{} s", now.millis_since(since) / 1_000),
            );
            println!(
                "{:<9} {:<36} {:<18} {:<12} {age:>9} {state}",
                lane.as_str(),
                name_of(message),
                message.reason,
                label.service.as_deref().unwrap_or("-"),
            );
        }
        look.close().await?;
    }
    println!("{count} parked");
    Ok(())
}

async fn show(shared: &Shared, id: &str) -> anyhow::Result<()> {
    let now = shared.clock.now();
    for lane in Lane::ALL {
        let look = look(shared, lane, MOST).await?;
        let found = look
            .messages()
            .iter()
            .find(|message| name_of(message) == id);
        if let Some(message) = found {
            let label = Label::of(message);
            let history = match &label.delivery {
                Some(delivery) => history(shared.engine.ledger.as_ref(), delivery).await?,
                None => Value::Null,
            };
            let told = json!({
                "lane": lane.as_str(), "id": name_of(message), "type": message.kind, "reason": message.reason,
                "service": label.service, "accepted_at": label.accepted_at.map(Timestamp::to_rfc3339),
                "deadline": label.deadline.map(Timestamp::to_rfc3339), "past_deadline": label.is_past(now),
                "parked_at": message.parked_at_ms.map(|ms| Timestamp::from_millis(ms).to_rfc3339()),
                "waits": message.retries, "bytes": message.body.len(), "delivery": history,
            });
            println!("{told:#}");
            return Ok(look.close().await?);
        }
        look.close().await?;
    }
    anyhow::bail!("nothing of this id is parked")
}

async fn history(ledger: &dyn LedgerStore, id: &DeliveryId) -> anyhow::Result<Value> {
    let records = ledger.get(std::slice::from_ref(id)).await?;
    let Some(record) = records.first() else {
        return Ok(Value::Null);
    };
    let attempts: Vec<_> = record
        .attempts
        .iter()
        .map(|attempt| {
            json!({
                "provider": attempt.provider, "class": attempt.class,
                "at": Timestamp::from_millis(attempt.at_ms).to_rfc3339(), "took_ms": attempt.took_ms,
            })
        })
        .collect();
    Ok(json!({
        "outcome": record.outcome, "trace_id": record.trace_id.map(|id| id.to_string()), "attempts": attempts,
    }))
}

/// The state of parked requests: the request itself was not kept.
const NOTE: &str = "a note: its request was not kept";

/// Messages `show` looks through in a lane: all that the queue can hold.
const MOST: usize = 100_000;

async fn change(shared: &Shared, filter: &ParkedFilter, replays: bool) -> anyhow::Result<()> {
    let is_open = filter.id.is_none() && filter.reason.is_none() && filter.service.is_none();
    anyhow::ensure!(
        filter.all || !is_open || filter.older_than_seconds.is_some(),
        "name what: --id, --reason, --service, --older-than-seconds, or --all"
    );
    let now = shared.clock.now();
    let (mut done, mut late, mut note) = (0, 0, 0);
    for lane in lanes(filter)? {
        let mut look = look(shared, lane, filter.limit).await?;
        tell_of_limit(lane, look.messages().len(), filter.limit);
        for message in look.messages().to_vec() {
            let label = Label::of(&message);
            if !fits(filter, &message, &label, now) {
                continue;
            }
            if !replays {
                look.discard(message.place).await?;
                done += 1;
            } else if label.is_past(now) {
                late += 1;
            } else if lane == Lane::Requests {
                // What is parked there is a note: the request itself was not kept.
                note += 1;
            } else {
                if let Some(delivery) = &label.delivery {
                    shared.engine.ledger.reopen(delivery, now).await?;
                }
                look.replay(message.place).await?;
                done += 1;
            }
        }
        look.close().await?;
    }
    if replays {
        println!(
            "{done} replayed, {late} refused: past their deadline, {note} refused: notes about requests"
        );
    } else {
        println!("{done} discarded");
    }
    Ok(())
}
