//! A round over the providers of a job: picking a provider and claiming the delivery.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use watchword_broker::Disposition;
use watchword_core::{AttemptClass, DeliveryOutcome, Timestamp, TraceId, millis};
use watchword_events::Order;
use watchword_failpoint::{Point, reach};
use watchword_ledger::{Claim, ClaimRequest, LedgerError};

use super::attempt::ClaimedJob;
use super::ending::{LEASE_MARGIN, when_free};
use super::{Dispatcher, Job, Turn};
use crate::decision::{Decision, Ended, attempt_budget};
use crate::route::Pick;

/// The number of the longest retry delay (15 s) for an order for which no provider could be called.
const LONGEST_UNCALLED: u32 = 3;

impl Dispatcher {
    /// Makes one attempt with the next provider. `tried` holds the providers of this round and
    /// those that refused the destination earlier.
    pub(super) async fn turn(
        &self,
        job: &Job<'_>,
        tried: &mut Vec<usize>,
    ) -> Result<Turn, LedgerError> {
        let order = &job.order;
        let now = self.parts.clock.now();
        if attempt_budget(Duration::MAX, now, order.deadline).is_none() {
            // No provider could deliver in time, so do not take a permit from orders that are in
            // time.
            let ended = self.end(order, DeliveryOutcome::Expired, Disposition::Ack);
            return ended.await.map(Turn::Settled);
        }
        // Fails only if the semaphore was closed, which never happens.
        let permit = self.parts.calls.acquire().await.ok();
        if self.parts.stop.is_cancelled() {
            // A call would take longer than the shutdown allows; another worker has the time.
            return Ok(Turn::Settled(Disposition::Requeue));
        }
        let now = self.parts.clock.now();
        let Some(pick) = self.pick(job, tried, now) else {
            drop(permit);
            return self.wait_for_anyone(job, now).await.map(Turn::Settled);
        };
        let provider = job.router.providers()[pick.place].clone();
        let Some(budget) = attempt_budget(provider.attempt_limit(), now, order.deadline) else {
            drop(permit);
            self.uncalled(job, &pick);
            let ended = self.end(order, DeliveryOutcome::Expired, Disposition::Ack);
            return ended.await.map(Turn::Settled);
        };
        reach(Point::DeliveryTaken);
        match self.claim(order, budget, job.span.trace()).await? {
            Claim::Yours { fence, record, .. } => {
                reach(Point::DeliveryClaimed);
                let claimed = ClaimedJob {
                    job,
                    provider,
                    pick,
                    fence,
                    record,
                };
                self.attempt(&claimed, tried, permit).await
            }
            Claim::Held { until } => {
                self.uncalled(job, &pick);
                Ok(Turn::Settled(when_free(until, now)))
            }
            Claim::Ended(record) => {
                drop(permit);
                self.uncalled(job, &pick);
                self.repeat(order, &record).await;
                Ok(Turn::Settled(Disposition::Ack))
            }
        }
    }

    /// Picks the next provider. A provider that may already have the message is tried first, once
    /// per round.
    fn pick(&self, job: &Job<'_>, tried: &[usize], now: Timestamp) -> Option<Pick> {
        let recipient = &job.order.recipient;
        let is_bound = job.before.bind(self.parts.rules.get().unknown_retries);
        let is_first = tried.len() == job.before.refused.len();
        let knows = job.before.knows.filter(|_| is_first);
        let again = knows.and_then(|place| job.router.again(place, recipient, is_bound, now));
        if is_bound {
            return again;
        }
        let salt = salt(&job.order, job.retries);
        again.or_else(|| job.router.pick(recipient, tried, salt, now))
    }

    /// Records that the worker did not call the provider of `pick`. If the pick was a half-open
    /// probe, the next message may become the probe.
    pub(super) fn uncalled(&self, job: &Job<'_>, pick: &Pick) {
        if pick.is_probe {
            let now = self.parts.clock.now();
            job.router.health.release(pick.place, &pick.region, now);
        }
    }

    /// Claims the delivery for work that takes at most `budget`.
    pub(super) async fn claim(
        &self,
        order: &Order,
        budget: Duration,
        trace_id: Option<TraceId>,
    ) -> Result<Claim, LedgerError> {
        let lease = budget + LEASE_MARGIN;
        let request = ClaimRequest {
            id: order.delivery_id.clone(),
            channel: self.parts.channel,
            now: self.parts.clock.now(),
            lease_ms: millis(lease),
            service: order.service.clone(),
            trace_id,
        };
        let claim = self.parts.ledger.claim(request).await?;
        if let Claim::Yours {
            after_crash: true, ..
        } = claim
        {
            tracing::warn!(delivery_id = %order.delivery_id, "taken over from a worker that stopped responding");
            self.parts.metrics.after_crash.inc();
        }
        Ok(claim)
    }

    /// Delays an order for which the worker can call no provider, or ends it if no time is left.
    /// The longest retry delay is not used, because a barred provider gets a half-open probe after
    /// seconds.
    async fn wait_for_anyone(
        &self,
        job: &Job<'_>,
        now: Timestamp,
    ) -> Result<Disposition, LedgerError> {
        self.parts.metrics.nobody.inc();
        let ended = Ended {
            class: AttemptClass::Transient,
            attempt_count: job.retries.saturating_add(1).min(LONGEST_UNCALLED),
            unknown_count: 0,
            is_idempotent: false,
            has_another: false,
            has_left: true,
            has_fallback: job.order.next_step.is_some(),
            retry_after: None,
            now,
            deadline: job.order.deadline,
        };
        if let Decision::Wait(rung) = ended.wait() {
            Ok(Disposition::Retry(rung))
        } else {
            self.end(&job.order, DeliveryOutcome::Expired, Disposition::Ack)
                .await
        }
    }
}

/// Returns a number that differs for each order and each retry. It spreads orders over providers.
fn salt(order: &Order, retries: u32) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&order.delivery_id, retries).hash(&mut hasher);
    hasher.finish()
}
