//! How an order ends, and how that is written down and told. Refuses to overwrite what another
//! worker holds or has written.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use watchword_core::{DeliveryOutcome, Ladder, Timestamp, TraceId};
use watchword_events::Order;
use watchword_failpoint::{Point, reach};
use watchword_ledger::{Attempt, Claim, DeliveryRecord, Fence, LedgerError, Settlement};

use super::{Courier, LEASE_MARGIN};
use crate::worker::Settling;

impl Courier {
    /// Ends a delivery that is not to be attempted; `settling` is what its message gets then. One
    /// that has ended stays as it is. One that another worker holds is left to it, and looked at
    /// again when its claim has run out: a holder that died past the deadline would otherwise
    /// leave the delivery `sending` for ever.
    pub(super) async fn end(
        &self,
        order: &Order,
        outcome: DeliveryOutcome,
        settling: Settling,
    ) -> Result<Settling, LedgerError> {
        let since = self.parts.clock.now();
        let record = self.record(order, None, None, outcome).await?;
        if record.outcome != DeliveryOutcome::Sending {
            // One from before was counted by whoever brought it about.
            if record.outcome == outcome && record.updated_at >= since {
                self.finish(order, &record, outcome).await;
            } else {
                self.repeat(order, &record).await;
            }
            return Ok(settling);
        }
        match self.claim(order, Duration::ZERO, None).await? {
            Claim::Yours { fence, .. } => {
                let settled = self.let_go(order, fence, None, outcome, None).await?;
                return Ok(settled.unwrap_or(settling));
            }
            Claim::Held { until } => return Ok(when_free(until, self.parts.clock.now())),
            Claim::Ended(record) => self.repeat(order, &record).await,
        }
        Ok(settling)
    }

    /// The delivery has ended already. Its outcome is told again: whoever wrote it may have died
    /// before it could.
    pub(super) async fn repeat(&self, order: &Order, record: &DeliveryRecord) {
        self.parts.metrics.repeats.inc();
        self.reporter.report(&order.service, record).await;
        self.reporter.step_due(order, record.outcome).await;
    }

    /// Settles a claim; `Some` is what the message gets then, if not what was decided. Where the
    /// claim is lost, either another worker took the delivery over or the store forgot the claim
    /// (a failover): if nobody holds the delivery it is claimed anew for what there is to write.
    pub(super) async fn let_go(
        &self,
        order: &Order,
        fence: Fence,
        attempt: Option<Attempt>,
        outcome: DeliveryOutcome,
        trace_id: Option<TraceId>,
    ) -> Result<Option<Settling>, LedgerError> {
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
                    // It will settle its own copy; whether this is the last one nobody knows.
                    Claim::Held { until } => {
                        let now = self.parts.clock.now();
                        return Ok(Some(when_free(until, now)));
                    }
                    Claim::Ended(record) => {
                        self.repeat(order, &record).await;
                        return Ok(Some(Settling::Ack));
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

    /// Writes to the ledger; while the store is away it tries again for as long as the claim holds.
    /// Writing the same settlement twice is safe: it carries its fence, or changes only what nobody holds.
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

/// What a message gets whose delivery another worker holds: looked at again when that one has had
/// its time.
pub(super) fn when_free(until: Timestamp, now: Timestamp) -> Settling {
    let rung = Ladder::STANDARD.covering(until.millis_since(now));
    rung.map_or(Settling::Requeue, Settling::Retry)
}

/// What a message gets that is to be looked at again as soon as may be.
pub(super) fn soon() -> Settling {
    let shortest = Ladder::STANDARD.rungs().first();
    shortest.map_or(Settling::Requeue, |rung| Settling::Retry(*rung))
}
