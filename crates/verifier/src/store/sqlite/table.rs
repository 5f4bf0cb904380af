//! The verification tables and their statements. Decisions are made in `mod.rs`.

use watchword_core::{GuessLog, ShortTag, Timestamp, VerificationId};
use watchword_storage::forget as forget_rows;
use watchword_storage::rusqlite::{Connection, Error, OptionalExtension, Result, params};

use super::super::GUESSES_KEPT_MS;
use super::super::model::SlotKey;
use super::clock::Moment;
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
        in_a_row INTEGER NOT NULL,
        forget_at_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX verifier_guesses_by_age ON verifier_guesses (forget_at_ms);";

/// Stores verifications in the order of opening instead of by their random ids. The writes that
/// follow then touch pages that other verifications share, instead of a separate page each.
pub(super) const SCHEMA_2: &str = "
    ALTER TABLE verifier_verification RENAME TO verifier_verification_1;
    DROP INDEX verifier_verification_by_age;
    CREATE TABLE verifier_verification (
        id TEXT NOT NULL PRIMARY KEY,
        slot TEXT NOT NULL,
        expires_at_ms INTEGER NOT NULL,
        record TEXT NOT NULL
    ) STRICT;
    INSERT INTO verifier_verification (id, slot, expires_at_ms, record)
        SELECT id, slot, expires_at_ms, record FROM verifier_verification_1 ORDER BY expires_at_ms;
    DROP TABLE verifier_verification_1;
    CREATE INDEX verifier_verification_by_age ON verifier_verification (expires_at_ms);";

/// The most rows of each kind deleted when a verification is opened. More than one open adds, so
/// that the tables do not grow.
const PURGED_AT_ONCE: u32 = 8;

/// The longest lifetime that `core::Policy` allows.
const LONGEST_LIFETIME_MS: u64 = 600_000;

/// Returns up to `limit` verifications whose ids start with `tag`, after the id `cursor`, in the
/// order of their ids; `None` for an unreadable record.
pub(super) fn page(
    connection: &Connection,
    tag: &str,
    cursor: Option<&str>,
    limit: usize,
) -> Result<Vec<(VerificationId, Option<Record>)>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(
        "SELECT id, record FROM verifier_verification WHERE id > ?1 AND id < ?2
         ORDER BY id LIMIT ?3",
    )?;
    // `~` sorts after every character of an id.
    let end = format!("{tag}~");
    let rows = statement.query_map(params![cursor.unwrap_or(tag), end, limit], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })?;
    rows.map(|row| {
        let (id, text) = row?;
        let id = id.parse().map_err(|_| Error::InvalidQuery)?;
        Ok((id, serde_json::from_str(&text).ok()))
    })
    .collect()
}

/// The result of a look-up by id.
pub(super) enum Found {
    Nothing,
    Unreadable,
    Record(Box<Record>),
}

/// Returns the verification of this id. If `at` is set, a verification of an earlier epoch has
/// ended, and one past its retention is not found, even if its row is not purged yet.
pub(super) fn find(
    connection: &Connection,
    id: &VerificationId,
    at: Option<Moment>,
) -> Result<Found> {
    let text: Option<String> = connection
        .prepare_cached("SELECT record FROM verifier_verification WHERE id = ?1")?
        .query_row([id.as_str()], |row| row.get(0))
        .optional()?;
    let Some(text) = text else {
        return Ok(Found::Nothing);
    };
    let Ok(mut record) = serde_json::from_str::<Record>(&text) else {
        return Ok(Found::Unreadable);
    };
    if let Some(at) = at {
        if record.is_forgotten(at.now) {
            return Ok(Found::Nothing);
        }
        record.end_if_before(at.epoch());
    }
    Ok(Found::Record(Box::new(record)))
}

/// Reads some verification instead of the missing one, so that a check of an unknown id takes as
/// long as one that is refused for another reason.
pub(super) fn read_another(connection: &Connection) -> Result<()> {
    let text: Option<String> = connection
        .prepare_cached("SELECT record FROM verifier_verification LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    std::hint::black_box(text.map(|text| serde_json::from_str::<Record>(&text).ok()));
    Ok(())
}

/// The latest verification of a slot.
pub(super) enum Latest {
    Nothing,
    Unreadable,
    Record(VerificationId, Box<Record>),
}

/// Returns the slot's latest verification, if it is still retained at this time.
pub(super) fn latest(connection: &Connection, slot: &SlotKey, at: Moment) -> Result<Latest> {
    let id: Option<String> = connection
        .prepare_cached("SELECT id FROM verifier_slot WHERE slot = ?1")?
        .query_row([&slot.0], |row| row.get(0))
        .optional()?;
    let Some(id) = id else {
        return Ok(Latest::Nothing);
    };
    let Ok(id) = id.parse() else {
        return Ok(Latest::Unreadable);
    };
    Ok(match find(connection, &id, Some(at))? {
        Found::Nothing => Latest::Nothing,
        Found::Unreadable => Latest::Unreadable,
        Found::Record(record) => Latest::Record(id, record),
    })
}

pub(super) fn insert(
    connection: &Connection,
    id: &VerificationId,
    slot: &SlotKey,
    record: &Record,
) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO verifier_verification (id, slot, expires_at_ms, record)
             VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            id.as_str(),
            slot.0,
            record.expires_at_ms(),
            encode(record)?
        ])?;
    connection
        .prepare_cached(
            "INSERT INTO verifier_slot (slot, id) VALUES (?1, ?2)
             ON CONFLICT (slot) DO UPDATE SET id = excluded.id",
        )?
        .execute(params![slot.0, id.as_str()])?;
    Ok(())
}

pub(super) fn update(connection: &Connection, id: &VerificationId, record: &Record) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE verifier_verification SET record = ?2, expires_at_ms = ?3 WHERE id = ?1",
        )?
        .execute(params![
            id.as_str(),
            encode(record)?,
            record.expires_at_ms()
        ])
        .map(|_| ())
}

fn encode(record: &Record) -> Result<String> {
    serde_json::to_string(record).map_err(|error| Error::ToSqlConversionFailure(Box::new(error)))
}

/// Deletes a few verifications that expired before `oldest`, with their slots, and a few guess logs
/// past their retention at `now`. Each insert triggers a purge of more rows than it adds.
pub(super) fn purge(connection: &Connection, oldest: Timestamp, now: Timestamp) -> Result<()> {
    let mut old = connection.prepare_cached(
        "SELECT id, slot FROM verifier_verification WHERE expires_at_ms < ?1
         ORDER BY expires_at_ms LIMIT ?2",
    )?;
    let rows = old
        .query_map(params![oldest.as_millis(), PURGED_AT_ONCE], |row| {
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
    forget_rows(
        connection,
        "SELECT tag FROM verifier_guesses WHERE forget_at_ms <= ?1 ORDER BY forget_at_ms LIMIT ?2",
        params![now.as_millis(), PURGED_AT_ONCE],
        "DELETE FROM verifier_guesses WHERE tag = ?1",
    )
}

/// Returns the wrong guesses of a subject; `None` if they cannot be read. Treating an unreadable
/// log as empty would grant free guesses.
pub(super) fn guesses(connection: &Connection, tag: &str) -> Result<Option<GuessLog>> {
    let row: Option<(String, u32)> = connection
        .prepare_cached("SELECT wrong_at_ms, in_a_row FROM verifier_guesses WHERE tag = ?1")?
        .query_row([tag], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((times, in_a_row)) = row else {
        return Ok(Some(GuessLog::default()));
    };
    Ok(parse(&times, in_a_row))
}

fn parse(times: &str, in_a_row: u32) -> Option<GuessLog> {
    let mut log = GuessLog {
        in_a_row,
        ..GuessLog::default()
    };
    for part in times.split_whitespace() {
        if let Some((recipient, count)) = part.split_once(':') {
            log.at_recipients
                .push((recipient.parse().ok()?, count.parse().ok()?));
        } else {
            log.wrong_at
                .push(Timestamp::from_millis(part.parse().ok()?));
        }
    }
    Some(log)
}

/// Shortens the retention of rows that were written while the clock was ahead, as if their codes
/// were opened now. These codes have ended, and without this [`purge`] would keep them for as long
/// as the clock was ahead.
pub(super) fn limit_retention(connection: &Connection, now: Timestamp) -> Result<()> {
    let latest = now.plus_millis(LONGEST_LIFETIME_MS).as_millis();
    connection
        .prepare_cached(
            "UPDATE verifier_verification SET expires_at_ms = ?1 WHERE expires_at_ms > ?1",
        )?
        .execute([latest])
        .map(|_| ())
}

/// Moves guesses with a time after `now`, written by a wrong clock, to `now`. All guesses still
/// count, and none locks its subject beyond its limit counted from now.
pub(super) fn limit_guess_times(connection: &Connection, now: Timestamp) -> Result<()> {
    let mut all =
        connection.prepare_cached("SELECT tag, wrong_at_ms, in_a_row FROM verifier_guesses")?;
    let rows = all
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<Vec<(String, String, u32)>>>()?;
    for (tag, times, in_a_row) in rows {
        // An unreadable log locks its subject, and stays as it is.
        let Some(mut log) = parse(&times, in_a_row) else {
            continue;
        };
        if log.wrong_at.iter().any(|at| *at > now) {
            log.wrong_at.iter_mut().for_each(|at| *at = now.min(*at));
            remember(connection, &tag, &log, now.plus_millis(GUESSES_KEPT_MS))?;
        }
    }
    Ok(())
}

/// Stores `log` until `forget_at`: its times, then `recipient:count` for each recipient.
pub(super) fn remember(
    connection: &Connection,
    tag: &str,
    log: &GuessLog,
    forget_at: Timestamp,
) -> Result<()> {
    let times = log.wrong_at.iter().map(|at| at.as_millis().to_string());
    let row = |(recipient, count): &(ShortTag, u32)| format!("{recipient}:{count}");
    let parts: Vec<_> = times.chain(log.at_recipients.iter().map(row)).collect();
    connection
        .prepare_cached(
            "INSERT INTO verifier_guesses (tag, wrong_at_ms, in_a_row, forget_at_ms)
             VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (tag) DO UPDATE SET wrong_at_ms = excluded.wrong_at_ms,
                 in_a_row = excluded.in_a_row, forget_at_ms = excluded.forget_at_ms",
        )?
        .execute(params![
            tag,
            parts.join(" "),
            log.in_a_row,
            forget_at.as_millis()
        ])
        .map(|_| ())
}

/// Deletes the guesses of a subject. Returns whether there were any.
pub(super) fn forget(connection: &Connection, tag: &str) -> Result<bool> {
    connection
        .prepare_cached("DELETE FROM verifier_guesses WHERE tag = ?1")?
        .execute([tag])
        .map(|rows| rows > 0)
}
