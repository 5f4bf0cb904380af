#![doc = include_str!("../README.md")]

mod cells;
mod document;
mod series;

pub use cells::Countries;
pub use document::markdown;
pub use prometheus;
pub use series::{Kind, LATENCY, Maker, Series};
