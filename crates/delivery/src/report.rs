//! Publishes delivery outcomes as `watchword.delivery.updated.v1`, and starts the fallback step
//! after a failed delivery. A publish that fails is only counted, because the outcome is already in
//! the ledger.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use watchword_broker::{Outbound, Publisher, Route};
use watchword_core::{Clock, DeliveryOutcome, ReceiptState, ServiceName, Timestamp};
use watchword_events::names::event_routing_key;
use watchword_events::{CloudEvent, DeliveryUpdated, EventData, Lane, Order, StepDue};
use watchword_ledger::DeliveryRecord;

use crate::telemetry::DeliveryMetrics;

const PUBLISH_DEADLINE: Duration = Duration::from_secs(2);

/// Publishes delivery outcomes.
pub struct Reporter {
    publisher: Arc<dyn Publisher>,
    clock: Arc<dyn Clock>,
    metrics: DeliveryMetrics,
}

impl Reporter {
    /// Creates a reporter that uses `publisher`.
    pub fn new(
        publisher: Arc<dyn Publisher>,
        clock: Arc<dyn Clock>,
        metrics: DeliveryMetrics,
    ) -> Self {
        Self {
            publisher,
            clock,
            metrics,
        }
    }

    /// Publishes the outcome in `record`. The event id consists of delivery id and outcome, so that
    /// consumers can recognize a repeat.
    pub(crate) async fn report(&self, service: &ServiceName, record: &DeliveryRecord) {
        self.publish(service, record, None).await;
    }

    /// Starts the fallback step of a failed delivery immediately instead of after its delay. The
    /// step's own timer comes later and does nothing, because the store runs each step once.
    pub(crate) async fn step_due(&self, order: &Order, outcome: DeliveryOutcome) {
        let Some(event) = early_step(order, outcome, self.clock.now()) else {
            return;
        };
        let Ok(body) = event.encode() else {
            return;
        };
        let outbound = Outbound {
            id: event.id,
            kind: StepDue::TYPE,
            route: Route::Lane(Lane::Timers),
            body: Bytes::from(body),
            traceparent: None,
            ttl: None,
        };
        if let Err(error) = self.publisher.publish(outbound, PUBLISH_DEADLINE).await {
            tracing::warn!(%error, delivery_id = %order.delivery_id, "cannot start a fallback step early; its timer will start it later");
        }
    }

    /// Publishes the change that a receipt made.
    pub(crate) async fn heard(
        &self,
        service: &ServiceName,
        record: &DeliveryRecord,
        state: ReceiptState,
    ) {
        self.publish(service, record, Some(state)).await;
    }

    async fn publish(
        &self,
        service: &ServiceName,
        record: &DeliveryRecord,
        receipt: Option<ReceiptState>,
    ) {
        let last = record.attempts.last();
        let event = CloudEvent {
            id: match receipt {
                Some(state) => format!("{}.receipt.{state}", record.id),
                None => format!("{}.{}", record.id, record.outcome),
            },
            source: format!("/watchword/{}-worker", record.channel),
            time: self.clock.now(),
            data: DeliveryUpdated {
                delivery_id: record.id.clone(),
                verification_id: record.id.verification().clone(),
                service: service.clone(),
                channel: record.channel,
                outcome: record.outcome,
                attempts: record.attempt_count,
                provider: last.and_then(|attempt| attempt.provider.clone()),
                class: last.map(|attempt| attempt.class),
                receipt,
                trace_id: record.trace_id.map(|id| id.to_string()),
            },
        };
        let Ok(body) = event.encode() else {
            self.metrics.events_dropped.inc();
            return;
        };
        let outbound = Outbound {
            id: event.id,
            kind: DeliveryUpdated::TYPE,
            route: Route::Event(event_routing_key("delivery", service)),
            body: Bytes::from(body),
            traceparent: record.trace_id.map(|id| id.traceparent()),
            ttl: None,
        };
        if let Err(error) = self.publisher.publish(outbound, PUBLISH_DEADLINE).await {
            tracing::warn!(%error, delivery_id = %record.id, "an outcome event was dropped");
            self.metrics.events_dropped.inc();
        }
    }
}

/// Returns the step that is due at `now` because the delivery of `order` ended as `outcome`, if
/// any.
fn early_step(
    order: &Order,
    outcome: DeliveryOutcome,
    now: Timestamp,
) -> Option<CloudEvent<StepDue>> {
    let is_lost = matches!(outcome, DeliveryOutcome::Failed | DeliveryOutcome::Expired);
    let step = order
        .next_step
        .filter(|_| is_lost && now < order.deadline)?;
    let source = format!("/watchword/{}-worker", order.recipient.channel());
    let follows = (&order.service, &order.delivery_id);
    let mut event = StepDue::event(&source, follows, step, (now, now));
    // Without `details` the store treats the step as one of an earlier build, and the step of a
    // replaced fallback would go to the new recipient.
    event.data.details = order.details;
    Some(event)
}

#[cfg(test)]
mod tests {
    use watchword_core::{Recipient, Variables};

    use super::*;

    #[test]
    fn an_early_step_names_the_fallback_it_belongs_to() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let order = Order {
            delivery_id: format!("{}-1", "a".repeat(32)).parse().unwrap(),
            service: "web".parse().unwrap(),
            recipient: Recipient::Sms("+4915112345678".parse().unwrap()),
            code: "123456".parse().unwrap(),
            deadline: now.plus_millis(1),
            locale: None,
            variables: Variables::default(),
            next_step: Some(2),
            details: Some("0123456789abcdef".parse().unwrap()),
        };
        let event = early_step(&order, DeliveryOutcome::Failed, now).unwrap();
        assert_eq!((event.data.step, event.data.after_send), (2, 1));
        assert_eq!(event.data.details, order.details);
        for (outcome, at) in [
            (DeliveryOutcome::Delivered, now),
            (DeliveryOutcome::Failed, order.deadline),
        ] {
            assert!(early_step(&order, outcome, at).is_none(), "{outcome}");
        }
    }
}
