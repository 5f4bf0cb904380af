//! Ending a delivery: recording its outcome in the ledger and reporting it. A delivery that another
//! worker holds or has ended is left as it is.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use watchword_broker::Disposition;
use watchword_core::{DeliveryOutcome, Timestamp, TraceId};
use watchword_events::Order;
use watchword_failpoint::{Point, reach};
use watchword_ledger::{Attempt, Claim, DeliveryRecord, Fence, LedgerError, Settlement};

use super::Dispatcher;

/// How much longer than its attempt a claim lasts: enough to record the outcome, even across a
/// short outage of the store.
pub(super) const LEASE_MARGIN: Duration = Duration::from_secs(10);

impl Dispatcher {
    /// Ends a delivery without an attempt and returns how to settle its message, usually
    /// `disposition`. A delivery that has already ended stays unchanged. If another worker holds
    /// it, the message is retried when that claim has expired: if the holder died, the delivery
    /// would otherwise remain `sending` forever, because its deadline has passed.
    pub(super) async fn end(
        &self,
        order: &Order,
        outcome: DeliveryOutcome,
        disposition: Disposition,
    ) -> Result<Disposition, LedgerError> {
        let since = self.parts.clock.now();
        let record = self.record(order, None, None, outcome).await?;
        if record.outcome != DeliveryOutcome::Sending {
            // An earlier outcome was already counted by the worker that recorded it.
            if record.outcome == outcome && record.updated_at >= since {
                self.finish(order, &record, outcome).await;
            } else {
                self.repeat(order, &record).await;
            }
            return Ok(disposition);
        }
        match self.claim(order, Duration::ZERO, None).await? {
            Claim::Yours { fence, .. } => {
                let settled = self.let_go(order, fence, None, outcome, None).await?;
                return Ok(settled.unwrap_or(disposition));
            }
            Claim::Held { until } => return Ok(when_free(until, self.parts.clock.now())),
            Claim::Ended(record) => self.repeat(order, &record).await,
        }
        Ok(disposition)
    }

    /// Reports the outcome of a delivery that has already ended. The worker that recorded it may
    /// have died before its report.
    pub(super) async fn repeat(&self, order: &Order, record: &DeliveryRecord) {
        self.parts.metrics.repeats.inc();
        self.reporter.report(&order.service, record).await;
        self.reporter.step_due(order, record.outcome).await;
    }

    /// Records the outcome under the claim `fence` and releases the claim. Returns `Some` if the
    /// message must be settled differently than decided. A lost fence means that another worker
    /// took the delivery over, or that the store lost the claim in a failover. If no worker holds
    /// the delivery, it is claimed again to record the outcome.
    pub(super) async fn let_go(
        &self,
        order: &Order,
        fence: Fence,
        attempt: Option<Attempt>,
        outcome: DeliveryOutcome,
        trace_id: Option<TraceId>,
    ) -> Result<Option<Disposition>, LedgerError> {
        let settled = self.record(order, Some(fence), attempt.clone(), outcome);
        let record = match settled.await {
            Err(LedgerError::FenceLost) => {
                match self.claim(order, Duration::ZERO, trace_id).await? {
                    Claim::Yours { fence, .. } => {
                        let settled = self.record(order, Some(fence), attempt, outcome);
                        match settled.await {
                            Err(LedgerError::FenceLost) => return Ok(Some(soon())),
                            settled => settled?,
                        }
                    }
                    // The holder settles its own copy of the message. Keep this copy, because the
                    // holder may die first.
                    Claim::Held { until } => {
                        let now = self.parts.clock.now();
                        return Ok(Some(when_free(until, now)));
                    }
                    Claim::Ended(record) => {
                        self.repeat(order, &record).await;
                        return Ok(Some(Disposition::Ack));
                    }
                }
            }
            settled => settled?,
        };
        reach(Point::DeliveryRecorded);
        self.finish(order, &record, outcome).await;
        Ok(None)
    }

    async fn finish(&self, order: &Order, record: &DeliveryRecord, outcome: DeliveryOutcome) {
        if outcome.is_final() && record.outcome == outcome {
            let last = record.attempts.last().map(|attempt| attempt.class);
            self.parts.metrics.ended(outcome, last);
            self.reporter.report(&order.service, record).await;
            self.reporter.step_due(order, outcome).await;
        }
    }

    /// Writes to the ledger. While the store is unavailable, retries for as long as the claim
    /// lasts. Writing the same settlement twice is safe: it carries its fence, or changes only a
    /// delivery that is not claimed.
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

/// Returns how to settle a message whose delivery another worker holds: retry after the claim's
/// end.
pub(super) fn when_free(until: Timestamp, now: Timestamp) -> Disposition {
    Disposition::retry_after_ms(until.millis_since(now))
}

/// Returns how to settle a message for the earliest possible retry.
pub(super) fn soon() -> Disposition {
    Disposition::retry_after_ms(0)
}
