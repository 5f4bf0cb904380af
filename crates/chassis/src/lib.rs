#![doc = include_str!("../README.md")]

pub mod admin;
pub mod config;
mod hashed_keys;
pub mod http;
pub mod lifecycle;
mod problem;
pub mod process;
pub mod process_metrics;
pub mod server;
mod services;
pub mod spans;
mod system;
pub mod telemetry;

pub use hashed_keys::HashedKeys;
pub use problem::{Problem, ProblemCode};
pub use services::Services;
pub use system::{SystemClock, SystemEntropy, Uptime, boot_id};
