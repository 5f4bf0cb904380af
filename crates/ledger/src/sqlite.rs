//! The ledger in the `SQLite` file: one row a delivery, one transaction a call. Refuses to decide:
//! [`crate::state`] does.

use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use watchword_core::{DeliveryId, Timestamp};
use watchword_storage::rusqlite::{Connection, Error, OptionalExtension, params};
use watchword_storage::{Migration, Sqlite};

use crate::codec::{decode, encode};
use crate::record::DeliveryRecord;
use crate::settings::LedgerSettings;
use crate::state::{self, Delivery, bounded, bounded_moment};
use crate::store::{Claim, ClaimRequest, LedgerError, LedgerStore, Settlement};

/// The ledger's table.
pub const MIGRATION: Migration = Migration {
    name: "ledger-1",
    sql: "CREATE TABLE ledger_delivery (
            id TEXT NOT NULL PRIMARY KEY,
            updated_at_ms INTEGER NOT NULL,
            record BLOB NOT NULL
          ) STRICT, WITHOUT ROWID;
          CREATE INDEX ledger_delivery_by_age ON ledger_delivery (updated_at_ms);",
};

/// Claims between two purges, and the records one purge takes away at most: more than came in
/// meanwhile, so that the table cannot grow, and few enough not to hold the writer up.
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
    /// A ledger in this file, which has [`MIGRATION`].
    pub fn new(sqlite: Sqlite, settings: LedgerSettings) -> Self {
        Self {
            sqlite,
            settings,
            claims: AtomicU32::new(0),
        }
    }

    /// Forgets up to 1,024 records past their retention, the oldest first, and says how many.
    /// Claims do this too now and then.
    pub async fn purge(&self, now: Timestamp) -> Result<usize, LedgerError> {
        let oldest = bounded_moment(now).minus_millis(self.settings.retention_ms);
        let purged = self
            .sqlite
            .write(move |connection| {
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

/// The stored delivery; the inner error is one of what is stored, not of the store.
fn load(
    connection: &Connection,
    id: &DeliveryId,
) -> Result<Result<Option<Delivery>, LedgerError>, Error> {
    let stored = read(connection, id)?;
    Ok(stored.map(|bytes| decode(id.clone(), &bytes)).transpose())
}

#[async_trait]
impl LedgerStore for SqliteLedger {
    async fn claim(&self, request: ClaimRequest) -> Result<Claim, LedgerError> {
        let claims = self.claims.fetch_add(1, Ordering::Relaxed);
        if claims % CLAIMS_A_PURGE == CLAIMS_A_PURGE - 1 {
            self.purge(request.now).await?;
        }
        self.sqlite
            .write(move |connection| {
                let old = match load(connection, &request.id)? {
                    Ok(old) => old,
                    Err(corrupt) => return Ok(Err(corrupt)),
                };
                let step = state::claim(old, request);
                if let Some(delivery) = &step.write {
                    write(connection, delivery)?;
                }
                Ok(Ok(step.answer))
            })
            .await?
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
