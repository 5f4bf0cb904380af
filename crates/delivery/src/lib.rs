#![doc = include_str!("../README.md")]

mod courier;
mod decision;
mod inbox;
mod provider;
mod report;
mod telemetry;
mod templates;
mod worker;

pub use courier::{Courier, CourierParts};
pub use inbox::{Inbox, InboxMessage};
pub use provider::{Attempted, Dispatch, Provider, Sender};
pub use report::Reporter;
pub use telemetry::DeliveryMetrics;
pub use templates::{Embedded, TemplateError, Templates};
pub use worker::{DEFAULT_CONCURRENCY, Worker};
