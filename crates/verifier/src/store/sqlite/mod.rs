//! Code state in the `SQLite` file: the state machine of core runs inside a transaction. Refuses to
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
    CheckCommand, Checked, Digest, OpenCommand, Opened, SealedCode, StoredVerification, TagKey,
};
use super::{AFTERLIFE_MS, StoreError, VerificationStore, fingerprints};
use record::{Record, Repeat};
use table::Found;

/// The verifier's tables.
pub const MIGRATION: Migration = Migration {
    name: "verifier-1",
    sql: table::SCHEMA,
};

const REFUSED: Checked = Checked {
    verdict: CheckVerdict::Refused,
    repeated: false,
};

/// Code state in the `SQLite` file.
#[derive(Debug)]
pub struct SqliteVerifications {
    sqlite: Sqlite,
}

/// The result of one step: `None` when a record could not be read.
type Step<T> = SqlResult<Option<T>>;

impl SqliteVerifications {
    /// Code state in this file, which has [`MIGRATION`].
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
        self.transact(move |connection| resend(connection, &id, &service, next, budget, now))
            .await
    }

    async fn confirm(&self, id: &VerificationId, send: u8) -> Result<(), StoreError> {
        let id = id.clone();
        self.transact(move |connection| {
            let mut record = match table::find(connection, &id)? {
                Found::Nothing => return Ok(Some(())),
                Found::Unreadable => return Ok(None),
                Found::Record(record) => record,
            };
            record.advance(record.pending().confirm(send));
            table::update(connection, &id, &record).map(Some)
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
            let mut record = match table::find(connection, &id)? {
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
            .read(move |connection| table::find(connection, &wanted))
            .await?
        {
            Found::Record(record) if record.service == *service => Ok(Some(record.at(id, now))),
            Found::Unreadable => Err(StoreError::Corrupt),
            Found::Nothing | Found::Record(_) => Ok(None),
        }
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
    table::purge(connection, now.minus_millis(AFTERLIFE_MS))?;
    if let Some(until) =
        table::guesses(connection, command.id.tag())?.locked_until(command.budget, now)
    {
        return Ok(Some(Opened::Locked(until)));
    }
    let mut follows_approval = false;
    if let Some(latest) = table::latest(connection, &command.slot)? {
        match table::find(connection, &latest)? {
            Found::Unreadable => return Ok(None),
            Found::Nothing => {}
            Found::Record(record) => match record.status_at(now) {
                VerificationStatus::Pending => {
                    return send(connection, &latest, *record, None, now);
                }
                status => follows_approval = status == VerificationStatus::Approved,
            },
        }
    }
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
) -> Step<Option<Opened>> {
    let record = match table::find(connection, id)? {
        Found::Record(record) if record.service == *service => record,
        Found::Unreadable => return Ok(None),
        Found::Nothing | Found::Record(_) => return Ok(Some(None)),
    };
    if record.status_at(now) != VerificationStatus::Pending {
        return Ok(Some(None));
    }
    if let Some(until) = table::guesses(connection, id.tag())?.locked_until(budget, now) {
        return Ok(Some(Some(Opened::Locked(until))));
    }
    Ok(send(connection, id, *record, next, now)?.map(Some))
}

/// What a request for a message means for a live verification.
fn send(
    connection: &Connection,
    id: &VerificationId,
    mut record: Record,
    next: Option<SealedCode>,
    now: Timestamp,
) -> Step<Opened> {
    let (pending, sending) = record.pending().send(now);
    match sending {
        Sending::Repeat => {}
        Sending::Cooling => return Ok(Some(Opened::Cooling(record.at(id, now)))),
        Sending::Exhausted => return Ok(Some(Opened::Exhausted(record.at(id, now)))),
        Sending::Further { rotate } => {
            if rotate {
                let Some(code) = next else {
                    return Ok(Some(Opened::NeedsCode(record.at(id, now))));
                };
                record.replace_code(code);
            }
            record.advance(pending);
            table::update(connection, id, &record)?;
        }
    }
    Ok(record.sent(id, now, false, false).map(Opened::Send))
}

fn check(connection: &Connection, command: CheckCommand, budget: GuessBudget) -> Step<Checked> {
    let mut record = match table::find(connection, &command.id)? {
        Found::Record(record) if record.service == command.service => record,
        Found::Unreadable => return Ok(None),
        Found::Nothing | Found::Record(_) => return Ok(Some(REFUSED)),
    };
    let typed = fingerprints(&command.candidates);
    match record.repeat(&command.check_id, &typed) {
        Repeat::Same(verdict) => {
            return Ok(Some(Checked {
                verdict,
                repeated: true,
            }));
        }
        Repeat::Other => return Ok(Some(REFUSED)),
        Repeat::No => {}
    }
    let guesses = table::guesses(connection, command.id.tag())?;
    let live = record.status_at(command.now) == VerificationStatus::Pending;
    if !live || guesses.locked_until(budget, command.now).is_some() {
        return Ok(Some(REFUSED));
    }
    let purpose_fits = command
        .purpose
        .as_ref()
        .is_none_or(|purpose| *purpose == record.purpose);
    let matched = record
        .digest()
        .is_some_and(|stored| matches(&stored, &command.candidates))
        && purpose_fits;
    let verdict = judge(&mut record, matched, command.now);
    if verdict == CheckVerdict::Approved {
        table::forget(connection, command.id.tag())?;
    } else {
        table::remember(
            connection,
            command.id.tag(),
            &guesses.with_wrong(command.now),
        )?;
    }
    record.remember(command.check_id, verdict, typed);
    table::update(connection, &command.id, &record)?;
    Ok(Some(Checked {
        verdict,
        repeated: false,
    }))
}

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
            record.advance(Pending {
                checks_left: 0,
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
            candidate.key_id == stored.key_id
                && bool::from(candidate.hex.as_bytes().ct_eq(stored.hex.as_bytes()))
        })
        .fold(false, |found, equal| found | equal)
}
