//! The ledger in the `SQLite` file: one row per delivery, one transaction per call. The rules are
//! in [`crate::state`].

use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use watchword_core::{DeliveryId, ProviderName, Timestamp};
use watchword_storage::rusqlite::{Connection, Error, OptionalExtension, params};
use watchword_storage::{Migration, Sqlite};

use crate::codec::{decode, encode};
use crate::record::DeliveryRecord;
use crate::settings::LedgerSettings;
use crate::state::{self, Delivery, Step, bounded, bounded_moment};
use crate::store::{Claim, ClaimRequest, Heard, LedgerError, LedgerStore, ReceiptNote, Settlement};

/// The ledger's schema migrations.
pub const MIGRATIONS: [Migration; 3] = [DELIVERIES, NAMES, DELIVERIES_2];

const DELIVERIES: Migration = Migration {
    name: "ledger-1",
    sql: "CREATE TABLE ledger_delivery (
            id TEXT NOT NULL PRIMARY KEY,
            updated_at_ms INTEGER NOT NULL,
            record BLOB NOT NULL
          ) STRICT, WITHOUT ROWID;
          CREATE INDEX ledger_delivery_by_age ON ledger_delivery (updated_at_ms);",
};

const NAMES: Migration = Migration {
    name: "ledger-2",
    sql: "CREATE TABLE ledger_name (
            provider TEXT NOT NULL,
            message_id TEXT NOT NULL,
            delivery_id TEXT NOT NULL,
            named_at_ms INTEGER NOT NULL,
            PRIMARY KEY (provider, message_id)
          ) STRICT, WITHOUT ROWID;
          CREATE INDEX ledger_name_by_age ON ledger_name (named_at_ms);",
};

/// Stores rows in the order of insertion instead of that of their random ids, so that later writes
/// about a delivery hit pages that other recent deliveries share.
const DELIVERIES_2: Migration = Migration {
    name: "ledger-3",
    sql: "ALTER TABLE ledger_delivery RENAME TO ledger_delivery_1;
          DROP INDEX ledger_delivery_by_age;
          CREATE TABLE ledger_delivery (
            id TEXT NOT NULL PRIMARY KEY,
            updated_at_ms INTEGER NOT NULL,
            record BLOB NOT NULL
          ) STRICT;
          INSERT INTO ledger_delivery (id, updated_at_ms, record)
            SELECT id, updated_at_ms, record FROM ledger_delivery_1 ORDER BY updated_at_ms;
          DROP TABLE ledger_delivery_1;
          CREATE INDEX ledger_delivery_by_age ON ledger_delivery (updated_at_ms);",
};

/// Claims between two purges, and the most records that one purge deletes: more than were claimed
/// in between, so that the table cannot grow, and few enough not to hold up the writer.
const CLAIMS_A_PURGE: u32 = 256;
const PURGED_AT_MOST: u32 = 1_024;

/// The ledger in the `SQLite` file.
#[derive(Debug)]
pub struct SqliteLedger {
    sqlite: Sqlite,
    settings: LedgerSettings,
    claims: AtomicU32,
}

impl SqliteLedger {
    /// Creates a ledger in a file that has [`MIGRATIONS`].
    pub fn new(sqlite: Sqlite, settings: LedgerSettings) -> Self {
        Self {
            sqlite,
            settings,
            claims: AtomicU32::new(0),
        }
    }

    /// Deletes up to 1,024 records past their retention, oldest first, and returns the number.
    /// Every 256th claim does this too.
    pub async fn purge(&self, now: Timestamp) -> Result<usize, LedgerError> {
        let oldest = bounded_moment(now).minus_millis(self.settings.retention_ms);
        let purged = self
            .sqlite
            .write(move |connection| {
                connection
                    .prepare_cached(
                        "DELETE FROM ledger_name WHERE (provider, message_id) IN (
                           SELECT provider, message_id FROM ledger_name WHERE named_at_ms <= ?1
                           ORDER BY named_at_ms LIMIT ?2)",
                    )?
                    .execute(params![oldest.as_millis(), PURGED_AT_MOST])?;
                connection
                    .prepare_cached(
                        "DELETE FROM ledger_delivery WHERE id IN (
                           SELECT id FROM ledger_delivery WHERE updated_at_ms <= ?1
                           ORDER BY updated_at_ms LIMIT ?2)",
                    )?
                    .execute(params![oldest.as_millis(), PURGED_AT_MOST])
            })
            .await?;
        Ok(purged)
    }
}

fn read(connection: &Connection, id: &DeliveryId) -> Result<Option<Vec<u8>>, Error> {
    connection
        .prepare_cached("SELECT record FROM ledger_delivery WHERE id = ?1")?
        .query_row([id.to_string()], |row| row.get(0))
        .optional()
}

fn write(connection: &Connection, delivery: &Delivery) -> Result<(), Error> {
    connection
        .prepare_cached(
            "INSERT INTO ledger_delivery (id, updated_at_ms, record) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET
               updated_at_ms = excluded.updated_at_ms, record = excluded.record",
        )?
        .execute(params![
            delivery.record.id.to_string(),
            delivery.record.updated_at.as_millis(),
            encode(delivery)
        ])?;
    Ok(())
}

/// Loads a delivery. The inner error is about the stored record, the outer one about the store.
fn load(
    connection: &Connection,
    id: &DeliveryId,
) -> Result<Result<Option<Delivery>, LedgerError>, Error> {
    let stored = read(connection, id)?;
    Ok(stored.map(|bytes| decode(id.clone(), &bytes)).transpose())
}

impl SqliteLedger {
    /// Runs one step of the state machine in a transaction.
    async fn change<T: Send + 'static>(
        &self,
        id: DeliveryId,
        change: impl FnOnce(Option<Delivery>) -> Step<T> + Send + 'static,
    ) -> Result<T, LedgerError> {
        self.sqlite
            .write(move |connection| {
                let old = match load(connection, &id)? {
                    Ok(old) => old,
                    Err(corrupt) => return Ok(Err(corrupt)),
                };
                let step = change(old);
                if let Some(delivery) = &step.write {
                    write(connection, delivery)?;
                }
                Ok(Ok(step.answer))
            })
            .await?
    }
}

#[async_trait]
impl LedgerStore for SqliteLedger {
    async fn claim(&self, request: ClaimRequest) -> Result<Claim, LedgerError> {
        let claims = self.claims.fetch_add(1, Ordering::Relaxed);
        if claims % CLAIMS_A_PURGE == CLAIMS_A_PURGE - 1 {
            self.purge(request.now).await?;
        }
        self.change(request.id.clone(), |old| state::claim(old, request))
            .await
    }

    async fn settle(&self, settlement: Settlement) -> Result<DeliveryRecord, LedgerError> {
        let settlement = bounded(settlement);
        self.sqlite
            .write(move |connection| {
                let old = match load(connection, &settlement.id)? {
                    Ok(old) => old,
                    Err(corrupt) => return Ok(Err(corrupt)),
                };
                let Some(step) = state::settle(old, settlement) else {
                    return Ok(Err(LedgerError::FenceLost));
                };
                if let Some(delivery) = &step.write {
                    write(connection, delivery)?;
                }
                Ok(Ok(step.answer))
            })
            .await?
    }

    async fn receipt(&self, note: ReceiptNote) -> Result<Heard, LedgerError> {
        self.change(note.id.clone(), move |old| state::receipt(old, &note))
            .await
    }

    async fn reopen(&self, id: &DeliveryId, now: Timestamp) -> Result<bool, LedgerError> {
        self.change(id.clone(), move |old| state::reopen(old, now))
            .await
    }

    async fn name(
        &self,
        provider: &ProviderName,
        message_id: &str,
        id: &DeliveryId,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let row = (
            provider.to_string(),
            message_id.to_owned(),
            id.to_string(),
            bounded_moment(now).as_millis(),
        );
        self.sqlite
            .write(move |connection| {
                connection
                    .prepare_cached(
                        "INSERT INTO ledger_name (provider, message_id, delivery_id, named_at_ms)
                         VALUES (?1, ?2, ?3, ?4)
                         ON CONFLICT DO UPDATE SET
                           delivery_id = excluded.delivery_id, named_at_ms = excluded.named_at_ms",
                    )?
                    .execute(row)
            })
            .await?;
        Ok(())
    }

    async fn named(
        &self,
        provider: &ProviderName,
        message_id: &str,
    ) -> Result<Option<DeliveryId>, LedgerError> {
        let key = (provider.to_string(), message_id.to_owned());
        let stored: Option<String> = self
            .sqlite
            .read(move |connection| {
                connection
                    .prepare_cached(
                        "SELECT delivery_id FROM ledger_name WHERE provider = ?1 AND message_id = ?2",
                    )?
                    .query_row(key, |row| row.get(0))
                    .optional()
            })
            .await?;
        stored
            .map(|text| text.parse().map_err(|_| LedgerError::Corrupt))
            .transpose()
    }

    async fn get(&self, ids: &[DeliveryId]) -> Result<Vec<DeliveryRecord>, LedgerError> {
        let ids = ids.to_vec();
        self.sqlite
            .read(move |connection| {
                let mut records = Vec::new();
                for id in &ids {
                    match load(connection, id)? {
                        Ok(Some(delivery)) => records.push(delivery.record),
                        Ok(None) => {}
                        Err(corrupt) => return Ok(Err(corrupt)),
                    }
                }
                Ok(Ok(records))
            })
            .await?
    }
}
