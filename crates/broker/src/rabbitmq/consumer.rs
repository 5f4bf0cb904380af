//! Consumer of the `RabbitMQ` engine, which survives lost connections. A background task reads
//! ahead of the caller, so that cancelling `receive` loses nothing. Headers are untrusted: each is
//! used only if it has the expected type and form.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use watchword_core::{ServiceName, TraceParent};
use watchword_events::Lane;
use watchword_events::names::request_queue;

use super::acks::Acks;
use super::link::Link;
use super::publisher::{RETRIES_HEADER, RabbitPublisher};
use super::settle::RabbitSettle;
use super::supervisor::Supervisor;
use crate::dead_letter::DeadLetterReason;
use crate::message::{Late, Received};
use crate::port::{Consumer, LinkState};
use crate::telemetry::BrokerMetrics;

const SETUP_DEADLINE: Duration = Duration::from_secs(5);
/// Delay before a consumer whose channel broke is set up again.
const PAUSE: Duration = Duration::from_millis(200);
/// Expired messages held beside the others. Few, because no user waits for them.
const LATE_PREFETCH: u16 = 32;
/// Requests held from the queue of one service. The limit bounds the share of an issuer that one
/// service can take.
const SERVICE_PREFETCH: u16 = 16;

pub(super) struct RabbitConsumer {
    supervisor: Arc<Supervisor>,
    messages: mpsc::Receiver<Received>,
    stop: CancellationToken,
    pumps: Vec<JoinHandle<()>>,
}

/// The state that the read-ahead tasks of one consumer share.
#[derive(Clone)]
struct Pumps {
    supervisor: Arc<Supervisor>,
    publisher: Arc<RabbitPublisher>,
    lane: Lane,
    sender: mpsc::Sender<Received>,
    stop: CancellationToken,
}

/// A task that reads one queue.
struct Pump {
    supervisor: Arc<Supervisor>,
    publisher: Arc<RabbitPublisher>,
    metrics: BrokerMetrics,
    lane: Lane,
    queue: String,
    kind: QueueKind,
    prefetch: u16,
    sender: mpsc::Sender<Received>,
    stop: CancellationToken,
}

/// The role of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
enum QueueKind {
    /// The main queue.
    Main,
    /// The queue of messages that expired or reached their delivery limit.
    Late,
    /// The request queue of one service.
    Service(ServiceName),
}

impl RabbitConsumer {
    pub(super) fn start(
        supervisor: Arc<Supervisor>,
        publisher: &Arc<RabbitPublisher>,
        lane: Lane,
        prefetch: u16,
    ) -> Self {
        let prefetch = prefetch.max(1);
        let (sender, messages) = mpsc::channel(usize::from(prefetch));
        let stop = CancellationToken::new();
        let all = Pumps {
            supervisor: supervisor.clone(),
            publisher: publisher.clone(),
            lane,
            sender,
            stop: stop.clone(),
        };
        let mut pumps = vec![all.start(lane.queue(), QueueKind::Main, prefetch)];
        pumps.extend(
            lane.late_queue()
                .map(|late| all.start(late, QueueKind::Late, LATE_PREFETCH)),
        );
        if lane == Lane::Requests {
            pumps.push(tokio::spawn(all.follow_services()));
        }
        Self {
            supervisor,
            messages,
            stop,
            pumps,
        }
    }
}

impl Pumps {
    fn start(&self, queue: String, kind: QueueKind, prefetch: u16) -> JoinHandle<()> {
        let pump = Pump {
            supervisor: self.supervisor.clone(),
            publisher: self.publisher.clone(),
            metrics: self.publisher.metrics(),
            lane: self.lane,
            queue,
            kind,
            prefetch,
            sender: self.sender.clone(),
            stop: self.stop.clone(),
        };
        tokio::spawn(pump.run())
    }

    /// Reads the request queue of each configured service, and follows changes of the
    /// configuration.
    async fn follow_services(self) {
        let mut objects = self.supervisor.objects();
        let mut running: BTreeMap<ServiceName, (CancellationToken, JoinHandle<()>)> =
            BTreeMap::new();
        loop {
            let services = objects.borrow_and_update().request_services.clone();
            let removed = running.keys().filter(|name| !services.contains(*name));
            for service in removed.cloned().collect::<Vec<_>>() {
                if let Some((stop, pump)) = running.remove(&service) {
                    stop.cancel();
                    // If a task panicked, its messages are redelivered when the connection ends.
                    let _ = pump.await;
                }
            }
            for service in services {
                running.entry(service).or_insert_with_key(|service| {
                    let stop = self.stop.child_token();
                    let pumps = Self {
                        stop: stop.clone(),
                        ..self.clone()
                    };
                    let kind = QueueKind::Service(service.clone());
                    let pump = pumps.start(request_queue(service), kind, SERVICE_PREFETCH);
                    (stop, pump)
                });
            }
            tokio::select! {
                () = self.stop.cancelled() => break,
                changed = objects.changed() => if changed.is_err() { break },
            }
        }
        for (stop, pump) in running.into_values() {
            stop.cancel();
            let _ = pump.await;
        }
    }
}

impl Drop for RabbitConsumer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[async_trait]
impl Consumer for RabbitConsumer {
    async fn receive(&mut self) -> Option<Received> {
        self.messages.recv().await
    }

    async fn stop(&mut self) {
        self.stop.cancel();
        for pump in self.pumps.drain(..) {
            // If a task panicked, its messages are redelivered when the connection ends.
            let _ = pump.await;
        }
        while let Ok(message) = self.messages.try_recv() {
            // If this fails, the broker redelivers the message when the connection ends.
            let _ = message.requeue().await;
        }
    }

    fn state(&self) -> LinkState {
        self.supervisor.state()
    }
}

impl Pump {
    async fn run(self) {
        let mut links = self.supervisor.links();
        while !self.stop.is_cancelled() && !self.supervisor.is_closed() {
            let link = tokio::select! {
                () = self.stop.cancelled() => return,
                link = links.wait_for(|link| link.is_some() || self.supervisor.is_closed()) => match link {
                    Ok(link) => link.clone(),
                    Err(_) => return,
                },
            };
            let Some(link) = link else { return };
            if self.read(&link).await.is_none() {
                tracing::debug!(lane = self.lane.as_str(), "setting up a consumer again");
            }
            drop(link);
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = sleep(PAUSE) => {}
            }
        }
    }

    /// Reads until the channel breaks (`None`) or the consumer is stopped.
    async fn read(&self, link: &Link) -> Option<()> {
        let channel = link.consuming_channel().await.ok()?;
        let setup = async {
            channel
                .basic_qos(self.prefetch, BasicQosOptions::default())
                .await?;
            channel
                .basic_consume(
                    self.queue.as_str().into(),
                    "".into(),
                    BasicConsumeOptions::default(),
                    FieldTable::default(),
                )
                .await
        };
        let mut consumer = timeout(SETUP_DEADLINE, setup).await.ok()?.ok()?;
        let acks = Acks::start(channel.clone());
        let mut moves = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                delivery = consumer.next() => {
                    let delivery = delivery?.ok()?;
                    if self.is_past_deadline(&delivery.properties) {
                        moves.push(self.move_late(delivery, &acks));
                    } else {
                        self.forward(delivery, &acks).await?;
                    }
                }
                Some(()) = moves.next() => {}
            }
        }
        while moves.next().await.is_some() {}
        // After the cancel no more deliveries are sent. Return those that were already under way.
        let cancelled = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
        timeout(SETUP_DEADLINE, cancelled).await.ok()?.ok()?;
        while let Ok(Some(Ok(delivery))) = timeout(PAUSE, consumer.next()).await {
            // If this fails, the message returns to its queue when the channel closes.
            let _ = self.received(delivery, &acks).requeue().await;
        }
        Some(())
    }

    /// Returns whether a message of the main queue is past its deadline. The broker itself moves
    /// expired messages that were never retried. A message that returns from a wait queue has lost
    /// its expiration and has its deadline in a header.
    fn is_past_deadline(&self, properties: &BasicProperties) -> bool {
        self.kind == QueueKind::Main
            && self.lane.is_republished()
            && self.lane.late_queue().is_some()
            && self.publisher.is_past(properties)
    }

    /// Moves a message to the late queue, where it delays no fresh message.
    async fn move_late(&self, delivery: Delivery, acks: &Arc<Acks>) {
        self.metrics.received(self.lane, delivery.redelivered);
        let settle = self.settle(
            delivery.delivery_tag,
            delivery.properties,
            delivery.data,
            acks,
        );
        // If this fails, the message returns to its queue and is read again.
        let _ = settle.move_late().await;
    }

    async fn forward(&self, delivery: Delivery, acks: &Arc<Acks>) -> Option<()> {
        self.metrics.received(self.lane, delivery.redelivered);
        let received = self.received(delivery, acks);
        let is_wanted = received.late != Some(Late::DeliveryLimit) || !self.lane.is_republished();
        if is_wanted {
            tokio::select! {
                biased;
                place = self.sender.reserve() => place.ok()?.send(received),
                // A consumer that stops reads no more. If the requeue fails, the message returns to
                // its queue when the channel closes.
                () = self.stop.cancelled() => {
                    let _ = received.requeue().await;
                }
            }
            return Some(());
        }
        tracing::error!(
            lane = self.lane.as_str(),
            "a message reached its delivery limit and is dead-lettered"
        );
        // If this fails, the message returns to the late queue and is dead-lettered on the next
        // read.
        let _ = received.dead_letter(DeadLetterReason::DeliveryLimit).await;
        Some(())
    }

    fn received(&self, delivery: Delivery, acks: &Arc<Acks>) -> Received {
        let Delivery {
            delivery_tag: tag,
            redelivered,
            properties,
            data,
            ..
        } = delivery;
        let late = (self.kind == QueueKind::Late).then(|| {
            if expired(&properties) || self.publisher.is_past(&properties) {
                Late::Expired
            } else {
                Late::DeliveryLimit
            }
        });
        let service = match &self.kind {
            QueueKind::Service(name) => Some(name.clone()),
            QueueKind::Main | QueueKind::Late => None,
        };
        let id = properties.message_id().as_ref().map(ToString::to_string);
        let user = properties.user_id().as_ref().map(ToString::to_string);
        let traceparent = header(&properties, "traceparent").and_then(traceparent);
        let mut settle = self.settle(tag, properties, data, acks);
        // The receiver alone holds a body that is never republished, so that it can free the body
        // early.
        let body = if self.lane.is_republished() {
            settle.body.clone()
        } else {
            std::mem::take(&mut settle.body)
        };
        Received {
            id,
            body,
            retries: settle.retries,
            redelivered,
            late,
            service,
            user,
            traceparent,
            settle: Box::new(settle),
        }
    }

    fn settle(
        &self,
        tag: u64,
        properties: BasicProperties,
        data: Vec<u8>,
        acks: &Arc<Acks>,
    ) -> RabbitSettle {
        acks.handed_out(tag);
        RabbitSettle {
            lane: self.lane,
            tag,
            acks: acks.clone(),
            publisher: self.publisher.clone(),
            metrics: self.metrics.clone(),
            body: Bytes::from(data),
            retries: retries(&properties),
            properties,
        }
    }
}

/// Returns whether the broker moved the message to the late queue because it expired, by the newest
/// entry of `x-death`.
fn expired(properties: &BasicProperties) -> bool {
    let Some(AMQPValue::FieldArray(deaths)) = header(properties, "x-death") else {
        return false;
    };
    let Some(AMQPValue::FieldTable(newest)) = deaths.as_slice().first() else {
        return false;
    };
    matches!(newest.inner().get("reason"), Some(AMQPValue::LongString(reason)) if reason.as_bytes() == b"expired")
}

pub(super) fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a AMQPValue> {
    properties.headers().as_ref()?.inner().get(name)
}

/// Returns how many times the message was retried. Any publisher can forge this header; a wrong
/// value makes the waits longer, but none of them exceeds the deadline.
pub(super) fn retries(properties: &BasicProperties) -> u32 {
    let count = match header(properties, RETRIES_HEADER) {
        Some(AMQPValue::LongLongInt(count)) => *count,
        Some(AMQPValue::LongInt(count)) => i64::from(*count),
        _ => 0,
    };
    u32::try_from(count).unwrap_or(0)
}

/// Parses the header with the W3C trace context.
pub(super) fn traceparent(value: &AMQPValue) -> Option<TraceParent> {
    let AMQPValue::LongString(text) = value else {
        return None;
    };
    TraceParent::parse(std::str::from_utf8(text.as_bytes()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: AMQPValue) -> BasicProperties {
        let mut headers = FieldTable::default();
        headers.insert(name.into(), value);
        BasicProperties::default().with_headers(headers)
    }

    #[test]
    fn forged_headers_are_read_as_absent() {
        for value in [
            AMQPValue::LongLongInt(-1),
            AMQPValue::LongLongInt(i64::MAX),
            AMQPValue::LongString("7".into()),
            AMQPValue::Void,
        ] {
            assert_eq!(retries(&with(RETRIES_HEADER, value)), 0);
        }
        assert_eq!(retries(&with(RETRIES_HEADER, AMQPValue::LongInt(7))), 7);
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(
            traceparent(&AMQPValue::LongString(trace.into())),
            TraceParent::parse(trace)
        );
        for wrong in ["", "00-xx", &trace.to_uppercase(), &format!("{trace}\n")] {
            assert_eq!(
                traceparent(&AMQPValue::LongString(wrong.into())),
                None,
                "{wrong}"
            );
        }
        assert_eq!(traceparent(&AMQPValue::LongInt(1)), None);
    }
}
