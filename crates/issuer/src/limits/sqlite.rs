//! The send limits in the `SQLite` file: a row per reservation, per service for its minute, and per
//! part of a [`Counter`]; one transaction per call. The rules are in [`super::window`] and
//! [`super::tally`].

use async_trait::async_trait;
use watchword_core::{DeliveryId, SendLimits, ServiceName, SubjectTag, Timestamp};
use watchword_storage::rusqlite::{Connection, Error, OptionalExtension, params};
use watchword_storage::{Migration, Sqlite, StorageError, forget};

use super::tally::Tally;
use super::window::{self, DAY_MS, Minute, bounded_moment, is_live};
use super::{Counter, Permit, Reservation, SendLimiter};

/// The limiter's schema migrations.
pub const MIGRATIONS: [Migration; 2] = [
    Migration {
        name: "limits-1",
        sql: "CREATE TABLE limits_sent (
            recipient TEXT NOT NULL,
            delivery TEXT NOT NULL,
            at_ms INTEGER NOT NULL,
            PRIMARY KEY (recipient, delivery)
          ) STRICT, WITHOUT ROWID;
          CREATE INDEX limits_sent_by_age ON limits_sent (at_ms);
          CREATE TABLE limits_minute (
            service TEXT NOT NULL PRIMARY KEY,
            minute INTEGER NOT NULL,
            count INTEGER NOT NULL
          ) STRICT, WITHOUT ROWID;",
    },
    Migration {
        name: "limits-2",
        sql: "CREATE TABLE limits_count (
            counter TEXT NOT NULL,
            part INTEGER NOT NULL,
            messages INTEGER NOT NULL,
            ends_ms INTEGER NOT NULL,
            PRIMARY KEY (counter, part)
          ) STRICT, WITHOUT ROWID;
          CREATE INDEX limits_count_by_end ON limits_count (ends_ms);",
    },
];

/// Most expired rows that one new row deletes: more than it adds, so that a table cannot grow past
/// its span, and few enough not to delay the writer.
const SWEPT_AT_MOST: u32 = 16;

/// The latest plausible end of a counter's part. A part ends at most a day and one part after it
/// began; a later end was written by a wrong clock.
const LATEST_END_MS: u64 = 2 * DAY_MS;

/// The send limits in the `SQLite` file.
#[derive(Debug)]
pub struct SqliteLimiter {
    sqlite: Sqlite,
}

impl SqliteLimiter {
    /// Creates a limiter in a file that has [`MIGRATIONS`].
    pub fn new(sqlite: Sqlite) -> Self {
        Self { sqlite }
    }
}

/// Returns the live reservations of one recipient, oldest first.
fn live(
    connection: &Connection,
    recipient: &str,
    now: Timestamp,
) -> Result<Vec<(Timestamp, String)>, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT at_ms, delivery FROM limits_sent WHERE recipient = ?1 ORDER BY at_ms",
    )?;
    let rows = statement.query_map([recipient], |row| {
        Ok((Timestamp::from_millis(row.get(0)?), row.get(1)?))
    })?;
    rows.filter(|row| row.as_ref().map_or(true, |(at, _)| is_live(*at, now)))
        .collect()
}

fn sweep(connection: &Connection, now: Timestamp) -> Result<(), Error> {
    for (side, bound) in [
        ("<=", now.minus_millis(DAY_MS)),
        (">=", now.plus_millis(DAY_MS)),
    ] {
        forget(
            connection,
            &format!("SELECT recipient, delivery FROM limits_sent WHERE at_ms {side} ?1 LIMIT ?2"),
            params![bound.as_millis(), SWEPT_AT_MOST],
            "DELETE FROM limits_sent WHERE recipient = ?1 AND delivery = ?2",
        )?;
    }
    Ok(())
}

fn reserve(connection: &Connection, reservation: &Reservation) -> Result<Permit, Error> {
    let now = bounded_moment(reservation.now);
    let recipient = reservation.recipient.to_string();
    let delivery = reservation.delivery.to_string();
    let live = live(connection, &recipient, now)?;
    if live.iter().any(|(_, other)| *other == delivery) {
        return Ok(Permit::Repeated);
    }
    let moments: Vec<_> = live.into_iter().map(|(at, _)| at).collect();
    let permit = window::reserve(&moments, reservation);
    if permit == Permit::Granted {
        sweep(connection, now)?;
        connection
            .prepare_cached(
                "INSERT INTO limits_sent (recipient, delivery, at_ms) VALUES (?1, ?2, ?3)
                 ON CONFLICT (recipient, delivery) DO UPDATE SET at_ms = excluded.at_ms",
            )?
            .execute(params![recipient, delivery, now.as_millis()])?;
    }
    Ok(permit)
}

fn admit(
    connection: &Connection,
    service: &ServiceName,
    limit: u32,
    now: Timestamp,
) -> Result<Permit, Error> {
    let stored = connection
        .prepare_cached("SELECT minute, count FROM limits_minute WHERE service = ?1")?
        .query_row([service.as_str()], |row| {
            Ok(Minute {
                number: row.get(0)?,
                count: row.get(1)?,
            })
        })
        .optional()?;
    match window::admit(stored, limit, bounded_moment(now)) {
        Err(refused) => Ok(refused),
        Ok(minute) => {
            connection
                .prepare_cached(
                    "INSERT INTO limits_minute (service, minute, count) VALUES (?1, ?2, ?3)
                     ON CONFLICT (service) DO UPDATE SET
                       minute = excluded.minute, count = excluded.count",
                )?
                .execute(params![service.as_str(), minute.number, minute.count])?;
            Ok(Permit::Granted)
        }
    }
}

fn count(
    connection: &Connection,
    counter: &Counter,
    messages: i32,
    now: Timestamp,
) -> Result<Tally, Error> {
    let (span, now) = (counter.span(), bounded_moment(now));
    let part = span.part(now);
    let key = counter.to_string();
    if messages != 0 {
        for (side, bound) in [("<=", now), (">", now.plus_millis(LATEST_END_MS))] {
            forget(
                connection,
                &format!("SELECT counter, part FROM limits_count WHERE ends_ms {side} ?1 LIMIT ?2"),
                params![bound.as_millis(), SWEPT_AT_MOST],
                "DELETE FROM limits_count WHERE counter = ?1 AND part = ?2",
            )?;
        }
        connection
            .prepare_cached(
                "INSERT INTO limits_count (counter, part, messages, ends_ms)
                 VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (counter, part) DO UPDATE SET messages = messages + excluded.messages",
            )?
            .execute(params![key, part, messages, span.end_of(part).as_millis()])?;
    }
    let mut statement =
        connection.prepare_cached("SELECT part, messages FROM limits_count WHERE counter = ?1")?;
    let rows = statement.query_map([key], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Tally::read(rows.collect::<Result<Vec<_>, _>>()?, part))
}

#[async_trait]
impl SendLimiter for SqliteLimiter {
    async fn admit(
        &self,
        service: &ServiceName,
        limits: SendLimits,
        now: Timestamp,
    ) -> Result<Permit, StorageError> {
        let service = service.clone();
        self.sqlite
            .write(move |connection| admit(connection, &service, limits.service_per_minute, now))
            .await
    }

    async fn reserve(&self, reservation: Reservation) -> Result<Permit, StorageError> {
        self.sqlite
            .write(move |connection| reserve(connection, &reservation))
            .await
    }

    async fn is_reserved(
        &self,
        recipient: SubjectTag,
        delivery: &DeliveryId,
        now: Timestamp,
    ) -> Result<bool, StorageError> {
        let (recipient, delivery) = (recipient.to_string(), delivery.to_string());
        let now = bounded_moment(now);
        let reserved = self.sqlite.read(move |connection| {
            let live = live(connection, &recipient, now)?;
            Ok(live.iter().any(|(_, other)| *other == delivery))
        });
        reserved.await
    }

    async fn forget_recipient(&self, recipient: SubjectTag) -> Result<bool, StorageError> {
        let recipient = recipient.to_string();
        let sql = "DELETE FROM limits_sent WHERE recipient = ?1";
        let deleted = self
            .sqlite
            .write(move |connection| connection.execute(sql, [recipient]));
        deleted.await.map(|rows| rows > 0)
    }

    async fn count(
        &self,
        counter: &Counter,
        messages: i32,
        now: Timestamp,
    ) -> Result<Tally, StorageError> {
        let counter = counter.clone();
        self.sqlite
            .write(move |connection| count(connection, &counter, messages, now))
            .await
    }

    async fn forget(&self, counter: &Counter) -> Result<bool, StorageError> {
        let key = counter.to_string();
        let sql = "DELETE FROM limits_count WHERE counter = ?1";
        let deleted = self
            .sqlite
            .write(move |connection| connection.execute(sql, [key]));
        deleted.await.map(|rows| rows > 0)
    }
}
