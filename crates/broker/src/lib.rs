#![doc = include_str!("../README.md")]

mod dead_letter;
mod disposition;
mod embedded;
mod message;
mod parked;
mod port;
mod queues;
mod rabbitmq;
mod telemetry;
mod work;

pub use dead_letter::DeadLetterReason;
pub use disposition::Disposition;
pub use embedded::{EMBEDDED_MIGRATIONS, EmbeddedBroker, EmbeddedSettings};
pub use message::{Late, Outbound, Received, Route};
pub use parked::{ParkedError, ParkedLook, ParkedMessage};
pub use port::{Broker, Consumer, LinkState, PublishError, Publisher, Settle, SettleError};
pub use rabbitmq::examine::{ExamineError, Examined, Publishing, QueueState, examine};
pub use rabbitmq::topology::{Argument, Binding, Exchange, Queue, Topology, TopologyError};
pub use rabbitmq::{RabbitMq, RabbitMqSettings, UrlError};
pub use telemetry::{BrokerMetrics, SERIES};
pub use work::work_until;
