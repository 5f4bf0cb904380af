//! The commands of the binary `watchword`, and the wiring of its roles from the other crates. It is
//! a library so that the fuzz targets use the same wiring; no other crate depends on it.

/// Prints a line for people with [`output::line`]. The standard macro panics on a closed pipe.
macro_rules! println {
    () => { $crate::output::line(format_args!("")) };
    ($($argument:tt)*) => { $crate::output::line(format_args!($($argument)*)) };
}

pub mod backup;
pub mod certificates;
pub mod channels;
pub mod cli;
pub mod client;
pub mod config;
pub mod demo;
pub mod doctor;
mod elsewhere;
pub mod engine;
pub mod failure;
mod inbox;
pub mod init;
pub mod metrics;
pub mod needs;
pub mod operator;
pub mod otlp;
pub mod output;
pub mod provider;
mod reach;
pub mod reference;
pub mod reload;
pub mod restart;
pub mod roles;
pub mod run;
pub mod simulate;
pub mod texts;
pub mod topology;
pub mod validation;
