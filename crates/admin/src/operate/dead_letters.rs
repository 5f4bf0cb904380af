//! Operations on dead letters, the messages that could not be processed: list, show, replay,
//! discard. No report holds a message's content, and an expired message is not replayed.

mod model;

use watchword_broker::{Broker, ParkedError, ParkedLook, ParkedMessage};
use watchword_chassis::{Problem, ProblemCode};
use watchword_core::{DeliveryId, Timestamp};
use watchword_events::Lane;

use super::{Operator, fields, ledger_problem};
pub use model::{
    AttemptHistory, ChangeReport, ChangeRequest, DeadLetter, DeadLetterDetails, DeadLetterFilter,
    DeadLetterState, DeadLettersReport, DeliveryHistory, ShowRequest,
};

/// The number of messages read from a queue if the request sets no limit.
const USUAL: usize = 1_000;
/// The most messages of a queue that one request may read. The process holds them in memory
/// meanwhile.
pub const MOST_LISTED: usize = 20_000;

/// The fields of a message that are not sealed.
struct Label {
    delivery: Option<DeliveryId>,
    service: Option<String>,
    broker_user: Option<String>,
    deadline: Option<Timestamp>,
    accepted_at: Option<Timestamp>,
}

impl Label {
    /// Reads the fields of `message`, and only values that parse: the document is untrusted.
    fn of(message: &ParkedMessage, lane: Lane) -> Self {
        let document = serde_json::from_slice(&message.body);
        let document: serde_json::Value = document.unwrap_or_default();
        let text = |pointer: &str| document.pointer(pointer)?.as_str();
        let service = text("/data/service").and_then(|name| name.parse().ok());
        // Only the issuer writes notes to this queue; the user in it was validated by the broker.
        let user = text("/data/user").filter(|user| lane == Lane::Requests && is_plain(user));
        Self {
            delivery: text("/id").and_then(|id| id.parse().ok()),
            service: service.map(|name: watchword_core::ServiceName| name.to_string()),
            broker_user: user.map(ToOwned::to_owned),
            deadline: text("/data/deadline").and_then(Timestamp::from_rfc3339),
            accepted_at: text("/time").and_then(Timestamp::from_rfc3339),
        }
    }

    fn state(&self, lane: Lane, now: Timestamp) -> DeadLetterState {
        if lane == Lane::Requests {
            DeadLetterState::Note
        } else if self.deadline.is_some_and(|deadline| deadline <= now) {
            DeadLetterState::Expired
        } else {
            DeadLetterState::Replayable
        }
    }
}

/// Whether `text` is at most 64 letters, digits, `-`, `_` and `.`, which cannot be a mail address.
fn is_plain(text: &str) -> bool {
    text.len() <= 64
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Returns the id of `message`, or `-` if it has none or its id may hold an address.
fn name_of(message: &ParkedMessage) -> String {
    let id = message.id.as_ref().filter(|id| is_plain(id));
    id.cloned().unwrap_or_else(|| "-".to_owned())
}

fn since(message: &ParkedMessage, label: &Label) -> Option<Timestamp> {
    let parked = message.parked_at_ms.map(Timestamp::from_millis);
    parked.or(label.accepted_at)
}

fn described(lane: Lane, message: &ParkedMessage, label: &Label, now: Timestamp) -> DeadLetter {
    let since = since(message, label);
    DeadLetter {
        queue: lane.as_str().to_owned(),
        id: name_of(message),
        kind: message.kind.clone().filter(|kind| is_plain(kind)),
        reason: message.reason.clone(),
        service: label.service.clone(),
        broker_user: label.broker_user.clone(),
        accepted_at: label.accepted_at.map(Timestamp::to_rfc3339),
        dead_lettered_at: message
            .parked_at_ms
            .map(|ms| Timestamp::from_millis(ms).to_rfc3339()),
        deadline: label.deadline.map(Timestamp::to_rfc3339),
        age_seconds: since.map(|since| now.millis_since(since) / 1_000),
        retries: message.retries,
        bytes: message.body.len(),
        state: label.state(lane, now),
    }
}

impl DeadLetterFilter {
    fn is_open(&self) -> bool {
        self.id.is_none()
            && self.reason.is_none()
            && self.service.is_none()
            && self.older_than_seconds.is_none()
    }

    fn fits(&self, message: &ParkedMessage, label: &Label, now: Timestamp) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        let age = self.older_than_seconds.is_none_or(|seconds| {
            let since = since(message, label);
            since.is_some_and(|since| now.millis_since(since) / 1_000 >= seconds)
        });
        is(&self.reason, Some(&message.reason))
            && is(&self.service, label.service.as_deref())
            // A message cannot be chosen by an id that reports do not show.
            && is(&self.id, message.id.as_deref().filter(|id| is_plain(id)))
            && age
    }

    fn lanes(&self) -> Result<Vec<Lane>, Problem> {
        const RULE: &str = "must be requests, sms, email, receipts or timers";
        match &self.queue {
            None => Ok(Lane::ALL.to_vec()),
            Some(word) => Lane::from_word(word)
                .map(|lane| vec![lane])
                .ok_or_else(|| fields::invalid("queue", RULE)),
        }
    }

    fn limit(&self) -> Result<usize, Problem> {
        let limit = self.limit.unwrap_or(USUAL);
        if (1..=MOST_LISTED).contains(&limit) {
            Ok(limit)
        } else {
            Err(fields::invalid("limit", "must be 1 to 20000"))
        }
    }
}

fn queue_problem(error: &ParkedError) -> Problem {
    let detail = format!("{error}; earlier messages were replayed or discarded");
    Problem::new(ProblemCode::BrokerUnavailable, detail).retry_after(1)
}

async fn look(
    broker: &dyn Broker,
    lane: Lane,
    limit: usize,
) -> Result<Box<dyn ParkedLook>, Problem> {
    let look = broker.parked(lane, limit).await;
    look.map_err(|error| {
        Problem::new(ProblemCode::BrokerUnavailable, error.to_string()).retry_after(1)
    })
}

impl Operator {
    /// Lists the dead letters that match `filter`.
    pub async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
    ) -> Result<DeadLettersReport, Problem> {
        let (broker, lanes, limit) = (self.broker()?, filter.lanes()?, filter.limit()?);
        let _one = self.read_dead_letters_alone().await?;
        let now = self.clock.now();
        let mut report = DeadLettersReport {
            dead_letters: Vec::new(),
            truncated: Vec::new(),
        };
        for lane in lanes {
            let look = look(broker, lane, limit).await?;
            for message in look.messages() {
                let label = Label::of(message, lane);
                if filter.fits(message, &label, now) {
                    let described = described(lane, message, &label, now);
                    report.dead_letters.push(described);
                }
            }
            if look.messages().len() == limit {
                report.truncated.push(lane.as_str().to_owned());
            }
            look.close().await.map_err(|error| queue_problem(&error))?;
        }
        Ok(report)
    }

    /// Returns the dead letter `id` with its reason and its delivery's history, without its
    /// content.
    pub async fn dead_letter(&self, id: &str) -> Result<DeadLetterDetails, Problem> {
        let broker = self.broker()?;
        let _one = self.read_dead_letters_alone().await?;
        let now = self.clock.now();
        for lane in Lane::ALL {
            let look = look(broker, lane, MOST_LISTED).await?;
            let mut messages = look.messages().iter();
            let found = messages.find(|message| name_of(message) == id).cloned();
            look.close().await.map_err(|error| queue_problem(&error))?;
            if let Some(message) = found {
                let label = Label::of(&message, lane);
                let delivery = match &label.delivery {
                    Some(delivery) => self.history(delivery).await?,
                    None => None,
                };
                return Ok(DeadLetterDetails {
                    dead_letter: described(lane, &message, &label, now),
                    delivery,
                });
            }
        }
        let detail = "no dead letter has this id";
        Err(Problem::new(ProblemCode::NotFound, detail))
    }

    async fn history(&self, id: &DeliveryId) -> Result<Option<DeliveryHistory>, Problem> {
        let records = self.ledger.get(std::slice::from_ref(id)).await;
        let records = records.map_err(|_| ledger_problem())?;
        let history = |record: watchword_ledger::DeliveryRecord| DeliveryHistory {
            outcome: record.outcome,
            trace_id: record.trace_id.map(|id| id.to_string()),
            attempts: record
                .attempts
                .into_iter()
                .map(|attempt| AttemptHistory {
                    provider: attempt.provider,
                    class: attempt.class,
                    at: Timestamp::from_millis(attempt.at_ms).to_rfc3339(),
                    took_ms: attempt.took_ms,
                })
                .collect(),
        };
        Ok(records.into_iter().next().map(history))
    }

    /// Moves the matching dead letters back into their queues, except expired ones and notes.
    pub async fn replay(&self, request: &ChangeRequest) -> Result<ChangeReport, Problem> {
        self.change(request, true).await
    }

    /// Deletes the matching dead letters.
    pub async fn discard(&self, request: &ChangeRequest) -> Result<ChangeReport, Problem> {
        self.change(request, false).await
    }

    async fn change(
        &self,
        request: &ChangeRequest,
        replays: bool,
    ) -> Result<ChangeReport, Problem> {
        let filter = &request.filter;
        if filter.is_open() && !request.all {
            const RULE: &str = "give id, reason, service or older_than_seconds, or set all to true";
            return Err(fields::invalid("filter", RULE));
        }
        let (broker, lanes, limit) = (self.broker()?, filter.lanes()?, filter.limit()?);
        let _one = self.read_dead_letters_alone().await?;
        let now = self.clock.now();
        let mut report = ChangeReport::default();
        for lane in lanes {
            let mut look = look(broker, lane, limit).await?;
            if look.messages().len() == limit {
                report.truncated.push(lane.as_str().to_owned());
            }
            for message in look.messages().to_vec() {
                let label = Label::of(&message, lane);
                if !filter.fits(&message, &label, now) {
                    continue;
                }
                let changed = match label.state(lane, now) {
                    _ if !replays => look.discard(message.place).await,
                    DeadLetterState::Expired => {
                        report.expired += 1;
                        continue;
                    }
                    DeadLetterState::Note => {
                        report.notes += 1;
                        continue;
                    }
                    DeadLetterState::Replayable => {
                        if let Some(delivery) = &label.delivery {
                            let reopened = self.ledger.reopen(delivery, now).await;
                            reopened.map_err(|_| ledger_problem())?;
                        }
                        look.replay(message.place).await
                    }
                };
                changed.map_err(|error| queue_problem(&error))?;
                report.done += 1;
            }
            look.close().await.map_err(|error| queue_problem(&error))?;
        }
        Ok(report)
    }
}
