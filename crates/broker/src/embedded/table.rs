//! The table of queued messages and its statements. Each function is one step of a transaction.

use std::collections::HashMap;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Result, params};
use watchword_storage::{Migration, rusqlite};

use crate::dead_letter::DeadLetterReason;

/// Creates the queue table. A message is due from `due_ms` on. While a consumer holds it, `due_ms`
/// is the end of the lease and `token` names the holder. Dead-lettered messages are never due.
pub const MIGRATION: Migration = Migration {
    name: "broker-1",
    sql: "CREATE TABLE broker_message (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            lane TEXT NOT NULL,
            message_id TEXT,
            kind TEXT NOT NULL,
            body BLOB NOT NULL,
            traceparent TEXT,
            retries INTEGER NOT NULL DEFAULT 0,
            handed_out INTEGER NOT NULL DEFAULT 0,
            due_ms INTEGER,
            token INTEGER,
            parked_reason TEXT,
            parked_at_ms INTEGER
          ) STRICT;
          CREATE INDEX broker_message_due ON broker_message (lane, due_ms, id) WHERE parked_reason IS NULL;
          CREATE INDEX broker_message_parked ON broker_message (lane, parked_at_ms) WHERE parked_reason IS NOT NULL;",
};

/// Adds the deadline of a message. The `lane` of an expired message changes to the late queue when
/// a consumer finds it.
pub const MIGRATION_2: Migration = Migration {
    name: "broker-2",
    sql: "ALTER TABLE broker_message ADD COLUMN expires_ms INTEGER;",
};

/// A message that a consumer took.
pub(super) struct Taken {
    pub(super) row: i64,
    pub(super) message_id: Option<String>,
    pub(super) body: Vec<u8>,
    pub(super) traceparent: Option<String>,
    pub(super) retries: u32,
    /// How many times the message was delivered, including this time.
    pub(super) handed_out: u32,
}

/// The longest wait of a message. A later due time was written by a clock that was ahead.
const LONGEST_WAIT_MS: i64 = 3_600_000;

/// Ends every lease and every wait that a wrong clock made too long. Returns the length of each
/// queue and the highest token in use.
pub(super) fn recover(connection: &Connection, now_ms: i64) -> Result<(HashMap<String, i64>, i64)> {
    let highest = connection.query_row(
        "SELECT coalesce(max(token), 0) FROM broker_message",
        [],
        |row| row.get(0),
    )?;
    connection.execute(
        "UPDATE broker_message SET token = NULL, due_ms = 0
         WHERE token IS NOT NULL OR due_ms > ?1",
        [now_ms.saturating_add(LONGEST_WAIT_MS)],
    )?;
    let mut statement = connection.prepare(
        "SELECT lane, count(*) FROM broker_message WHERE parked_reason IS NULL GROUP BY lane",
    )?;
    let lengths = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_>>()?;
    Ok((lengths, highest))
}

/// A message to insert.
pub(super) struct New {
    pub(super) lane: &'static str,
    pub(super) message_id: String,
    pub(super) kind: &'static str,
    pub(super) body: Vec<u8>,
    pub(super) traceparent: Option<String>,
    pub(super) due_ms: Option<i64>,
    pub(super) expires_ms: Option<i64>,
    pub(super) parked: Option<(DeadLetterReason, i64)>,
}

pub(super) fn insert(connection: &Connection, new: &New) -> Result<()> {
    let (reason, parked_at) = new.parked.unzip();
    let reason = reason.map(DeadLetterReason::as_str);
    if let Some(now_ms) = parked_at {
        bound_parked(connection, new.lane, now_ms, PARKED_AT_MOST - 1)?;
    }
    connection
        .prepare_cached(
            "INSERT INTO broker_message (lane, message_id, kind, body, traceparent, due_ms, expires_ms, parked_reason, parked_at_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![new.lane, new.message_id, new.kind, new.body, new.traceparent, new.due_ms, new.expires_ms, reason, parked_at])
        .map(|_| ())
}

/// Selects due messages. A test checks its query plan.
pub(super) const DUE: &str =
    "SELECT id, message_id, body, traceparent, retries, handed_out, expires_ms FROM broker_message
     WHERE parked_reason IS NULL AND lane = ?1 AND due_ms <= ?2 ORDER BY due_ms, id LIMIT ?3";

/// The most messages moved to the late queue in one transaction.
const LATE_AT_ONCE: usize = 2_048;

/// The result of [`take`].
#[derive(Default)]
pub(super) struct Found {
    pub(super) taken: Vec<Taken>,
    /// How many messages were expired and went to the late queue.
    pub(super) late: usize,
}

/// Takes up to `limit` due messages for `token` until `lease_until_ms`. Expired messages that it
/// finds move to the queue `late`, if there is one.
pub(super) fn take(
    connection: &Connection,
    (lane, late): (&str, Option<&str>),
    now_ms: i64,
    limit: u16,
    token: i64,
    lease_until_ms: i64,
) -> Result<Found> {
    let mut found = Found::default();
    // Expired messages can fill a whole batch, so continue until fresh ones are found, but bound
    // the transaction.
    while found.taken.is_empty() && found.late < LATE_AT_ONCE {
        let (mut met, mut late_ones) = (0, Vec::new());
        let mut due = connection.prepare_cached(DUE)?;
        let mut rows = due.query(params![lane, now_ms, limit])?;
        while let Some(row) = rows.next()? {
            met += 1;
            let expires_ms: Option<i64> = row.get(6)?;
            if late.is_some() && expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms) {
                late_ones.push(row.get::<_, i64>(0)?);
                continue;
            }
            found.taken.push(Taken {
                row: row.get(0)?,
                message_id: row.get(1)?,
                body: row.get(2)?,
                traceparent: row.get(3)?,
                retries: row.get(4)?,
                handed_out: row.get::<_, u32>(5)?.saturating_add(1),
            });
        }
        let mut put =
            connection.prepare_cached("UPDATE broker_message SET lane = ?2 WHERE id = ?1")?;
        for row in &late_ones {
            put.execute(params![row, late])?;
        }
        found.late += late_ones.len();
        // No more messages are due.
        if met < limit {
            break;
        }
    }
    let mut lease = connection.prepare_cached(
        "UPDATE broker_message SET token = ?2, due_ms = ?3, handed_out = handed_out + 1 WHERE id = ?1",
    )?;
    for message in &found.taken {
        lease.execute(params![message.row, token, lease_until_ms])?;
    }
    Ok(found)
}

/// Returns when the next message of `lane` is due, if it has one.
pub(super) fn next_due(connection: &Connection, lane: &str) -> Result<Option<i64>> {
    connection
        .prepare_cached(
            "SELECT due_ms FROM broker_message WHERE parked_reason IS NULL AND lane = ?1 ORDER BY due_ms, id LIMIT 1",
        )?
        .query_row([lane], |row| row.get(0))
        .optional()
}

/// Message counts of one queue.
pub(super) struct Counts {
    /// Due messages in the queue itself.
    pub(super) ready: u64,
    /// All messages that are not dead-lettered, including expired ones.
    pub(super) length: u64,
    pub(super) parked: u64,
}

/// Counts the messages of `lane`, whose expired messages are in the queue `late`.
pub(super) fn count(
    connection: &Connection,
    (lane, late): (&str, Option<&str>),
    now_ms: i64,
) -> Result<Counts> {
    let count = |sql: &str, parameters: &[&dyn rusqlite::ToSql]| -> Result<u64> {
        let mut statement = connection.prepare_cached(sql)?;
        let counted: i64 = statement.query_row(parameters, |row| row.get(0))?;
        Ok(counted.unsigned_abs())
    };
    Ok(Counts {
        ready: count(
            "SELECT count(*) FROM broker_message WHERE parked_reason IS NULL AND lane = ?1 AND due_ms <= ?2",
            &[&lane, &now_ms],
        )?,
        length: count(
            "SELECT count(*) FROM broker_message WHERE parked_reason IS NULL AND lane IN (?1, ?2)",
            &[&lane, &late],
        )?,
        parked: count(
            "SELECT count(*) FROM broker_message WHERE parked_reason IS NOT NULL AND lane = ?1",
            &[&lane],
        )?,
    })
}

/// Age and number of dead-lettered messages kept for each queue, the same as on `RabbitMQ`.
pub(super) const PARKED_FOR_MS: i64 = 14 * 24 * 3_600_000;
pub(super) const PARKED_AT_MOST: i64 = 100_000;

/// Deletes dead-lettered messages of `lane` that are too old, or more than `at_most`, oldest first.
pub(super) fn bound_parked(
    connection: &Connection,
    lane: &str,
    now_ms: i64,
    at_most: i64,
) -> Result<usize> {
    connection
        .prepare_cached(
            "DELETE FROM broker_message WHERE parked_reason IS NOT NULL AND lane = ?1 AND (parked_at_ms < ?2
             OR id IN (SELECT id FROM broker_message WHERE parked_reason IS NOT NULL AND lane = ?1
                       ORDER BY parked_at_ms DESC, id DESC LIMIT -1 OFFSET ?3))",
        )?
        .execute(params![lane, now_ms - PARKED_FOR_MS, at_most])
}

/// How a held message is settled.
pub(super) enum Fate {
    Done,
    Due {
        at_ms: i64,
        retried: bool,
        returned: bool,
    },
    Parked {
        lane: &'static str,
        reason: DeadLetterReason,
        at_ms: i64,
    },
}

/// Settles a message. Returns false if `token` no longer holds it.
pub(super) fn settle(connection: &Connection, row: i64, token: i64, fate: &Fate) -> Result<bool> {
    let (sql, values): (&str, Vec<Value>) = match fate {
        Fate::Done => ("DELETE FROM broker_message WHERE id = ?1 AND token = ?2", vec![row.into(), token.into()]),
        // A message that was never handed to the caller does not count as delivered. A retry starts
        // a new count, as the republished copy on `RabbitMQ` does.
        Fate::Due { at_ms, retried, returned } => (
            "UPDATE broker_message SET token = NULL, due_ms = ?3, retries = retries + ?4,
             handed_out = CASE WHEN ?4 THEN 0 ELSE handed_out - ?5 END WHERE id = ?1 AND token = ?2",
            vec![row.into(), token.into(), (*at_ms).into(), i64::from(*retried).into(), i64::from(*returned).into()],
        ),
        Fate::Parked { lane, reason, at_ms } => (
            "UPDATE broker_message SET token = NULL, due_ms = NULL, lane = ?3, parked_reason = ?4, parked_at_ms = ?5
             WHERE id = ?1 AND token = ?2",
            vec![
                row.into(),
                token.into(),
                (*lane).to_owned().into(),
                reason.as_str().to_owned().into(),
                (*at_ms).into(),
            ],
        ),
    };
    let settled = connection
        .prepare_cached(sql)?
        .execute(rusqlite::params_from_iter(values))?;
    if let Fate::Parked { lane, at_ms, .. } = fate {
        bound_parked(connection, lane, *at_ms, PARKED_AT_MOST)?;
    }
    Ok(settled == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parked_messages_are_bounded_in_age_and_number() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(MIGRATION.sql).unwrap();
        connection.execute_batch(MIGRATION_2.sql).unwrap();
        for (lane, at_ms) in [
            ("sms", 0),
            ("sms", PARKED_FOR_MS),
            ("sms", PARKED_FOR_MS + 1),
            ("email", 0),
        ] {
            let new = New {
                lane,
                message_id: at_ms.to_string(),
                kind: "kind",
                body: Vec::new(),
                traceparent: None,
                due_ms: None,
                expires_ms: None,
                parked: Some((DeadLetterReason::BadData, at_ms)),
            };
            insert(&connection, &new).unwrap();
        }
        let left = || -> Vec<(String, String)> {
            let mut all = connection
                .prepare("SELECT lane, message_id FROM broker_message ORDER BY id")
                .unwrap();
            let rows = all
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
                .unwrap();
            rows.collect::<Result<_>>().unwrap()
        };
        let own = |lane: &str, at_ms: i64| (lane.to_owned(), at_ms.to_string());
        // The third message was dead-lettered when the first had become too old.
        let (newer, newest) = (own("sms", PARKED_FOR_MS), own("sms", PARKED_FOR_MS + 1));
        assert_eq!(left(), [newer, newest.clone(), own("email", 0)]);
        bound_parked(&connection, "sms", PARKED_FOR_MS + 1, 1).unwrap();
        assert_eq!(left(), [newest, own("email", 0)]);
    }

    #[test]
    fn a_start_ends_leases_and_waits_that_a_wrong_clock_made() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(MIGRATION.sql).unwrap();
        connection.execute_batch(MIGRATION_2.sql).unwrap();
        let now_ms = 1_000_000;
        let longest = now_ms + LONGEST_WAIT_MS;
        for due_ms in [Some(0), Some(longest), Some(longest + 1), None] {
            let new = New {
                lane: "sms",
                message_id: String::new(),
                kind: "kind",
                body: Vec::new(),
                traceparent: None,
                due_ms,
                expires_ms: None,
                parked: None,
            };
            insert(&connection, &new).unwrap();
        }
        recover(&connection, now_ms).unwrap();
        let mut all = connection
            .prepare("SELECT due_ms FROM broker_message ORDER BY id")
            .unwrap();
        let rows = all.query_map([], |row| row.get::<_, Option<i64>>(0));
        let rows: Vec<_> = rows.unwrap().collect::<Result<_>>().unwrap();
        assert_eq!(rows, [Some(0), Some(longest), Some(0), None]);
    }

    #[test]
    fn what_is_due_is_found_by_the_index() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(MIGRATION.sql).unwrap();
        connection.execute_batch(MIGRATION_2.sql).unwrap();
        let plan: String = connection
            .query_row(
                &format!("EXPLAIN QUERY PLAN {DUE}"),
                params!["sms", 0, 1],
                |row| row.get(3),
            )
            .unwrap();
        assert!(
            plan.contains("USING INDEX broker_message_due (lane=? AND due_ms<?)"),
            "{plan}"
        );
        let rows: i64 = connection
            .query_row(
                "SELECT count(*) FROM pragma_index_list('broker_message')",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(rows, 2);
    }
}
