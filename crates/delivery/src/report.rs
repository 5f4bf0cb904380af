//! Publishes outcomes of deliveries, as `watchword.delivery.updated.v1`, and the fallback step that
//! a failed delivery makes due. It delays no worker: the ledger has the outcome, and an event that
//! cannot be published is counted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use watchword_broker::{Outbound, Publisher, Route};
use watchword_core::{Clock, DeliveryOutcome, ReceiptState, ServiceName};
use watchword_events::names::event_routing_key;
use watchword_events::{CloudEvent, DeliveryUpdated, EventData, Lane, Order, StepDue};
use watchword_ledger::DeliveryRecord;

use crate::telemetry::DeliveryMetrics;

const PUBLISH_DEADLINE: Duration = Duration::from_secs(2);

/// Publishes outcomes.
pub struct Reporter {
    publisher: Arc<dyn Publisher>,
    clock: Arc<dyn Clock>,
    metrics: DeliveryMetrics,
}

impl Reporter {
    /// A reporter that publishes through `publisher`.
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

    /// Publishes the outcome in `record`. The event's id is made of delivery and outcome, so that
    /// a repeat is recognised.
    pub(crate) async fn report(&self, service: &ServiceName, record: &DeliveryRecord) {
        self.publish(service, record, None).await;
    }

    /// Starts the fallback step of a delivery that no provider took, instead of after its wait.
    /// When the step's own timer is due later, the step is done already: the store decides about a
    /// step once.
    pub(crate) async fn step_due(&self, order: &Order, outcome: DeliveryOutcome) {
        let now = self.clock.now();
        let is_lost = matches!(outcome, DeliveryOutcome::Failed | DeliveryOutcome::Expired);
        let Some(step) = order.next_step.filter(|_| is_lost && now < order.deadline) else {
            return;
        };
        let source = format!("/watchword/{}-worker", order.recipient.channel());
        let follows = (&order.service, &order.delivery_id);
        let event = StepDue::event(&source, follows, step, (now, now));
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
            tracing::warn!(%error, delivery_id = %order.delivery_id, "a fallback step could not be started early; its timer starts it later");
        }
    }

    /// Publishes what a receipt changed.
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
