//! The database file: its lock, mode, settings and schema. Only one process at a time may hold it.

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Error, ErrorCode, OpenFlags};

use super::Migration;
use crate::StorageError;

/// Pages (4 KiB each) in the log before a checkpoint. A page that changes often is then written to
/// the file once, and a start after a crash reads at most 16 MB.
const LOG_PAGES: u32 = 4_000;
/// Page cache, in KiB.
const CACHE_KIB: u32 = 8_192;

/// Takes the lock beside the file. It is released when the handle is closed, also by a crash.
pub(super) fn lock(path: &Path) -> Result<File, StorageError> {
    // Lock the real path, so that symbolic links to one file share the lock.
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut lock_path = real.into_os_string();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let config = |problem: &str| {
        StorageError::Config(format!("embedded.path: {}: {problem}", path.display()))
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(lock_path)
        .map_err(|_| config("the folder cannot be written to"))?;
    file.try_lock()
        .map_err(|_| config("another process uses this file"))?;
    Ok(file)
}

/// Opens the file for writing and migrates its schema.
pub(super) fn open(path: &Path, migrations: &[Migration]) -> Result<Connection, StorageError> {
    let config = |problem: &str| {
        StorageError::Config(format!("embedded.path: {}: {problem}", path.display()))
    };
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|file| file.set_permissions(Permissions::from_mode(0o600)))
        .map_err(|_| config("the file cannot be written to"))?;
    let connection = Connection::open(path).map_err(|_| config("the file cannot be opened"))?;
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
             PRAGMA wal_autocheckpoint = {LOG_PAGES}; PRAGMA cache_size = -{CACHE_KIB};"
        ))
        .and_then(|()| connection.busy_timeout(Duration::from_secs(2)))
        .and_then(|()| keep_plans(&connection))
        .and_then(|()| migrate(&connection, migrations))
        .map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => config("the file is no SQLite database"),
            _ => config("the file's tables cannot be migrated"),
        })?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}

/// Opens the file read-only.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StorageError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
        .and_then(|connection| {
            connection.busy_timeout(Duration::from_secs(2))?;
            keep_plans(&connection)?;
            Ok(connection)
        })
        .map_err(|error| storage_error(&error))
}

/// Enables the query planner stability guarantee, so that a prepared statement is planned once.
/// Without it, `SQLite` plans a statement that compares with a bound value again at each use, which
/// took 8 % of the cost of a code.
fn keep_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map(|_| ())
}

pub(super) fn migrate(connection: &Connection, migrations: &[Migration]) -> rusqlite::Result<()> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema_migration (name TEXT NOT NULL PRIMARY KEY) STRICT",
    )?;
    for migration in migrations {
        let transaction = connection.unchecked_transaction()?;
        let is_new = transaction.execute(
            "INSERT INTO schema_migration (name) VALUES (?1) ON CONFLICT DO NOTHING",
            [migration.name],
        )?;
        if is_new == 1 {
            transaction.execute_batch(migration.sql)?;
        }
        transaction.commit()?;
    }
    Ok(())
}

pub(super) fn storage_error(error: &Error) -> StorageError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StorageError::Unavailable("the disk is full"),
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::ReadOnly) => {
            StorageError::Unavailable("the file cannot be written to")
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            StorageError::Unavailable("the file is busy")
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StorageError::Unavailable("the file is damaged")
        }
        Some(ErrorCode::ConstraintViolation) => StorageError::Rejected("a constraint was violated"),
        _ => StorageError::Rejected("a statement failed"),
    }
}
