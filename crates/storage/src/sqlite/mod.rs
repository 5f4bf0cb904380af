//! The `SQLite` file: a writer thread with group commit, a reader thread, and a deadline for each
//! call. A second process cannot open the file.

mod backup;
mod file;
mod forget;
mod worker;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::telemetry::Call;
use crate::{StorageError, StorageMetrics};
use worker::{Job, Worker};

pub use backup::{BackupError, back_up, restore};
pub use forget::forget;

/// Deadline of one call.
const DEADLINE: Duration = Duration::from_secs(5);

/// A change of the schema, applied once per file.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// A name that is never reused: `<crate>-<number>`.
    pub name: &'static str,
    /// The SQL statements.
    pub sql: &'static str,
}

/// A handle to the file; cheap to clone.
#[derive(Clone)]
pub struct Sqlite {
    writer: Worker,
    reader: Worker,
    healthy: Arc<AtomicBool>,
    /// Metrics for the calls; `None` counts nothing.
    metrics: Option<StorageMetrics>,
}

impl std::fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sqlite")
            .field("healthy", &self.is_healthy())
            .finish_non_exhaustive()
    }
}

impl Sqlite {
    /// Opens or creates the file at `path` (mode 0600) and applies the migrations that it lacks.
    /// The file uses WAL, and every commit is synced to disk before its callers get an answer.
    pub fn open(path: &Path, migrations: &[Migration]) -> Result<Self, StorageError> {
        let lock = file::lock(path)?;
        let write = file::open(path, migrations)?;
        let read = file::open_reader(path)?;
        let healthy = Arc::new(AtomicBool::new(true));
        Ok(Self {
            writer: Worker::writer(write, healthy.clone(), lock)?,
            reader: Worker::reader(read)?,
            healthy,
            metrics: None,
        })
    }

    /// Returns the same handle with its calls counted in `metrics`.
    #[must_use]
    pub fn counted(mut self, metrics: StorageMetrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Runs `operation` in the next group commit, in its own savepoint: an error rolls back this
    /// operation only. `Ok` means that the result is on disk.
    pub async fn write<T, F>(&self, operation: F) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.call(Call::Write, &self.writer, operation).await
    }

    /// Runs `operation` on the committed data.
    pub async fn read<T, F>(&self, operation: F) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.call(Call::Read, &self.reader, operation).await
    }

    async fn call<T, F>(&self, call: Call, worker: &Worker, operation: F) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let begun = Instant::now();
        let answer = submit(worker, operation).await;
        if let Some(metrics) = &self.metrics {
            metrics.called(call, begun, answer.as_ref().err());
        }
        answer
    }

    /// Whether the last commit succeeded.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Commits waiting writes, checkpoints the log and ends the threads. Later calls fail.
    pub async fn close(self) {
        self.reader.stop().await;
        self.writer.stop().await;
    }
}

async fn submit<T, F>(worker: &Worker, operation: F) -> Result<T, StorageError>
where
    T: Send + 'static,
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
{
    let (answer, answered) = oneshot::channel();
    worker.submit(Box::new(Operation {
        call: Some(operation),
        result: None,
        answer,
    }))?;
    match timeout(DEADLINE, answered).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(StorageError::Unavailable("closed")),
        Err(_) => Err(StorageError::Timeout),
    }
}

/// A call in a worker's queue. It runs first and is answered after the commit.
struct Operation<T, F> {
    call: Option<F>,
    result: Option<rusqlite::Result<T>>,
    answer: oneshot::Sender<Result<T, StorageError>>,
}

impl<T, F> Job for Operation<T, F>
where
    T: Send + 'static,
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
{
    fn run(&mut self, connection: &Connection) -> bool {
        let Some(operation) = self.call.take() else {
            return false;
        };
        let result = operation(connection);
        let succeeded = result.is_ok();
        self.result = Some(result);
        succeeded
    }

    fn answer(self: Box<Self>, committed: Result<(), StorageError>) {
        let result = match (self.result, committed) {
            (Some(Err(error)), _) => Err(file::storage_error(&error)),
            (_, Err(error)) => Err(error),
            (Some(Ok(value)), Ok(())) => Ok(value),
            // The operation panicked and was rolled back.
            (None, Ok(())) => Err(StorageError::Rejected("the operation panicked")),
        };
        // The caller may have stopped waiting.
        let _ = self.answer.send(result);
    }
}
