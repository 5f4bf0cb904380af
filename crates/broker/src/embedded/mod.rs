//! The embedded engine: durable queues in the `SQLite` file, for one process on one machine.
//! Nothing can subscribe to events here, so the publisher accepts and drops them.

mod consumer;
mod looks;
mod parked;
mod publisher;
mod table;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::{Notify, watch};
use watchword_core::{Clock, Timestamp};
use watchword_events::Lane;
use watchword_storage::Sqlite;
use watchword_storage::rusqlite::Connection;

use crate::parked::{ParkedError, ParkedLook};
use crate::port::{Broker, Consumer, LinkState, Publisher};
use crate::telemetry::BrokerMetrics;
use consumer::EmbeddedConsumer;
use publisher::EmbeddedPublisher;

/// The migrations of the queue table, in order.
pub const EMBEDDED_MIGRATIONS: [watchword_storage::Migration; 2] =
    [table::MIGRATION, table::MIGRATION_2];

/// Limits of the embedded queues.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddedSettings {
    /// The most messages a queue holds; further publishes are rejected.
    pub max_length: u64,
    /// Lease of a message in milliseconds. Must be longer than any delivery attempt.
    pub lease_ms: u64,
    /// How many times a message is delivered before it is dead-lettered.
    pub delivery_limit: u32,
}

impl Default for EmbeddedSettings {
    fn default() -> Self {
        Self {
            max_length: 100_000,
            lease_ms: 60_000,
            delivery_limit: 20,
        }
    }
}

/// State shared by the publishers, consumers and settlers of one process.
struct Shared {
    sqlite: Sqlite,
    clock: Arc<dyn Clock>,
    settings: EmbeddedSettings,
    metrics: BrokerMetrics,
    /// Wakes the consumer of a queue, or of its late queue, when a message became due.
    arrivals: HashMap<&'static str, Notify>,
    /// Length of each queue, so that a publish finds a full queue without counting. Publishes and
    /// settlements adjust it, and a count of the table every few seconds corrects it.
    lengths: HashMap<Lane, AtomicI64>,
    closed: watch::Sender<bool>,
    is_closed: AtomicBool,
    next_token: Mutex<i64>,
}

impl Shared {
    fn arrived(&self, lane: &'static str) {
        if let Some(notify) = self.arrivals.get(lane) {
            notify.notify_one();
        }
    }

    fn count(&self, lane: Lane, change: i64) {
        if let Some(length) = self.lengths.get(&lane) {
            length.fetch_add(change, Ordering::Relaxed);
        }
    }

    fn set_length(&self, lane: Lane, length: u64) {
        if let Some(known) = self.lengths.get(&lane) {
            known.store(i64::try_from(length).unwrap_or(i64::MAX), Ordering::Relaxed);
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn token(&self) -> i64 {
        let mut next = self
            .next_token
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *next += 1;
        *next
    }

    fn state(&self) -> LinkState {
        if !self.is_closed.load(Ordering::Relaxed) && self.sqlite.is_healthy() {
            LinkState::Up
        } else {
            LinkState::Down
        }
    }
}

/// Returns the values of the `lane` column for a queue: its own name and the name of its late
/// queue.
fn words(lane: Lane) -> impl Iterator<Item = &'static str> {
    std::iter::once(lane.as_str()).chain(lane.late())
}

/// A broker whose queues are in the `SQLite` file.
pub struct EmbeddedBroker {
    shared: Arc<Shared>,
}

impl EmbeddedBroker {
    /// Starts the broker on `sqlite`, which must have [`EMBEDDED_MIGRATIONS`]. Messages that an
    /// earlier process held are due at once: the file has one owner, so that process is gone.
    pub async fn start(
        sqlite: Sqlite,
        clock: Arc<dyn Clock>,
        settings: EmbeddedSettings,
        metrics: BrokerMetrics,
    ) -> Result<Arc<Self>, watchword_storage::StorageError> {
        let now_ms = clock.now().as_millis();
        let recover = move |connection: &Connection| table::recover(connection, now_ms);
        let (lengths, token) = sqlite.write(recover).await?;
        let length = |lane: Lane| words(lane).filter_map(|word| lengths.get(word)).sum();
        let shared = Shared {
            sqlite,
            clock,
            settings,
            metrics,
            arrivals: Lane::ALL
                .into_iter()
                .flat_map(words)
                .map(|word| (word, Notify::new()))
                .collect(),
            lengths: Lane::ALL
                .into_iter()
                .map(|lane| (lane, AtomicI64::new(length(lane))))
                .collect(),
            closed: watch::Sender::new(false),
            is_closed: AtomicBool::new(false),
            next_token: Mutex::new(token),
        };
        shared.metrics.connected(true);
        let shared = Arc::new(shared);
        tokio::spawn(looks::look_on(Arc::downgrade(&shared)));
        Ok(Arc::new(Self { shared }))
    }
}

#[async_trait]
impl Broker for EmbeddedBroker {
    fn publisher(&self) -> Arc<dyn Publisher> {
        Arc::new(EmbeddedPublisher::new(self.shared.clone()))
    }

    async fn consume(&self, lane: Lane, prefetch: u16) -> Box<dyn Consumer> {
        self.shared.metrics.lane(lane).consumers.inc();
        Box::new(EmbeddedConsumer::new(self.shared.clone(), lane, prefetch))
    }

    async fn parked(&self, lane: Lane, limit: usize) -> Result<Box<dyn ParkedLook>, ParkedError> {
        let now_ms = self.shared.now().as_millis();
        let look = parked::look(self.shared.sqlite.clone(), lane, limit, now_ms).await?;
        Ok(Box::new(look))
    }

    async fn close(&self) {
        self.shared.is_closed.store(true, Ordering::Relaxed);
        self.shared.closed.send_replace(true);
        self.shared.metrics.connected(false);
    }
}
