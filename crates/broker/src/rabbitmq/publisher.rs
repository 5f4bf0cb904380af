//! Confirmed publishing: the exchange, routing key and properties for each route. A publish fails
//! at once when there is no link or the broker is blocked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use watchword_core::{Clock, Rung, Timestamp, TraceParent};
use watchword_events::names::EVENTS_EXCHANGE;
use watchword_events::{CONTENT_TYPE, Lane};

use super::batch::{Batches, Parcel};
use super::consumer::{header, retries, traceparent};
use super::supervisor::Supervisor;
use crate::dead_letter::DeadLetterReason;
use crate::message::{Outbound, Route};
use crate::port::{LinkState, PublishError, Publisher};
use crate::telemetry::BrokerMetrics;

/// Delivery mode 2: the broker writes the message to disk before it confirms.
const PERSISTENT: u8 = 2;

/// Number of waits so far. A header of our own, because `RabbitMQ` 4 ignores an `x-death` header
/// that a client republishes, and the meaning of `x-delivery-count` depends on the version
/// (rabbitmq-server issues 10709 and 11331).
pub(super) const RETRIES_HEADER: &str = "x-watchword-retries";
/// The deadline of a republished order, in milliseconds since the epoch. A dead-lettered message
/// loses its `expiration`, so a header has to keep the deadline.
pub(super) const DEADLINE_HEADER: &str = "x-watchword-deadline";
pub(super) const REASON_HEADER: &str = "x-watchword-reason";

pub(super) struct RabbitPublisher {
    supervisor: Arc<Supervisor>,
    clock: Arc<dyn Clock>,
    metrics: BrokerMetrics,
    /// For work queues, in the order of [`Lane::ALL`]. They are separate, so that a queue that does
    /// not answer delays only itself.
    lanes: [Batches; Lane::ALL.len()],
    /// For their wait, late and dead-letter queues.
    aside: [Batches; Lane::ALL.len()],
    events: Batches,
}

impl RabbitPublisher {
    pub(super) fn new(
        supervisor: Arc<Supervisor>,
        clock: Arc<dyn Clock>,
        metrics: BrokerMetrics,
    ) -> Self {
        let batches = || Batches::start(supervisor.clone());
        Self {
            lanes: Lane::ALL.map(|_| batches()),
            aside: Lane::ALL.map(|_| batches()),
            events: batches(),
            supervisor,
            clock,
            metrics,
        }
    }

    /// Returns whether the deadline header of a republished message has passed.
    pub(super) fn is_past(&self, properties: &BasicProperties) -> bool {
        deadline_header(properties).is_some_and(|deadline| deadline <= self.clock.now())
    }

    pub(super) fn metrics(&self) -> BrokerMetrics {
        self.metrics.clone()
    }

    /// Publishes into a wait, late or dead-letter queue of `lane`.
    pub(super) async fn put_aside(
        &self,
        lane: Lane,
        parcel: Parcel,
        deadline: Duration,
    ) -> Result<(), PublishError> {
        self.aside[lane.place()].send(parcel, deadline).await
    }
}

#[async_trait]
impl Publisher for RabbitPublisher {
    async fn publish(&self, message: Outbound, deadline: Duration) -> Result<(), PublishError> {
        let begun = Instant::now();
        let mut properties = properties(&message.id, message.kind, message.traceparent);
        if let Some(ttl) = message.ttl {
            // In whole seconds, rounded up. Timestamp plus expiration is the deadline, which
            // `copied` restores after a queue dropped the expiration.
            let now_seconds = self
                .clock
                .now()
                .as_millis()
                .max(0)
                .unsigned_abs()
                .div_ceil(1_000);
            properties = properties
                .with_expiration(ttl.as_millis().to_string().into())
                .with_timestamp(now_seconds);
        }
        let (batches, exchange, key, mandatory, properties) = match &message.route {
            Route::Lane(lane) => {
                let key = lane.as_str().to_owned();
                (
                    &self.lanes[lane.place()],
                    lane.exchange(),
                    key,
                    true,
                    properties,
                )
            }
            Route::Event(key) => (
                &self.events,
                EVENTS_EXCHANGE,
                key.clone(),
                false,
                properties,
            ),
            Route::Parked(lane, reason) => {
                let properties = with_reason(properties, *reason);
                (
                    &self.aside[lane.place()],
                    "",
                    lane.parked_queue(),
                    true,
                    properties,
                )
            }
        };
        let parcel = Parcel {
            exchange,
            key,
            mandatory,
            body: message.body.clone(),
            properties,
        };
        let published = batches.send(parcel, deadline).await;
        self.metrics
            .published(&message.route, &published, begun.elapsed());
        published
    }

    fn state(&self) -> LinkState {
        self.supervisor.state()
    }
}

fn properties(id: &str, kind: &str, trace: Option<TraceParent>) -> BasicProperties {
    let mut headers = FieldTable::default();
    if let Some(trace) = trace {
        headers.insert("traceparent".into(), header_of(trace));
    }
    BasicProperties::default()
        .with_message_id(id.into())
        .with_type(kind.into())
        .with_content_type(CONTENT_TYPE.into())
        .with_delivery_mode(PERSISTENT)
        .with_headers(headers)
}

fn header_of(trace: TraceParent) -> AMQPValue {
    AMQPValue::LongString(trace.to_string().into())
}

/// Returns the wait queue of `rung`, and properties with the wait counter incremented. The
/// publisher's `user_id` is not copied: the broker accepts only the user of this connection there.
pub(super) fn for_retry(
    lane: Lane,
    rung: Rung,
    retries: u32,
    properties: &BasicProperties,
) -> (String, BasicProperties) {
    let count = i64::from(retries) + 1;
    (
        lane.retry_queue(rung),
        with_header(
            copied(properties),
            RETRIES_HEADER,
            AMQPValue::LongLongInt(count),
        ),
    )
}

/// Returns the dead-letter queue, and properties with the reason.
pub(super) fn for_parking(
    lane: Lane,
    reason: DeadLetterReason,
    properties: &BasicProperties,
) -> (String, BasicProperties) {
    (lane.parked_queue(), with_reason(copied(properties), reason))
}

/// Returns the properties of a message that goes to the late queue.
pub(super) fn for_late(properties: &BasicProperties) -> BasicProperties {
    copied(properties)
}

/// Returns the properties for replaying a dead-lettered message: retries reset to 0, id kept.
pub(super) fn replayed(properties: &BasicProperties) -> BasicProperties {
    with_header(
        copied(properties),
        RETRIES_HEADER,
        AMQPValue::LongLongInt(0),
    )
}

fn with_reason(properties: BasicProperties, reason: DeadLetterReason) -> BasicProperties {
    with_header(
        properties,
        REASON_HEADER,
        AMQPValue::LongString(reason.as_str().into()),
    )
}

fn with_header(properties: BasicProperties, name: &str, value: AMQPValue) -> BasicProperties {
    let mut headers = properties.headers().clone().unwrap_or_default();
    headers.insert(name.into(), value);
    properties.with_headers(headers)
}

/// Copies id, type, content type and the headers of this crate. Each header is parsed first, which
/// bounds its length; headers that the broker or a foreign publisher added are dropped.
fn copied(properties: &BasicProperties) -> BasicProperties {
    let mut headers = FieldTable::default();
    if let Some(trace) = header(properties, "traceparent").and_then(traceparent) {
        headers.insert("traceparent".into(), header_of(trace));
    }
    let count = i64::from(retries(properties));
    headers.insert(RETRIES_HEADER.into(), AMQPValue::LongLongInt(count));
    if let Some(deadline) = deadline(properties) {
        let deadline_ms = AMQPValue::LongLongInt(deadline.as_millis());
        headers.insert(DEADLINE_HEADER.into(), deadline_ms);
    }
    let mut copy = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_headers(headers);
    if let Some(id) = properties.message_id() {
        copy = copy.with_message_id(id.clone());
    }
    if let Some(kind) = properties.kind() {
        copy = copy.with_type(kind.clone());
    }
    if let Some(content_type) = properties.content_type() {
        copy = copy.with_content_type(content_type.clone());
    }
    copy
}

/// Returns when the message expires: from the header of an earlier copy, or from the publish
/// timestamp and the time-to-live.
fn deadline(properties: &BasicProperties) -> Option<Timestamp> {
    if let Some(deadline) = deadline_header(properties) {
        return Some(deadline);
    }
    let published_seconds = i64::try_from((*properties.timestamp())?).ok()?;
    let published = Timestamp::from_millis(published_seconds.saturating_mul(1_000));
    // The broker removes the time-to-live when a message expires. Without one, the deadline has
    // already passed, and the publish time is as good as any.
    let ttl_ms = match properties.expiration() {
        Some(ttl_ms) => ttl_ms.as_str().parse().ok()?,
        None => 0,
    };
    Some(published.plus_millis(ttl_ms))
}

fn deadline_header(properties: &BasicProperties) -> Option<Timestamp> {
    match header(properties, DEADLINE_HEADER)? {
        AMQPValue::LongLongInt(ms) => Some(Timestamp::from_millis(*ms)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_the_deadline_of_the_first_publish() {
        let first = BasicProperties::default()
            .with_timestamp(1_000)
            .with_expiration("2500".into());
        let copy = copied(&first);
        let deadline = Timestamp::from_millis(1_002_500);
        assert_eq!(deadline_header(&copy), Some(deadline));
        // With an expiration, a wait queue or dead-letter queue would expire the copy.
        assert_eq!(copy.expiration(), &None);
        assert_eq!(deadline_header(&copied(&copy)), Some(deadline));
        let expired = BasicProperties::default().with_timestamp(1_000);
        let published = Timestamp::from_millis(1_000_000);
        assert_eq!(deadline_header(&copied(&expired)), Some(published));
        for without in [
            BasicProperties::default(),
            BasicProperties::default().with_expiration("2500".into()),
            first.clone().with_expiration("soon".into()),
            first.with_timestamp(u64::MAX),
        ] {
            assert_eq!(deadline_header(&copied(&without)), None, "{without:?}");
        }
    }
}
