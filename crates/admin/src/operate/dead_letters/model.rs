//! Requests about dead letters and the reports of them. No field holds a message's content.

use serde::{Deserialize, Serialize};
use watchword_core::{AttemptClass, DeliveryOutcome, ProviderName};

use super::is_plain;
use crate::trail::holds_address;

/// Which dead letters.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLetterFilter {
    /// `requests`, `sms`, `email`, `receipts` or `timers`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Why they were dead-lettered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whose they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Their id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Dead-lettered (or, where that is not known, accepted) longer ago than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than_seconds: Option<u64>,
    /// How many of each queue are looked at: 1 to 20,000, 1,000 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Dead letters to replay or discard.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeRequest {
    /// Which.
    #[serde(default)]
    pub filter: DeadLetterFilter,
    /// All of them, where the filter names none.
    #[serde(default)]
    pub all: bool,
    /// Why.
    pub reason: String,
}

/// A dead letter to show.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShowRequest {
    /// Its id.
    pub id: String,
}

/// How a dead letter can be handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterState {
    /// It can be replayed.
    Replayable,
    /// It is past its deadline.
    Expired,
    /// It is a note about a request that was not kept: only its sender can repeat it.
    Note,
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its queue.
    pub queue: String,
    /// Its id; `-` if it has none that may be shown.
    pub id: String,
    /// The type of its event.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Why it was dead-lettered.
    pub reason: String,
    /// Whose it is.
    pub service: Option<String>,
    /// The broker user that sent the request, in a note.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_user: Option<String>,
    /// When it was accepted.
    pub accepted_at: Option<String>,
    /// When it was dead-lettered, if the engine kept that.
    pub dead_lettered_at: Option<String>,
    /// Its deadline.
    pub deadline: Option<String>,
    /// How long ago it was dead-lettered, or accepted.
    pub age_seconds: Option<u64>,
    /// How often it went through a wait queue before.
    pub retries: u32,
    /// Its size.
    pub bytes: usize,
    /// How it can be handled.
    pub state: DeadLetterState,
}

/// The dead letters that fit a filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLettersReport {
    /// They, oldest first in each queue.
    pub dead_letters: Vec<DeadLetter>,
    /// Queues that hold more than the oldest that were looked at.
    pub truncated: Vec<String>,
}

/// A dead letter with the history of its delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterDetails {
    /// It.
    pub dead_letter: DeadLetter,
    /// The ledger's record of its delivery.
    pub delivery: Option<DeliveryHistory>,
}

/// The history of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryHistory {
    /// So far.
    pub outcome: DeliveryOutcome,
    /// The trace of its request.
    pub trace_id: Option<String>,
    /// Calls of providers.
    pub attempts: Vec<AttemptHistory>,
}

/// A call of a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptHistory {
    /// Which; none for an attempt that a crash left without an ending.
    pub provider: Option<ProviderName>,
    /// How it ended.
    pub class: AttemptClass,
    /// When it began.
    pub at: String,
    /// How long it took.
    pub took_ms: u64,
}

/// The result of a replay or a discard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeReport {
    /// Messages replayed or discarded.
    pub done: u64,
    /// Messages that were not replayed because they are past their deadline.
    pub expired: u64,
    /// Notes about requests, which cannot be replayed.
    pub notes: u64,
    /// Queues that hold more than the oldest that were looked at.
    pub truncated: Vec<String>,
}

impl ChangeRequest {
    /// The dead letters as the trail names them.
    pub fn target(&self) -> String {
        let DeadLetterFilter {
            queue,
            reason,
            service,
            id,
            older_than_seconds,
            limit: _,
        } = &self.filter;
        let age = older_than_seconds.map(|seconds| seconds.to_string());
        let named = [
            ("queue", queue),
            ("reason", reason),
            ("service", service),
            ("id", id),
            ("older_than_seconds", &age),
        ];
        let named = named.into_iter().filter_map(|(name, value)| {
            // A value of another form could be anything.
            let value = value.as_deref()?;
            let is_shown = is_plain(value) && !holds_address(value);
            let shown = if is_shown { value } else { "?" };
            Some(format!(" {name}={shown}"))
        });
        format!("dead letters{}", named.collect::<String>())
    }
}
