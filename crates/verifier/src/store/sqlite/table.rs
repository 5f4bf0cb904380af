//! The verifier's tables and the statements on them. Refuses to decide.

use watchword_core::{GuessLog, Timestamp, VerificationId};
use watchword_storage::rusqlite::{Connection, OptionalExtension, Result, params};

use super::super::model::SlotKey;
use super::record::Record;

pub(super) const SCHEMA: &str = "
    CREATE TABLE verifier_verification (
        id TEXT NOT NULL PRIMARY KEY,
        slot TEXT NOT NULL,
        expires_at_ms INTEGER NOT NULL,
        record TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX verifier_verification_by_age ON verifier_verification (expires_at_ms);
    CREATE TABLE verifier_slot (
        slot TEXT NOT NULL PRIMARY KEY,
        id TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE verifier_guesses (
        tag TEXT NOT NULL PRIMARY KEY,
        wrong_at_ms TEXT NOT NULL,
        in_a_row INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;";

/// What was found under an id.
pub(super) enum Found {
    Nothing,
    Unreadable,
    Record(Box<Record>),
}

pub(super) fn find(connection: &Connection, id: &VerificationId) -> Result<Found> {
    let text: Option<String> = connection
        .prepare_cached("SELECT record FROM verifier_verification WHERE id = ?1")?
        .query_row([id.as_str()], |row| row.get(0))
        .optional()?;
    Ok(text.map_or(Found::Nothing, |text| {
        serde_json::from_str(&text)
            .map_or(Found::Unreadable, |record| Found::Record(Box::new(record)))
    }))
}

/// The slot's latest verification.
pub(super) fn latest(connection: &Connection, slot: &SlotKey) -> Result<Option<VerificationId>> {
    let id: Option<String> = connection
        .prepare_cached("SELECT id FROM verifier_slot WHERE slot = ?1")?
        .query_row([&slot.0], |row| row.get(0))
        .optional()?;
    Ok(id.and_then(|id| id.parse().ok()))
}

pub(super) fn insert(
    connection: &Connection,
    id: &VerificationId,
    slot: &SlotKey,
    record: &Record,
) -> Result<()> {
    connection
        .prepare_cached("INSERT INTO verifier_verification (id, slot, expires_at_ms, record) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![id.as_str(), slot.0, record.expires_at_ms(), encode(record)])?;
    connection
        .prepare_cached("INSERT INTO verifier_slot (slot, id) VALUES (?1, ?2) ON CONFLICT (slot) DO UPDATE SET id = excluded.id")?
        .execute(params![slot.0, id.as_str()])?;
    Ok(())
}

pub(super) fn update(connection: &Connection, id: &VerificationId, record: &Record) -> Result<()> {
    connection
        .prepare_cached("UPDATE verifier_verification SET record = ?2 WHERE id = ?1")?
        .execute(params![id.as_str(), encode(record)])
        .map(|_| ())
}

/// A record has no map with keys that are no strings, the only thing that cannot be written.
fn encode(record: &Record) -> String {
    serde_json::to_string(record).unwrap_or_default()
}

/// Forgets a few verifications that expired before `oldest`, with their slots: more than one for
/// each that is opened, so that the tables do not grow.
pub(super) fn purge(connection: &Connection, oldest: Timestamp) -> Result<()> {
    let mut old = connection
        .prepare_cached("SELECT id, slot FROM verifier_verification WHERE expires_at_ms < ?1 ORDER BY expires_at_ms LIMIT 4")?;
    let rows = old
        .query_map([oldest.as_millis()], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })?
        .collect::<Result<Vec<_>>>()?;
    for (id, slot) in rows {
        connection
            .prepare_cached("DELETE FROM verifier_verification WHERE id = ?1")?
            .execute([&id])?;
        connection
            .prepare_cached("DELETE FROM verifier_slot WHERE slot = ?1 AND id = ?2")?
            .execute([&slot, &id])?;
    }
    Ok(())
}

pub(super) fn guesses(connection: &Connection, tag: &str) -> Result<GuessLog> {
    let row: Option<(String, u32)> = connection
        .prepare_cached("SELECT wrong_at_ms, in_a_row FROM verifier_guesses WHERE tag = ?1")?
        .query_row([tag], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(
        row.map_or_else(GuessLog::default, |(times, in_a_row)| GuessLog {
            wrong_at: times
                .split_whitespace()
                .filter_map(|ms| ms.parse().ok())
                .map(Timestamp::from_millis)
                .collect(),
            in_a_row,
        }),
    )
}

pub(super) fn remember(connection: &Connection, tag: &str, log: &GuessLog) -> Result<()> {
    let times: Vec<_> = log
        .wrong_at
        .iter()
        .map(|at| at.as_millis().to_string())
        .collect();
    connection
        .prepare_cached(
            "INSERT INTO verifier_guesses (tag, wrong_at_ms, in_a_row) VALUES (?1, ?2, ?3)
             ON CONFLICT (tag) DO UPDATE SET wrong_at_ms = excluded.wrong_at_ms, in_a_row = excluded.in_a_row",
        )?
        .execute(params![tag, times.join(" "), log.in_a_row])
        .map(|_| ())
}

pub(super) fn forget(connection: &Connection, tag: &str) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM verifier_guesses WHERE tag = ?1")?
        .execute([tag])
        .map(|_| ())
}
