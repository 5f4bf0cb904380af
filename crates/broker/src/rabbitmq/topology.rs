//! Every exchange and queue as data: printed, declared after each connect, and declared by
//! `watchword topology --apply`. Names come from the events crate. Refuses to change what stands
//! there with other arguments.

use std::collections::BTreeMap;
use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};
use serde::Serialize;
use tokio::time::timeout;
use watchword_core::{Ladder, ServiceName};
use watchword_events::Lane;
use watchword_events::names::{
    EVENTS_EXCHANGE, REQUESTS_EXCHANGE, SEND_EXCHANGE, WORK_EXCHANGE, request_queue,
    request_routing_key,
};

use super::RabbitMqSettings;
use super::dial::{Address, LinkError};

/// Messages a queue takes; then publishes are refused, which the issuer answers with 503.
const MAX_LENGTH: i64 = 1_000_000;
/// How often a message may come back from a consumer that died with it (R45).
const DELIVERY_LIMIT: i64 = 20;
/// How long parked messages are kept: 14 days.
const PARKED_TTL_MS: i64 = 14 * 24 * 3_600_000;
/// Parked messages kept; the oldest go first.
const PARKED_MAX_LENGTH: i64 = 100_000;
/// How long a request waits in clear in a request queue, and then in the late queue: 600 s each,
/// the longest life of a code. The late queue drops a request after that time.
const REQUEST_TTL_MS: i64 = 600_000;
/// Bytes of requests in the shared queue and in the late queue: 128 MiB. Requests have 0.3 to 16 KiB.
const REQUESTS_MAX_BYTES: i64 = 128 * 1024 * 1024;
/// Bytes of requests in the queue of one service: 32 MiB.
const SERVICE_MAX_BYTES: i64 = 32 * 1024 * 1024;
/// After how long the broker deletes a service's request queue that has no consumer: 7 days. A
/// service that was removed from the configuration leaves none behind.
const SERVICE_QUEUE_EXPIRES_MS: i64 = 7 * 24 * 3_600_000;
/// Practically unlimited; `RabbitMQ` 4 has 20 where nothing is set.
const NO_DELIVERY_LIMIT: i64 = 1_000_000_000;
const DECLARE_DEADLINE: Duration = Duration::from_secs(5);

/// All broker objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Topology {
    /// The exchanges, all durable.
    pub exchanges: Vec<Exchange>,
    /// The queues, all durable.
    pub queues: Vec<Queue>,
    /// What feeds them.
    pub bindings: Vec<Binding>,
}

/// An exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// `direct` or `topic`.
    pub kind: &'static str,
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Its arguments.
    pub arguments: BTreeMap<&'static str, Argument>,
}

/// An argument's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// A number.
    Number(i64),
    /// A text.
    Text(String),
}

impl Serialize for Argument {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_i64(*number),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

/// A binding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Binding {
    /// The queue that gets messages.
    pub queue: String,
    /// The exchange it gets them from.
    pub exchange: &'static str,
    /// The routing key.
    pub key: String,
}

impl Topology {
    /// What Watchword declares.
    pub fn standard() -> Self {
        let exchange = |name: &str, kind| Exchange {
            name: name.to_owned(),
            kind,
        };
        let exchanges = vec![
            exchange(REQUESTS_EXCHANGE, "topic"),
            exchange(SEND_EXCHANGE, "direct"),
            exchange(WORK_EXCHANGE, "direct"),
            exchange(EVENTS_EXCHANGE, "topic"),
        ];
        let mut queues = Vec::new();
        let mut bindings = Vec::new();
        for lane in Lane::ALL {
            queues.extend(lane_queues(lane));
            if lane.is_republished() {
                queues.extend(wait_queues(lane));
            }
            queues.push(parked_queue(lane));
            bindings.push(Binding {
                queue: lane.queue(),
                exchange: lane.exchange(),
                key: lane.as_str().to_owned(),
            });
        }
        Self {
            exchanges,
            queues,
            bindings,
        }
    }

    /// Adds a request queue for each of `services`, so that the requests of one do not delay those
    /// of another.
    #[must_use]
    pub fn with_request_queues<'a>(
        mut self,
        services: impl IntoIterator<Item = &'a ServiceName>,
    ) -> Self {
        for service in services {
            let mut queue = request_lane_queue(request_queue(service), SERVICE_MAX_BYTES);
            let expires = Argument::Number(SERVICE_QUEUE_EXPIRES_MS);
            queue.arguments.insert("x-expires", expires);
            self.bindings.push(Binding {
                queue: queue.name.clone(),
                exchange: REQUESTS_EXCHANGE,
                key: request_routing_key(service),
            });
            self.queues.push(queue);
        }
        self
    }

    /// Connects, declares everything and disconnects.
    pub async fn apply(&self, settings: &RabbitMqSettings) -> Result<(), TopologyError> {
        let address = Address::parse(settings)?;
        let connection = address.connect("topology").await?;
        let channel = timeout(DECLARE_DEADLINE, connection.create_channel()).await;
        let channel = channel
            .map_err(|_| LinkError::Timeout)?
            .map_err(|_| LinkError::Refused("channel"))?;
        self.declare(&channel).await?;
        // Everything is declared; how the connection ends does not matter.
        let _ = timeout(DECLARE_DEADLINE, connection.close(200, "done".into())).await;
        Ok(())
    }

    /// Declares everything on `channel`. Repeating it changes nothing.
    pub(super) async fn declare(&self, channel: &Channel) -> Result<(), LinkError> {
        for exchange in &self.exchanges {
            let kind = if exchange.kind == "topic" {
                ExchangeKind::Topic
            } else {
                ExchangeKind::Direct
            };
            let options = ExchangeDeclareOptions {
                durable: true,
                ..ExchangeDeclareOptions::default()
            };
            let call = channel.exchange_declare(
                exchange.name.as_str().into(),
                kind,
                options,
                FieldTable::default(),
            );
            declared(call, "exchange", &exchange.name).await?;
        }
        for queue in &self.queues {
            let options = QueueDeclareOptions {
                durable: true,
                ..QueueDeclareOptions::default()
            };
            let call = channel.queue_declare(queue.name.as_str().into(), options, queue.table());
            declared(call, "queue", &queue.name).await?;
        }
        for binding in &self.bindings {
            let call = channel.queue_bind(
                binding.queue.as_str().into(),
                binding.exchange.into(),
                binding.key.as_str().into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            );
            declared(call, "binding of", &binding.queue).await?;
        }
        Ok(())
    }
}

/// Why `watchword topology --apply` failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// The URL cannot be used.
    #[error(transparent)]
    Url(#[from] super::UrlError),
    /// The broker cannot be reached or holds other objects.
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl Queue {
    pub(super) fn table(&self) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, value) in &self.arguments {
            let value = match value {
                Argument::Number(number) => AMQPValue::LongLongInt(*number),
                Argument::Text(text) => AMQPValue::LongString(text.as_str().into()),
            };
            table.insert((*name).into(), value);
        }
        table
    }
}

/// A quorum queue whose dead letters go to `exchange` and are not lost on the way (R45): that
/// needs both arguments, the strategy and the overflow.
fn dead_lettering(exchange: &str, key: &str) -> BTreeMap<&'static str, Argument> {
    let text = |value: &str| Argument::Text(value.to_owned());
    BTreeMap::from([
        ("x-queue-type", text("quorum")),
        ("x-dead-letter-exchange", text(exchange)),
        ("x-dead-letter-routing-key", text(key)),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
    ])
}

/// The queue that consumers read and, where messages expire, the queue for expired messages. A
/// message that reaches its delivery limit ends in the parked queue, from a lane with a late queue
/// by way of that queue: a queue has one dead-letter target, and the consumer of the late queue
/// distinguishes the reasons.
fn lane_queues(lane: Lane) -> Vec<Queue> {
    if !lane.is_republished() {
        return request_queues(lane);
    }
    let parked = lane.parked_queue();
    match lane.late_queue() {
        Some(late) => vec![bounded(lane.queue(), &late), bounded(late.clone(), &parked)],
        None => vec![bounded(lane.queue(), &parked)],
    }
}

/// A queue with a delivery limit and a maximum length.
fn bounded(name: String, dead_letters_to: &str) -> Queue {
    let mut arguments = dead_lettering("", dead_letters_to);
    arguments.insert("x-delivery-limit", Argument::Number(DELIVERY_LIMIT));
    arguments.insert("x-max-length", Argument::Number(MAX_LENGTH));
    Queue { name, arguments }
}

/// The request queue that services share, and the late queue, whose consumer answers
/// `request_expired`. Requests hold recipients in clear: both queues have a time-to-live, and the
/// late queue has no dead-letter target, so that it drops what no issuer reads in time. It has no
/// delivery limit either: a link that is lost again and again must not take the answer.
fn request_queues(lane: Lane) -> Vec<Queue> {
    let mut queues = vec![request_lane_queue(lane.queue(), REQUESTS_MAX_BYTES)];
    queues.extend(lane.late_queue().map(|name| Queue {
        name,
        arguments: BTreeMap::from([
            ("x-queue-type", Argument::Text("quorum".to_owned())),
            ("x-delivery-limit", Argument::Number(NO_DELIVERY_LIMIT)),
            ("x-message-ttl", Argument::Number(REQUEST_TTL_MS)),
            ("x-max-length", Argument::Number(MAX_LENGTH)),
            ("x-max-length-bytes", Argument::Number(REQUESTS_MAX_BYTES)),
        ]),
    }));
    queues
}

/// A queue of requests, bounded in bytes and time.
fn request_lane_queue(name: String, max_bytes: i64) -> Queue {
    let late = Lane::Requests.late_queue().unwrap_or_default();
    let mut queue = bounded(name, &late);
    let more = [
        ("x-message-ttl", Argument::Number(REQUEST_TTL_MS)),
        ("x-max-length-bytes", Argument::Number(max_bytes)),
    ];
    queue.arguments.extend(more);
    queue
}

/// A queue for each retry delay, from which messages return to the lane.
fn wait_queues(lane: Lane) -> impl Iterator<Item = Queue> {
    Ladder::STANDARD.rungs().iter().map(move |rung| {
        let mut arguments = dead_lettering(lane.exchange(), lane.as_str());
        let delay_ms = i64::try_from(rung.delay_ms).unwrap_or(i64::MAX);
        arguments.insert("x-message-ttl", Argument::Number(delay_ms));
        arguments.insert("x-max-length", Argument::Number(MAX_LENGTH));
        Queue {
            name: lane.retry_queue(*rung),
            arguments,
        }
    })
}

fn parked_queue(lane: Lane) -> Queue {
    let arguments = BTreeMap::from([
        ("x-queue-type", Argument::Text("quorum".to_owned())),
        // Looking through the queue hands each message out and back; that must not wear it out.
        ("x-delivery-limit", Argument::Number(NO_DELIVERY_LIMIT)),
        ("x-message-ttl", Argument::Number(PARKED_TTL_MS)),
        ("x-max-length", Argument::Number(PARKED_MAX_LENGTH)),
    ]);
    Queue {
        name: lane.parked_queue(),
        arguments,
    }
}

async fn declared<T>(
    call: impl Future<Output = lapin::Result<T>>,
    what: &str,
    name: &str,
) -> Result<(), LinkError> {
    match timeout(DECLARE_DEADLINE, call).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if is_mismatch(&error) => Err(LinkError::Mismatch(format!("{what} {name}"))),
        Ok(Err(_)) => Err(LinkError::Undeclared(format!("{what} {name}"))),
        Err(_) => Err(LinkError::Timeout),
    }
}

/// 406 `PRECONDITION_FAILED`.
pub(super) fn is_mismatch(error: &lapin::Error) -> bool {
    matches!(error.kind(), lapin::ErrorKind::ProtocolError(error) if error.get_id() == 406)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_topology_is_that_of_the_contract() {
        let shop = "shop".parse().unwrap();
        let topology = Topology::standard().with_request_queues([&shop]);
        let names: Vec<_> = topology
            .queues
            .iter()
            .map(|queue| queue.name.as_str())
            .collect();
        assert_eq!(names.len(), 30);
        for name in [
            "watchword.requests",
            "watchword.sms",
            "watchword.email.retry.5s",
            "watchword.sms.parked",
            "watchword.email.late",
            "watchword.requests.late",
            "watchword.requests.service.shop",
        ] {
            assert!(names.contains(&name), "{name}");
        }
        for queue in &topology.queues {
            assert_eq!(
                queue.arguments["x-queue-type"],
                Argument::Text("quorum".into())
            );
            if queue.arguments.contains_key("x-dead-letter-exchange") {
                assert_eq!(
                    queue.arguments["x-dead-letter-strategy"],
                    Argument::Text("at-least-once".into())
                );
                assert_eq!(
                    queue.arguments["x-overflow"],
                    Argument::Text("reject-publish".into())
                );
                assert!(queue.arguments.contains_key("x-max-length"));
            }
        }
    }

    /// A queue that holds requests has a time-to-live and a bound in bytes, and its messages never
    /// reach a queue that keeps them longer.
    #[test]
    fn requests_are_kept_for_minutes_and_bounded_in_bytes() {
        let shop = "shop".parse().unwrap();
        let topology = Topology::standard().with_request_queues([&shop]);
        let holds_requests = |queue: &&Queue| {
            queue.name.starts_with("watchword.requests")
                && queue.name != "watchword.requests.parked"
        };
        let queues: Vec<_> = topology.queues.iter().filter(holds_requests).collect();
        assert_eq!(queues.len(), 3);
        for Queue { name, arguments } in queues {
            assert_eq!(
                arguments["x-message-ttl"],
                Argument::Number(600_000),
                "{name}"
            );
            assert!(arguments.contains_key("x-max-length-bytes"), "{name}");
            let dead_letters_to = arguments.get("x-dead-letter-routing-key");
            if name == "watchword.requests.late" {
                assert_eq!(dead_letters_to, None);
            } else {
                let late = Argument::Text("watchword.requests.late".into());
                assert_eq!(dead_letters_to, Some(&late), "{name}");
            }
        }
    }
}
