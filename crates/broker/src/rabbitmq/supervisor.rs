//! Keeps the link connected for the life of the process: reconnects with jittered exponential
//! backoff, declares the topology after each connect, and logs an error only when it changes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use watchword_core::{Live, ServiceName};

use super::RabbitMqSettings;
use super::dial::{Address, LinkError};
use super::link::{Happening, Link};
use super::looks::look_on;
use super::topology::Topology;
use crate::port::LinkState;
use crate::queues::Queues;
use crate::telemetry::BrokerMetrics;

const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The jitter adds up to the same again, so a broker that recovered is found within 4 s.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Time to declare all queues after connecting, twice the usual duration.
const OPEN_MARGIN: Duration = Duration::from_secs(15);
/// Additional time for each queue: a new quorum queue takes about 20 ms.
const MARGIN_PER_QUEUE: Duration = Duration::from_millis(50);

/// The broker objects that this process declares and reads, from the current configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Objects {
    pub(super) topology: Topology,
    /// Services that have their own request queue.
    pub(super) request_services: BTreeSet<ServiceName>,
}

impl Objects {
    pub(super) fn of(settings: &RabbitMqSettings) -> Self {
        Self {
            topology: settings.topology.clone(),
            request_services: settings.request_services.clone(),
        }
    }
}

pub(super) struct Supervisor {
    objects: watch::Sender<Objects>,
    link: watch::Sender<Option<Arc<Link>>>,
    blocked: watch::Sender<bool>,
    undeclared: Notify,
    ended: watch::Sender<bool>,
    is_closed: AtomicBool,
}

impl Supervisor {
    pub(super) fn start(
        address: Live<Address>,
        objects: Objects,
        metrics: BrokerMetrics,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let supervisor = Arc::new(Self {
            objects: watch::Sender::new(objects),
            link: watch::Sender::new(None),
            blocked: watch::Sender::new(false),
            undeclared: Notify::new(),
            ended: watch::Sender::new(false),
            is_closed: AtomicBool::new(false),
        });
        tokio::spawn(supervisor.clone().run(address, metrics, stop));
        supervisor
    }

    pub(super) fn state(&self) -> LinkState {
        match (self.link.borrow().is_some(), *self.blocked.borrow()) {
            (false, _) => LinkState::Down,
            (true, true) => LinkState::Blocked,
            (true, false) => LinkState::Up,
        }
    }

    /// Returns the link if it is connected.
    pub(super) fn link(&self) -> Option<Arc<Link>> {
        self.link.borrow().clone()
    }

    /// Returns a receiver that follows the link as it connects and disconnects.
    pub(super) fn links(&self) -> watch::Receiver<Option<Arc<Link>>> {
        self.link.subscribe()
    }

    /// Returns a receiver that follows the configured objects.
    pub(super) fn objects(&self) -> watch::Receiver<Objects> {
        self.objects.subscribe()
    }

    /// Declares `objects` on the current link if they changed, and after each connect.
    pub(super) fn replace_objects(&self, objects: Objects) {
        let has_changed = self.objects.send_if_modified(|now| {
            let differs = *now != objects;
            *now = objects;
            differs
        });
        if has_changed {
            self.undeclared();
        }
    }

    fn topology(&self) -> Topology {
        self.objects.borrow().topology.clone()
    }

    /// Resolves when the broker refuses publishes.
    pub(super) async fn blocked(&self) {
        // Fails only when the sender is dropped, but `self` holds the sender.
        let _ = self.blocked.subscribe().wait_for(|blocked| *blocked).await;
    }

    /// Requests a new declaration: a message was unroutable, or a service was added.
    pub(super) fn undeclared(&self) {
        self.undeclared.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Resolves when the link is closed for good.
    pub(super) async fn closed(&self) {
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    async fn run(
        self: Arc<Self>,
        address: Live<Address>,
        metrics: BrokerMetrics,
        stop: CancellationToken,
    ) {
        let mut last_error = None;
        let mut waits = waits();
        let mut queues = Queues::default();
        while !stop.is_cancelled() {
            let (address, topology) = (address.get(), self.topology());
            let queue_count = u32::try_from(topology.queues.len()).unwrap_or(u32::MAX);
            let margin = OPEN_MARGIN + MARGIN_PER_QUEUE * queue_count;
            let opened = timeout(
                // Two connections, then the declarations.
                address.connect_deadline() * 2 + margin,
                Link::open(&address, &topology),
            );
            let opened = tokio::select! {
                () = stop.cancelled() => break,
                opened = opened => opened.unwrap_or(Err(LinkError::Timeout)),
            };
            match opened {
                Ok(link) => {
                    tracing::info!("connected to RabbitMQ");
                    (last_error, waits) = (None, self::waits());
                    self.keep(Arc::new(link), (&mut queues, &metrics), &stop)
                        .await;
                }
                Err(error) => {
                    if last_error.as_ref() != Some(&error) {
                        tracing::error!(%error, "cannot connect to RabbitMQ; retrying");
                    }
                    last_error = Some(error);
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(waits.next().unwrap_or(LONGEST_WAIT)) => {}
            }
        }
        self.is_closed.store(true, Ordering::Relaxed);
        self.link.send_replace(None);
        self.ended.send_replace(true);
    }

    /// Publishes the link to its users until it is lost or the process stops.
    async fn keep(
        &self,
        link: Arc<Link>,
        (queues, metrics): (&mut Queues, &BrokerMetrics),
        stop: &CancellationToken,
    ) {
        self.blocked.send_replace(false);
        self.link.send_replace(Some(link.clone()));
        metrics.connected(true);
        let watched = link.watch(|happening| {
            let blocked = matches!(happening, Happening::Blocked(true));
            if blocked != self.blocked.send_replace(blocked) {
                tracing::warn!(blocked, "RabbitMQ started or stopped refusing publishes");
            }
            metrics.blocked(blocked);
        });
        tokio::select! {
            () = watched => tracing::warn!("the link to RabbitMQ was lost"),
            () = stop.cancelled() => {}
            () = self.redeclare(&link) => {}
            () = look_on(&link, self.objects(), queues, metrics) => {}
        }
        self.link.send_replace(None);
        self.blocked.send_replace(false);
        metrics.connected(false);
        metrics.blocked(false);
        link.close().await;
    }

    /// Declares the topology again whenever an object is missing; never returns.
    async fn redeclare(&self, link: &Link) {
        loop {
            self.undeclared.notified().await;
            match link.declare(&self.topology()).await {
                Ok(()) => {
                    tracing::warn!(
                        "declared the topology again: a message was unroutable, or a service was added"
                    );
                }
                Err(error) => tracing::error!(%error, "cannot declare the topology again"),
            }
            sleep(FIRST_WAIT).await;
        }
    }
}

fn waits() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_WAIT)
        .with_max_delay(LONGEST_WAIT)
        .without_max_times()
        .with_jitter()
        .build()
}
