//! Command line and wiring of the binary `watchword`. No logic lives here. A library besides the
//! binary so that the fuzz targets drive the same wiring; nothing else builds on it.
#![expect(clippy::print_stdout, reason = "a command line prints")]

pub mod audit;
pub mod certificates;
pub mod channels;
pub mod cli;
pub mod client;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod engine;
pub mod metrics;
pub mod needs;
pub mod otlp;
pub mod parked;
pub mod provider;
pub mod reload;
pub mod roles;
pub mod run;
pub mod simulate;
pub mod texts;
pub mod topology;
