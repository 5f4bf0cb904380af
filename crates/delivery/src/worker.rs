//! The worker loop: runs each order in its own task and settles its message last. A panic
//! dead-letters the order that caused it and does not stop the others.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use watchword_broker::{Consumer, DeadLetterReason, Disposition, Received, work_until};
use watchword_failpoint::{Point, reach};

use crate::courier::{Courier, Letter, jitter};

/// Default limit of concurrent provider calls. With a provider that responds in 100 ms, it allows
/// 2,500 messages a second.
pub const DEFAULT_CONCURRENCY: u16 = 256;

/// Returns how many orders a worker holds for `concurrency` calls: some more, whose outcomes are
/// being recorded or which start as soon as a call ends.
pub const fn prefetch(concurrency: u16) -> u16 {
    concurrency
        .saturating_add(concurrency / 4)
        .saturating_add(16)
}

/// Processes the orders of one channel until it is stopped.
pub struct Worker {
    courier: Arc<Courier>,
}

impl Worker {
    /// Creates a worker that processes its orders with `courier`.
    pub fn new(courier: Courier) -> Self {
        Self {
            courier: Arc::new(courier),
        }
    }

    /// Processes orders until `stop` resolves, then finishes those in flight. The consumer's
    /// prefetch bounds how many there are.
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
    // A panic dead-letters the order: redelivered, it would only panic again.
    let carried = AssertUnwindSafe(courier.carry(&letter))
        .catch_unwind()
        .await;
    let disposition = carried.unwrap_or(Disposition::DeadLetter(DeadLetterReason::Panic));
    reach(Point::DeliveryReported);
    match disposition {
        Disposition::Retry(rung) => {
            metrics.retries.inc();
            tokio::time::sleep(jitter(rung, &letter)).await;
        }
        Disposition::DeadLetter(reason) => {
            tracing::error!(%reason, "an order was dead-lettered");
            metrics.dead_lettered(reason);
        }
        Disposition::Ack | Disposition::Requeue => {}
    }
    let settled = received.settle(disposition).await;
    if settled.is_err() {
        // The broker redelivers the message; the ledger recognizes the delivery.
        tracing::debug!("an order could not be settled and will be redelivered");
    }
    metrics.in_flight.dec();
}
