//! What providers say later, from the queue into the ledger: duplicates and disorder change
//! nothing, what is news is told as an event and goes into the provider's health. Refuses to wait
//! long for an attempt that is not written down: a receipt that stays unknown is counted and gone.

use std::sync::Arc;

use watchword_broker::{Consumer, Received, work_until};
use watchword_core::{Clock, Ladder, Live};
use watchword_events::{CloudEvent, ReceiptReceived};
use watchword_ledger::{Heard, LedgerError, LedgerStore, ReceiptNote};

use crate::report::Reporter;
use crate::route::Router;
use crate::telemetry::DeliveryMetrics;
use crate::worker::Settling;

/// A receipt for a message nobody knows is brought again so often (1, 5 and 15 s): it may have
/// overtaken the word of the worker that sent the message, also of one whose store was away.
const WAITS: u32 = 3;

/// What [`Receipts`] is made of.
#[derive(Clone)]
pub struct ReceiptsParts {
    /// Whose health they are about.
    pub router: Live<Router>,
    /// What became of deliveries.
    pub ledger: Arc<dyn LedgerStore>,
    /// Tells what changed.
    pub reporter: Arc<Reporter>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where it counts.
    pub metrics: DeliveryMetrics,
}

/// Takes receipts until told to stop.
#[derive(Clone)]
pub struct Receipts(ReceiptsParts);

impl Receipts {
    /// A taker of these parts.
    pub const fn new(parts: ReceiptsParts) -> Self {
        Self(parts)
    }

    /// Takes receipts until `stop`, then finishes those in work; the consumer's prefetch bounds
    /// how many.
    pub async fn run(self, consumer: Box<dyn Consumer>, stop: impl Future<Output = ()> + Send) {
        work_until(consumer, stop, move |received| {
            let receipts = self.clone();
            async move { receipts.take(received).await }
        })
        .await;
    }

    async fn take(&self, received: Received) {
        let (body, retries) = (received.body.clone(), received.retries);
        let settled = match self.hear(&body, retries).await {
            Settling::Ack => received.ack().await,
            Settling::Retry(rung) => received.retry(rung).await,
            Settling::Park(reason) => {
                self.0.metrics.parked(reason);
                received.park(reason).await
            }
            Settling::Requeue => received.requeue().await,
        };
        if settled.is_err() {
            tracing::debug!("a receipt could not be settled and will be redelivered");
        }
    }

    async fn hear(&self, body: &[u8], retries: u32) -> Settling {
        let event = match CloudEvent::<ReceiptReceived>::decode(body) {
            Ok(event) => event,
            Err(error) => return Settling::Park(error.reason()),
        };
        match self.apply(&event.data).await {
            Ok(Heard::Early | Heard::Unknown) if retries < WAITS => Ladder::STANDARD
                .rungs()
                .get(usize::try_from(retries).unwrap_or(usize::MAX))
                .map_or(Settling::Ack, |rung| Settling::Retry(*rung)),
            Ok(heard) => {
                self.count(&event.data, &heard).await;
                Settling::Ack
            }
            Err(error) => {
                tracing::warn!(%error, "the ledger is not available for a receipt");
                Ladder::STANDARD
                    .covering(u64::from(retries) * 2_000)
                    .map_or(Settling::Requeue, Settling::Retry)
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
