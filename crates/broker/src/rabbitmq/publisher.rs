//! Confirmed publishing. Each channel carries one unconfirmed message at a time, so that a
//! returned message can only be the one that channel published: with several on a channel the
//! client hands a return to whichever confirm comes first (facts L1). Many channels run side by
//! side. Refuses at once when there is no link or the broker is blocked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use watchword_core::Rung;
use watchword_events::names::EVENTS_EXCHANGE;
use watchword_events::{CONTENT_TYPE, Lane};

use super::supervisor::Supervisor;
use crate::message::{Outbound, ParkReason, Route};
use crate::port::{LinkState, PublishError, Publisher};
use crate::telemetry::BrokerMetrics;

/// Messages on the way at once: 100 to 250 are best, more only lengthen queues (facts,
/// performance §4).
const IN_FLIGHT: usize = 200;
/// On disk before it is confirmed.
const PERSISTENT: u8 = 2;

/// Our own count of waits, which no broker version reinterprets (R47).
pub(super) const RETRIES_HEADER: &str = "x-watchword-retries";
pub(super) const REASON_HEADER: &str = "x-watchword-reason";

pub(super) struct RabbitPublisher {
    supervisor: Arc<Supervisor>,
    metrics: BrokerMetrics,
    permits: Semaphore,
}

/// A message in the broker's terms.
pub(super) struct Parcel<'a> {
    pub(super) exchange: &'a str,
    pub(super) key: &'a str,
    pub(super) mandatory: bool,
    pub(super) body: &'a [u8],
    pub(super) properties: BasicProperties,
}

impl RabbitPublisher {
    pub(super) fn new(supervisor: Arc<Supervisor>, metrics: BrokerMetrics) -> Self {
        Self {
            supervisor,
            metrics,
            permits: Semaphore::new(IN_FLIGHT),
        }
    }

    pub(super) fn metrics(&self) -> BrokerMetrics {
        self.metrics.clone()
    }

    pub(super) async fn send(
        &self,
        parcel: Parcel<'_>,
        deadline: Duration,
    ) -> Result<(), PublishError> {
        match self.supervisor.state() {
            LinkState::Up => {}
            LinkState::Blocked => return Err(PublishError::Blocked),
            LinkState::Down => return Err(PublishError::Unavailable),
        }
        // Nothing is written before a permit and a channel are there: until then it is `Unavailable`.
        let begun = Instant::now();
        let prepared = async {
            let permit = self
                .permits
                .acquire()
                .await
                .map_err(|_| PublishError::Unavailable)?;
            let link = self.supervisor.link().ok_or(PublishError::Unavailable)?;
            let channel = link
                .publishing_channel()
                .await
                .map_err(|_| PublishError::Unavailable)?;
            Ok((permit, link, channel))
        };
        let (_permit, link, channel) = timeout(deadline, prepared)
            .await
            .unwrap_or(Err(PublishError::Unavailable))?;
        let published = tokio::select! {
            published = timeout(deadline.saturating_sub(begun.elapsed()), publish(&channel, parcel)) => published,
            // It may still be taken once the alarm is over.
            () = self.supervisor.blocked() => return Err(PublishError::Unconfirmed),
        };
        let published = published.unwrap_or(Err(PublishError::Unconfirmed));
        match &published {
            // A channel whose answer is outstanding is closed by being dropped: nobody may get it.
            Err(PublishError::Unconfirmed | PublishError::Unavailable | PublishError::Blocked) => {}
            Err(PublishError::Unroutable) => {
                self.supervisor.undeclared();
                link.put_back(channel);
            }
            Ok(()) | Err(PublishError::Rejected) => link.put_back(channel),
        }
        published
    }
}

async fn publish(channel: &Channel, parcel: Parcel<'_>) -> Result<(), PublishError> {
    let options = BasicPublishOptions {
        mandatory: parcel.mandatory,
        ..BasicPublishOptions::default()
    };
    let confirm = channel
        .basic_publish(
            parcel.exchange.into(),
            parcel.key.into(),
            options,
            parcel.body,
            parcel.properties,
        )
        .await
        .map_err(|_| PublishError::Unconfirmed)?;
    match confirm.await {
        Ok(Confirmation::Ack(None)) => Ok(()),
        Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_))) => {
            Err(PublishError::Unroutable)
        }
        Ok(Confirmation::Nack(None)) => Err(PublishError::Rejected),
        // Not a confirming channel, or it broke.
        Ok(Confirmation::NotRequested) | Err(_) => Err(PublishError::Unconfirmed),
    }
}

#[async_trait]
impl Publisher for RabbitPublisher {
    async fn publish(&self, message: Outbound, deadline: Duration) -> Result<(), PublishError> {
        let begun = Instant::now();
        let headers = message
            .traceparent
            .as_deref()
            .map(|trace| ("traceparent", trace));
        let properties = properties(&message.id, message.kind, headers);
        let (exchange, key, mandatory, properties) = match &message.route {
            Route::Lane(lane) => (lane.exchange(), lane.as_str().to_owned(), true, properties),
            Route::Event(key) => (EVENTS_EXCHANGE, key.clone(), false, properties),
            Route::Parked(lane, reason) => (
                "",
                lane.parked_queue(),
                true,
                with_reason(properties, reason),
            ),
        };
        let parcel = Parcel {
            exchange,
            key: &key,
            mandatory,
            body: &message.body,
            properties,
        };
        let published = self.send(parcel, deadline).await;
        self.metrics
            .published(&message.route, &published, begun.elapsed());
        published
    }

    fn state(&self) -> LinkState {
        self.supervisor.state()
    }
}

fn properties(id: &str, kind: &str, header: Option<(&str, &str)>) -> BasicProperties {
    let mut headers = FieldTable::default();
    if let Some((name, value)) = header {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    BasicProperties::default()
        .with_message_id(id.into())
        .with_type(kind.into())
        .with_content_type(CONTENT_TYPE.into())
        .with_delivery_mode(PERSISTENT)
        .with_headers(headers)
}

/// The wait queue of `rung`, and the properties that count one more wait. The publisher's user is
/// not copied: the broker accepts only our own there.
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

/// The parked queue, and the properties that tell why.
pub(super) fn for_parking(
    lane: Lane,
    reason: ParkReason,
    properties: &BasicProperties,
) -> (String, BasicProperties) {
    (lane.parked_queue(), with_reason(copied(properties), reason))
}

/// The properties of a parked message that goes back to work: as new, under its old id.
pub(super) fn replayed(properties: &BasicProperties) -> BasicProperties {
    with_header(
        copied(properties),
        RETRIES_HEADER,
        AMQPValue::LongLongInt(0),
    )
}

fn with_reason(properties: BasicProperties, reason: ParkReason) -> BasicProperties {
    with_header(
        properties,
        REASON_HEADER,
        AMQPValue::LongString(reason.into()),
    )
}

fn with_header(properties: BasicProperties, name: &str, value: AMQPValue) -> BasicProperties {
    let mut headers = properties.headers().clone().unwrap_or_default();
    headers.insert(name.into(), value);
    properties.with_headers(headers)
}

/// Id, type, content type and our own headers; what the broker added is left behind.
fn copied(properties: &BasicProperties) -> BasicProperties {
    let mut headers = FieldTable::default();
    if let Some(original) = properties.headers() {
        for (name, value) in original.inner() {
            if name.as_str() == "traceparent" || name.as_str() == RETRIES_HEADER {
                headers.insert(name.clone(), value.clone());
            }
        }
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
