//! One worker: takes orders from its lane, each in its own task, and settles each message last.
//! Refuses to let one order stop the others: a panic parks the order that caused it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use watchword_broker::{Consumer, ParkReason, Received, work_until};
use watchword_core::Rung;
use watchword_failpoint::{Point, reach};

use crate::courier::{Courier, Letter, jitter};

/// How many calls of providers a worker has at once unless the config says otherwise: with a
/// provider that answers in 100 ms, 2,500 a second.
pub const DEFAULT_CONCURRENCY: u16 = 256;

/// How many orders a worker holds for that many calls: those whose outcome is being written down,
/// and those that can be called for as soon as a call ends.
pub const fn prefetch(concurrency: u16) -> u16 {
    concurrency
        .saturating_add(concurrency / 4)
        .saturating_add(16)
}

/// How a message is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settling {
    /// Its outcome is recorded.
    Ack,
    /// It comes back after this wait.
    Retry(Rung),
    /// It cannot be processed.
    Park(ParkReason),
    /// The store is away: hand it back.
    Requeue,
}

/// Takes orders until told to stop.
pub struct Worker {
    courier: Arc<Courier>,
}

impl Worker {
    /// A worker that has its orders carried out by `courier`.
    pub fn new(courier: Courier) -> Self {
        Self {
            courier: Arc::new(courier),
        }
    }

    /// Takes orders until `stop`, then finishes those in work. The consumer's prefetch bounds how
    /// many these are.
    pub async fn run(self, consumer: Box<dyn Consumer>, stop: impl Future<Output = ()> + Send) {
        work_until(consumer, stop, move |received| {
            work(self.courier.clone(), received)
        })
        .await;
    }
}

async fn work(courier: Arc<Courier>, received: Received) {
    let metrics = courier.metrics();
    metrics.in_flight.inc();
    if received.redelivered {
        metrics.redeliveries.inc();
    }
    let letter = Letter {
        body: received.body.clone(),
        retries: received.retries,
        redelivered: received.redelivered,
        traceparent: received.traceparent.clone(),
    };
    let carried = AssertUnwindSafe(courier.carry(&letter))
        .catch_unwind()
        .await;
    let settling = carried.unwrap_or(Settling::Park("panic"));
    reach(Point::DeliveryReported);
    let settled = match settling {
        Settling::Ack => received.ack().await,
        Settling::Retry(rung) => {
            metrics.retries.inc();
            tokio::time::sleep(jitter(rung, &letter)).await;
            received.retry(rung).await
        }
        Settling::Park(reason) => {
            tracing::error!(reason, "an order was put aside");
            metrics.parked(reason);
            received.park(reason).await
        }
        Settling::Requeue => received.requeue().await,
    };
    if settled.is_err() {
        // It will be handed out again; the ledger recognises it.
        tracing::debug!("an order could not be settled and will be redelivered");
    }
    metrics.in_flight.dec();
}
