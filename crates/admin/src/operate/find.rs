//! Finds verifications by id, subject or recipient, with their timeline. A search by recipient
//! scans the store as an audit does, bounded in time and records: there is no index by recipient,
//! because each verification would pay to maintain it. A verification keeps no recipient once it
//! was approved, canceled or used up; it is then found by its id or subject only.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use watchword_chassis::Problem;
use watchword_core::{
    Channel, DeliveryId, DeliveryOutcome, ProviderName, Purpose, Recipient, ServiceName, ShortTag,
    Subject, SubjectTag, Timestamp, VerificationId, VerificationStatus,
};
use watchword_ledger::DeliveryRecord;
use watchword_verifier::store::Inspected;

use super::diagnosis::{self, Circumstances, EARLY_END, has_ended_early};
use super::{Operator, fields, ledger_problem, store_problem, unknown};

/// Records per page of a search.
const PAGE: usize = 500;
/// The most pages of one search.
const MOST_PAGES: usize = 400;
/// The longest time that a search may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// The most verifications in an answer.
const MOST_FOUND: usize = 20;

/// A verification to find: an id, or a service with a subject or a recipient. The type does not
/// implement `Serialize` or `Debug`, because it holds a recipient in clear.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FindRequest {
    id: Option<String>,
    service: Option<String>,
    subject: Option<String>,
    recipient: Option<String>,
}

/// The verifications that were found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindReport {
    /// At most 20 verifications, newest first. Those without a queued message come last.
    pub verifications: Vec<VerificationReport>,
    /// Whether there may be more: the search reached its bounds, or found more than 20.
    pub truncated: bool,
}

/// A verification with what happened to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerificationReport {
    /// The id of the verification.
    pub id: VerificationId,
    /// The name of the service.
    pub service: ServiceName,
    /// The status, as `GET /v1/verifications/{id}` returns it.
    pub status: VerificationStatus,
    /// The diagnosis, in one sentence.
    pub diagnosis: String,
    /// The channel of the request.
    pub channel: Channel,
    /// The recipient of the request, masked.
    pub to: String,
    /// The purpose of the code.
    pub purpose: Purpose,
    /// When the verification was opened, RFC 3339.
    pub opened_at: String,
    /// When the code expires, RFC 3339.
    pub expires_at: String,
    /// The number of messages so far.
    pub sends: u8,
    /// The number of checks left.
    pub checks_left: u8,
    /// The end of the subject's lock for wrong codes, RFC 3339. A time in the distant future means
    /// that only an unlock ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_locked_until: Option<String>,
    /// Whether a fallback step may still send a message.
    pub awaits_fallback: bool,
    /// The events in order of time.
    pub timeline: Vec<TimelineEntry>,
}

/// An event of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineEntry {
    /// The time of the event, RFC 3339.
    pub at: String,
    /// The message that the event is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliveryId>,
    /// A short description, such as `receipt: delivered`.
    pub event: String,
}

/// The parsed target of a [`FindRequest`].
enum Search {
    Id(VerificationId),
    Subject(Vec<SubjectTag>),
    Recipient {
        service: ServiceName,
        tag: ShortTag,
        subject: SubjectTag,
    },
}

impl FindRequest {
    /// Whether the request searches by subject or recipient; such look-ups have a stricter limit.
    pub const fn is_lookup(&self) -> bool {
        self.subject.is_some() || self.recipient.is_some()
    }
}

impl Operator {
    /// Finds verifications with their deliveries and timelines.
    pub async fn find(&self, request: &FindRequest) -> Result<FindReport, Problem> {
        let (found, truncated) = match self.search_of(request)?.0 {
            Search::Id(id) => (vec![self.inspect(&id).await?], false),
            Search::Subject(tags) => self.search(&tags, |_| true).await?,
            Search::Recipient {
                service,
                tag,
                subject,
            } => {
                let fits = |one: &Inspected| {
                    // If a request names no subject, the recipient is the subject.
                    one.verification.service == service
                        && (one.recipient == Some(tag)
                            || one.verification.id.subject_tag() == subject)
                };
                self.search(&[], fits).await?
            }
        };
        let mut verifications = Vec::new();
        for inspected in found {
            verifications.push(self.described(inspected).await?);
        }
        Ok(FindReport {
            verifications,
            truncated,
        })
    }

    /// Returns the target of `request` as the audit trail records it: a verification id, or the
    /// keyed hash of the subject or recipient.
    pub fn find_target(&self, request: &FindRequest) -> Result<String, Problem> {
        self.search_of(request).map(|(_, target)| target)
    }

    fn search_of(&self, request: &FindRequest) -> Result<(Search, String), Problem> {
        const RULE: &str = "give an id alone, or a service with a subject or a recipient";
        let FindRequest {
            id,
            service,
            subject,
            recipient,
        } = request;
        match (id, service, subject, recipient) {
            (Some(id), None, None, None) => {
                // A malformed id belongs to no verification.
                let id: VerificationId = id.parse().map_err(|_| unknown())?;
                let target = format!("verification {id}");
                Ok((Search::Id(id), target))
            }
            (None, Some(service), Some(subject), None) => {
                let service = self.known_service(service)?;
                let subject: Subject = fields::parsed("subject", subject)?;
                let tags = self.index()?.subject_tags(&service, &subject);
                let target = format!("subject {}", tags[0]);
                let tags = if tags[0] == tags[1] {
                    &tags[..1]
                } else {
                    &tags[..]
                };
                Ok((Search::Subject(tags.to_vec()), target))
            }
            (None, Some(service), None, Some(recipient)) => {
                let service = self.known_service(service)?;
                let recipient: Recipient = fields::recipient(recipient)?;
                let index = self.index()?;
                let search = Search::Recipient {
                    tag: index.recipient_short(&service, &recipient),
                    subject: index.subject_tag(&service, recipient.canonical()),
                    service: service.clone(),
                };
                let target = format!("recipient {}", index.recipient_tag(&service, &recipient));
                Ok((search, target))
            }
            _ => Err(fields::invalid("id", RULE)),
        }
    }

    /// Scans the verifications of the subjects `tags`, or the whole store if `tags` is empty.
    /// Returns the newest that `fits` selects, and whether there may be more.
    async fn search(
        &self,
        tags: &[SubjectTag],
        fits: impl Fn(&Inspected) -> bool,
    ) -> Result<(Vec<Inspected>, bool), Problem> {
        let _one = self.search_alone().await?;
        let (begun, now) = (Instant::now(), self.clock.now());
        let (mut found, mut is_cut) = (Vec::new(), false);
        let subjects: Vec<_> = if tags.is_empty() {
            vec![None]
        } else {
            tags.iter().copied().map(Some).collect()
        };
        let mut pages = 0;
        for subject in subjects {
            let mut cursor = None;
            loop {
                let page = self.verifications.list(subject, cursor, PAGE, now).await;
                let (page, next) = page.map_err(|error| store_problem(&error))?;
                found.extend(page.into_iter().filter(&fits));
                messages_first(&mut found);
                is_cut |= found.len() > MOST_FOUND;
                found.truncate(MOST_FOUND);
                pages += 1;
                cursor = next;
                if cursor.is_none() {
                    break;
                }
                if pages >= MOST_PAGES || begun.elapsed() >= DEADLINE {
                    return Ok((found, true));
                }
            }
        }
        Ok((found, is_cut))
    }

    /// Returns the verification `id`.
    pub(super) async fn inspect(&self, id: &VerificationId) -> Result<Inspected, Problem> {
        let found = self.verifications.inspect(id, self.clock.now()).await;
        let found = found.map_err(|error| store_problem(&error))?;
        found.ok_or_else(unknown)
    }

    /// Returns the verification `id` with its timeline.
    pub(super) async fn report(&self, id: &VerificationId) -> Result<VerificationReport, Problem> {
        let inspected = self.inspect(id).await?;
        self.described(inspected).await
    }

    async fn described(&self, inspected: Inspected) -> Result<VerificationReport, Problem> {
        let verification = &inspected.verification;
        let ids: Vec<_> = (1..=verification.sends)
            .map(|send| DeliveryId::new(verification.id.clone(), send))
            .collect();
        let records = self.ledger.get(&ids).await;
        let records = records.map_err(|_| ledger_problem())?;
        let locked_until = self.locked_until(&inspected).await?;
        let last = records.iter().max_by_key(|record| record.id.send());
        let channel = last.map_or(verification.channel, |record| record.channel);
        let around = Circumstances {
            locked_until,
            standstill: self.standstill(channel),
            now: self.clock.now(),
        };
        Ok(describe(inspected, &records, &around))
    }

    /// Returns the end of the subject's lock by the guess budget of its service, if it is locked.
    async fn locked_until(&self, inspected: &Inspected) -> Result<Option<Timestamp>, Problem> {
        let verification = &inspected.verification;
        let services = self.services.get();
        let Some(service) = services.by_name(&verification.service) else {
            return Ok(None);
        };
        let tag = verification.id.subject_tag();
        let now = self.clock.now();
        let until = self.verifications.locked_until(tag, service.budget, now);
        until.await.map_err(|error| store_problem(&error))
    }
}

/// Sorts `found`, newest first, and removes duplicates. Verifications whose only message was
/// refused come last: a burst of refused requests must not hide the messages that were sent.
fn messages_first(found: &mut Vec<Inspected>) {
    found.sort_by_key(|one| {
        let verification = &one.verification;
        let is_refused = one.refused_by.is_some() && verification.sends == 1;
        let opened_at = Reverse(verification.opened_at);
        (is_refused, opened_at, verification.id.clone())
    });
    found.dedup_by(|a, b| a.verification.id == b.verification.id);
}

fn describe(
    inspected: Inspected,
    records: &[DeliveryRecord],
    around: &Circumstances,
) -> VerificationReport {
    let diagnosis = diagnosis::diagnose(&inspected, records, around);
    let timeline = timeline(&inspected, records, around.now);
    let outcome = |send| {
        let mut records = records.iter();
        let record = records.find(|record| record.id.send() == send);
        record.map_or(DeliveryOutcome::Queued, |record| record.outcome)
    };
    let sends = 1..=inspected.verification.sends;
    let status = inspected.verification.status_with(sends.map(outcome));
    let verification = inspected.verification;
    VerificationReport {
        id: verification.id,
        service: verification.service,
        status,
        diagnosis,
        channel: verification.channel,
        to: verification.masked_to,
        purpose: verification.purpose,
        opened_at: verification.opened_at.to_rfc3339(),
        expires_at: verification.expires_at.to_rfc3339(),
        sends: verification.sends,
        checks_left: verification.checks_left,
        subject_locked_until: around.locked_until.map(Timestamp::to_rfc3339),
        awaits_fallback: verification.awaits_step,
        timeline,
    }
}

fn timeline(
    inspected: &Inspected,
    records: &[DeliveryRecord],
    now: Timestamp,
) -> Vec<TimelineEntry> {
    let verification = &inspected.verification;
    let mut entries = vec![(
        verification.opened_at,
        None,
        format!("opened by {}", verification.service),
    )];
    for record in records {
        let id = Some(record.id.clone());
        for attempt in &record.attempts {
            let provider = attempt.provider.as_ref();
            let provider = provider.map_or("a worker that crashed", ProviderName::as_str);
            let event = format!("{provider}: {} in {} ms", attempt.class, attempt.took_ms);
            entries.push((Timestamp::from_millis(attempt.at_ms), id.clone(), event));
        }
        if let Some(receipt) = record.receipt {
            let event = format!("receipt: {}", receipt.state);
            entries.push((receipt.at, id.clone(), event));
        }
        if matches!(
            record.outcome,
            DeliveryOutcome::Failed | DeliveryOutcome::Expired | DeliveryOutcome::Parked
        ) {
            entries.push((record.updated_at, id, record.outcome.to_string()));
        }
    }
    if let (1, Some(limit)) = (verification.sends, &inspected.refused_by) {
        let event = format!("refused by limit {limit} (429)");
        entries.push((verification.opened_at, None, event));
    }
    let left = verification.checks_left;
    if has_ended_early(verification, now) {
        let event = format!("code is no longer valid, {left} checks left: {EARLY_END}");
        entries.push((now, None, event));
    } else if verification.status == VerificationStatus::Expired {
        let event = format!("code expired, {left} checks left");
        entries.push((verification.expires_at, None, event));
    }
    entries.sort_by_key(|(at, ..)| *at);
    entries
        .into_iter()
        .map(|(at, delivery, event)| TimelineEntry {
            at: at.to_rfc3339(),
            delivery,
            event,
        })
        .collect()
}

#[cfg(test)]
mod tests;
