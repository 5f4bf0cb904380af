//! Code state in the SQLite file: core's state machine runs inside a transaction, on the steady
//! clock of the file.

mod clock;
mod record;
mod table;

use std::sync::Arc;

use async_trait::async_trait;
use subtle::ConstantTimeEq;
use watchword_core::{
    CheckVerdict, GuessBudget, Pending, Sending, ServiceName, ShortTag, Timestamp, VerificationId,
    VerificationStatus,
};
use watchword_storage::rusqlite::{Connection, Result as SqlResult};
use watchword_storage::{Migration, Sqlite};

use super::model::{
    CheckCommand, Checked, Digest, Inspected, OpenCommand, Opened, SealedCode, Sends, Sent, StepOf,
    StoredVerification, TagKey,
};
use super::{AFTERLIFE_MS, GUESSES_KEPT_MS, StoreError, VerificationStore, fingerprints};
use clock::Moment;
use record::{Record, Repeat};
use table::{Found, Latest};

pub use clock::{MachineClocks, SteadyClock, end_live_codes};

/// The migrations of this crate's tables, in order.
pub const MIGRATIONS: [Migration; 3] = [
    Migration {
        name: "verifier-1",
        sql: table::SCHEMA,
    },
    Migration {
        name: "verifier-2",
        sql: table::SCHEMA_2,
    },
    Migration {
        name: "verifier-3",
        sql: clock::SCHEMA,
    },
];

const REFUSED: Checked = Checked {
    verdict: CheckVerdict::Refused,
    repeated: false,
    approval: None,
};

/// Retention of a guess log with no consecutive guesses: a day, because only the hourly and daily
/// limits still count.
const DAY_MS: u64 = 24 * 3_600_000;

/// Code state in the SQLite file.
#[derive(Debug)]
pub struct SqliteVerifications {
    sqlite: Sqlite,
    clock: Arc<SteadyClock>,
}

/// The result of one step: `None` if a record could not be read.
type Step<T> = SqlResult<Option<T>>;

impl SqliteVerifications {
    /// Creates the store on this file, which must have [`MIGRATIONS`], with this clock.
    pub const fn new(sqlite: Sqlite, clock: Arc<SteadyClock>) -> Self {
        Self { sqlite, clock }
    }

    async fn transact<T: Send + 'static>(
        &self,
        now: Timestamp,
        step: impl FnOnce(&Connection, Moment) -> Step<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (clock, at) = (self.clock.clone(), self.clock.moment(now));
        let write = self.sqlite.write(move |connection| {
            clock.save(connection, at)?;
            step(connection, at)
        });
        let answer = write.await?;
        self.clock.committed(at);
        answer.ok_or(StoreError::Corrupt)
    }
}

#[async_trait]
impl VerificationStore for SqliteVerifications {
    async fn open(&self, mut command: OpenCommand) -> Result<Opened, StoreError> {
        self.transact(command.now, move |connection, at| {
            command.now = at.now;
            open(connection, command, at)
        })
        .await
    }

    async fn resend(
        &self,
        id: &VerificationId,
        service: &ServiceName,
        next: Option<SealedCode>,
        steps: u8,
        budget: GuessBudget,
        now: Timestamp,
    ) -> Result<Option<Opened>, StoreError> {
        let (id, service) = (id.clone(), service.clone());
        self.transact(now, move |connection, at| {
            let ask = Ask {
                next,
                now: at.now,
                of: None,
                steps,
            };
            resend(connection, &id, &service, ask, budget, at)
        })
        .await
    }

    async fn step(
        &self,
        id: &VerificationId,
        service: &ServiceName,
        step: StepOf,
        next: Option<SealedCode>,
        budget: GuessBudget,
        now: Timestamp,
    ) -> Result<Option<Opened>, StoreError> {
        let (id, service) = (id.clone(), service.clone());
        self.transact(now, move |connection, at| {
            let ask = Ask {
                next,
                now: at.now,
                of: Some(step),
                steps: 0,
            };
            resend(connection, &id, &service, ask, budget, at)
        })
        .await
    }

    async fn confirm(&self, id: &VerificationId, send: u8) -> Result<bool, StoreError> {
        let id = id.clone();
        let write = self.sqlite.write(move |connection| {
            let mut record = match table::find(connection, &id, None)? {
                Found::Nothing => return Ok(Some(false)),
                Found::Unreadable => return Ok(None),
                Found::Record(record) => record,
            };
            let (before, after) = (record.pending(), record.pending().confirm(send));
            // A quick person may be approved before the confirm.
            let counts = record.is_pending() || record.is_approved();
            let is_new = counts && after != before;
            if is_new {
                record.advance(after);
                table::update(connection, &id, &record)?;
            }
            Ok(Some(is_new))
        });
        write.await?.ok_or(StoreError::Corrupt)
    }

    async fn refuse(&self, id: &VerificationId, send: u8, limit: &str) -> Result<(), StoreError> {
        let (id, limit) = (id.clone(), limit.to_owned());
        let write = self.sqlite.write(move |connection| {
            if let Found::Record(mut record) = table::find(connection, &id, None)? {
                record.refuse(send, &limit);
                table::update(connection, &id, &record)?;
            }
            Ok(())
        });
        Ok(write.await?)
    }

    async fn check(
        &self,
        command: CheckCommand,
        budget: GuessBudget,
    ) -> Result<Checked, StoreError> {
        self.transact(command.now, move |connection, at| {
            check(connection, command, budget, at)
        })
        .await
    }

    async fn cancel(
        &self,
        id: &VerificationId,
        service: &ServiceName,
        now: Timestamp,
    ) -> Result<Option<StoredVerification>, StoreError> {
        let (id, service) = (id.clone(), service.clone());
        self.transact(now, move |connection, at| {
            let now = at.now;
            let mut record = match table::find(connection, &id, Some(at))? {
                Found::Record(record) if record.service == service => record,
                Found::Unreadable => return Ok(None),
                Found::Nothing | Found::Record(_) => return Ok(Some(None)),
            };
            if record.status_at(now) == VerificationStatus::Pending {
                record.end(VerificationStatus::Canceled);
                table::update(connection, &id, &record)?;
            }
            Ok(Some(Some(record.at(&id, now))))
        })
        .await
    }

    async fn get(
        &self,
        id: &VerificationId,
        service: &ServiceName,
        now: Timestamp,
    ) -> Result<Option<StoredVerification>, StoreError> {
        let (wanted, at) = (id.clone(), self.clock.moment(now));
        match self
            .sqlite
            .read(move |connection| table::find(connection, &wanted, Some(at)))
            .await?
        {
            Found::Record(record) if record.service == *service => Ok(Some(record.at(id, at.now))),
            Found::Unreadable => Err(StoreError::Corrupt),
            Found::Nothing | Found::Record(_) => Ok(None),
        }
    }

    async fn sends(
        &self,
        cursor: Option<String>,
        limit: usize,
    ) -> Result<(Vec<Sends>, Option<String>), StoreError> {
        let page = self
            .sqlite
            .read(move |connection| table::page(connection, "", cursor.as_deref(), limit))
            .await?;
        let next = (page.len() == limit).then(|| page.last().map(|(id, _)| id.to_string()));
        let sends = page.into_iter().map(|(id, record)| {
            record
                .ok_or(StoreError::Corrupt)
                .map(|record| record.sends(id))
        });
        Ok((sends.collect::<Result<_, _>>()?, next.flatten()))
    }

    async fn inspect(
        &self,
        id: &VerificationId,
        now: Timestamp,
    ) -> Result<Option<Inspected>, StoreError> {
        let (wanted, at) = (id.clone(), self.clock.moment(now));
        let found = self
            .sqlite
            .read(move |connection| table::find(connection, &wanted, Some(at)));
        match found.await? {
            Found::Record(record) => Ok(Some(record.inspected(id, at.now))),
            Found::Unreadable => Err(StoreError::Corrupt),
            Found::Nothing => Ok(None),
        }
    }

    async fn list(
        &self,
        subject: Option<TagKey>,
        cursor: Option<String>,
        limit: usize,
        now: Timestamp,
    ) -> Result<(Vec<Inspected>, Option<String>), StoreError> {
        let at = self.clock.moment(now);
        let tag = subject.map(|tag| tag.to_string()).unwrap_or_default();
        let read =
            move |connection: &Connection| table::page(connection, &tag, cursor.as_deref(), limit);
        let page = self.sqlite.read(read).await?;
        let next = (page.len() == limit).then(|| page.last().map(|(id, _)| id.to_string()));
        let readable = page.into_iter().filter_map(|(id, record)| {
            let mut record = record.filter(|record| !record.is_forgotten(at.now))?;
            record.end_if_before(at.epoch());
            Some(record.inspected(&id, at.now))
        });
        Ok((readable.collect(), next.flatten()))
    }

    async fn locked_until(
        &self,
        tag: TagKey,
        budget: GuessBudget,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        let now = self.clock.moment(now).now;
        let read = move |connection: &Connection| table::guesses(connection, &tag.to_string());
        let guesses = self.sqlite.read(read).await?;
        let guesses = guesses.ok_or(StoreError::Corrupt)?;
        Ok(guesses.locked_until(budget, now))
    }

    async fn forget_guesses(&self, tag: TagKey) -> Result<bool, StoreError> {
        Ok(self
            .sqlite
            .write(move |connection| table::forget(connection, &tag.to_string()))
            .await?)
    }
}

fn open(connection: &Connection, command: OpenCommand, at: Moment) -> Step<Opened> {
    let now = command.now;
    // Keep rows an hour longer than they are shown, so that a caller's clock that steps back still
    // finds them.
    table::purge(connection, now.minus_millis(2 * AFTERLIFE_MS), now)?;
    let Some(guesses) = table::guesses(connection, command.id.tag())? else {
        return Ok(None);
    };
    if let Some(until) = guesses.locked_until(command.budget, now) {
        return Ok(Some(Opened::Locked(until)));
    }
    let (mut follows_approval, mut withdrawn) = (false, None);
    match table::latest(connection, &command.slot, at)? {
        Latest::Unreadable => return Ok(None),
        Latest::Nothing => {}
        Latest::Record(id, record) => match record.status_at(now) {
            VerificationStatus::Pending => {
                let is_named = command.over.as_ref() == Some(&id);
                if record.variables == command.variables {
                    return again(connection, &id, *record, command, is_named);
                }
                if !is_named {
                    return Ok(Some(Opened::OtherContent(record.at(&id, now))));
                }
                withdrawn = Some((id, record));
            }
            status => follows_approval = status == VerificationStatus::Approved,
        },
    }
    if let Some((id, record)) = &mut withdrawn {
        record.end(VerificationStatus::Canceled);
        table::update(connection, id, record)?;
    }
    let (id, slot) = (command.id.clone(), command.slot.clone());
    let record = Record::new(command, at.epoch());
    table::insert(connection, &id, &slot, &record)?;
    Ok(record.sent(&id, now, true, follows_approval).map(|sent| {
        Opened::Send(Sent {
            withdrew: withdrawn.is_some(),
            ..sent
        })
    }))
}

/// Decides the effect of `command` on the live verification of the same content.
fn again(
    connection: &Connection,
    id: &VerificationId,
    mut record: Record,
    command: OpenCommand,
    is_named: bool,
) -> Step<Opened> {
    let (now, mut steps) = (command.now, 0);
    if record.details != command.details {
        if !is_named {
            return Ok(Some(Opened::OtherDetails(record.at(id, now))));
        }
        steps = command.steps;
        record.replace_details(command);
        table::update(connection, id, &record)?;
    }
    let ask = Ask {
        next: None,
        now,
        of: None,
        steps,
    };
    Ok(send(connection, id, record, ask)?.flatten())
}

/// The request or step that asks for a message.
struct Ask {
    /// The code to use if the policy rotates codes.
    next: Option<SealedCode>,
    now: Timestamp,
    /// The fallback step that asks; `None` for a request.
    of: Option<StepOf>,
    /// Number of steps of the fallback that a request's message starts.
    steps: u8,
}

fn resend(
    connection: &Connection,
    id: &VerificationId,
    service: &ServiceName,
    ask: Ask,
    budget: GuessBudget,
    at: Moment,
) -> Step<Option<Opened>> {
    let now = ask.now;
    let record = match table::find(connection, id, Some(at))? {
        Found::Record(record) if record.service == *service => record,
        Found::Unreadable => return Ok(None),
        Found::Nothing | Found::Record(_) => return Ok(Some(None)),
    };
    let planned = ask.of.and_then(|step| step.details);
    let is_replaced = planned.is_some() && planned != record.details;
    if is_replaced || record.status_at(now) != VerificationStatus::Pending {
        return Ok(Some(None));
    }
    let Some(guesses) = table::guesses(connection, id.tag())? else {
        return Ok(None);
    };
    if let Some(until) = guesses.locked_until(budget, now) {
        return Ok(Some(Some(Opened::Locked(until))));
    }
    send(connection, id, *record, ask)
}

/// Decides the effect of `ask` on a live verification. The inner `None` means that a later message
/// superseded the step.
fn send(
    connection: &Connection,
    id: &VerificationId,
    mut record: Record,
    ask: Ask,
) -> Step<Option<Opened>> {
    let now = ask.now;
    let (pending, sending) = match ask.of {
        Some(step) => record.pending().step(step.after, now),
        None => record.pending().send(now),
    };
    match sending {
        Sending::Repeat => {
            if pending != record.pending() {
                record.advance(pending);
                table::update(connection, id, &record)?;
            }
        }
        Sending::Superseded => return Ok(Some(None)),
        Sending::Cooling => return Ok(Some(Some(Opened::Cooling(record.at(id, now))))),
        Sending::Exhausted => return Ok(Some(Some(Opened::Exhausted(record.at(id, now))))),
        Sending::Further { rotate } => {
            if rotate {
                let Some(code) = ask.next else {
                    let sent = record.sent(id, now, false, false);
                    return Ok(sent.map(|sent| Some(Opened::NeedsCode(sent))));
                };
                record.replace_code(code);
            }
            record.advance(pending);
            if ask.of.is_none() {
                record.plan(ask.steps);
            }
            table::update(connection, id, &record)?;
        }
    }
    Ok(record
        .sent(id, now, false, false)
        .map(|sent| Some(Opened::Send(sent))))
}

fn check(
    connection: &Connection,
    command: CheckCommand,
    budget: GuessBudget,
    at: Moment,
) -> Step<Checked> {
    let (now, tag) = (at.now, command.id.tag());
    let mut record = match table::find(connection, &command.id, Some(at))? {
        Found::Record(record) if record.service == command.service => record,
        Found::Unreadable => return Ok(None),
        Found::Record(_) => return Ok(Some(REFUSED)),
        Found::Nothing => {
            table::read_another(connection)?;
            return Ok(Some(REFUSED));
        }
    };
    let typed = fingerprints(&command);
    match record.repeat(&command.check_id, &typed) {
        Repeat::Same(verdict) => return Ok(Some(answer(&record, verdict, true))),
        Repeat::Other => return Ok(Some(REFUSED)),
        Repeat::No => {}
    }
    let Some(guesses) = table::guesses(connection, tag)? else {
        return Ok(None);
    };
    let live = record.status_at(now) == VerificationStatus::Pending;
    if !live || guesses.locked_until(budget, now).is_some() {
        return Ok(Some(REFUSED));
    }
    // A live record without a digest is corrupt. Under a digest key that is not loaded here yet, do
    // not count an attempt.
    let Some(stored) = record.digest() else {
        return Ok(None);
    };
    let mut candidates = command.candidates.iter();
    if candidates.all(|candidate| candidate.key_id != stored.key_id) {
        return Ok(None);
    }
    let equal = matches(&stored, &command.candidates);
    let fits = record.fits(&command.expected, &command.id);
    let recipient = record.recipient.unwrap_or(ShortTag::NONE);
    let verdict = judge(&mut record, equal && fits, now);
    record.remember(command.check_id, verdict, typed);
    table::update(connection, &command.id, &record)?;
    let (had_none, log) = if verdict == CheckVerdict::Approved {
        (guesses.is_empty(), guesses.with_right(recipient, now))
    } else {
        (false, guesses.with_wrong(recipient, now))
    };
    let kept_ms = if log.in_a_row == 0 {
        DAY_MS
    } else {
        GUESSES_KEPT_MS
    };
    if log.is_empty() && !had_none {
        table::forget(connection, tag)?;
    } else if !log.is_empty() {
        table::remember(connection, tag, &log, now.plus_millis(kept_ms))?;
    }
    Ok(Some(answer(&record, verdict, false)))
}

fn answer(record: &Record, verdict: CheckVerdict, repeated: bool) -> Checked {
    Checked {
        verdict,
        repeated,
        approval: (verdict == CheckVerdict::Approved).then(|| record.approval()),
    }
}

/// Applies one compared check to a live verification.
fn judge(record: &mut Record, matched: bool, now: Timestamp) -> CheckVerdict {
    let pending = record.pending();
    match pending.check(matched, now) {
        Ok(next) => {
            record.advance(next);
            CheckVerdict::Wrong
        }
        Err(VerificationStatus::Approved) => {
            record.end(VerificationStatus::Approved);
            CheckVerdict::Approved
        }
        Err(status) => {
            let checks_left = 0;
            record.advance(Pending {
                checks_left,
                ..pending
            });
            record.end(status);
            CheckVerdict::LastWrong
        }
    }
}

/// Returns whether one of the candidates is the stored digest. Compares every candidate in constant
/// time.
fn matches(stored: &Digest, candidates: &[Digest]) -> bool {
    candidates
        .iter()
        .map(|candidate| {
            let same_key = candidate.key_id == stored.key_id;
            same_key && bool::from(candidate.hex.as_bytes().ct_eq(stored.hex.as_bytes()))
        })
        .fold(false, |found, equal| found | equal)
}
