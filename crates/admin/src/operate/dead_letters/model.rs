//! Requests about dead letters, and their reports. No field holds a message's content.

use serde::{Deserialize, Serialize};
use watchword_core::{AttemptClass, DeliveryOutcome, ProviderName};

use super::is_plain;
use crate::trail::holds_address;

/// A filter of dead letters. An absent field matches every dead letter.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLetterFilter {
    /// The queue: `requests`, `sms`, `email`, `receipts` or `timers`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// The reason for dead-lettering.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The name of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The message id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The minimum time since dead-lettering or, if that is unknown, since acceptance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than_seconds: Option<u64>,
    /// The most messages to read from each queue: 1 to 20,000; 1,000 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Dead letters to replay or discard.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeRequest {
    /// The dead letters to change.
    #[serde(default)]
    pub filter: DeadLetterFilter,
    /// Must be true if the filter matches every dead letter.
    #[serde(default)]
    pub all: bool,
    /// The operator's reason, for the audit trail.
    pub reason: String,
}

/// A dead letter to show.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShowRequest {
    /// The message id.
    pub id: String,
}

/// How a dead letter can be handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterState {
    /// The message can be replayed.
    Replayable,
    /// The message is past its deadline.
    Expired,
    /// The message is a note about a rejected request, whose content was not kept: only the sender
    /// can repeat the request.
    Note,
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The queue that it came from.
    pub queue: String,
    /// The message id; `-` if there is none that may be shown.
    pub id: String,
    /// The event type.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The reason for dead-lettering.
    pub reason: String,
    /// The name of the service.
    pub service: Option<String>,
    /// The broker user that sent the request, in a note.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_user: Option<String>,
    /// When the message was accepted, RFC 3339.
    pub accepted_at: Option<String>,
    /// When the message was dead-lettered, RFC 3339, if the queue recorded that.
    pub dead_lettered_at: Option<String>,
    /// The message's deadline, RFC 3339.
    pub deadline: Option<String>,
    /// The time since dead-lettering or, if that is unknown, since acceptance.
    pub age_seconds: Option<u64>,
    /// How often the message went through a wait queue before.
    pub retries: u32,
    /// The size of the body.
    pub bytes: usize,
    /// How it can be handled.
    pub state: DeadLetterState,
}

/// The dead letters that match a filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLettersReport {
    /// The dead letters, oldest first in each queue.
    pub dead_letters: Vec<DeadLetter>,
    /// Queues that may hold more dead letters than the limit allowed to read.
    pub truncated: Vec<String>,
}

/// A dead letter with the history of its delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterDetails {
    /// The dead letter.
    pub dead_letter: DeadLetter,
    /// The ledger's record of its delivery.
    pub delivery: Option<DeliveryHistory>,
}

/// The history of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryHistory {
    /// The outcome so far.
    pub outcome: DeliveryOutcome,
    /// The trace id of its request, in hex.
    pub trace_id: Option<String>,
    /// The calls of providers, oldest first.
    pub attempts: Vec<AttemptHistory>,
}

/// A call of a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptHistory {
    /// The provider; `None` if the worker crashed during the attempt.
    pub provider: Option<ProviderName>,
    /// The class of the outcome.
    pub class: AttemptClass,
    /// When the attempt began, RFC 3339.
    pub at: String,
    /// The duration of the attempt.
    pub took_ms: u64,
}

/// The result of a replay or a discard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeReport {
    /// Messages replayed or discarded.
    pub done: u64,
    /// Messages not replayed because they are past their deadline.
    pub expired: u64,
    /// Notes about requests, which cannot be replayed.
    pub notes: u64,
    /// Queues that may hold more dead letters than the limit allowed to read.
    pub truncated: Vec<String>,
}

impl ChangeRequest {
    /// Returns the filter as the audit trail records it.
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
            // The caller could have sent anything here, also a recipient.
            let value = value.as_deref()?;
            let is_shown = is_plain(value) && !holds_address(value);
            let shown = if is_shown { value } else { "?" };
            Some(format!(" {name}={shown}"))
        });
        format!("dead letters{}", named.collect::<String>())
    }
}
