//! Remembered answers in the `SQLite` file: one row per request, kept for a day.

use async_trait::async_trait;
use watchword_core::Timestamp;
use watchword_storage::rusqlite::{OptionalExtension, params};
use watchword_storage::{Migration, Sqlite, StorageError, forget};

use super::{REMEMBERED_MS, RequestKey, RequestLog};

/// The log's schema migration.
pub const MIGRATION: Migration = Migration {
    name: "issuer-requests-1",
    sql: "CREATE TABLE issuer_request (
            key TEXT NOT NULL PRIMARY KEY,
            forget_at_ms INTEGER NOT NULL,
            answer TEXT NOT NULL
          ) STRICT, WITHOUT ROWID;
          CREATE INDEX issuer_request_by_age ON issuer_request (forget_at_ms);",
};

/// Answers by request, in the `SQLite` file.
#[derive(Debug)]
pub struct SqliteRequests {
    sqlite: Sqlite,
}

impl SqliteRequests {
    /// Creates a log in a file that has [`MIGRATION`].
    pub const fn new(sqlite: Sqlite) -> Self {
        Self { sqlite }
    }
}

#[async_trait]
impl RequestLog for SqliteRequests {
    async fn answer(
        &self,
        key: RequestKey,
        now: Timestamp,
    ) -> Result<Option<String>, StorageError> {
        self.sqlite
            .read(move |connection| {
                connection
                    .prepare_cached(
                        "SELECT answer FROM issuer_request WHERE key = ?1 AND forget_at_ms > ?2",
                    )?
                    .query_row(params![key.0.to_string(), now.as_millis()], |row| {
                        row.get(0)
                    })
                    .optional()
            })
            .await
    }

    async fn remember(
        &self,
        key: RequestKey,
        answer: String,
        now: Timestamp,
    ) -> Result<String, StorageError> {
        self.sqlite
            .write(move |connection| {
                forget(
                    connection,
                    "SELECT key FROM issuer_request WHERE forget_at_ms <= ?1 LIMIT 64",
                    [now.as_millis()],
                    "DELETE FROM issuer_request WHERE key = ?1",
                )?;
                connection
                    .prepare_cached(
                        "INSERT INTO issuer_request (key, forget_at_ms, answer) VALUES (?1, ?2, ?3)
                         ON CONFLICT (key) DO UPDATE SET key = key RETURNING answer",
                    )?
                    .query_row(
                        params![
                            key.0.to_string(),
                            now.plus_millis(REMEMBERED_MS).as_millis(),
                            answer
                        ],
                        |row| row.get(0),
                    )
            })
            .await
    }
}
