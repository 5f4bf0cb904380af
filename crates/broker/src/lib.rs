#![doc = include_str!("../README.md")]

mod embedded;
mod message;
mod port;
mod telemetry;

pub use embedded::{EMBEDDED_MIGRATION, EmbeddedBroker, EmbeddedSettings};
pub use message::{Outbound, ParkReason, Received, Route};
pub use port::{Broker, Consumer, LinkState, PublishError, Publisher, Settle, SettleError};
pub use telemetry::BrokerMetrics;
