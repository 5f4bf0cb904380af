//! The worker loop: runs each order in its own task and settles its message last. A panic
//! dead-letters the order that caused it and does not stop the others.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use watchword_broker::{Consumer, DeadLetterReason, Disposition, Received, work_until};
use watchword_failpoint::{Point, reach};

use crate::dispatcher::{Dispatcher, jitter};

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
    dispatcher: Arc<Dispatcher>,
}

impl Worker {
    /// Creates a worker that processes its orders with `dispatcher`.
    pub fn new(dispatcher: Dispatcher) -> Self {
        Self {
            dispatcher: Arc::new(dispatcher),
        }
    }

    /// Processes orders until `stop` resolves, then finishes those in flight. The consumer's
    /// prefetch bounds how many there are.
    pub async fn run(self, consumer: Box<dyn Consumer>, stop: impl Future<Output = ()> + Send) {
        work_until(consumer, stop, move |received| {
            work(self.dispatcher.clone(), received)
        })
        .await;
    }
}

async fn work(dispatcher: Arc<Dispatcher>, received: Received) {
    let metrics = dispatcher.metrics();
    metrics.in_flight.inc();
    if received.redelivered {
        metrics.redeliveries.inc();
    }
    // A panic dead-letters the order: redelivered, it would only panic again.
    let processed = AssertUnwindSafe(dispatcher.process(&received))
        .catch_unwind()
        .await;
    let disposition = processed.unwrap_or(Disposition::DeadLetter(DeadLetterReason::Panic));
    reach(Point::DeliveryReported);
    match disposition {
        Disposition::Retry(rung) => {
            metrics.retries.inc();
            tokio::time::sleep(jitter(rung, &received)).await;
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
