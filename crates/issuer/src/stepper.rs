//! The timed channel fallback: takes steps from the timer queue, holds them there until they are
//! due, and sends the code by the next channel unless it was used, withdrawn, sent again or known
//! to have arrived. Refuses to remember anything itself: a step waits in the queue and its turn is
//! decided by the store, so that any issuer can take it, also after all were killed.

use std::sync::Arc;

use watchword_broker::{Consumer, ParkReason, Received, work_until};
use watchword_chassis::{Problem, ProblemCode, Services};
use watchword_core::{Clock, DeliveryId, DeliveryOutcome, Ladder, Live, Rung, Timestamp};
use watchword_events::{CloudEvent, StepDue};
use watchword_ledger::LedgerStore;

use crate::Issuer;
use crate::telemetry::IssuerMetrics;

/// A step that could not be taken is brought again after this, unless the problem names a time.
const AGAIN_SECONDS: u64 = 1;

/// What became of a fallback step.
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

    /// The label: the step was sent, not needed since the message before arrived, not needed since
    /// the code was used, withdrawn, sent again or expired, or not possible.
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

/// What a [`Stepper`] is made of.
#[derive(Clone)]
pub struct StepperParts {
    /// Sends.
    pub issuer: Arc<Issuer>,
    /// Tells whether the message before has arrived.
    pub ledger: Arc<dyn LedgerStore>,
    /// Whose verifications they are.
    pub services: Live<Services>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where it counts.
    pub metrics: IssuerMetrics,
}

/// Takes steps until told to stop.
#[derive(Clone)]
pub struct Stepper(StepperParts);

enum Turn {
    Done,
    Wait(Rung),
    Park(ParkReason),
}

impl Stepper {
    /// A stepper of these parts.
    pub const fn new(parts: StepperParts) -> Self {
        Self(parts)
    }

    /// Takes steps until `stop`, then finishes those in work; the consumer's prefetch bounds how
    /// many.
    pub async fn run(self, consumer: Box<dyn Consumer>, stop: impl Future<Output = ()> + Send) {
        work_until(consumer, stop, move |received| {
            let stepper = self.clone();
            async move { stepper.take(received).await }
        })
        .await;
    }

    async fn take(&self, received: Received) {
        let body = received.body.clone();
        let settled = match self.turn(&body).await {
            Turn::Done => received.ack().await,
            Turn::Wait(rung) => received.retry(rung).await,
            Turn::Park(reason) => {
                self.0.metrics.parked(reason);
                received.park(reason).await
            }
        };
        if settled.is_err() {
            tracing::debug!("a step could not be settled and will be redelivered");
        }
    }

    async fn turn(&self, body: &[u8]) -> Turn {
        let event = match CloudEvent::<StepDue>::decode(body) {
            Ok(event) => event,
            Err(error) => return Turn::Park(error.reason()),
        };
        let Some(due_at) = Timestamp::from_rfc3339(&event.data.due_at) else {
            return Turn::Park("bad_data");
        };
        let left_ms = due_at.millis_since(self.0.clock.now());
        if left_ms > 0 {
            return wait_of(left_ms).map_or(Turn::Done, Turn::Wait);
        }
        match self.act(&event.data).await {
            Ok(stepped) => {
                tracing::info!(
                    verification_id = %event.data.verification_id, step = event.data.step,
                    result = stepped.as_str(), "fallback step",
                );
                self.0.metrics.stepped(stepped);
                Turn::Done
            }
            Err(problem) => {
                tracing::warn!(code = problem.code.as_str(), "a fallback step waits");
                let again_seconds = problem.retry_after_seconds.unwrap_or(AGAIN_SECONDS);
                wait_of(again_seconds.saturating_mul(1_000)).map_or(Turn::Done, Turn::Wait)
            }
        }
    }

    async fn act(&self, step: &StepDue) -> Result<Stepped, Problem> {
        let services = self.0.services.get();
        let Some(service) = services.by_name(&step.service) else {
            return Ok(Stepped::Ended);
        };
        let before = DeliveryId::new(step.verification_id.clone(), step.after_send);
        let away = |_| Problem::new(ProblemCode::StoreUnavailable, "the ledger cannot be read");
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

/// The longest wait of the ladder that is not longer than `left_ms`, or the shortest there is: a
/// step hops towards its moment and is late by at most the shortest.
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
