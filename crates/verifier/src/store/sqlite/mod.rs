//! Code state in the SQLite file: the state machine of core runs inside a transaction. Refuses to
//! have rules of its own.

mod record;
mod table;

use async_trait::async_trait;
use subtle::ConstantTimeEq;
use watchword_core::{
    CheckVerdict, GuessBudget, Pending, Sending, ServiceName, Timestamp, VerificationId,
    VerificationStatus,
};
use watchword_storage::rusqlite::{Connection, Result as SqlResult};
use watchword_storage::{Migration, Sqlite};

use super::model::{
    CheckCommand, Checked, Digest, OpenCommand, Opened, SealedCode, Sends, StoredVerification,
    TagKey,
};
use super::{AFTERLIFE_MS, GUESSES_KEPT_MS, StoreError, VerificationStore, fingerprints};
use record::{Record, Repeat};
use table::{Found, Latest};

/// The verifier's tables.
pub const MIGRATIONS: [Migration; 2] = [
    Migration {
        name: "verifier-1",
        sql: table::SCHEMA,
    },
    Migration {
        name: "verifier-2",
        sql: table::SCHEMA_2,
    },
];

const REFUSED: Checked = Checked {
    verdict: CheckVerdict::Refused,
    repeated: false,
    channel: None,
};

/// Code state in the SQLite file.
#[derive(Debug)]
pub struct SqliteVerifications {
    sqlite: Sqlite,
}

/// The result of one step: `None` when a record could not be read.
type Step<T> = SqlResult<Option<T>>;

impl SqliteVerifications {
    /// Code state in this file, which has [`MIGRATIONS`].
    pub const fn new(sqlite: Sqlite) -> Self {
        Self { sqlite }
    }

    async fn transact<T: Send + 'static>(
        &self,
        step: impl FnOnce(&Connection) -> Step<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.sqlite.write(step).await?.ok_or(StoreError::Corrupt)
    }
}

#[async_trait]
impl VerificationStore for SqliteVerifications {
    async fn open(&self, command: OpenCommand) -> Result<Opened, StoreError> {
        self.transact(move |connection| open(connection, command))
            .await
    }

    async fn resend(
        &self,
        id: &VerificationId,
        service: &ServiceName,
        next: Option<SealedCode>,
        budget: GuessBudget,
        now: Timestamp,
    ) -> Result<Option<Opened>, StoreError> {
        let (id, service) = (id.clone(), service.clone());
        let ask = move |pending: Pending| pending.send(now);
        self.transact(move |connection| resend(connection, &id, &service, next, budget, now, ask))
            .await
    }

    async fn step(
        &self,
        id: &VerificationId,
        service: &ServiceName,
        after: u8,
        next: Option<SealedCode>,
        budget: GuessBudget,
        now: Timestamp,
    ) -> Result<Option<Opened>, StoreError> {
        let (id, service) = (id.clone(), service.clone());
        let ask = move |pending: Pending| pending.step(after, now);
        self.transact(move |connection| resend(connection, &id, &service, next, budget, now, ask))
            .await
    }

    async fn confirm(&self, id: &VerificationId, send: u8) -> Result<(), StoreError> {
        let id = id.clone();
        self.transact(move |connection| {
            let mut record = match table::find(connection, &id, None)? {
                Found::Nothing => return Ok(Some(())),
                Found::Unreadable => return Ok(None),
                Found::Record(record) => record,
            };
            let (before, after) = (record.pending(), record.pending().confirm(send));
            if after != before {
                record.advance(after);
                table::update(connection, &id, &record)?;
            }
            Ok(Some(()))
        })
        .await
    }

    async fn check(
        &self,
        command: CheckCommand,
        budget: GuessBudget,
    ) -> Result<Checked, StoreError> {
        self.transact(move |connection| check(connection, command, budget))
            .await
    }

    async fn cancel(
        &self,
        id: &VerificationId,
        service: &ServiceName,
        now: Timestamp,
    ) -> Result<Option<StoredVerification>, StoreError> {
        let (id, service) = (id.clone(), service.clone());
        self.transact(move |connection| {
            let mut record = match table::find(connection, &id, Some(now))? {
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
        let wanted = id.clone();
        match self
            .sqlite
            .read(move |connection| table::find(connection, &wanted, Some(now)))
            .await?
        {
            Found::Record(record) if record.service == *service => Ok(Some(record.at(id, now))),
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
            .read(move |connection| table::page(connection, cursor.as_deref(), limit))
            .await?;
        let next = (page.len() == limit).then(|| page.last().map(|(id, _)| id.to_string()));
        let sends = page.into_iter().map(|(id, record)| {
            record
                .ok_or(StoreError::Corrupt)
                .map(|record| record.sends(id))
        });
        Ok((sends.collect::<Result<_, _>>()?, next.flatten()))
    }

    async fn forget_guesses(&self, tag: TagKey) -> Result<(), StoreError> {
        Ok(self
            .sqlite
            .write(move |connection| table::forget(connection, &tag.to_string()))
            .await?)
    }
}

fn open(connection: &Connection, command: OpenCommand) -> Step<Opened> {
    let now = command.now;
    // An hour longer than they are shown, so that a clock that steps back finds what it left.
    table::purge(connection, now.minus_millis(2 * AFTERLIFE_MS), now)?;
    let Some(guesses) = table::guesses(connection, command.id.tag())? else {
        return Ok(None);
    };
    if let Some(until) = guesses.locked_until(command.budget, now) {
        return Ok(Some(Opened::Locked(until)));
    }
    let follows_approval = match table::latest(connection, &command.slot, now)? {
        Latest::Unreadable => return Ok(None),
        Latest::Nothing => false,
        Latest::Record(id, record) => match record.status_at(now) {
            VerificationStatus::Pending => {
                let sent = send(connection, &id, *record, None, now, |pending| {
                    pending.send(now)
                });
                return Ok(sent?.flatten());
            }
            status => status == VerificationStatus::Approved,
        },
    };
    let (id, slot) = (command.id.clone(), command.slot.clone());
    let record = Record::new(command);
    table::insert(connection, &id, &slot, &record)?;
    Ok(record
        .sent(&id, now, true, follows_approval)
        .map(Opened::Send))
}

fn resend(
    connection: &Connection,
    id: &VerificationId,
    service: &ServiceName,
    next: Option<SealedCode>,
    budget: GuessBudget,
    now: Timestamp,
    ask: impl FnOnce(Pending) -> (Pending, Sending),
) -> Step<Option<Opened>> {
    let record = match table::find(connection, id, Some(now))? {
        Found::Record(record) if record.service == *service => record,
        Found::Unreadable => return Ok(None),
        Found::Nothing | Found::Record(_) => return Ok(Some(None)),
    };
    if record.status_at(now) != VerificationStatus::Pending {
        return Ok(Some(None));
    }
    let Some(guesses) = table::guesses(connection, id.tag())? else {
        return Ok(None);
    };
    if let Some(until) = guesses.locked_until(budget, now) {
        return Ok(Some(Some(Opened::Locked(until))));
    }
    send(connection, id, *record, next, now, ask)
}

/// What a request for a message means for a live verification, by the rule `ask`; the inner
/// `None` is that it means nothing.
fn send(
    connection: &Connection,
    id: &VerificationId,
    mut record: Record,
    next: Option<SealedCode>,
    now: Timestamp,
    ask: impl FnOnce(Pending) -> (Pending, Sending),
) -> Step<Option<Opened>> {
    let (pending, sending) = ask(record.pending());
    match sending {
        Sending::Repeat => {}
        Sending::Superseded => return Ok(Some(None)),
        Sending::Cooling => return Ok(Some(Some(Opened::Cooling(record.at(id, now))))),
        Sending::Exhausted => return Ok(Some(Some(Opened::Exhausted(record.at(id, now))))),
        Sending::Further { rotate } => {
            if rotate {
                let Some(code) = next else {
                    let sent = record.sent(id, now, false, false);
                    return Ok(sent.map(|sent| Some(Opened::NeedsCode(sent))));
                };
                record.replace_code(code);
            }
            record.advance(pending);
            table::update(connection, id, &record)?;
        }
    }
    Ok(record
        .sent(id, now, false, false)
        .map(|sent| Some(Opened::Send(sent))))
}

fn check(connection: &Connection, command: CheckCommand, budget: GuessBudget) -> Step<Checked> {
    let (now, tag) = (command.now, command.id.tag());
    let mut record = match table::find(connection, &command.id, Some(now))? {
        Found::Record(record) if record.service == command.service => record,
        Found::Unreadable => return Ok(None),
        Found::Record(_) => return Ok(Some(REFUSED)),
        Found::Nothing => {
            table::read_another(connection)?;
            return Ok(Some(REFUSED));
        }
    };
    let purpose = command.purpose.as_ref();
    let fits = purpose.is_none_or(|purpose| *purpose == record.purpose);
    let typed = fingerprints(&command.candidates);
    match record.repeat(&command.check_id, &typed, fits) {
        Repeat::Same(verdict) => {
            return Ok(Some(Checked {
                verdict,
                repeated: true,
                channel: None,
            }));
        }
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
    // Without a digest it has ended; under a key that whoever opened it was told of first, it is no
    // guess and nothing is used up.
    let Some(stored) = record.digest() else {
        return Ok(None);
    };
    let mut candidates = command.candidates.iter();
    if candidates.all(|candidate| candidate.key_id != stored.key_id) {
        return Ok(None);
    }
    let equal = matches(&stored, &command.candidates);
    let verdict = judge(&mut record, equal && fits, now);
    if verdict == CheckVerdict::Approved {
        table::forget(connection, tag)?;
    } else {
        let forget_at = now.plus_millis(GUESSES_KEPT_MS);
        table::remember(connection, tag, &guesses.with_wrong(now), forget_at)?;
    }
    record.remember(command.check_id, verdict, typed);
    table::update(connection, &command.id, &record)?;
    Ok(Some(Checked {
        verdict,
        repeated: false,
        channel: (verdict == CheckVerdict::Approved).then_some(record.channel),
    }))
}

/// One check of a live verification.
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

/// Whether one of the candidates is the stored digest. Every candidate is compared, each in
/// constant time.
fn matches(stored: &Digest, candidates: &[Digest]) -> bool {
    candidates
        .iter()
        .map(|candidate| {
            let same_key = candidate.key_id == stored.key_id;
            same_key && bool::from(candidate.hex.as_bytes().ct_eq(stored.hex.as_bytes()))
        })
        .fold(false, |found, equal| found | equal)
}
