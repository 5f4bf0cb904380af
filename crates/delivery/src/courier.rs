//! The way of one order: read, open, keep the deadline, claim, attempt, decide, record, report.
//! Refuses to let go of an order whose outcome is not in the ledger.

use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use tokio::time::timeout;
use watchword_chassis::Services;
use watchword_core::{AttemptClass, Channel, Clock, DeliveryOutcome, Ladder, Timestamp};
use watchword_events::{CloudEvent, Order, OtpSend, Sealer};
use watchword_ledger::{
    Attempt, Claim, ClaimRequest, DeliveryRecord, Fence, LedgerError, LedgerStore, Settlement,
};

use crate::decision::{Decision, Ended, attempt_budget, decide};
use crate::report::Reporter;
use crate::telemetry::DeliveryMetrics;
use crate::worker::Settling;
use crate::{Attempted, Dispatch, Provider, Sender};

/// What a claim outlasts its attempt by: enough to write the outcome down, also over a hiccup of
/// the store.
const LEASE_MARGIN: Duration = Duration::from_secs(10);

/// Carries out orders of one channel.
pub struct Courier {
    parts: CourierParts,
    reporter: Reporter,
}

/// What a [`Courier`] is made of.
pub struct CourierParts {
    /// The channel.
    pub channel: Channel,
    /// Who sends.
    pub provider: Arc<dyn Provider>,
    /// What became of deliveries.
    pub ledger: Arc<dyn LedgerStore>,
    /// Opens orders.
    pub sealer: Sealer,
    /// How services present themselves.
    pub services: Arc<Services>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where it counts.
    pub metrics: DeliveryMetrics,
}

impl Courier {
    /// A courier of these parts that tells outcomes to `reporter`.
    pub const fn new(parts: CourierParts, reporter: Reporter) -> Self {
        Self { parts, reporter }
    }

    pub(crate) const fn metrics(&self) -> &DeliveryMetrics {
        &self.parts.metrics
    }

    /// Carries out the order in `body`, which waited `retries` times, as far as it goes now.
    pub(crate) async fn carry(&self, body: &[u8], retries: u32) -> Settling {
        let event = match CloudEvent::<OtpSend>::decode(body) {
            Ok(event) => event,
            Err(error) => return Settling::Park(error.reason()),
        };
        // A valid order in the other channel's queue was moved there by someone.
        if event.data.channel != self.parts.channel {
            return Settling::Park("wrong_channel");
        }
        let order = match Order::open(&event, &self.parts.sealer) {
            Ok(order) => order,
            Err(error) => return Settling::Park(error.reason()),
        };
        let carried = self.carry_order(&order, event.time).await;
        carried.unwrap_or_else(|error| {
            tracing::warn!(%error, delivery_id = %order.delivery_id, "the ledger is not available");
            Ladder::STANDARD
                .covering(u64::from(retries) * 2_000)
                .map_or(Settling::Requeue, Settling::Retry)
        })
    }

    async fn carry_order(
        &self,
        order: &Order,
        sealed_at: Timestamp,
    ) -> Result<Settling, LedgerError> {
        let Some(service) = self.parts.services.by_name(&order.service) else {
            self.end_unclaimed(order, DeliveryOutcome::Parked).await?;
            return Ok(Settling::Park("unknown_service"));
        };
        let now = self.parts.clock.now();
        let Some(budget) = attempt_budget(self.parts.provider.attempt_limit(), now, order.deadline)
        else {
            self.end_unclaimed(order, DeliveryOutcome::Expired).await?;
            return Ok(Settling::Ack);
        };
        let lease = budget + LEASE_MARGIN;
        let claim = ClaimRequest {
            id: order.delivery_id.clone(),
            channel: self.parts.channel,
            now,
            lease_ms: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
        };
        match self.parts.ledger.claim(claim).await? {
            Claim::Yours {
                fence,
                attempt_count,
                after_crash,
            } => {
                if after_crash {
                    tracing::warn!(delivery_id = %order.delivery_id, "taken over from a worker that went silent");
                    self.parts.metrics.after_crash.inc();
                }
                let sender = Sender {
                    app: service.app.clone(),
                    host: service.host.clone(),
                };
                self.attempt(order, sender, budget, fence, attempt_count, sealed_at)
                    .await
            }
            Claim::Held { until } => {
                // Look again when the other has had its time.
                let rung = Ladder::STANDARD.covering(until.millis_since(now));
                Ok(rung.map_or(Settling::Requeue, Settling::Retry))
            }
            Claim::Ended(record) => {
                self.parts.metrics.repeats.inc();
                self.reporter.report(order, &record).await;
                Ok(Settling::Ack)
            }
        }
    }

    async fn attempt(
        &self,
        order: &Order,
        sender: Sender,
        budget: Duration,
        fence: Fence,
        earlier: u32,
        sealed_at: Timestamp,
    ) -> Result<Settling, LedgerError> {
        let begun = self.parts.clock.now();
        let dispatch = Dispatch {
            delivery_id: order.delivery_id.clone(),
            recipient: order.recipient.clone(),
            code: order.code.clone(),
            sender,
            locale: order.locale.clone(),
            variables: order.variables.clone(),
            remaining: order.deadline.since(begun),
        };
        let attempted = timeout(budget, self.parts.provider.attempt(&dispatch))
            .await
            .unwrap_or_else(|_| Attempted::new(AttemptClass::UnknownOutcome, "deadline"));
        let now = self.parts.clock.now();
        self.count(&attempted, order, now.since(begun), sealed_at, now);
        let ended = Ended {
            class: attempted.class,
            attempt_count: earlier.saturating_add(1),
            retry_after: attempted.retry_after,
            now,
            deadline: order.deadline,
        };
        let (outcome, settling) = match decide(ended) {
            Decision::End(outcome) => (outcome, Settling::Ack),
            Decision::Wait(rung) => (DeliveryOutcome::Queued, Settling::Retry(rung)),
        };
        let attempt = Attempt {
            provider: Some(self.parts.provider.name().clone()),
            class: attempted.class,
            provider_message_id: attempted
                .provider_message_id
                .map(|id| id.chars().take(128).collect()),
            at_ms: begun.as_millis(),
            took_ms: now.millis_since(begun),
        };
        tracing::info!(
            delivery_id = %order.delivery_id, provider = %self.parts.provider.name(), class = %attempted.class,
            reason = attempted.reason, outcome = %outcome, took_ms = attempt.took_ms, "attempt",
        );
        match self
            .record(order, Some(fence), Some(attempt), outcome)
            .await
        {
            Ok(record) => {
                self.finish(order, &record, outcome).await;
                Ok(settling)
            }
            // Another worker holds the delivery by now; it will settle its own copy.
            Err(LedgerError::FenceLost) => Ok(Settling::Ack),
            Err(error) => Err(error),
        }
    }

    fn count(
        &self,
        attempted: &Attempted,
        order: &Order,
        took: Duration,
        sealed_at: Timestamp,
        now: Timestamp,
    ) {
        let metrics = &self.parts.metrics;
        metrics.attempted(self.parts.provider.name(), attempted.class, took);
        if attempted.class == AttemptClass::Accepted {
            metrics
                .age_seconds
                .observe(now.since(sealed_at).as_secs_f64());
            if now > order.deadline {
                metrics.past_deadline.inc();
            }
        }
    }

    /// Ends a delivery that no worker holds. If one does hold it, or it has ended, that stays.
    async fn end_unclaimed(
        &self,
        order: &Order,
        outcome: DeliveryOutcome,
    ) -> Result<(), LedgerError> {
        let record = self.record(order, None, None, outcome).await?;
        self.finish(order, &record, outcome).await;
        Ok(())
    }

    async fn finish(&self, order: &Order, record: &DeliveryRecord, outcome: DeliveryOutcome) {
        if outcome.is_final() && record.outcome == outcome {
            self.parts.metrics.ended(outcome);
            self.reporter.report(order, record).await;
        }
    }

    /// Writes to the ledger; while the store is away it tries again for as long as the claim holds.
    /// Writing the same settlement twice is safe: it carries its fence.
    async fn record(
        &self,
        order: &Order,
        fence: Option<Fence>,
        attempt: Option<Attempt>,
        outcome: DeliveryOutcome,
    ) -> Result<DeliveryRecord, LedgerError> {
        let schedule = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(2))
            .with_total_delay(Some(LEASE_MARGIN))
            .without_max_times()
            .with_jitter();
        let write = || {
            self.parts.ledger.settle(Settlement {
                id: order.delivery_id.clone(),
                channel: self.parts.channel,
                fence,
                attempt: attempt.clone(),
                outcome,
                now: self.parts.clock.now(),
            })
        };
        write
            .retry(schedule)
            .when(|error| matches!(error, LedgerError::Storage(_)))
            .await
    }
}
