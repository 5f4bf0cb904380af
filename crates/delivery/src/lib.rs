#![doc = include_str!("../README.md")]

mod decision;
mod dispatcher;
mod health;
mod inbox;
mod operators;
mod provider;
mod receipts;
mod report;
mod route;
mod series;
mod telemetry;
mod templates;
mod worker;

pub use decision::Rules;
pub use dispatcher::{Dispatcher, DispatcherParts};
pub use health::{ByHand, Circuit, Stopped};
pub use inbox::{Inbox, InboxMessage};
pub use operators::{ProviderView, Standstill, hold_circuit, replace_router};
pub use provider::{Attempted, Dispatch, Provider, Scope, Sender, TlsPeer, attempt_limit};
pub use receipts::{Receipts, ReceiptsParts};
pub use report::Reporter;
pub use route::{Choose, RouteConfig, Router};
pub use series::SERIES;
pub use telemetry::DeliveryMetrics;
pub use templates::{Embedded, TemplateError, Templates};
pub use worker::{DEFAULT_CONCURRENCY, Worker, prefetch};

/// Internals exposed for benchmarks only. Not part of the API.
#[doc(hidden)]
pub mod measured {
    pub use crate::decision::{Decision, Ended, decide};
}
