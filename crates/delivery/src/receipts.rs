//! Delivery receipts: from their queue into the ledger, the provider's health and an event.
//! Duplicates and reordering change nothing. A receipt whose attempt is not in the ledger is
//! retried for 21 s, then counted as unknown and dropped.

use std::sync::Arc;

use watchword_broker::{Consumer, Disposition, Received, work_until};
use watchword_core::{Clock, Ladder, Live};
use watchword_events::{CloudEvent, ReceiptReceived};
use watchword_ledger::{Heard, LedgerError, LedgerStore, ReceiptNote};

use crate::report::Reporter;
use crate::route::Router;
use crate::telemetry::DeliveryMetrics;

/// How many times a receipt for an unknown message is retried (after 1, 5 and 15 s). It may have
/// arrived before the worker recorded the attempt, for example while the store was unavailable.
const WAITS: u32 = 3;

/// The parts of [`Receipts`].
#[derive(Clone)]
pub struct ReceiptsParts {
    /// The providers, whose health depends on receipts.
    pub router: Live<Router>,
    /// The outcome of every delivery.
    pub ledger: Arc<dyn LedgerStore>,
    /// Publishes changed outcomes.
    pub reporter: Arc<Reporter>,
    /// The time source.
    pub clock: Arc<dyn Clock>,
    /// The worker's metrics.
    pub metrics: DeliveryMetrics,
}

/// Applies receipts until it is stopped.
#[derive(Clone)]
pub struct Receipts(ReceiptsParts);

impl Receipts {
    /// Creates a receipt handler.
    pub const fn new(parts: ReceiptsParts) -> Self {
        Self(parts)
    }

    /// Applies receipts until `stop` resolves, then finishes those in flight. The consumer's
    /// prefetch bounds how many there are.
    pub async fn run(self, consumer: Box<dyn Consumer>, stop: impl Future<Output = ()> + Send) {
        work_until(consumer, stop, move |received| {
            let receipts = self.clone();
            async move { receipts.take(received).await }
        })
        .await;
    }

    async fn take(&self, received: Received) {
        let (body, retries) = (received.body.clone(), received.retries);
        let disposition = self.hear(&body, retries).await;
        if let Disposition::DeadLetter(reason) = disposition {
            self.0.metrics.dead_lettered(reason);
        }
        let settled = received.settle(disposition).await;
        if settled.is_err() {
            tracing::debug!("a receipt could not be settled and will be redelivered");
        }
    }

    async fn hear(&self, body: &[u8], retries: u32) -> Disposition {
        let event = match CloudEvent::<ReceiptReceived>::decode(body) {
            Ok(event) => event,
            Err(error) => return Disposition::DeadLetter(error.into()),
        };
        match self.apply(&event.data).await {
            Ok(Heard::Early | Heard::Unknown) if retries < WAITS => Ladder::STANDARD
                .rungs()
                .get(usize::try_from(retries).unwrap_or(usize::MAX))
                .map_or(Disposition::Ack, |rung| Disposition::Retry(*rung)),
            Ok(heard) => {
                self.count(&event.data, &heard).await;
                Disposition::Ack
            }
            Err(error) => {
                tracing::warn!(%error, "the ledger is unavailable; a receipt will be retried");
                Disposition::retry_after_ms(u64::from(retries) * 2_000)
            }
        }
    }

    async fn apply(&self, receipt: &ReceiptReceived) -> Result<Heard, LedgerError> {
        let ledger = &self.0.ledger;
        let id = match (&receipt.delivery_id, &receipt.message_id) {
            (Some(id), _) => Some(id.clone()),
            (None, Some(message_id)) => ledger.named(&receipt.provider, message_id).await?,
            (None, None) => None,
        };
        let Some(id) = id else {
            return Ok(Heard::Unknown);
        };
        ledger
            .receipt(ReceiptNote {
                id,
                provider: receipt.provider.clone(),
                message_id: receipt.message_id.clone(),
                state: receipt.state,
                now: self.0.clock.now(),
            })
            .await
    }

    async fn count(&self, receipt: &ReceiptReceived, heard: &Heard) {
        let parts = &self.0;
        let result = match heard {
            Heard::Counted(_) => "counted",
            Heard::Repeated => "repeated",
            Heard::Early | Heard::Unknown => "unknown",
        };
        let router = parts.router.get();
        let Some(place) = router.place(&receipt.provider) else {
            return;
        };
        parts
            .metrics
            .receipt(&receipt.provider, receipt.state, result);
        let Heard::Counted(record) = heard else {
            return;
        };
        let now = parts.clock.now();
        router.health.receipt(place, receipt.state, now);
        let shown = router.health.level(place, now);
        parts.metrics.share(&receipt.provider, shown, None);
        tracing::info!(
            delivery_id = %record.id, provider = %receipt.provider, state = %receipt.state,
            error = receipt.error.as_deref(), outcome = %record.outcome, "receipt",
        );
        if let Some(service) = &record.service {
            parts.reporter.heard(service, record, receipt.state).await;
        }
    }
}
