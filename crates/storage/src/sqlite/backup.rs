//! Backup and restore of the `SQLite` file. A backup can be made while a process uses the file; a
//! restore needs that no process does.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode};
use tempfile::{NamedTempFile, PersistError};

use super::Migration;
use super::file::{lock, migrate, open_reader, storage_error};
use crate::StorageError;

/// Error of making or restoring a backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The target exists. Files are not overwritten.
    #[error("{} exists and is not overwritten; move it away or name another file", .0.display())]
    Exists(PathBuf),
    /// The source cannot be read.
    #[error("{path} cannot be read: {reason}", path = .0.display(), reason = reason(*.1))]
    Unreadable(PathBuf, io::ErrorKind),
    /// The target cannot be written.
    #[error("{path} cannot be written: {reason}", path = .0.display(), reason = reason(*.1))]
    Unwritable(PathBuf, io::ErrorKind),
    /// The source is not a backup, or is damaged.
    #[error("{} is not a backup of Watchword, or it is damaged", .0.display())]
    Damaged(PathBuf),
    /// The source has a write-ahead log. A copy without it would lose that content.
    #[error("{} has a write-ahead log beside it, so it is not a backup made by 'watchword backup'", .0.display())]
    InUse(PathBuf),
    /// The source has tables of a later version.
    #[error("{} was made by a later version of Watchword", .0.display())]
    Later(PathBuf),
    /// The folder belongs to another user, whose process could not open the restored file.
    #[error("{} belongs to another user; run this command as that user", .0.display())]
    Owner(PathBuf),
    /// Another process uses the file, or the store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

fn reason(kind: io::ErrorKind) -> String {
    match kind {
        io::ErrorKind::NotFound => "there is no such file or folder".to_owned(),
        kind => kind.to_string(),
    }
}

/// Copies the file at `path`, which may be in use, to a new file of mode 0600.
pub fn back_up(path: &Path, to: &Path) -> Result<(), BackupError> {
    if to.exists() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    if let Err(error) = File::open(path) {
        return Err(BackupError::Unreadable(path.to_owned(), error.kind()));
    }
    let unwritable = |error: io::Error| BackupError::Unwritable(to.to_owned(), error.kind());
    let copy = NamedTempFile::new_in(folder(to)).map_err(unwritable)?;
    // VACUUM INTO is a read transaction: writers continue, and free pages are not copied.
    let name = copy.path().to_string_lossy();
    let copied = open_reader(path)?.execute("VACUUM INTO ?1", [&name]);
    copied.map_err(|error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            BackupError::Damaged(path.to_owned())
        }
        _ => BackupError::Storage(storage_error(&error)),
    })?;
    keep(copy, to)
}

/// Copies the backup `from` to `path`, where no file may exist, migrates its tables and runs
/// `finish` on it. `path` stays empty unless everything succeeds.
pub fn restore(
    from: &Path,
    path: &Path,
    migrations: &[Migration],
    finish: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> Result<(), BackupError> {
    let unwritable = |error: io::Error| BackupError::Unwritable(path.to_owned(), error.kind());
    let mut copy = NamedTempFile::new_in(folder(path)).map_err(unwritable)?;
    let owner = |file: io::Result<Metadata>| file.map(|file| file.uid()).map_err(unwritable);
    if owner(copy.as_file().metadata())? != owner(fs::metadata(folder(path)))? {
        return Err(BackupError::Owner(folder(path).to_owned()));
    }
    let _lock = lock(path)?;
    if path.exists() {
        return Err(BackupError::Exists(path.to_owned()));
    }
    // `SQLite` would apply the log of an earlier file to the restored one. An empty log holds
    // nothing.
    if has_log(path) {
        return Err(BackupError::Exists(log_of(path)));
    }
    if has_log(from) {
        return Err(BackupError::InUse(from.to_owned()));
    }
    let unreadable = |error: io::Error| BackupError::Unreadable(from.to_owned(), error.kind());
    let mut source = File::open(from).map_err(unreadable)?;
    io::copy(&mut source, &mut copy).map_err(unwritable)?;
    copy.flush().map_err(unwritable)?;

    let damaged = |_| BackupError::Damaged(from.to_owned());
    let connection = Connection::open(copy.path()).map_err(damaged)?;
    if !is_known(&connection, migrations).map_err(damaged)? {
        return Err(BackupError::Later(from.to_owned()));
    }
    migrate(&connection, migrations)
        .and_then(|()| finish(&connection))
        .map_err(|error| storage_error(&error))?;
    connection
        .close()
        .map_err(|(_, error)| storage_error(&error))?;
    keep(copy, path)
}

/// Checks that the file is intact and has no tables of a later version. Returns an error if it is
/// not a backup.
fn is_known(connection: &Connection, migrations: &[Migration]) -> rusqlite::Result<bool> {
    // A copy made with other tools may be in WAL mode and would get a log as a second file.
    connection.pragma_update(None, "journal_mode", "DELETE")?;
    let verdict: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(rusqlite::Error::InvalidQuery);
    }
    let mut statement = connection.prepare("SELECT name FROM schema_migration")?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?;
    for name in names {
        let name = name?;
        if migrations.iter().all(|known| known.name != name) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Syncs the copy to disk and gives it its final name.
fn keep(copy: NamedTempFile, to: &Path) -> Result<(), BackupError> {
    let unwritable = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists(to.to_owned()),
        kind => BackupError::Unwritable(to.to_owned(), kind),
    };
    copy.as_file().sync_all().map_err(unwritable)?;
    copy.persist_noclobber(to)
        .map_err(|PersistError { error, .. }| unwritable(error))?;
    File::open(folder(to))
        .and_then(|folder| folder.sync_all())
        .map_err(unwritable)
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Returns the path of the write-ahead log of the file at `path`.
fn log_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

fn has_log(path: &Path) -> bool {
    fs::metadata(log_of(path)).is_ok_and(|log| log.len() > 0)
}
