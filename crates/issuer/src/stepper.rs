//! The timed channel fallback: consumes steps from the timer queue and returns them to wait queues
//! until they are due. Then it sends the code by the next channel, unless the code was used,
//! withdrawn or sent again, or the earlier message is known to have arrived.
//!
//! The stepper keeps no state. A step waits in the queues and the store decides about it, so that
//! any issuer can take it, even after all of them crashed.

use std::sync::Arc;

use watchword_broker::{Consumer, DeadLetterReason, Disposition, Received, work_until};
use watchword_chassis::Services;
use watchword_core::{Clock, DeliveryId, DeliveryOutcome, Ladder, Live, Rung, Timestamp};
use watchword_events::{CloudEvent, StepDue};
use watchword_ledger::LedgerStore;

use crate::telemetry::IssuerMetrics;
use crate::{IssueError, Issuer};

/// Seconds until a failed step is retried, unless the error says when to repeat it.
const AGAIN_SECONDS: u64 = 1;

/// The result of a fallback step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stepped {
    Sent,
    Delivered,
    Ended,
    Exhausted,
    Refused,
}

impl Stepped {
    pub(crate) const ALL: [Self; 5] = [
        Self::Sent,
        Self::Delivered,
        Self::Ended,
        Self::Exhausted,
        Self::Refused,
    ];

    /// Returns the metric label: the step was sent; it was not needed, because the earlier message
    /// arrived (`delivered`) or the code was used, withdrawn, sent again or expired (`ended`); or
    /// it was not possible.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Ended => "ended",
            Self::Exhausted => "exhausted",
            Self::Refused => "refused",
        }
    }
}

/// The dependencies of a [`Stepper`].
#[derive(Clone)]
pub struct StepperParts {
    /// Sends the messages of steps.
    pub issuer: Arc<Issuer>,
    /// Knows whether the earlier message has arrived.
    pub ledger: Arc<dyn LedgerStore>,
    /// The configured services.
    pub services: Live<Services>,
    /// The clock by which steps become due.
    pub clock: Arc<dyn Clock>,
    /// Metrics of the issuer.
    pub metrics: IssuerMetrics,
}

/// Processes fallback steps.
#[derive(Clone)]
pub struct Stepper(StepperParts);

impl Stepper {
    /// Creates a stepper.
    pub const fn new(parts: StepperParts) -> Self {
        Self(parts)
    }

    /// Processes steps until `stop`, then finishes those in flight. The consumer's prefetch bounds
    /// their number.
    pub async fn run(self, consumer: Box<dyn Consumer>, stop: impl Future<Output = ()> + Send) {
        work_until(consumer, stop, move |received| {
            let stepper = self.clone();
            async move { stepper.take(received).await }
        })
        .await;
    }

    async fn take(&self, received: Received) {
        let body = received.body.clone();
        let disposition = self.turn(&body).await;
        if let Disposition::DeadLetter(reason) = disposition {
            self.0.metrics.dead_lettered(reason);
        }
        let settled = received.settle(disposition).await;
        if settled.is_err() {
            tracing::debug!("a step could not be settled and will be redelivered");
        }
    }

    async fn turn(&self, body: &[u8]) -> Disposition {
        let event = match CloudEvent::<StepDue>::decode(body) {
            Ok(event) => event,
            Err(error) => return Disposition::DeadLetter(error.into()),
        };
        let Some(due_at) = Timestamp::from_rfc3339(&event.data.due_at) else {
            return Disposition::DeadLetter(DeadLetterReason::BadData);
        };
        let left_ms = due_at.millis_since(self.0.clock.now());
        if left_ms > 0 {
            return wait_of(left_ms).map_or(Disposition::Ack, Disposition::Retry);
        }
        match self.act(&event.data).await {
            Ok(stepped) => {
                tracing::info!(
                    verification_id = %event.data.verification_id, step = event.data.step,
                    result = stepped.as_str(), "fallback step",
                );
                self.0.metrics.stepped(stepped);
                Disposition::Ack
            }
            Err(error) => {
                tracing::warn!(
                    code = error.code().as_str(),
                    "a fallback step will be retried"
                );
                let again_seconds = error.retry_after_seconds().unwrap_or(AGAIN_SECONDS);
                wait_of(again_seconds.saturating_mul(1_000))
                    .map_or(Disposition::Ack, Disposition::Retry)
            }
        }
    }

    async fn act(&self, step: &StepDue) -> Result<Stepped, IssueError> {
        let services = self.0.services.get();
        let Some(service) = services.by_name(&step.service) else {
            return Ok(Stepped::Ended);
        };
        let before = DeliveryId::new(step.verification_id.clone(), step.after_send);
        let away = |_| IssueError::StoreUnavailable("the ledger cannot be read");
        let records = self.0.ledger.get(&[before]).await.map_err(away)?;
        if records
            .first()
            .is_some_and(|record| record.outcome == DeliveryOutcome::Delivered)
        {
            return Ok(Stepped::Delivered);
        }
        self.0.issuer.step(service, step).await
    }
}

/// Returns the longest retry delay that is not longer than `left_ms`, or the shortest one: a step
/// moves from wait queue to wait queue towards its due time, and is late by at most the shortest
/// delay.
fn wait_of(left_ms: u64) -> Option<Rung> {
    let rungs = Ladder::STANDARD.rungs();
    rungs
        .iter()
        .rfind(|rung| rung.delay_ms <= left_ms)
        .or(rungs.first())
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_hops_to_its_moment_and_is_never_early() {
        for after_ms in [1_u64, 999, 1_000, 29_000, 30_000, 61_500, 299_999] {
            let (mut left, mut hops) = (after_ms, 0);
            loop {
                let rung = wait_of(left).unwrap();
                hops += 1;
                if rung.delay_ms >= left {
                    assert!(rung.delay_ms - left <= 1_000, "{after_ms}");
                    break;
                }
                left -= rung.delay_ms;
            }
            assert!(hops <= 16, "{after_ms}: {hops}");
        }
    }
}
