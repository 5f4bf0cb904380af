//! Keeps one connection alive. The supervisor pings each second, drops the connection after three
//! unanswered calls in a row (the client itself would keep a connection whose peer is silent), and
//! reconnects with backoff and jitter. Without a connection calls fail at once; they are not
//! queued.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use watchword_core::Live;

use super::Target;
use super::dial::{Connection, dial, inspect};
use crate::StorageError;

const PING_EVERY: Duration = Duration::from_secs(1);
/// Consecutive unanswered calls after which a connection is dropped.
const MUTE_AFTER: u32 = 3;

/// A connection and its sequence number.
pub(super) struct Link {
    pub(super) connection: Connection,
    number: u64,
}

/// The owner of the connection. Its task ends when the last [`super::Redis`] is dropped.
pub(super) struct Supervisor {
    link: RwLock<Option<Arc<Link>>>,
    unanswered: AtomicU32,
    healthy: AtomicBool,
    lost: Notify,
}

impl Supervisor {
    pub(super) fn start(target: Live<Target>, first: Connection) -> Arc<Self> {
        let supervisor = Arc::new(Self {
            link: RwLock::new(Some(Arc::new(Link {
                connection: first,
                number: 0,
            }))),
            unanswered: AtomicU32::new(0),
            healthy: AtomicBool::new(true),
            lost: Notify::new(),
        });
        tokio::spawn(keep(Arc::downgrade(&supervisor), target));
        supervisor
    }

    pub(super) fn current(&self) -> Option<Arc<Link>> {
        self.link
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether the connection is to a cluster: the client then reconnects single sockets by itself.
    pub(super) fn is_cluster(&self) -> bool {
        self.current()
            .is_some_and(|link| matches!(link.connection, Connection::Cluster(_)))
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    pub(super) fn answered(&self) {
        self.unanswered.store(0, Ordering::Relaxed);
        self.healthy.store(true, Ordering::Relaxed);
    }

    /// Records a failed call over `link`. An error reply shows that the server is alive, except
    /// those that another server would not give: after a failover the old primary is read-only.
    pub(super) fn failed(&self, link: &Link, error: &StorageError) {
        if self
            .current()
            .is_none_or(|current| current.number != link.number)
        {
            // A late result of a dropped connection says nothing about the current one.
            return;
        }
        let give_up = match error {
            StorageError::Timeout => {
                self.unanswered.fetch_add(1, Ordering::Relaxed) + 1 >= MUTE_AFTER
            }
            StorageError::Unavailable(
                "read-only" | "the primary is down" | "connection refused",
            ) => true,
            _ => false,
        };
        if matches!(error, StorageError::Unavailable(_)) || give_up {
            self.healthy.store(false, Ordering::Relaxed);
        }
        if give_up {
            self.drop_link(link.number);
        }
    }

    /// Drops `link`, whose socket is closed.
    pub(super) fn closed(&self, link: &Link) {
        self.failed(link, &StorageError::Timeout);
        self.drop_link(link.number);
    }

    fn drop_link(&self, number: u64) {
        let mut link = self.link.write().unwrap_or_else(PoisonError::into_inner);
        if link
            .as_ref()
            .is_some_and(|current| current.number == number)
        {
            *link = None;
            self.healthy.store(false, Ordering::Relaxed);
            self.lost.notify_one();
        }
    }

    fn install(&self, connection: Connection, number: u64) {
        *self.link.write().unwrap_or_else(PoisonError::into_inner) =
            Some(Arc::new(Link { connection, number }));
        self.unanswered.store(0, Ordering::Relaxed);
        self.healthy.store(true, Ordering::Relaxed);
    }
}

async fn keep(supervisor: Weak<Supervisor>, target: Live<Target>) {
    let ping_deadline = target.get().command_deadline().min(PING_EVERY);
    let mut number = 0;
    loop {
        let Some(alive) = supervisor.upgrade() else {
            return;
        };
        let Some(link) = alive.current() else {
            drop(alive);
            number += 1;
            let Some(connection) = redial(&supervisor, &target).await else {
                return;
            };
            if let Some(alive) = supervisor.upgrade() {
                alive.install(connection, number);
                tracing::info!("reconnected to Redis");
            }
            continue;
        };
        match timeout(ping_deadline, link.connection.query(&redis::cmd("PING"))).await {
            Ok(Ok(_)) => alive.answered(),
            Ok(Err(error)) if error.is_connection_dropped() || error.is_io_error() => {
                // The socket is closed, so no further reply can arrive.
                alive.healthy.store(false, Ordering::Relaxed);
                alive.drop_link(link.number);
                tracing::warn!("the connection to Redis was lost");
            }
            Ok(Err(error)) => alive.failed(&link, &StorageError::from_redis(&error)),
            Err(_) => {
                alive.healthy.store(false, Ordering::Relaxed);
                alive.failed(&link, &StorageError::Timeout);
            }
        }
        let lost = alive.lost.notified();
        tokio::select! {
            () = lost => {}
            () = sleep(PING_EVERY) => {}
        }
    }
}

/// Connects until it succeeds. Returns `None` when all handles are dropped.
async fn redial(supervisor: &Weak<Supervisor>, target: &Live<Target>) -> Option<Connection> {
    // Jitter adds up to the delay itself, so a wait is 100 ms to 0.8 s: a recovered server is
    // noticed within 1 s.
    let mut waits = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_millis(400))
        .without_max_times()
        .with_jitter()
        .build();
    loop {
        // Read the settings again: a reload may have changed them. Inspect again: the server may be
        // a different one, or configured differently.
        let target = target.get();
        let dialled = match dial(&target).await {
            Ok(connection) => inspect(connection.clone(), target.command_deadline())
                .await
                .map(|()| connection),
            Err(error) => Err(error),
        };
        match dialled {
            Ok(connection) => return Some(connection),
            Err(error @ StorageError::Config(_)) => {
                tracing::warn!(%error, "Redis cannot be used as it is configured");
            }
            Err(error) => tracing::debug!(%error, "Redis cannot be reached"),
        }
        sleep(waits.next().unwrap_or(PING_EVERY)).await;
        supervisor.upgrade()?;
    }
}
