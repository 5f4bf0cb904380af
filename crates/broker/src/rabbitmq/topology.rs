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
use watchword_core::Ladder;
use watchword_events::Lane;
use watchword_events::names::{EVENTS_EXCHANGE, REQUESTS_EXCHANGE, SEND_EXCHANGE, WORK_EXCHANGE};

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
/// How often a parked message may be looked at: in effect without end (RabbitMQ 4 has 20 otherwise).
const PARKED_DELIVERY_LIMIT: i64 = 1_000_000_000;
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
    pub key: &'static str,
}

impl Topology {
    /// What Watchword declares.
    pub fn standard() -> Self {
        let exchange = |name: &str, kind| Exchange {
            name: name.to_owned(),
            kind,
        };
        let exchanges = vec![
            exchange(REQUESTS_EXCHANGE, "direct"),
            exchange(SEND_EXCHANGE, "direct"),
            exchange(WORK_EXCHANGE, "direct"),
            exchange(EVENTS_EXCHANGE, "topic"),
        ];
        let mut queues = Vec::new();
        let mut bindings = Vec::new();
        for lane in Lane::ALL {
            queues.extend(lane_queues(lane));
            queues.extend(Ladder::STANDARD.rungs().iter().map(|rung| {
                let mut arguments = dead_lettering(lane.exchange(), lane.as_str());
                arguments.insert(
                    "x-message-ttl",
                    Argument::Number(i64::try_from(rung.delay_ms).unwrap_or(i64::MAX)),
                );
                arguments.insert("x-max-length", Argument::Number(MAX_LENGTH));
                Queue {
                    name: lane.retry_queue(*rung),
                    arguments,
                }
            }));
            queues.push(parked_queue(lane));
            bindings.push(Binding {
                queue: lane.queue(),
                exchange: lane.exchange(),
                key: lane.as_str(),
            });
        }
        Self {
            exchanges,
            queues,
            bindings,
        }
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
                binding.key.into(),
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

/// The queue that is read and, where messages expire, the one they then go to. What is handed out
/// too often ends in the parked queue, from a lane with a late queue by way of that: dead letters
/// have one way out of a queue, and its reader tells them apart.
fn lane_queues(lane: Lane) -> Vec<Queue> {
    let bounded = |name: String, dead_letters_to: &str| {
        let mut arguments = dead_lettering("", dead_letters_to);
        arguments.insert("x-delivery-limit", Argument::Number(DELIVERY_LIMIT));
        arguments.insert("x-max-length", Argument::Number(MAX_LENGTH));
        Queue { name, arguments }
    };
    let parked = lane.parked_queue();
    match lane.late_queue() {
        Some(late) => vec![bounded(lane.queue(), &late), bounded(late.clone(), &parked)],
        None => vec![bounded(lane.queue(), &parked)],
    }
}

fn parked_queue(lane: Lane) -> Queue {
    let arguments = BTreeMap::from([
        ("x-queue-type", Argument::Text("quorum".to_owned())),
        // Looking through the queue hands each message out and back; that must not wear it out.
        ("x-delivery-limit", Argument::Number(PARKED_DELIVERY_LIMIT)),
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
        let topology = Topology::standard();
        let names: Vec<_> = topology
            .queues
            .iter()
            .map(|queue| queue.name.as_str())
            .collect();
        assert_eq!(names.len(), 32);
        for name in [
            "watchword.requests",
            "watchword.sms",
            "watchword.email.retry.5s",
            "watchword.sms.parked",
            "watchword.email.late",
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
}
