#![doc = include_str!("../README.md")]

pub mod configuration;
pub mod http;
mod keys;
mod limits;
pub mod operate;
mod telemetry;
pub mod trail;

pub use keys::AdminKeys;
pub use telemetry::{AdminMetrics, SERIES};
