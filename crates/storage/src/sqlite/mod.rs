//! The `SQLite` file: one writer thread that commits what waits as one group, one reader thread,
//! each call with a deadline. Refuses a second process on the same file.

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

/// How long a call may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// A change of the schema, applied once.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// Its name, unique for ever: `<crate>-<number>`.
    pub name: &'static str,
    /// Its statements.
    pub sql: &'static str,
}

/// The file; cheap to clone.
#[derive(Clone)]
pub struct Sqlite {
    writer: Worker,
    reader: Worker,
    healthy: Arc<AtomicBool>,
    /// Where calls are counted, if they are.
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
    /// Opens or creates the file at `path` (mode 0600) and applies what is new of `migrations`.
    /// WAL, and a commit is on disk before anyone is told of it.
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

    /// The same file, its calls counted from now on.
    #[must_use]
    pub fn counted(mut self, metrics: StorageMetrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Runs `operation` in the next group commit, in a savepoint of its own: an error takes back
    /// this operation only. `Ok` means: it is on disk.
    pub async fn write<T, F>(&self, operation: F) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.call(Call::Write, &self.writer, operation).await
    }

    /// Runs `operation` on what was committed so far.
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

    /// Commits what waits, folds the log into the file and ends the threads. Later calls fail.
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

/// One call on its way through a worker: run first, answered after the commit.
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
            // It panicked and was taken back.
            (None, Ok(())) => Err(StorageError::Rejected("the operation panicked")),
        };
        // Whoever asked may have given up waiting.
        let _ = self.answer.send(result);
    }
}
