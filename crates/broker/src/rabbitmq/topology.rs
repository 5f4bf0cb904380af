//! Every exchange, queue and binding as data. Each process declares them after each connect, and
//! `watchword topology` prints or (with `--apply`) declares them. Names come from the events crate.
//! An object that exists with other arguments is reported and left unchanged.

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

/// The most messages in a queue. Beyond it the broker rejects publishes, and the issuer answers
/// 503.
const MAX_LENGTH: i64 = 1_000_000;
/// How many times a message is redelivered after its consumer failed. Without a limit, one message
/// that crashes its consumer would be redelivered forever.
const DELIVERY_LIMIT: i64 = 20;
/// How long dead-lettered messages are kept: 14 days.
const PARKED_TTL_MS: i64 = 14 * 24 * 3_600_000;
/// The most dead-lettered messages kept; the oldest are dropped first.
const PARKED_MAX_LENGTH: i64 = 100_000;
/// How long a request waits in clear in a request queue, and then in the late queue: 600 s each,
/// the longest lifetime of a code. The late queue drops a request after that time.
const REQUEST_TTL_MS: i64 = 600_000;
/// Bytes of requests in the shared queue and in the late queue: 128 MiB, at 0.3 to 16 KiB each.
const REQUESTS_MAX_BYTES: i64 = 128 * 1024 * 1024;
/// Bytes of requests in the queue of one service: 32 MiB.
const SERVICE_MAX_BYTES: i64 = 32 * 1024 * 1024;
/// How long a service's request queue may have no consumer before the broker deletes it: 7 days. A
/// service that is removed from the configuration therefore leaves no queue behind.
const SERVICE_QUEUE_EXPIRES_MS: i64 = 7 * 24 * 3_600_000;
/// Effectively unlimited. It must be set: without the argument, `RabbitMQ` 4 applies a limit of 20.
const NO_DELIVERY_LIMIT: i64 = 1_000_000_000;
const DECLARE_DEADLINE: Duration = Duration::from_secs(5);

/// All broker objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Topology {
    /// The exchanges, all durable.
    pub exchanges: Vec<Exchange>,
    /// The queues, all durable.
    pub queues: Vec<Queue>,
    /// The bindings from exchanges to queues.
    pub bindings: Vec<Binding>,
}

/// A durable exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exchange {
    /// The exchange's name, with the prefix `watchword.`.
    pub name: String,
    /// `direct` or `topic`.
    pub kind: &'static str,
}

/// A durable quorum queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Queue {
    /// The queue's name, with the prefix `watchword.`.
    pub name: String,
    /// The declaration's arguments (`x-…`).
    pub arguments: BTreeMap<&'static str, Argument>,
}

/// The value of a queue argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// Sent as a signed 64-bit integer.
    Number(i64),
    /// Sent as a long string.
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

/// A binding of a queue to an exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Binding {
    /// The destination queue.
    pub queue: String,
    /// The source exchange.
    pub exchange: &'static str,
    /// The routing key to match.
    pub key: String,
}

impl Topology {
    /// Returns all objects except the request queues of single services.
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

    /// Adds a request queue for each of `services`, so that the requests of one service do not
    /// delay those of another.
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
        // Everything is declared, so an error while closing the connection does not matter.
        let _ = timeout(DECLARE_DEADLINE, connection.close(200, "done".into())).await;
        Ok(())
    }

    /// Declares everything on `channel`. The call is idempotent.
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

/// An error of `watchword topology --apply`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// The URL is not usable.
    #[error(transparent)]
    Url(#[from] super::UrlError),
    /// The broker cannot be reached, or has an object with other arguments.
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

/// Arguments of a quorum queue whose dead letters go to `exchange`. `at-least-once` keeps dead
/// letters from being lost on the way; the broker honors it only together with `reject-publish`.
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

/// Returns the main queue and, if the queue kind has one, the late queue. A message that reaches
/// its delivery limit ends in the dead-letter queue. Where there is a late queue it goes through
/// that one: a queue has a single dead-letter target, and the consumer of the late queue
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

/// Returns a queue with a delivery limit and a maximum length.
fn bounded(name: String, dead_letters_to: &str) -> Queue {
    let mut arguments = dead_lettering("", dead_letters_to);
    arguments.insert("x-delivery-limit", Argument::Number(DELIVERY_LIMIT));
    arguments.insert("x-max-length", Argument::Number(MAX_LENGTH));
    Queue { name, arguments }
}

/// Returns the request queue that services share, and the late queue, whose consumer answers
/// `request_expired`. Requests hold recipients in clear, so both queues have a time-to-live, and
/// the late queue has no dead-letter target: it drops requests that no issuer reads in time. The
/// late queue has no delivery limit either, because a link that breaks repeatedly must not cost the
/// answer.
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

/// Returns a request queue, bounded in bytes and time.
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

/// Returns a queue for each retry delay, from which messages return to the main queue.
fn wait_queues(lane: Lane) -> impl Iterator<Item = Queue> {
    Ladder::STANDARD.rungs().iter().map(move |rung| {
        let mut arguments = dead_lettering(lane.exchange(), lane.as_str());
        let delay_ms = i64::try_from(rung.delay_ms).unwrap_or(i64::MAX);
        // Each delay has a queue instead of a time-to-live per message: a queue expires messages
        // only at its head, so a long delay would hold up a shorter one behind it.
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
        // Listing the queue delivers and returns each message, which must not use up a delivery
        // limit.
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

/// Returns whether the broker replied 406 `PRECONDITION_FAILED`: the object exists with other
/// arguments.
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
