//! A thread with a connection and a bounded queue of jobs. The writer runs the waiting jobs in one
//! transaction and answers them after the commit. A full queue rejects jobs.

use std::fs::File;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};
use watchword_failpoint::{Point, reach};

use super::file::storage_error;
use crate::StorageError;

/// Most jobs that may wait in the queue.
const QUEUE: usize = 4_096;
/// Most jobs in one group commit.
const GROUP: usize = 256;

/// A call in two steps: run in the transaction, answer after the commit.
pub(super) trait Job: Send {
    /// Runs the job; returns `false` to roll it back.
    fn run(&mut self, connection: &Connection) -> bool;
    /// Answers the caller with the result of the group's commit.
    fn answer(self: Box<Self>, committed: Result<(), StorageError>);
}

enum Order {
    Job(Box<dyn Job>),
    Stop(oneshot::Sender<()>),
}

/// A handle to a worker thread.
#[derive(Clone)]
pub(super) struct Worker(mpsc::Sender<Order>);

impl Worker {
    /// Starts the writer thread, which keeps `lock` until it ends.
    pub(super) fn writer(
        connection: Connection,
        healthy: Arc<AtomicBool>,
        lock: File,
    ) -> Result<Self, StorageError> {
        start("sqlite-writer", move |mut orders| {
            let stopped = serve(&mut orders, |jobs| write_group(&connection, jobs, &healthy));
            // Best effort: the next start reads a log that was not checkpointed.
            let _ = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
            drop(connection);
            drop(lock);
            stopped
        })
    }

    /// Starts the reader thread.
    pub(super) fn reader(connection: Connection) -> Result<Self, StorageError> {
        start("sqlite-reader", move |mut orders| {
            serve(&mut orders, |jobs| {
                for mut job in jobs.drain(..) {
                    run_caught(&mut job, &connection);
                    job.answer(Ok(()));
                }
            })
        })
    }

    pub(super) fn submit(&self, job: Box<dyn Job>) -> Result<(), StorageError> {
        self.0
            .try_send(Order::Job(job))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => {
                    StorageError::Unavailable("too many calls are waiting")
                }
                mpsc::error::TrySendError::Closed(_) => StorageError::Unavailable("closed"),
            })
    }

    pub(super) async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.0.send(Order::Stop(done)).await.is_ok() {
            let _ = stopped.await;
        }
    }
}

fn start(
    name: &str,
    body: impl FnOnce(mpsc::Receiver<Order>) -> Option<oneshot::Sender<()>> + Send + 'static,
) -> Result<Worker, StorageError> {
    let (sender, orders) = mpsc::channel(QUEUE);
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            if let Some(done) = body(orders) {
                let _ = done.send(());
            }
        })
        .map_err(|_| StorageError::Unavailable("a thread could not be started"))?;
    Ok(Worker(sender))
}

/// Passes jobs to `work` in groups until it receives `Stop` or all senders are dropped.
fn serve(
    orders: &mut mpsc::Receiver<Order>,
    mut work: impl FnMut(&mut Vec<Box<dyn Job>>),
) -> Option<oneshot::Sender<()>> {
    let mut jobs = Vec::with_capacity(GROUP);
    loop {
        let mut next = orders.blocking_recv();
        let mut stop = None;
        loop {
            match next {
                Some(Order::Job(job)) => jobs.push(job),
                Some(Order::Stop(done)) => stop = Some(done),
                None => {
                    work(&mut jobs);
                    return None;
                }
            }
            if stop.is_some() || jobs.len() == GROUP {
                break;
            }
            match orders.try_recv() {
                Ok(order) => next = Some(order),
                Err(_) => break,
            }
        }
        work(&mut jobs);
        if stop.is_some() {
            return stop;
        }
    }
}

/// Runs all jobs in one transaction, each in its own savepoint. If the commit fails, the whole
/// group is rolled back and every job gets the error.
fn write_group(connection: &Connection, jobs: &mut Vec<Box<dyn Job>>, healthy: &AtomicBool) {
    if jobs.is_empty() {
        return;
    }
    let committed = try_group(connection, jobs);
    if committed.is_err() {
        // This fails only if no transaction is left to roll back.
        let _ = connection.execute_batch("ROLLBACK");
    }
    healthy.store(committed.is_ok(), Ordering::Relaxed);
    let committed = committed.map_err(|error| match storage_error(&error) {
        StorageError::Rejected(_) => StorageError::Unavailable("the group could not be committed"),
        other => other,
    });
    for job in jobs.drain(..) {
        job.answer(committed.clone());
    }
}

fn try_group(connection: &Connection, jobs: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
    let run = |sql: &str| connection.prepare_cached(sql)?.execute([]).map(|_| ());
    run("BEGIN IMMEDIATE")?;
    for job in jobs {
        run("SAVEPOINT job")?;
        if !run_caught(job, connection) {
            run("ROLLBACK TO job")?;
        }
        run("RELEASE job")?;
    }
    reach(Point::StorageWritten);
    run("COMMIT")?;
    reach(Point::StorageCommitted);
    Ok(())
}

/// Runs a job and catches a panic, which rolls the job back; the thread survives.
fn run_caught(job: &mut Box<dyn Job>, connection: &Connection) -> bool {
    std::panic::catch_unwind(AssertUnwindSafe(|| job.run(connection))).unwrap_or(false)
}
