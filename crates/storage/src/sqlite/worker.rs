//! A thread with a connection and a bounded queue of jobs. The writer runs what waits in one
//! transaction and answers after the commit. Refuses jobs when its queue is full.

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

/// Calls that may wait.
const QUEUE: usize = 4_096;
/// Calls committed together at most.
const GROUP: usize = 256;

/// A call in two steps.
pub(super) trait Job: Send {
    /// Does its work; `false` takes it back.
    fn run(&mut self, connection: &Connection) -> bool;
    /// Answers, once it is known whether the group was committed.
    fn answer(self: Box<Self>, committed: Result<(), StorageError>);
}

enum Order {
    Job(Box<dyn Job>),
    Stop(oneshot::Sender<()>),
}

/// The way to a thread.
#[derive(Clone)]
pub(super) struct Worker(mpsc::Sender<Order>);

impl Worker {
    /// Starts the writer, which holds `lock` for as long as it lives.
    pub(super) fn writer(
        connection: Connection,
        healthy: Arc<AtomicBool>,
        lock: File,
    ) -> Result<Self, StorageError> {
        start("sqlite-writer", move |mut orders| {
            let stopped = serve(&mut orders, |jobs| write_group(&connection, jobs, &healthy));
            // Best effort: an unfolded log is read at the next start.
            let _ = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
            drop(connection);
            drop(lock);
            stopped
        })
    }

    /// Starts the reader.
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
        .map_err(|_| StorageError::Unavailable("no thread can be started"))?;
    Ok(Worker(sender))
}

/// Hands jobs to `work` in groups until told to stop, or until nobody can ask any more.
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

/// One transaction for all; each job in its own savepoint. A group that cannot be committed is
/// taken back whole, and every job of it hears so.
fn write_group(connection: &Connection, jobs: &mut Vec<Box<dyn Job>>, healthy: &AtomicBool) {
    if jobs.is_empty() {
        return;
    }
    let committed = try_group(connection, jobs);
    if committed.is_err() {
        // Fails only if there is no transaction left to take back.
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

/// A job that panics is taken back like one that failed; the thread lives on.
fn run_caught(job: &mut Box<dyn Job>, connection: &Connection) -> bool {
    std::panic::catch_unwind(AssertUnwindSafe(|| job.run(connection))).unwrap_or(false)
}
